//! `cargo xtask python`: the Python SDK's own tests, and the Python components that the tests in Rust need.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use plumb_xtask::python::{Setup, Toolchain, Wrap, build_folder, sdk_in, wrap};

use crate::{conformance, root, say, target};

/// What the tests are run with; pure Python, and kept apart from any environment.
const PYTEST: &str = "pytest==9.2.0";
/// Folders that become `target/guests/NAME.wasm`. Building one takes 10 s, loading it for the first time 5 s: few will do.
const COMPONENTS: [(&str, &str); 3] = [
    ("sdk/python/examples/reward-regex", "reward-regex"),
    ("sdk/python/examples/tool-python", "tool-python"),
    ("sdk/python/tests/components/probe", "python-probe"),
];
/// Functions that are wrapped: the file's function, the plugin, and the columns of parameters that are called otherwise.
const WRAPPED: [(&str, &str, &[(&str, &str)]); 2] =
    [("exact", "reward-wrapped-trl", &[]), ("compute_score", "reward-wrapped-verl", &[("ground_truth", "answer")])];

/// Tests the SDK and builds the components; what did not change is not built again.
pub fn run() -> Result<()> {
    let (root, cache, guests) = (root(), target().join("python"), target().join("guests"));
    let setup = Setup { sdk: &sdk_in(&root), cache: &cache, say: &say };
    say("python: the SDK's tests, natively");
    test(&root.join("sdk/python"))?;
    say("python: components for the tests, in target/guests");
    for (folder, name) in COMPONENTS {
        build_folder(&root.join(folder), &guests.join(format!("{name}.wasm")), &setup).with_context(|| format!("`{folder}`"))?;
    }
    let (sources, suite) = (root.join("tests/conformance/python"), target().join("conformance/python"));
    for kind in conformance::KINDS {
        build_folder(&sources.join(kind), &suite.join(format!("conformance-{kind}.wasm")), &setup)
            .with_context(|| format!("the {kind} of the conformance suite in Python"))?;
    }
    for (function, name, columns) in WRAPPED {
        let request = Wrap {
            file: root.join("sdk/python/tests/components/rewards.py"),
            function: function.to_owned(),
            name: name.to_owned(),
            style: None,
            columns: columns.iter().map(|&(parameter, column)| (parameter.to_owned(), column.to_owned())).collect(),
            dependencies: Vec::new(),
            imports: Vec::new(),
            cases: None,
        };
        wrap(&request, &guests.join(format!("{name}.wasm")), &setup).with_context(|| format!("`{function}`"))?;
    }
    Ok(())
}

/// Runs the tests of a folder in Python.
pub fn test(folder: &Path) -> Result<()> {
    let setup = Setup { sdk: &sdk_in(&root()), cache: &target().join("python"), say: &say };
    let toolchain = Toolchain::find(&setup)?;
    let packages = toolchain.packages(&[PYTEST.to_owned()], true, &setup)?.context("pytest is a package")?;
    let mut pytest = Command::new(&toolchain.python);
    pytest.args(["-m", "pytest", "--quiet", "-p", "no:cacheprovider"]).current_dir(folder);
    let status = pytest.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").status().context("cannot run pytest")?;
    ensure!(status.success(), "the tests in `{}` failed", folder.display());
    Ok(())
}
