//! Builds guests: Rust crates to WebAssembly components.
//!
//! `cargo build` for `wasm32-unknown-unknown` yields a core module, `wit-component` wraps it using the types that the SDK left
//! in a custom section, and the crate's `plugin.toml` goes into the custom section `plumb:manifest`. The target has no system
//! interface, so a guest cannot import WASI even by accident.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use wasm_encoder::{ComponentSection, CustomSection};

use crate::toolchain::{TARGET, Toolchain};

/// Custom section that holds a plugin's `plugin.toml`.
pub const MANIFEST_SECTION: &str = "plumb:manifest";

/// Builds all guests of the workspace at `root` into `out/NAME.wasm`, and returns those files in the order of their names.
///
/// NAME is the manifest's `name`, for a crate without `plugin.toml` that of its package. Cargo's own files go to a `wasm`
/// folder beside `out`, so that several workspaces share their dependencies. Files whose bytes stay the same are not written.
pub fn build_workspace(root: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let target_dir = absolute(out)?.parent().context("the output folder has no parent")?.join("wasm");
    fs::create_dir_all(out).with_context(|| format!("cannot create `{}`", out.display()))?;
    let mut files = Vec::new();
    for artifact in cargo_build(root, &target_dir, &["--workspace"])? {
        let manifest = artifact.manifest()?;
        let name = manifest.as_ref().map_or(artifact.package.as_str(), |m| m.name.as_str());
        let file = out.join(format!("{name}.wasm"));
        artifact.componentize(manifest.as_ref(), &file)?;
        files.push(file);
    }
    files.sort();
    for pair in files.windows(2) {
        ensure!(pair[0] != pair[1], "two guests of `{}` are both named `{}`", root.display(), pair[0].display());
    }
    Ok(files)
}

/// Builds the plugin crate in `dir` into `out_file`.
///
/// Cargo's own files go to `target_dir`.
pub fn build_crate(dir: &Path, out_file: &Path, target_dir: &Path) -> Result<()> {
    ensure!(dir.join("Cargo.toml").is_file(), "`{}` has no `Cargo.toml`; is it a plugin's folder?", dir.display());
    ensure!(dir.join("plugin.toml").is_file(), "`{}` has no `plugin.toml`, which names the plugin and its kind", dir.display());
    let own = dir.join("Cargo.toml").canonicalize()?;
    let artifact = cargo_build(dir, &absolute(target_dir)?, &[])?
        .into_iter()
        .find(|artifact| artifact.manifest_path.canonicalize().is_ok_and(|path| path == own))
        .with_context(|| {
            format!("`{}` builds no WebAssembly module: add `crate-type = [\"cdylib\"]` to `[lib]`", own.display())
        })?;
    if let Some(parent) = out_file.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    }
    artifact.componentize(artifact.manifest()?.as_ref(), out_file)
}

/// Wraps a core module as a component, with `manifest` (the text of a `plugin.toml`) in its custom section.
///
/// The same input gives the same bytes.
pub fn componentize(core: &[u8], manifest: Option<&str>) -> Result<Vec<u8>> {
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(core)
        .context("the module carries no component types: does the crate call one of the SDK's `export_*!` macros?")?
        .encode()
        .context("cannot turn the module into a component")?;
    finish(component, manifest)
}

/// Makes a plugin of a component, whichever tool made that: refuses imports of WASI, and adds `manifest` (the text of a
/// `plugin.toml`) in its custom section.
pub fn finish(mut component: Vec<u8>, manifest: Option<&str>) -> Result<Vec<u8>> {
    refuse_wasi(&component)?;
    if let Some(manifest) = manifest {
        CustomSection { name: MANIFEST_SECTION.into(), data: Cow::Borrowed(manifest.as_bytes()) }
            .append_to_component(&mut component);
    }
    Ok(component)
}

/// Plugins have no authority beyond `plumb:align`; a WASI import would only be refused later, at load.
fn refuse_wasi(component: &[u8]) -> Result<()> {
    let mut depth = 0;
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload? {
            wasmparser::Payload::Version { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            wasmparser::Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let name = import?.name.name;
                    ensure!(
                        !name.starts_with("wasi:"),
                        "the component imports `{name}`, but plugins have no access to the system"
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the build needs of a `plugin.toml`; the host reads the rest.
struct Manifest {
    name: String,
    text: String,
}

/// A core module that cargo built.
struct Artifact {
    package: String,
    manifest_path: PathBuf,
    module: PathBuf,
}

impl Artifact {
    fn manifest(&self) -> Result<Option<Manifest>> {
        let path = self.manifest_path.with_file_name("plugin.toml");
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let table: toml::Table = text.parse().with_context(|| format!("`{}` is not valid TOML", path.display()))?;
        let Some(name) = table.get("name").and_then(toml::Value::as_str) else {
            bail!("`{}` has no `name`", path.display());
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure!(
            !name.is_empty() && name.chars().all(plain),
            "`name` in `{}` may hold letters, digits, `-` and `_` only, as it names a file",
            path.display()
        );
        Ok(Some(Manifest { name: name.to_owned(), text }))
    }

    fn componentize(&self, manifest: Option<&Manifest>, file: &Path) -> Result<()> {
        let core = fs::read(&self.module).with_context(|| format!("cannot read `{}`", self.module.display()))?;
        let component =
            componentize(&core, manifest.map(|m| m.text.as_str())).with_context(|| format!("guest `{}`", self.package))?;
        write_file(file, &component)
    }
}

/// Writes a component, unless its file has these bytes already.
pub fn write_file(file: &Path, component: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == component) {
        return Ok(());
    }
    // Renamed into place: a run that starts meanwhile sees the old file or the new one.
    let partial = file.with_extension("wasm.tmp");
    fs::write(&partial, component).with_context(|| format!("cannot write `{}`", partial.display()))?;
    fs::rename(&partial, file).with_context(|| format!("cannot write `{}`", file.display()))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs `cargo build` for WebAssembly in `root` and returns the modules it made or found fresh.
fn cargo_build(root: &Path, target_dir: &Path, arguments: &[&str]) -> Result<Vec<Artifact>> {
    let toolchain = Toolchain::find(target_dir)?;
    let mut command: Command = toolchain.cargo();
    command
        .current_dir(root)
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .args(toolchain.cargo_flags())
        .args(arguments)
        .env("CARGO_TARGET_DIR", target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", remapped_paths()?)
        .stdout(Stdio::piped());
    let output = command.spawn().and_then(std::process::Child::wait_with_output).context("cannot run cargo")?;
    ensure!(output.status.success(), "building the guests in `{}` failed ({})", root.display(), output.status);
    let mut artifacts = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{")) {
        let message: serde_json::Value = serde_json::from_slice(line).context("cargo wrote a message that is not JSON")?;
        artifacts.extend(artifact(&message));
    }
    Ok(artifacts)
}

/// The module in one of cargo's messages, if it speaks of one.
fn artifact(message: &serde_json::Value) -> Option<Artifact> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let mut files = message["filenames"].as_array()?.iter().filter_map(|file| file.as_str()).map(PathBuf::from);
    let module = files.find(|file| file.extension().is_some_and(|extension| extension == "wasm"))?;
    let manifest_path = PathBuf::from(message["manifest_path"].as_str()?);
    let name = message["target"]["name"].as_str()?;
    Some(Artifact { package: name.replace('_', "-"), manifest_path, module })
}

/// Compiler flags that keep this machine's paths out of the modules: they stand in panic messages otherwise. The flags are the
/// same for all guests, so that cargo does not build their dependencies anew for each.
fn remapped_paths() -> Result<String> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("cannot tell where cargo keeps its files: set `CARGO_HOME`")?;
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = crate_dir.ancestors().nth(2).unwrap_or(crate_dir);
    // The last match wins.
    Ok([(tree, "/plumb"), (home.as_path(), "/cargo")]
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .join("\x1f"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn componentize_embeds_the_manifest_and_repeats_byte_for_byte() {
        let core = core_module();
        let once = componentize(&core, Some("name = \"a\"\n")).unwrap();
        assert_eq!(once, componentize(&core, Some("name = \"a\"\n")).unwrap());
        let found = wasmparser::Parser::new(0).parse_all(&once).find_map(|payload| match payload.unwrap() {
            wasmparser::Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => Some(section.data().to_vec()),
            _ => None,
        });
        assert_eq!(found.unwrap(), b"name = \"a\"\n");
    }

    #[test]
    fn componentize_a_module_without_types_names_the_missing_macro() {
        // Imports something that no component type describes.
        let mut module = wasm_encoder::Module::new();
        let mut types = wasm_encoder::TypeSection::new();
        types.ty().function([], []);
        let mut imports = wasm_encoder::ImportSection::new();
        imports.import("env", "exit", wasm_encoder::EntityType::Function(0));
        module.section(&types).section(&imports);
        assert!(componentize(&module.finish(), None).is_err());
    }

    #[test]
    fn artifacts_are_read_from_cargo_messages_and_other_messages_are_skipped() {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "manifest_path": "/p/Cargo.toml", "target": {"name": "reward_x"},
            "filenames": ["/t/reward_x.wasm"], "fresh": true,
        });
        let found = artifact(&message).unwrap();
        assert_eq!((found.package.as_str(), found.module), ("reward-x", PathBuf::from("/t/reward_x.wasm")));
        assert!(artifact(&serde_json::json!({"reason": "build-finished", "success": true})).is_none());
        let library = serde_json::json!({
            "reason": "compiler-artifact", "manifest_path": "/p/Cargo.toml", "target": {"name": "serde"}, "filenames": ["/t/libserde.rlib"],
        });
        assert!(artifact(&library).is_none());
    }

    /// A module that exports nothing but a memory, with the types of an empty world.
    fn core_module() -> Vec<u8> {
        let mut resolve = wit_parser::Resolve::default();
        let package = resolve.push_str("empty.wit", "package a:b; world empty {}").unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        let mut module = wasm_encoder::Module::new();
        let mut memories = wasm_encoder::MemorySection::new();
        memories.memory(wasm_encoder::MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        module.section(&memories);
        let mut core = module.finish();
        wit_component::embed_component_metadata(&mut core, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
        core
    }
}
