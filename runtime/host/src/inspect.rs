//! What a plugin file is, read from its bytes without compiling or running anything.

use plumb_core::PluginKind;
use plumb_core::recipe::{Grants, LimitsUse};
use sha2::{Digest, Sha256};
use wasmparser::{Parser, Payload};

use crate::bindings::WIT_VERSION;
use crate::error::{Error, Result};
use crate::expand::Expansion;
use crate::limits::{self, EffectiveLimits};
use crate::manifest::{self, Capability, Manifest};

/// What is known about a plugin without running it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Inspection {
    /// SHA-256 of the file, lower-case hex.
    pub digest: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// What it is for, by the interface it exports.
    pub kind: PluginKind,
    /// Version of `plumb:align` it was built for.
    pub wit_version: String,
    /// Whether it exports `state`: memory that the host carries from call to call.
    pub stateful: bool,
    /// Whether it exports `merging`: one state of those after calls that were made side by side.
    pub merges: bool,
    /// What it imports. It loads if all are granted.
    pub imports: Vec<Import>,
    /// Names of its exports.
    pub exports: Vec<String>,
    /// Its `plugin.toml`, if it carries one.
    pub manifest: Option<Manifest>,
    /// Its limits, where the recipe sets none.
    pub limits: EffectiveLimits,
}

/// An import of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Import {
    /// Name, with package and version.
    pub name: String,
    /// What it gives the plugin.
    pub meaning: &'static str,
    /// Whether the host provides it to every plugin. Capabilities it provides to those that a recipe grants them.
    pub granted: bool,
    /// What the author can do about an import that is not granted.
    pub fix: Option<&'static str>,
}

/// Reads a plugin's bytes; `plugin` names it in errors.
///
/// # Errors
/// For a file that is no component or is damaged, that exports no kind's interface or several, or that is built for another
/// version of the interface, and for a manifest that is wrong. Imports that are not granted are reported, not refused:
/// [`Inspection::refuse_imports`] does that at load.
pub fn inspect(plugin: &str, bytes: &[u8]) -> Result<Inspection> {
    let size = bytes.len() as u64;
    if size > limits::COMPONENT_BYTES {
        return Err(Error::TooLarge { plugin: plugin.to_owned(), size, limit: limits::COMPONENT_BYTES });
    }
    let outline = Outline::read(plugin, bytes)?;
    let (kind, wit_version) = outline.kind(plugin)?;
    let manifest = outline.manifest.as_deref().map(|text| Manifest::parse(plugin, text)).transpose()?;
    if let Some(manifest) = &manifest
        && manifest.kind != kind
    {
        let message = format!("it says kind `{}`, but the component is a {kind} plugin", manifest.kind);
        return Err(Error::Manifest { plugin: plugin.to_owned(), message });
    }
    let wanted = manifest.as_ref().map(|manifest| manifest.limits.clone()).unwrap_or_default();
    let exports = |of: &str| outline.exports.iter().any(|name| interface(name).is_some_and(|(name, _)| name == of));
    Ok(Inspection {
        digest: hex(&Sha256::digest(bytes)),
        size,
        kind,
        wit_version,
        stateful: exports("state"),
        merges: exports("merging"),
        imports: outline.imports.iter().map(|name| import(name)).collect(),
        exports: outline.exports,
        manifest,
        limits: EffectiveLimits::resolve(plugin, &LimitsUse::default(), &wanted)?,
    })
}

impl Inspection {
    /// Whether it imports that interface of `plumb:align`: `models`, `tools`, ...
    pub fn imports_interface(&self, name: &str) -> bool {
        self.imports.iter().any(|import| interface(&import.name).is_some_and(|(interface, _)| interface == name))
    }

    /// An error for the first import that the host does not provide, or does not grant.
    pub fn refuse_imports(&self, plugin: &str, grants: &Grants) -> Result<()> {
        for import in self.imports.iter().filter(|import| !import.granted) {
            let (plugin, meaning, fix) = (plugin.to_owned(), import.meaning, import.fix.unwrap_or_default());
            match interface(&import.name) {
                Some((_, version)) if !fits(version) => {
                    return Err(Error::WitVersion { plugin, interface: import.name.clone(), supported: WIT_VERSION });
                }
                Some(("models", _)) => self.check_grant(&plugin, Capability::Models, &grants.models)?,
                Some(("tools", _)) => self.check_grant(&plugin, Capability::Tools, &grants.tools)?,
                _ => return Err(Error::UnknownImport { plugin, import: import.name.clone(), meaning, fix }),
            }
        }
        // A judge imports nothing for its questions, but the runtime must be allowed to put them.
        if self.kind == PluginKind::Judge && (self.declares(Capability::Models) || !grants.models.is_empty()) {
            self.check_grant(plugin, Capability::Models, &grants.models)?;
        }
        Ok(())
    }

    fn declares(&self, capability: Capability) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.needs.capabilities.contains(&capability))
    }

    /// A capability takes the author's word in the manifest and the user's in the recipe.
    fn check_grant(&self, plugin: &str, capability: Capability, granted: &[String]) -> Result<()> {
        let (name, example) = match capability {
            Capability::Models => (capability.name(), "policy"),
            Capability::Tools => (capability.name(), "calculator"),
        };
        let manifest = format!("`[needs] capabilities = [\"{name}\"]` in its plugin.toml, and build it again");
        let recipe = format!("`grants = {{ {name} = [\"{example}\"] }}` at the plugin in the recipe, with the names it may ask");
        let fix = match (self.declares(capability), !granted.is_empty()) {
            _ if self.kind == PluginKind::Tool => "a tool is asked by others and asks nobody: remove the import".to_owned(),
            (true, true) => return Ok(()),
            (false, true) => format!("add {manifest}"),
            (true, false) => format!("add {recipe}"),
            (false, false) => format!("add {manifest}; and {recipe}"),
        };
        Err(Error::NotGranted { plugin: plugin.to_owned(), capability: name, fix })
    }
}

/// A name as it can be printed: nothing has validated it yet, and who inspects a file distrusts it.
fn shown(name: &str) -> String {
    if name.chars().any(char::is_control) { name.escape_debug().to_string() } else { name.to_owned() }
}

/// Names at the outermost level of a component.
#[derive(Default)]
struct Outline {
    imports: Vec<String>,
    exports: Vec<String>,
    manifest: Option<Vec<u8>>,
}

impl Outline {
    fn read(plugin: &str, bytes: &[u8]) -> Result<Self> {
        let not = |found: &str| Error::NotAComponent { plugin: plugin.to_owned(), found: found.to_owned() };
        if Parser::is_core_wasm(bytes) {
            return Err(not("it is a core module, wrap it with `plumb plugin build` or `wasm-tools component new`"));
        }
        if !Parser::is_component(bytes) {
            return Err(not(match bytes {
                [] => "the file is empty",
                [b'(', ..] => "it looks like WebAssembly text, compile it with `wasm-tools parse`",
                [0x7f, b'E', b'L', b'F', ..] => "it is native or precompiled code, which is never loaded",
                _ => "it does not begin with WebAssembly's magic number",
            }));
        }
        let malformed = |error: wasmparser::BinaryReaderError| Error::Malformed {
            plugin: plugin.to_owned(),
            offset: error.offset() as u64,
            size: bytes.len() as u64,
            message: error.message().to_owned(),
        };
        let mut outline = Outline::default();
        let (mut depth, mut expansion) = (0, Expansion::default());
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(malformed)?;
            if expansion.read(&payload).map_err(malformed)?.is_none() {
                return Err(Error::TooManyInstances { plugin: plugin.to_owned(), limit: limits::INSTANCES });
            }
            match payload {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        outline.imports.push(shown(import.map_err(malformed)?.name.name));
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        outline.exports.push(shown(export.map_err(malformed)?.name.name));
                    }
                }
                Payload::CustomSection(section) if depth == 1 && section.name() == manifest::SECTION => {
                    outline.manifest = Some(section.data().to_vec());
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn kind(&self, plugin: &str) -> Result<(PluginKind, String)> {
        let mut found = self.exports.iter().filter_map(|name| {
            let (interface, version) = interface(name)?;
            let kind = match interface {
                "rewarding" => PluginKind::Reward,
                "shaping" => PluginKind::Shaper,
                "judging" => PluginKind::Judge,
                "filtering" => PluginKind::Filter,
                "tooling" => PluginKind::Tool,
                _ => return None,
            };
            Some((kind, version, name))
        });
        let Some((kind, version, name)) = found.next() else {
            return Err(Error::NotAPlugin { plugin: plugin.to_owned(), exports: self.exports.clone() });
        };
        if let Some((_, _, other)) = found.next() {
            return Err(Error::SeveralKinds { plugin: plugin.to_owned(), interfaces: vec![name.clone(), other.clone()] });
        }
        if !fits(version) {
            return Err(Error::WitVersion { plugin: plugin.to_owned(), interface: name.clone(), supported: WIT_VERSION });
        }
        Ok((kind, version.to_owned()))
    }
}

/// `data` and `0.1.0` of `plumb:align/data@0.1.0`; None for names of other packages.
fn interface(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix("plumb:align/")?;
    Some(name.split_once('@').unwrap_or((name, "")))
}

/// Whether an interface of that version can be served: the same 0.x line, as in Cargo. What a later 0.1.x added and this host
/// lacks shows when the component is linked.
fn fits(version: &str) -> bool {
    let line = |v: &str| v.rsplit_once('.').map(|(line, _)| line.to_owned());
    !version.contains(['-', '+']) && line(version) == line(WIT_VERSION)
}

fn import(name: &str) -> Import {
    const OLD: &str = "rebuild the plugin against this host's version of plumb:align";
    let entry = |meaning, granted, fix| Import { name: name.to_owned(), meaning, granted, fix };
    if let Some((interface, version)) = interface(name) {
        let granted = fits(version);
        let fix = (!granted).then_some(OLD);
        return match interface {
            "types" => entry("types shared by the interfaces", granted, fix),
            "data" => entry("reads the columns of the batch", granted, fix),
            "log" => entry("writes lines to the run's log", granted, fix),
            "metrics" => entry("reports numbers to the run's metrics", granted, fix),
            "config" => entry("reads its configuration", granted, fix),
            "random" => entry("draws random numbers that repeat with the run's seed", granted, fix),
            "kv" => entry("keeps values under its own name between steps", granted, fix),
            "models" => entry(
                "asks the run's models for completions, log-probabilities and scores",
                false,
                Some(
                    "needs `[needs] capabilities = [\"models\"]` in plugin.toml, and `grants = { models = [...] }` in the recipe",
                ),
            ),
            "tools" => entry(
                "calls tools of the host and other plugins",
                false,
                Some("needs `[needs] capabilities = [\"tools\"]` in plugin.toml, and `grants = { tools = [...] }` in the recipe"),
            ),
            _ => entry("an interface that this host does not know", false, Some(OLD)),
        };
    }
    let wasi = Some(
        "build for wasm32-unknown-unknown, where the standard library has no system beneath it, or find the dependency that asks for it",
    );
    let meaning = match name.split(['/', '@']).next().unwrap_or(name) {
        "wasi:filesystem" => "files of this machine",
        "wasi:sockets" => "network connections",
        "wasi:http" => "HTTP requests",
        "wasi:clocks" => "the time, which would make results depend on when they are computed",
        "wasi:random" => "random numbers that do not repeat; `plumb:align/random` gives ones that do",
        "wasi:cli" => "the process: arguments, environment, standard streams",
        "wasi:io" => "streams and polling",
        _ if name.starts_with("wasi") => "a part of the WASI system interface",
        _ => {
            return entry(
                "not part of plumb:align",
                false,
                Some("remove the import, or compose the component with one that provides it"),
            );
        }
    };
    entry(meaning, false, wasi)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that is its header alone: valid and without exports.
    const EMPTY_COMPONENT: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

    fn code(bytes: &[u8]) -> String {
        inspect("p.wasm", bytes).unwrap_err().code()
    }

    #[test]
    fn files_that_are_no_plugins_are_told_apart() {
        assert_eq!(code(b""), "plugin.not_a_component");
        assert_eq!(code(b"#!/bin/sh"), "plugin.not_a_component");
        assert_eq!(code(b"\0asm\x01\0\0\0"), "plugin.not_a_component");
        assert_eq!(code(&EMPTY_COMPONENT), "plugin.not_a_plugin");
        // A custom section that claims ten bytes and has one.
        assert_eq!(code(&[&EMPTY_COMPONENT[..], &[0, 10, 1]].concat()), "plugin.malformed");
        let core = inspect("p.wasm", b"\0asm\x01\0\0\0").unwrap_err();
        assert!(core.to_string().contains("core module"), "{core}");
    }

    #[test]
    fn versions_of_the_same_line_fit() {
        assert!(fits("0.1.0") && fits("0.1.7"));
        assert!(!fits("0.2.0") && !fits("1.1.0") && !fits("0.1.0-draft") && !fits(""));
    }

    #[test]
    fn imports_are_explained() {
        assert!(import("plumb:align/kv@0.1.0").granted);
        assert!(!import("plumb:align/kv@0.2.0").granted);
        assert!(!import("plumb:align/models@0.1.0").granted);
        let wasi = import("wasi:clocks/wall-clock@0.2.6");
        assert!(!wasi.granted && wasi.meaning.contains("time") && wasi.fix.is_some());
    }
}
