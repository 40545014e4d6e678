//! Makes a plugin of a Python reward function that was written for another trainer.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::project::{WRAPPED, is_name};
use super::{Setup, build_folder};

/// A function to wrap.
#[derive(Clone, Debug)]
pub struct Wrap {
    /// The file that defines it; modules beside it may be imported.
    pub file: PathBuf,
    /// Its name.
    pub function: String,
    /// The plugin's name.
    pub name: String,
    /// `trl` or `verl`; None reads it off the parameters.
    pub style: Option<String>,
    /// Columns of parameters that are called otherwise: (parameter, column).
    pub columns: Vec<(String, String)>,
    /// Packages of pure Python that it needs.
    pub dependencies: Vec<String>,
    /// Modules that it imports late by names that its code does not show.
    pub imports: Vec<String>,
    /// Cases to rehearse while the component is built; see [`build_folder`].
    pub cases: Option<PathBuf>,
}

/// Memory of a wrapped function, in MiB: what it imports is not known beforehand, and sympy takes some 60.
const MEMORY_MIB: u32 = 256;

/// Builds the function into the component `out_file`, and says whether it had to.
///
/// # Errors
/// As [`build_folder`]; for a function that cannot be wrapped the message says why.
pub fn wrap(wrap: &Wrap, out_file: &Path, setup: &Setup) -> Result<bool> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    for (name, text) in files(wrap)? {
        let path = folder.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if let Some(cases) = &wrap.cases {
        fs::copy(cases, folder.path().join("cases.jsonl")).with_context(|| format!("cannot read `{}`", cases.display()))?;
    }
    build_folder(folder.path(), out_file, setup)
}

/// The plugin's folder around the function.
fn files(wrap: &Wrap) -> Result<[(String, String); 3]> {
    let file = wrap.file.canonicalize().with_context(|| format!("cannot read `{}`", wrap.file.display()))?;
    let module = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let python = file.extension().is_some_and(|extension| extension == "py");
    ensure!(python && is_name(module), "`{}` is no Python module: its name must be one in Python, then `.py`", file.display());
    ensure!(is_name(&wrap.function), "`{}` is no name of a function", wrap.function);
    let parent = file.parent().context("the file has no folder")?;
    let columns: serde_json::Map<_, _> =
        wrap.columns.iter().map(|(parameter, column)| (parameter.clone(), column.as_str().into())).collect();
    // JSON's texts and objects of texts are Python's, too.
    let style = wrap.style.as_ref().map_or("None".to_owned(), json);
    let (name, function) = (json(&wrap.name), &wrap.function);
    let module_text = format!(
        "import {module}\nfrom plumb_sdk import wrap\n\n\
         Wrapped = wrap.plugin({module}.{function}, name={name}, version=\"0.1.0\", style={style}, columns={})\n",
        json(&columns)
    );
    let mut manifest = toml::Table::new();
    manifest.insert("name".into(), wrap.name.as_str().into());
    manifest.insert("kind".into(), "reward".into());
    manifest.insert("version".into(), "0.1.0".into());
    manifest.insert("description".into(), format!("`{function}` of {module}.py").into());
    let limits = toml::Table::from_iter([("memory_mib".to_owned(), i64::from(MEMORY_MIB).into())]);
    manifest.insert("limits".into(), toml::Value::Table(limits));
    let own = toml::Table::from_iter([
        ("plugin".to_owned(), format!("{WRAPPED}:Wrapped").into()),
        ("path".to_owned(), vec![parent.to_str().context("the file's folder is not UTF-8")?.to_owned()].into()),
        ("imports".to_owned(), wrap.imports.clone().into()),
    ]);
    let project = toml::Table::from_iter([
        ("name".to_owned(), wrap.name.as_str().into()),
        ("dependencies".to_owned(), wrap.dependencies.clone().into()),
    ]);
    let tool = toml::Table::from_iter([("plumb".to_owned(), toml::Value::Table(own))]);
    let settings = toml::Table::from_iter([
        ("project".to_owned(), toml::Value::Table(project)),
        ("tool".to_owned(), toml::Value::Table(tool)),
    ]);
    let named = |name: &str, text: String| (name.to_owned(), text);
    let module_file = format!("{WRAPPED}.py");
    Ok([(module_file, module_text), named("plugin.toml", manifest.to_string()), named("pyproject.toml", settings.to_string())])
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::super::project::Project;
    use super::*;

    fn request(file: &Path) -> Wrap {
        Wrap {
            file: file.to_owned(),
            function: "exact".into(),
            name: "reward-exact".into(),
            style: None,
            columns: vec![("ground_truth".into(), "answer \"x\"".into())],
            dependencies: vec!["sympy".into()],
            imports: vec!["sympy.tensor".into()],
            cases: None,
        }
    }

    #[test]
    fn wrapped_folder_is_read_back_as_a_project() {
        let (source, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = source.path().join("rewards.py");
        fs::write(&file, "").unwrap();
        let files = files(&request(&file)).unwrap();
        for (name, text) in &files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let project = Project::read(folder.path()).unwrap();
        assert_eq!((project.name.as_str(), project.kind.as_str()), ("reward-exact", "reward"));
        assert_eq!(project.search[1], source.path().canonicalize().unwrap());
        assert_eq!((project.dependencies.len(), project.imports.len()), (1, 1));
        assert!(files[0].1.contains(r#"columns={"ground_truth":"answer \"x\""}"#), "{}", files[0].1);
    }

    #[test]
    fn files_that_are_no_modules_are_refused() {
        let source = tempfile::tempdir().unwrap();
        for name in ["my-rewards.py", "rewards.txt"] {
            let file = source.path().join(name);
            fs::write(&file, "").unwrap();
            assert!(files(&request(&file)).unwrap_err().to_string().contains("is no Python module"));
        }
    }
}
