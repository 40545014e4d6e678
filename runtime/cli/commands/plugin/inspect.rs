//! `plumb plugin inspect`: what a plugin is, without running it.

use clap::Args;
use plumb_host::{EffectiveLimits, Inspection};
use serde_json::json;

use super::subject::Subject;
use crate::exit::ExitStatus;
use crate::output::Output;
use crate::trust;

/// Print what a plugin is, without running it: what its file and its plugin.toml say. What it says itself, the schema of its
/// configuration and the columns it needs, `plumb plugin check` prints.
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
    let signature = match trust::read_signature(&subject.file)? {
        None => Signed::Not,
        Some(signature) => {
            signature.verify(subject.bytes()).map_or_else(|e| Signed::Broken(e.to_string()), |key| Signed::By(key.to_string()))
        }
    };
    output.data(if output.json {
        let mut data = json!(inspection);
        data["signature"] = json!(signature);
        json!({"type": "plugin", "v": 1, "data": data}).to_string()
    } else {
        text(&subject.label(), &inspection, &signature)
    })?;
    Ok(ExitStatus::Success)
}

/// What the signature file beside a plugin says.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Signed {
    Not,
    By(String),
    Broken(String),
}

fn text(file: &str, inspection: &Inspection, signature: &Signed) -> String {
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
    lines.push(match signature {
        Signed::Not => "signature  none".to_owned(),
        Signed::By(key) => format!("signature  by {key}"),
        Signed::Broken(reason) => format!("signature  DOES NOT HOLD: {reason}"),
    });
    lines.push(format!(
        "interface  plumb:align@{}{}",
        inspection.wit_version,
        if inspection.stateful { ", with state" } else { "" }
    ));
    if let Some(needs) = inspection.manifest.as_ref().map(|manifest| &manifest.needs) {
        if !needs.columns.is_empty() {
            lines.push(format!("columns    {}", needs.columns.join(", ")));
        }
        if !needs.capabilities.is_empty() {
            let names: Vec<&str> = needs.capabilities.iter().map(|capability| capability.name()).collect();
            lines.push(format!("asks       {}; a recipe's `grants` say which", names.join(", ")));
        }
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
