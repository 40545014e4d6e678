//! Finds `componentize-py`, or makes an environment with it, and installs packages for plugins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{Error, Setup};
use crate::guest;

/// Version of `componentize-py` that the SDK's glue is written for. It brings CPython 3.14.
pub const COMPONENTIZE_PY: &str = "0.25.1";
/// CPython inside components: packages must be for it.
const GUEST_PYTHON: &str = "3.14";
/// Interpreters on the path that may have `pip` and be recent enough.
const INTERPRETERS: [&str; 7] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "python"];

/// What builds components from Python.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The program `componentize-py`.
    pub componentize_py: PathBuf,
    /// An interpreter with `pip`.
    pub python: PathBuf,
}

impl Toolchain {
    /// `componentize-py` of the active environment or on the path if its version is right, else in an environment in the cache,
    /// which is made if need be.
    ///
    /// # Errors
    /// [`Error::NoPython`]; [`Error::Offline`] and [`Error::Pip`] when the environment cannot be made.
    pub fn find(setup: &Setup) -> Result<Self> {
        let active = std::env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        for folder in active.into_iter().chain(std::env::split_paths(&path)) {
            let componentize_py = folder.join("componentize-py");
            if componentize_py.is_file() && is_pinned(&componentize_py) {
                return Ok(Toolchain { componentize_py, python: interpreter(Some(&folder))? });
            }
        }
        let environment = setup.cache.join(format!("componentize-py-{COMPONENTIZE_PY}"));
        let toolchain =
            Toolchain { componentize_py: environment.join("bin/componentize-py"), python: environment.join("bin/python") };
        if toolchain.componentize_py.is_file() && is_pinned(&toolchain.componentize_py) {
            return Ok(toolchain);
        }
        toolchain.make(&environment, setup)?;
        Ok(toolchain)
    }

    fn make(&self, environment: &Path, setup: &Setup) -> Result<()> {
        let python = interpreter(None)?;
        (setup.say)(&format!(
            "making a Python environment with componentize-py {COMPONENTIZE_PY} in `{}` (once)",
            environment.display()
        ));
        fs::create_dir_all(setup.cache).with_context(|| format!("cannot create `{}`", setup.cache.display()))?;
        let mut venv = Command::new(&python);
        venv.args(["-m", "venv", "--clear"]).arg(environment);
        run(&mut venv, "the environment")?;
        let requirement = format!("componentize-py=={COMPONENTIZE_PY}");
        run(self.pip().args(["install", "--quiet", &requirement]), &requirement).inspect_err(|_| {
            // Half an environment would look like one that is there.
            fs::remove_dir_all(environment).ok();
        })
    }

    /// Folder with `requirements`, all of pure Python, for the interpreter in the component; None without requirements. Builds
    /// leave their modules compiled there, with docstrings or without, so that there is one folder for each.
    ///
    /// # Errors
    /// [`Error::Native`] for a package that has no wheel of pure Python; [`Error::Offline`].
    pub fn packages(&self, requirements: &[String], docstrings: bool, setup: &Setup) -> Result<Option<PathBuf>> {
        if requirements.is_empty() {
            return Ok(None);
        }
        let key = guest::hex(&Sha256::digest(format!("{docstrings}\n{}", requirements.join("\n"))));
        let folder = setup.cache.join("packages").join(&key[..16]);
        if folder.is_dir() {
            return Ok(Some(folder));
        }
        (setup.say)(&format!("installing {} into `{}`", requirements.join(", "), folder.display()));
        let parent = setup.cache.join("packages");
        fs::create_dir_all(&parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
        let partial = tempfile::tempdir_in(&parent).context("cannot create a temporary folder")?;
        let mut pip = self.pip();
        pip.args(["install", "--quiet", "--no-compile", "--only-binary", ":all:", "--implementation", "py", "--abi", "none"])
            .args(["--platform", "any", "--python-version", GUEST_PYTHON, "--target"])
            .arg(partial.path().join("site"))
            .args(requirements);
        run(&mut pip, &requirements.join(", "))?;
        match fs::rename(partial.path().join("site"), &folder) {
            // Another build may have been quicker.
            Err(_) if folder.is_dir() => {}
            renamed => renamed.with_context(|| format!("cannot write `{}`", folder.display()))?,
        }
        Ok(Some(folder))
    }

    fn pip(&self) -> Command {
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "--disable-pip-version-check"]).env_remove("PIP_TARGET").env_remove("PYTHONPATH");
        pip
    }
}

/// Whether that program is `componentize-py` in the pinned version.
fn is_pinned(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(&format!(" {COMPONENTIZE_PY}")))
}

/// An interpreter of version 3.10 or later: in `folder` if there is one, else on the path.
fn interpreter(folder: Option<&Path>) -> Result<PathBuf> {
    let beside = folder.into_iter().flat_map(|folder| ["python3", "python"].map(|name| folder.join(name)));
    let mut candidates = beside.chain(INTERPRETERS.map(PathBuf::from));
    let recent = "import sys; sys.exit(sys.version_info < (3, 10))";
    candidates
        .find(|python| {
            let mut command = Command::new(python);
            command.args(["-c", recent]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
        .ok_or_else(|| Error::NoPython { tried: INTERPRETERS.join("`, `") }.into())
}

/// Runs a part of the set-up; `what` names it in errors.
fn run(command: &mut Command, what: &str) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{}`", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Error::of_pip(&said, what).into())
}
