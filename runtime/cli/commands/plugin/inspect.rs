//! `plumb plugin inspect`: what a plugin is, without running it.

use clap::Args;
use plumb_host::{EffectiveLimits, Inspection};
use serde_json::json;

use super::subject::Subject;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Print what a plugin is, without running it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin inspect reward-exact-match
  plumb plugin inspect mine.wasm --json")]
pub struct InspectArgs {
    /// A .wasm file, the name of an installed plugin, or a plugin's crate
    #[arg(default_value = ".")]
    plugin: String,
}

/// Runs the command.
pub fn run(args: &InspectArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let subject = Subject::find(&args.plugin, output)?;
    let inspection = subject.inspect()?;
    output.data(if output.json {
        json!({"type": "plugin", "v": 1, "data": inspection}).to_string()
    } else {
        text(&subject.label(), &inspection)
    })?;
    Ok(ExitStatus::Success)
}

fn text(file: &str, inspection: &Inspection) -> String {
    let mut lines = Vec::new();
    if let Some(manifest) = &inspection.manifest {
        lines.push(format!("{} {} ({})", manifest.name, manifest.version, inspection.kind));
        if !manifest.description.is_empty() {
            lines.push(format!("  {}", manifest.description));
        }
    } else {
        lines.push(format!("{} plugin without a manifest", inspection.kind));
    }
    lines.push(format!("file       {file}, {:.1} KiB", inspection.size as f64 / 1024.0));
    lines.push(format!("sha256     {}", inspection.digest));
    lines.push(format!(
        "interface  plumb:align@{}{}",
        inspection.wit_version,
        if inspection.stateful { ", with state" } else { "" }
    ));
    if let Some(manifest) = inspection.manifest.as_ref().filter(|manifest| !manifest.needs.columns.is_empty()) {
        lines.push(format!("columns    {}", manifest.needs.columns.join(", ")));
    }
    let EffectiveLimits { fuel, fuel_per_row, memory_mib, deadline_ms, deadline_ms_per_row } = inspection.limits;
    lines.push(format!(
        "limits     fuel {fuel} + {fuel_per_row} a row, memory {memory_mib} MiB, deadline {deadline_ms} + {deadline_ms_per_row} ms a row"
    ));
    lines.push("imports".to_owned());
    for import in &inspection.imports {
        let granted = if import.granted { "" } else { "  NOT GRANTED" };
        lines.push(format!("  {:<28} {}{granted}", import.name, import.meaning));
        lines.extend(import.fix.map(|fix| format!("    fix: {fix}")));
    }
    lines.push("exports".to_owned());
    lines.extend(inspection.exports.iter().map(|name| format!("  {name}")));
    lines.join("\n")
}
