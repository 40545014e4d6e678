//! Where the SDKs are. No registry has them yet, so plugins are built against a checkout of plumb.

use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;

/// Names a checkout, in place of the source tree that this program was built from.
const VARIABLE: &str = "PLUMB_SOURCE";

/// The source tree with the SDKs, if there is one.
pub fn source_tree() -> Option<PathBuf> {
    let tree = candidate();
    tree.join("sdk/rust/Cargo.toml").is_file().then_some(tree)
}

/// The same, for what cannot do without.
pub fn sdk_tree() -> Result<PathBuf, Diagnostic> {
    source_tree().ok_or_else(|| {
        Diagnostic::usage("plugin.sdk", "plumb-sdk is nowhere to be found")
            .because(format!("`{}` holds no `sdk/rust`, and no registry has the SDK yet", candidate().display()))
            .hint(format!("fetch the sources of plumb and name their folder: `{VARIABLE}=/path/to/plumb plumb plugin ...`"))
    })
}

fn candidate() -> PathBuf {
    let built_from = env!("CARGO_MANIFEST_DIR").into();
    let named = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty());
    // New plugins name it from folders of their own.
    named.map_or(built_from, |folder| std::path::absolute(&folder).unwrap_or_else(|_| folder.into()))
}

/// What is wrong with a crate's dependency on the SDK, where cargo would only say that it found none.
pub fn dependency_hint(folder: &Path) -> Option<String> {
    let manifest: toml::Table = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?.parse().ok()?;
    let sdk = manifest.get("dependencies")?.get("plumb-sdk")?;
    let elsewhere = |key| sdk.get(key).is_some();
    let found = sdk.get("path").and_then(toml::Value::as_str).is_some_and(|path| folder.join(path).join("Cargo.toml").is_file());
    if found || elsewhere("git") || elsewhere("workspace") {
        return None;
    }
    let tree = source_tree().unwrap_or_else(|| "/path/to/plumb".into());
    let path = tree.join("sdk/rust").display().to_string();
    Some(format!("no registry has plumb-sdk yet; in `Cargo.toml`, name a checkout of plumb: `plumb-sdk = {{ path = {path:?} }}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_on_a_release_or_on_a_folder_that_is_gone_are_told_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let hint = |dependency: &str| {
            std::fs::write(folder.path().join("Cargo.toml"), format!("[dependencies]\nplumb-sdk = {dependency}\n")).unwrap();
            dependency_hint(folder.path())
        };
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/rust").display().to_string();
        for dependency in ["\"0.1.0\"", "{ version = \"0.1\" }", "{ path = \"../gone/sdk/rust\" }"] {
            assert!(hint(dependency).unwrap().contains(&format!("`plumb-sdk = {{ path = {sdk:?} }}`")), "{dependency}");
        }
        assert_eq!(hint(&format!("{{ path = {sdk:?} }}")), None);
        assert_eq!(hint("{ git = \"https://example.org/plumb\" }"), None);
    }
}
