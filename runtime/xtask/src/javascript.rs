//! Builds guests from JavaScript and TypeScript: a folder with `package.json` and `plugin.toml` to a component.
//!
//! `esbuild` bundles the plugin with its packages and the SDK's glue, and `componentize-qjs` runs the bundle in its WebAssembly
//! build of QuickJS and keeps a picture of the memory it leaves behind. Its `--stub-wasi` takes the system away; the SDK
//! (`sdk/js`) refuses clocks and ambient randomness before they get there. The world is written for each plugin.
//!
//! The same sources do not give the same bytes: `componentize-qjs` draws seeds anew. So a build whose inputs did not change
//! is not repeated.

mod error;
mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::error::Error;
use self::error::Report;
use self::node::Node;
use crate::world::{Manifest, WIT, World};
use crate::{borrows, guest};

/// The script that does the work in node.
const SCRIPT: &str = include_str!("javascript/build.mjs");
/// Sources that a build depends on; whatever else lies in the folder does not change the component.
const SOURCES: [&str; 8] = ["js", "mjs", "cjs", "ts", "mts", "tsx", "jsx", "json"];

/// What a build needs besides the plugin.
pub struct Setup<'a> {
    /// Folder of the package `plumb-sdk`, for plugins that have not installed it.
    pub sdk: Option<&'a Path>,
    /// Where tools are kept between builds.
    pub cache: &'a Path,
    /// Told before anything that takes long or changes `cache`.
    pub say: &'a dyn Fn(&str),
}

/// A plugin's folder.
struct Project {
    folder: PathBuf,
    name: String,
    kind: String,
    capabilities: Vec<String>,
    manifest: String,
    /// The module whose default export is the plugin.
    entry: String,
    /// Names of the packages it depends on.
    packages: Vec<String>,
}

/// What the script is told.
#[derive(Serialize)]
struct Job<'a> {
    folder: &'a Path,
    entry: &'a str,
    tools: &'a Path,
    sdk: Option<&'a Path>,
    kind: &'a str,
    /// Name of the kind's exported interface.
    exports: &'a str,
    capabilities: &'a [String],
    packages: &'a [String],
    version: &'a str,
    wit: &'a Path,
    stateful_wit: &'a Path,
    output: &'a Path,
}

/// Builds the plugin in `folder` into `out_file`, and says whether it had to: a component whose inputs did not change is left
/// alone.
///
/// # Errors
/// [`Error`] where the author or the machine can do something about it.
pub fn build_folder(folder: &Path, out_file: &Path, setup: &Setup) -> Result<bool> {
    let project = Project::read(folder)?;
    let stamp = project.stamp(setup.sdk)?;
    let stamp_file = out_file.with_extension("inputs");
    if out_file.is_file() && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(false);
    }
    let node = Node::find()?;
    let tools = node.tools(setup)?;
    project.install(&node, setup)?;
    let component = project.componentize(&node, &tools, setup)?;
    let component = guest::finish(borrows::give_back(&component)?, Some(&project.manifest))?;
    if let Some(parent) = out_file.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    }
    guest::write_file(out_file, &component)?;
    fs::write(&stamp_file, stamp).with_context(|| format!("cannot write `{}`", stamp_file.display()))?;
    Ok(true)
}

/// Folder of the package `plumb-sdk` in a source tree.
pub fn sdk_in(tree: &Path) -> PathBuf {
    tree.join("sdk/js")
}

impl Project {
    fn read(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("cannot open `{}`", folder.display()))?;
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))
        };
        let (manifest, table) = Manifest::read(&folder)?;
        let package: Package = serde_json::from_str(&read("package.json")?)
            .with_context(|| format!("in `{}`", folder.join("package.json").display()))?;
        let Some(main) = package.main else { return Err(Error::NoMain.into()) };
        if !folder.join(&main).is_file() {
            return Err(Error::MainMissing { main }.into());
        }
        let entry = format!("./{}", main.trim_start_matches("./"));
        let packages = package.dependencies.keys().cloned().collect();
        let Manifest { name, kind, needs } = table;
        Ok(Project { folder, name, kind, capabilities: needs.capabilities, manifest, entry, packages })
    }

    /// A digest of everything that the component is made of.
    fn stamp(&self, sdk: Option<&Path>) -> Result<String> {
        let mut hash = Sha256::new();
        for text in [SCRIPT, node::PACKAGES, node::LOCK, &self.manifest].into_iter().chain(WIT.map(|(_, text)| text)) {
            hash.update(text);
        }
        for root in [Some(self.folder.as_path()), sdk].into_iter().flatten() {
            let mut files = Vec::new();
            sources(root, &mut files)?;
            files.sort();
            for file in files {
                hash.update(file.strip_prefix(root).unwrap_or(&file).as_os_str().as_encoded_bytes());
                hash.update(fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?);
            }
        }
        Ok(guest::hex(&hash.finalize()))
    }

    /// Installs the packages that the plugin depends on, if they are not there.
    fn install(&self, node: &Node, setup: &Setup) -> Result<()> {
        let there = |name: &&String| self.folder.join("node_modules").join(name).join("package.json").is_file();
        // The SDK is bundled from where it is, unless the plugin has its own.
        let missing: Vec<_> =
            self.packages.iter().filter(|name| name.as_str() != "plumb-sdk").filter(|name| !there(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|name| name.as_str()).collect::<Vec<_>>().join("`, `");
        (setup.say)(&format!("installing the packages of `{}` with npm: `{names}`", self.name));
        node.npm_install(&self.folder)
    }

    fn componentize(&self, node: &Node, tools: &Path, setup: &Setup) -> Result<Vec<u8>> {
        let work = tempfile::tempdir().context("cannot create a temporary folder")?;
        let (wit, stateful_wit, output) =
            (work.path().join("wit"), work.path().join("stateful"), work.path().join("plugin.wasm"));
        let mut world = World { kind: &self.kind, capabilities: &self.capabilities, stateful: false };
        world.write(&wit)?;
        world.stateful = true;
        world.write(&stateful_wit)?;
        let script = work.path().join("build.mjs");
        fs::write(&script, SCRIPT).context("cannot write the build script")?;
        let packages = work.path().join("node_modules");
        if let Some(sdk) = setup.sdk {
            link(sdk, &packages)?;
        }
        let exports = match self.kind.as_str() {
            "reward" => "rewarding",
            "shaper" => "shaping",
            "judge" => "judging",
            "filter" => "filtering",
            "tool" => "tooling",
            other => bail!("`kind` in plugin.toml is `{other}`; there are `reward`, `shaper`, `judge`, `filter` and `tool`"),
        };
        let job = Job {
            folder: &self.folder,
            entry: &self.entry,
            tools,
            sdk: setup.sdk.map(|_| packages.as_path()),
            kind: &self.kind,
            exports,
            capabilities: &self.capabilities,
            packages: &self.packages,
            version: World::version()?,
            wit: &wit,
            stateful_wit: &stateful_wit,
            output: &output,
        };
        let mut command = node.command();
        command.arg(&script).arg(serde_json::to_string(&job)?).stdin(Stdio::null());
        let ran = command.output().context("cannot run node")?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "the build script failed ({}): {}", ran.status, said.trim());
        let report: Report = serde_json::from_slice(&ran.stdout).context("the build script said something that is not JSON")?;
        match report.error {
            Some(problem) => Err(Error::of(problem, &self.kind).into()),
            None => fs::read(&output).with_context(|| format!("cannot read `{}`", output.display())),
        }
    }
}

/// Makes `packages/plumb-sdk` stand for the SDK's folder.
fn link(sdk: &Path, packages: &Path) -> Result<()> {
    fs::create_dir_all(packages)?;
    let sdk = sdk.canonicalize().with_context(|| format!("there is no SDK in `{}`", sdk.display()))?;
    #[cfg(unix)]
    std::os::unix::fs::symlink(sdk, packages.join("plumb-sdk"))?;
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(sdk, packages.join("plumb-sdk"))?;
    Ok(())
}

/// Source files below `folder`, without installed packages and build outputs; their versions stand in `package-lock.json`.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "node_modules" && name != "target" && !name.starts_with('.') {
                sources(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| SOURCES.iter().any(|source| extension == *source)) {
            files.push(path);
        }
    }
    Ok(())
}

/// What the build needs of `package.json`.
#[derive(Deserialize)]
struct Package {
    main: Option<String>,
    #[serde(default)]
    dependencies: std::collections::BTreeMap<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Project>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let project = Project::read(folder.path());
        (folder, project)
    }

    const MANIFEST: (&str, &str) =
        ("plugin.toml", "name = \"x\"\nkind = \"judge\"\nversion = \"0.1.0\"\n[needs]\ncapabilities = [\"models\"]\n");

    #[test]
    fn project_is_read_from_its_two_files() {
        let package = ("package.json", r#"{"main": "x.js", "dependencies": {"leven": "4", "plumb-sdk": "*"}}"#);
        let (_folder, project) = project(&[MANIFEST, package, ("x.js", "")]);
        let project = project.unwrap();
        assert_eq!((project.kind.as_str(), project.entry.as_str()), ("judge", "./x.js"));
        assert_eq!(
            (project.capabilities, project.packages),
            (vec!["models".to_owned()], vec!["leven".to_owned(), "plumb-sdk".to_owned()])
        );
    }

    #[test]
    fn project_without_its_module_is_told_which_is_missing() {
        let (_folder, without) = project(&[MANIFEST, ("package.json", "{}")]);
        assert!(matches!(without.err().unwrap().downcast_ref(), Some(Error::NoMain)));
        let (_folder, lost) = project(&[MANIFEST, ("package.json", r#"{"main": "src/x.js"}"#)]);
        assert!(matches!(lost.err().unwrap().downcast_ref(), Some(Error::MainMissing { main }) if main == "src/x.js"));
    }

    #[test]
    fn stamp_follows_sources_and_not_other_files() {
        let (folder, project) = project(&[MANIFEST, ("package.json", r#"{"main": "x.js"}"#), ("x.js", "1")]);
        let project = project.unwrap();
        let stamp = project.stamp(None).unwrap();
        fs::write(folder.path().join("notes.txt"), "a").unwrap();
        assert_eq!(project.stamp(None).unwrap(), stamp);
        fs::write(folder.path().join("x.js"), "2").unwrap();
        assert_ne!(project.stamp(None).unwrap(), stamp);
    }
}
