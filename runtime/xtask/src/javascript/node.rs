//! node, npm, and the tools that npm installs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{Error, Setup};
use crate::guest;

/// The tools, pinned; the lock file holds the digests of their packages.
pub(super) const PACKAGES: &str = include_str!("package.json");
pub(super) const LOCK: &str = include_str!("package-lock.json");

/// The oldest version that the tools run on.
const OLDEST: u32 = 18;
/// npm is a script of another name there.
const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };

/// A node that is recent enough.
pub(super) struct Node;

impl Node {
    /// Finds node on the PATH.
    pub(super) fn find() -> Result<Self, Error> {
        let ran = Command::new("node").arg("--version").stdin(Stdio::null()).output();
        let output = ran.map_err(|error| Error::NodeMissing { reason: error.to_string() })?;
        let found = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned();
        let major = found.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if major >= OLDEST => Ok(Node),
            Some(_) => Err(Error::NodeOld { found, needed: OLDEST }),
            None => Err(Error::NodeMissing { reason: format!("`node --version` says `{found}`") }),
        }
    }

    /// A call of node.
    #[allow(clippy::unused_self, reason = "whoever runs node has found it")]
    pub(super) fn command(&self) -> Command {
        Command::new("node")
    }

    /// The folder with the tools, installed if they are not there.
    pub(super) fn tools(&self, setup: &Setup) -> Result<PathBuf> {
        let digest = guest::hex(&Sha256::digest([PACKAGES, LOCK].concat()));
        let folder = setup.cache.join(format!("javascript-{}", &digest[..12]));
        if folder.join("node_modules/esbuild/package.json").is_file() {
            return Ok(folder);
        }
        (setup.say)(&format!(
            "installing the JavaScript tools (esbuild, componentize-qjs) with npm, once, in {}",
            folder.display()
        ));
        fs::create_dir_all(setup.cache).with_context(|| format!("cannot create `{}`", setup.cache.display()))?;
        let partial = tempfile::tempdir_in(setup.cache).context("cannot create a temporary folder")?;
        fs::write(partial.path().join("package.json"), PACKAGES)?;
        fs::write(partial.path().join("package-lock.json"), LOCK)?;
        self.npm_install(partial.path())?;
        // Renamed into place: another build that does the same meanwhile finds all or nothing.
        if fs::rename(partial.path(), &folder).is_err() && !folder.is_dir() {
            anyhow::bail!("cannot write `{}`", folder.display());
        }
        Ok(folder)
    }

    /// `npm install` in a folder, without running the packages' scripts.
    #[allow(clippy::unused_self, reason = "npm needs node")]
    pub(super) fn npm_install(&self, folder: &Path) -> Result<()> {
        let mut npm = Command::new(NPM);
        npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"]);
        let ran = npm.current_dir(folder).stdin(Stdio::null()).output();
        let refused = |reason: String| Error::Npm { folder: folder.display().to_string(), reason };
        let output = ran.map_err(|error| refused(format!("cannot run npm: {error}")))?;
        if !output.status.success() {
            return Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()).into());
        }
        Ok(())
    }
}
