//! The world of a plugin whose language needs it written out: its kind, its capabilities, and state if it has any.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The package `plumb:align`, whose worlds plugins are made of.
pub const WIT: [(&str, &str); 8] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("lifecycle.wit", include_str!("../../../wit/lifecycle.wit")),
    ("reward.wit", include_str!("../../../wit/reward.wit")),
    ("shaper.wit", include_str!("../../../wit/shaper.wit")),
    ("judge.wit", include_str!("../../../wit/judge.wit")),
    ("filter.wit", include_str!("../../../wit/filter.wit")),
    ("tool.wit", include_str!("../../../wit/tool.wit")),
];

/// Capabilities that a manifest may ask for; each is an interface of `plumb:align`.
const CAPABILITIES: [&str; 2] = ["models", "tools"];

/// What builds need of a `plugin.toml`; the host reads the rest.
#[derive(Deserialize)]
pub struct Manifest {
    /// Name of the plugin.
    pub name: String,
    /// Its kind, which is a world of `plumb:align`.
    pub kind: String,
    /// What it asks for.
    #[serde(default)]
    pub needs: Needs,
}

/// The table `[needs]`.
#[derive(Default, Deserialize)]
pub struct Needs {
    /// What it may ask besides its batch.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

impl Manifest {
    /// The text of `plugin.toml` in `folder`, and what builds need of it.
    ///
    /// # Errors
    /// Names the file, if it cannot be read or is none.
    pub fn read(folder: &Path) -> Result<(String, Self)> {
        let path = folder.join("plugin.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let manifest = toml::from_str(&text).with_context(|| format!("in `{}`", path.display()))?;
        Ok((text, manifest))
    }
}

/// What a plugin imports and exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World<'a> {
    /// Its kind, which is a world of `plumb:align`.
    pub kind: &'a str,
    /// What it may ask besides its batch.
    pub capabilities: &'a [String],
    /// Whether it exports `state`; a reward's comes with `merging`.
    pub stateful: bool,
}

impl World<'_> {
    /// The version of `plumb:align`.
    pub fn version() -> Result<&'static str> {
        let line = WIT[0].1.lines().find(|line| line.starts_with("package ")).context("wit/types.wit names no package")?;
        let (_, version) = line.trim_end_matches(';').split_once('@').context("wit/types.wit gives no version")?;
        Ok(version)
    }

    /// Writes the world `plugin`, with all it depends on, into `folder`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let package = folder.join("deps/plumb-align");
        fs::create_dir_all(&package).with_context(|| format!("cannot create `{}`", package.display()))?;
        for (name, text) in WIT {
            fs::write(package.join(name), text).with_context(|| format!("cannot write `{name}`"))?;
        }
        fs::write(folder.join("plugin.wit"), self.text()?).context("cannot write `plugin.wit`")
    }

    fn text(&self) -> Result<String> {
        let (version, kind) = (Self::version()?, self.kind);
        let mut text = format!("package plumb:plugin;\n\nworld plugin {{\n  include plumb:align/{kind}@{version};\n");
        for capability in self.capabilities {
            let known = CAPABILITIES.contains(&capability.as_str());
            ensure!(known, "`capabilities` in plugin.toml holds `{capability}`; there are `{}`", CAPABILITIES.join("`, `"));
            writeln!(text, "  import plumb:align/{capability}@{version};")?;
        }
        if self.stateful {
            writeln!(text, "  export plumb:align/state@{version};")?;
            // Calls of the other kinds are made one after another.
            if kind == "reward" {
                writeln!(text, "  export plumb:align/merging@{version};")?;
            }
        }
        Ok(text + "}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn world_holds_the_kind_the_capabilities_and_state() {
        let capabilities = ["models".to_owned()];
        let world = World { kind: "judge", capabilities: &capabilities, stateful: true };
        let folder = tempfile::tempdir().unwrap();
        world.write(folder.path()).unwrap();
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_path(folder.path()).unwrap();
        let world = &resolve.worlds[resolve.select_world(&[package], None).unwrap()];
        let names = |items: &wit_parser::IndexMap<wit_parser::WorldKey, wit_parser::WorldItem>| {
            items.keys().map(|key| resolve.name_world_key(key)).collect::<Vec<_>>().join(" ")
        };
        assert!(names(&world.imports).contains("plumb:align/models@"), "{}", names(&world.imports));
        assert!(names(&world.exports).contains("plumb:align/judging@") && names(&world.exports).contains("plumb:align/state@"));
    }

    #[test]
    fn state_of_a_reward_comes_with_merging() {
        let world = |kind| World { kind, capabilities: &[], stateful: true }.text().unwrap();
        assert!(world("reward").contains("/merging@") && !world("shaper").contains("/merging@"));
    }

    #[test]
    fn world_with_an_unknown_capability_names_those_there_are() {
        let capabilities = ["files".to_owned()];
        let error = World { kind: "reward", capabilities: &capabilities, stateful: false }.text().unwrap_err().to_string();
        assert!(error.contains("`files`") && error.contains("`models`, `tools`"), "{error}");
    }
}
