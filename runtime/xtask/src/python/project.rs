//! What the build reads in a Python plugin's folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use crate::guest;

/// The module that `plumb plugin wrap` writes around a function. Its author has no pyproject.toml to mend.
pub const WRAPPED: &str = "plumb_wrapped";

/// A Python plugin's folder.
#[derive(Clone, Debug)]
pub struct Project {
    /// The plugin's name.
    pub name: String,
    /// Its kind, as plugin.toml has it.
    pub kind: String,
    /// `[needs] capabilities` of plugin.toml.
    pub capabilities: Vec<String>,
    /// Text of plugin.toml.
    pub manifest: String,
    /// Module and class of the plugin.
    pub module: String,
    pub class: String,
    /// Whether it keeps state.
    pub stateful: bool,
    /// Whether its modules keep their docstrings.
    pub docstrings: bool,
    /// Modules to import beforehand, since the plugin or its packages import them late by names that their code does not show.
    pub imports: Vec<String>,
    /// Requirements besides the SDK, sorted.
    pub dependencies: Vec<String>,
    /// Folders with its modules.
    pub search: Vec<PathBuf>,
    /// Text of cases.jsonl; empty without one.
    pub cases: String,
    settings: String,
}

impl Project {
    /// Reads `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("cannot read `{}`", dir.display()))?;
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))
        };
        let (manifest, settings) = (read("plugin.toml")?, read("pyproject.toml")?);
        let table: Table = settings.parse().context("pyproject.toml is not valid TOML")?;
        let own = table.get("tool").and_then(|tool| tool.get("plumb")).and_then(Value::as_table);
        let own = own.context("pyproject.toml has no `[tool.plumb]`: add it, with `plugin = \"module:Class\"`")?;
        let known = ["plugin", "state", "docstrings", "imports", "path"];
        if let Some(key) = own.keys().find(|key| !known.contains(&key.as_str())) {
            bail!("`[tool.plumb]` in pyproject.toml has an unknown key `{key}`; there are {}", known.join(", "));
        }
        let plugin = own.get("plugin").and_then(Value::as_str).unwrap_or_default();
        let (module, class) = plugin
            .split_once(':')
            .filter(|(module, class)| is_path(module) && is_path(class) && !class.contains('.'))
            .context("`plugin` under `[tool.plumb]` in pyproject.toml must be \"module:Class\"")?;
        let flag = |key: &str| match own.get(key) {
            None => Ok(false),
            Some(value) => value.as_bool().with_context(|| format!("`{key}` under `[tool.plumb]` must be true or false")),
        };
        let mut search = vec![dir.clone()];
        search.extend(strings(own.get("path"), "`path` under `[tool.plumb]`")?.iter().map(|path| dir.join(path)));
        let imports = strings(own.get("imports"), "`imports` under `[tool.plumb]`")?;
        ensure!(imports.iter().all(|name| is_path(name)), "`imports` under `[tool.plumb]` must be names of modules");
        let requirements = table.get("project").and_then(|project| project.get("dependencies"));
        let mut dependencies = strings(requirements, "`dependencies` in pyproject.toml")?;
        // The SDK comes with the program, whichever version the requirement allows.
        dependencies.retain(|requirement| package(requirement) != "plumb-sdk");
        dependencies.sort();
        let head: Table = manifest.parse().context("plugin.toml is not valid TOML")?;
        let text = |key: &str| {
            let value = head.get(key).and_then(Value::as_str);
            value.map(str::to_owned).with_context(|| format!("plugin.toml has no `{key}`"))
        };
        let capabilities = head.get("needs").and_then(|needs| needs.get("capabilities"));
        Ok(Project {
            name: text("name")?,
            kind: text("kind")?,
            capabilities: strings(capabilities, "`capabilities` in plugin.toml")?,
            module: module.to_owned(),
            class: class.to_owned(),
            stateful: flag("state")?,
            docstrings: flag("docstrings")?,
            imports,
            dependencies,
            search,
            cases: read("cases.jsonl").unwrap_or_default(),
            manifest,
            settings,
        })
    }

    /// The module that `componentize-py` starts with.
    pub fn entry(&self) -> String {
        let flag = |value: bool| if value { "True" } else { "False" };
        let imports: String = self.imports.iter().map(|name| format!("importlib.import_module({name:?})\n")).collect();
        format!(
            "import importlib\n\
             import pathlib\n\n\
             from plumb_sdk import _sandbox\n\n\
             cases = pathlib.Path(__file__).with_name(\"plumb_cases.jsonl\").read_text(encoding=\"utf-8\")\n\
             _sandbox.install(docstrings={docstrings})\n\
             {imports}\
             plugin = importlib.import_module({module:?}).{class}\n\
             from plumb_sdk import _guest\n\n\
             globals().update(_guest.export(plugin, kind={kind:?}, stateful={stateful}, wrapped={wrapped}, cases=cases))\n",
            docstrings = flag(self.docstrings),
            module = self.module,
            class = self.class,
            kind = self.kind,
            stateful = flag(self.stateful),
            wrapped = flag(self.module == WRAPPED),
        )
    }

    /// Digest of all that the component is made of: the plugin's and the SDK's modules, its settings and `more`.
    pub fn stamp(&self, sdk: &Path, more: &[&str]) -> Result<String> {
        let mut hash = Sha256::new();
        for text in [self.manifest.as_str(), &self.settings, &self.cases].iter().chain(more) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        for folder in self.search.iter().map(PathBuf::as_path).chain([sdk]) {
            let mut files = Vec::new();
            modules(folder, &mut files)?;
            files.sort();
            for file in files {
                let bytes = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
                let name = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
                for part in [name.as_bytes(), &bytes] {
                    hash.update((part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
            }
        }
        Ok(guest::hex(&hash.finalize()))
    }
}

/// The normalized name of the package that a requirement is about: `Math_Verify[x] >= 1` is about `math-verify`.
pub fn package(requirement: &str) -> String {
    let name: String = requirement.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// A list of strings, empty if it is missing.
fn strings(value: Option<&Value>, what: &str) -> Result<Vec<String>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let entries = value.as_array().and_then(|list| list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect());
    entries.with_context(|| format!("{what} must be a list of strings"))
}

/// Whether it is a Python name, or several joined by dots.
fn is_path(text: &str) -> bool {
    text.split('.').all(is_name)
}

/// Whether it is a Python name.
pub fn is_name(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Python files below `folder`, without environments, hidden folders and what builds leave.
fn modules(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            let skipped = name.starts_with('.') || ["target", "__pycache__", "node_modules"].contains(&&*name);
            if !skipped && !path.join("pyvenv.cfg").is_file() {
                modules(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "py") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(settings: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plugin.toml"), "name = \"reward-x\"\nkind = \"reward\"\nversion = \"0.1.0\"\n").unwrap();
        fs::write(folder.path().join("pyproject.toml"), settings).unwrap();
        fs::write(folder.path().join("x.py"), "A = 1\n").unwrap();
        folder
    }

    #[test]
    fn project_leaves_the_sdk_out_of_its_dependencies() {
        let folder = folder(
            "[project]\nname = \"reward-x\"\ndependencies = [\"sympy>=1.12\", \"plumb_sdk\", \"antlr4\"]\n[tool.plumb]\nplugin = \"x:A\"\nstate = true\n",
        );
        let project = Project::read(folder.path()).unwrap();
        assert_eq!((project.dependencies, project.stateful), (vec!["antlr4".to_owned(), "sympy>=1.12".to_owned()], true));
        assert_eq!(package("Math_Verify[x] >= 1"), "math-verify");
    }

    #[test]
    fn project_names_the_key_that_is_wrong() {
        for (settings, named) in [
            ("", "[tool.plumb]"),
            ("[tool.plumb]\n", "module:Class"),
            ("[tool.plumb]\nplugin = \"x:A\"\nstat = true\n", "`stat`"),
            ("[tool.plumb]\nplugin = \"x:A\"\nstate = 1\n", "`state`"),
            ("[tool.plumb]\nplugin = \"x:A;import os\"\n", "module:Class"),
            ("[tool.plumb]\nplugin = \"x:A\"\nimports = [\"a b\"]\n", "`imports`"),
        ] {
            let error = Project::read(folder(settings).path()).unwrap_err();
            assert!(error.to_string().contains(named), "{settings}: {error}");
        }
    }

    #[test]
    fn stamp_changes_with_a_module_and_with_nothing_else() {
        let (folder, sdk) = (folder("[tool.plumb]\nplugin = \"x:A\"\n"), tempfile::tempdir().unwrap());
        let stamp = || Project::read(folder.path()).unwrap().stamp(sdk.path(), &["1"]).unwrap();
        let first = stamp();
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::write(folder.path().join("target/y.py"), "").unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        assert_eq!(stamp(), first);
        fs::write(folder.path().join("x.py"), "A = 2\n").unwrap();
        assert_ne!(stamp(), first);
    }
}
