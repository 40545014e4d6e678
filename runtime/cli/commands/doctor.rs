//! `plumb doctor`: what this machine and this build offer, and what is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::exit::ExitStatus;
use crate::output::Output;
use crate::{plugin_path, system};

/// Report what this machine and this build offer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb doctor
  plumb doctor --json")]
pub struct DoctorArgs {}

/// Runs the command. The answer is no when a plugin could not be run here at all.
pub fn run(output: Output) -> anyhow::Result<ExitStatus> {
    let host = plumb_host::Host::new(plumb_host::HostOptions::default());
    let cpu = system::Cpu::here();
    let mut facts: Vec<(&str, Value)> = vec![
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("platform", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS).into()),
        ("cpu_features", json!(cpu.features)),
        ("vector_instructions", cpu.vectors().into()),
        ("cores", cpu.cores.into()),
        ("threads", rayon::current_num_threads().into()),
    ];
    facts.push(("slower", json!(cpu.slower())));
    if let Some((total, available)) = system::memory_mib() {
        facts.push(("memory_mib", total.into()));
        facts.push(("memory_available_mib", available.into()));
    }
    let plugins_run = host.as_ref().map_or_else(|error| format!("no: {error}"), |_| "yes".into());
    facts.push(("plugins_run", plugins_run.into()));
    facts.push(("plugin_interface", format!("plumb:align@{}", plumb_host::WIT_VERSION).into()));
    let folders: Map<String, Value> = plugin_path::folders(None)
        .iter()
        .map(|folder| (folder.display().to_string(), plugin_path::installed(folder).into()))
        .collect();
    facts.push(("plugin_folders", folders.into()));
    facts.push(("compiled_code_cache", plumb_host::default_cache_dir().map(|dir| cache(&dir)).into()));
    facts.push(("wasm_targets", json!(wasm_targets())));
    facts.push(("models_here", json!(models(Path::new(".")))));

    if output.json {
        let data: Map<String, Value> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        output.data(json!({ "type": "doctor", "v": 1, "data": data }).to_string())?;
    } else {
        for (name, value) in facts {
            output.data(format!("{:<22} {}", name.replace('_', " "), text(&value)))?;
        }
    }
    Ok(if host.is_ok() { ExitStatus::Success } else { ExitStatus::No })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(map) => map.iter().map(|(key, value)| ["\n  ", key, ": ", &text(value)].concat()).collect(),
        other => other.to_string(),
    }
}

/// Where compiled plugins are kept and how much room they take.
fn cache(folder: &Path) -> String {
    let items = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|item| item.metadata().ok());
    let (files, bytes) =
        items.filter(std::fs::Metadata::is_file).fold((0, 0), |(files, bytes), meta| (files + 1, bytes + meta.len()));
    format!("{} ({files} files, {:.1} MiB)", folder.display(), bytes as f64 / (1 << 20) as f64)
}

/// Targets installed for building plugins, by the standard libraries of the Rust that `rustc` is.
fn wasm_targets() -> Vec<String> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok().filter(|answer| answer.status.success());
    let Some(sysroot) = sysroot.and_then(|answer| String::from_utf8(answer.stdout).ok()) else { return Vec::new() };
    names_in(&Path::new(sysroot.trim()).join("lib/rustlib"), |path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wasm32")) && path.join("lib").is_dir()
    })
}

/// Models in a folder: .gguf files, and folders with a `config.json` and weights.
fn models(folder: &Path) -> Vec<String> {
    names_in(folder, |path| {
        path.extension().is_some_and(|e| e == "gguf")
            || (path.join("config.json").is_file() && path.join("tokenizer.json").is_file())
    })
}

fn names_in(folder: &Path, wanted: impl Fn(&PathBuf) -> bool) -> Vec<String> {
    let items = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|item| item.path());
    let mut names: Vec<String> =
        items.filter(wanted).filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}
