//! Builds guests from Python: a folder with `pyproject.toml` and `plugin.toml` to a component.
//!
//! `componentize-py` runs the plugin's modules in its WebAssembly build of CPython and keeps a picture of the memory they leave
//! behind. `--stub-wasi` takes the system away, and the SDK (`sdk/python`) turns what would trap then into Python exceptions. The
//! world is written for each plugin: its kind, the capabilities that `plugin.toml` asks for, and state if it has any.
//!
//! The same sources do not give the same bytes: `componentize-py` 0.25 draws the hash seed anew. So a build whose inputs did not
//! change is not repeated.

mod error;
mod project;
mod toolchain;
mod wrap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

pub use self::error::Error;
use self::project::Project;
pub use self::toolchain::{COMPONENTIZE_PY, Toolchain};
pub use self::wrap::{Wrap, wrap};
use crate::guest;
use crate::world::{WIT, World};

/// Module that `componentize-py` starts with; the SDK's glue does the rest.
const ENTRY: &str = "plumb_entry";
/// Module of the generated bindings, as the SDK's glue imports it.
const BINDINGS: &str = "plumb_world";

/// What a build needs besides the plugin.
pub struct Setup<'a> {
    /// Folder that holds the package `plumb_sdk`.
    pub sdk: &'a Path,
    /// Where environments and packages are kept between builds.
    pub cache: &'a Path,
    /// Told before anything that takes long or changes `cache`.
    pub say: &'a dyn Fn(&str),
}

/// Builds the plugin in `dir` into `out_file`, and says whether it had to: a component whose inputs did not change is left alone.
///
/// Rewards and tools are called with the rows of `cases.jsonl` meanwhile, so that what they import only when they need it, and what
/// they keep in caches, is in the component.
///
/// # Errors
/// [`Error`] where the author or the machine can do something about it.
pub fn build_folder(dir: &Path, out_file: &Path, setup: &Setup) -> Result<bool> {
    let project = Project::read(dir)?;
    let interfaces = WIT.map(|(_, text)| text).concat();
    let stamp = project.stamp(setup.sdk, &[COMPONENTIZE_PY, &interfaces])?;
    let stamp_file = out_file.with_extension("inputs");
    if out_file.is_file() && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(false);
    }
    let toolchain = Toolchain::find(setup)?;
    let packages = toolchain.packages(&project.dependencies, project.docstrings, setup)?;
    (setup.say)(&format!(
        "`{}`: running its modules in the sandbox and keeping the memory they leave (10 to 40 s)",
        project.name
    ));
    let compiled = || packages.as_deref().map_or(Ok(0), compiled_modules);
    let before = compiled()?;
    let mut component = componentize(&project, &toolchain, packages.as_deref(), setup)?;
    if compiled()? > before {
        // Compiling modules leaves so much garbage in the picture that sympy would not fit into a component; now they are there
        // compiled.
        (setup.say)(&format!("`{}`: once more, now that its packages are compiled", project.name));
        component = componentize(&project, &toolchain, packages.as_deref(), setup)?;
    }
    let component = guest::finish(component, Some(&project.manifest))?;
    if let Some(parent) = out_file.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    }
    guest::write_file(out_file, &component)?;
    fs::write(&stamp_file, stamp).with_context(|| format!("cannot write `{}`", stamp_file.display()))?;
    Ok(true)
}

fn componentize(project: &Project, toolchain: &Toolchain, packages: Option<&Path>, setup: &Setup) -> Result<Vec<u8>> {
    let work = tempfile::tempdir().context("cannot create a temporary folder")?;
    let (wit, entry, output) = (work.path().join("wit"), work.path().join("entry"), work.path().join("plugin.wasm"));
    let write = |file: &Path, text: &str| {
        fs::create_dir_all(file.parent().unwrap_or(file))
            .and_then(|()| fs::write(file, text))
            .with_context(|| format!("cannot write `{}`", file.display()))
    };
    World { kind: &project.kind, capabilities: &project.capabilities, stateful: project.stateful }.write(&wit)?;
    write(&entry.join(format!("{ENTRY}.py")), &project.entry())?;
    write(&entry.join("plumb_cases.jsonl"), &project.cases)?;
    let mut search = vec![entry.clone()];
    search.extend(project.search.iter().cloned());
    search.extend(packages.map(Path::to_owned));
    search.push(setup.sdk.to_owned());

    let mut command = Command::new(&toolchain.componentize_py);
    command.args(["--quiet", "--world", "plugin", "--world-module", BINDINGS, "--wit-path"]).arg(&wit);
    command.args(["componentize", ENTRY, "--stub-wasi", "--output"]).arg(&output);
    for folder in &search {
        command.arg("--python-path").arg(folder);
    }
    // It would add the packages of the active environment, which are those of this machine.
    command.env("VIRTUAL_ENV", &entry).env_remove("PYTHONPATH").stdin(Stdio::null());
    let ran = command.output().with_context(|| format!("cannot run `{}`", toolchain.componentize_py.display()))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(Error::of_traceback(&said, &search, &project.dependencies).into());
    }
    fs::read(&output).with_context(|| format!("cannot read `{}`", output.display()))
}

/// How many compiled modules there are below `folder`.
fn compiled_modules(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            count += compiled_modules(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "pyc") {
            count += 1;
        }
    }
    Ok(count)
}

/// Folder of the package `plumb_sdk` in a source tree.
pub fn sdk_in(tree: &Path) -> PathBuf {
    tree.join("sdk/python/src")
}
