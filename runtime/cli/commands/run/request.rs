//! What swap, shadow and rollback have in common: a request to the process that trains the run, and its answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use plumb_core::recipe::{PluginUse, Stage};
use plumb_host::Inspection;
use plumb_train::archive::{Generations, generations};
use plumb_train::compare::Comparison;
use plumb_train::control::{self, Answer, Refusal, Request};
use plumb_train::generations::kept;
use plumb_train::run::{PluginGeneration, read_recipe};
use serde_json::{Map, json};

use super::options::{self, ConfigArgs};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::exit::ExitStatus;
use crate::output::Output;

/// Which run, and how long to wait for it.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// The run's folder
    pub run: PathBuf,
    /// Hand the request over and do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
    /// Seconds to wait for the step at which it is done
    #[arg(long, value_name = "SECONDS", default_value_t = 600, conflicts_with = "no_wait")]
    pub wait_s: u64,
}

/// A plugin for the place (or the side) of the one named `name`: with its limits and grants. A new version of the same plugin (the
/// manifests have one name) has its configuration too, unless another is given, so that it runs as the one before did; another
/// plugin's keys mean nothing to it.
pub fn successor(run: &Path, name: &str, plugin: &str, config: &ConfigArgs, output: Output) -> anyhow::Result<PluginUse> {
    let Generations { stage, in_force, .. } = generations(run)?;
    let Some(now) = in_force.iter().find(|generation| generation.id.name == name) else {
        return Err(unknown(run, &stage, &in_force, name).into());
    };
    let (file, inspection) = options::component(plugin, output)?;
    let kind = inspection.kind;
    if kind != now.id.kind {
        let message = format!("`{name}` is a {}, and `{plugin}` is a {kind}", now.id.kind);
        return Err(Diagnostic::usage("run.wrong-kind", message).hint(format!("give a {} plugin", now.id.kind)).into());
    }
    let mut used = now.plugin_use(&file.to_string_lossy());
    let named = |inspection: &Inspection| inspection.manifest.as_ref().map(|manifest| manifest.name.clone());
    let kept = std::fs::read(kept::path(run, &now.id.digest)).ok();
    let before = kept.and_then(|bytes| plumb_host::inspect(name, &bytes).ok());
    if before.is_none_or(|before| named(&before) != named(&inspection)) {
        if config.config.is_none() && !used.config.is_empty() {
            output.note(format!("`{plugin}` is not a version of what `{name}` is now: it begins without its configuration"));
        }
        used.config = Map::new();
    }
    used.config = config.read(used.config)?;
    Ok(used)
}

/// The run's stage has no plugin of that name: which it has, and which stage has it.
fn unknown(run: &Path, stage: &str, in_force: &[PluginGeneration], name: &str) -> Diagnostic {
    let names: Vec<&str> = in_force.iter().map(|generation| generation.id.name.as_str()).collect();
    let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let place = if stage.is_empty() { "the run has not begun".to_owned() } else { format!("stage `{stage}` is under way") };
    let error = Diagnostic::usage("run.unknown-plugin", format!("the run has no plugin `{name}` now: {place}"));
    let error = error.because(if known.is_empty() { "it has no plugins".to_owned() } else { format!("there are {known}") });
    let stages = read_recipe(run).map(|recipe| recipe.recipe.stages).unwrap_or_default();
    let has = |stage: &&Stage| stage.plugins().any(|plugin| plugin.name.as_deref().unwrap_or(&plugin.plugin) == name);
    let later = stages.iter().skip_while(|other| other.name != stage).skip(1).find(has);
    match later {
        Some(later) => error.hint(format!("stage `{}` has it: ask again when that has begun", later.name)),
        None => did_you_mean(name, names).into_iter().fold(error, Diagnostic::hint),
    }
}

/// Leaves a request for a run that was stopped.
pub fn leave(run: &Path, request: Request, output: Output) -> anyhow::Result<ExitStatus> {
    let (kind, name) = (request.kind(), request.name().to_owned());
    let id = control::submit_for_resume(run, request)?;
    output.data(if output.json {
        json!({ "type": "request", "v": 1, "data": { "id": id, "status": "waits-for-resume" } }).to_string()
    } else {
        let run = run.display();
        format!("request {id} ({kind} of `{name}`) is done when the run goes on: `plumb train RECIPE --run-dir {run} --resume`")
    })?;
    Ok(ExitStatus::Success)
}

/// Hands a request over, waits and tells what became of it.
pub fn send(args: &RequestArgs, request: Request, output: Output) -> anyhow::Result<ExitStatus> {
    let (kind, name) = (request.kind(), request.name().to_owned());
    let id = control::submit(&args.run, request)?;
    let pending = |output: Output| {
        if output.json {
            output.data(json!({ "type": "request", "v": 1, "data": { "id": id, "status": "pending" } }).to_string())
        } else {
            output.data(format!(
                "request {id} ({kind} of `{name}`) is pending; `plumb run show {}` tells when it is done, or why it was refused",
                args.run.display()
            ))
        }
    };
    if args.no_wait {
        pending(output)?;
        return Ok(ExitStatus::Success);
    }
    match control::wait(&args.run, id, Duration::from_secs(args.wait_s))? {
        None => {
            pending(output)?;
            Ok(ExitStatus::No)
        }
        Some(Answer::Refused(refusal)) => Err(refused(kind, &name, refusal).into()),
        Some(Answer::Done { step, digest, comparison }) => {
            if output.json {
                let data = json!({
                    "id": id, "status": "done", "request": kind, "name": name, "step": step, "sha256": digest, "comparison": comparison,
                });
                output.data(json!({ "type": "request", "v": 1, "data": data }).to_string())?;
            } else {
                let digest = digest.map_or_else(String::new, |digest| format!(", sha256 {digest:.8}"));
                let what = match kind {
                    "swap" => "the new plugin is in use",
                    "rollback" => "the generation before is in use again",
                    "shadow" => "the shadow scores along",
                    _ => "the shadow has ended",
                };
                output.data(format!("`{name}`: from step {step} on {what}{digest}"))?;
                if let Some(comparison) = comparison {
                    output.data(comparison_text(&comparison))?;
                }
            }
            Ok(ExitStatus::Success)
        }
    }
}

fn refused(kind: &str, name: &str, refusal: Refusal) -> Diagnostic {
    let Refusal { code, message, causes, hint } = refusal;
    let asked = match kind {
        "unshadow" => format!("to end the shadow of `{name}`"),
        "shadow" => format!("a shadow for `{name}`"),
        kind => format!("the {kind} of `{name}`"),
    };
    let error = Diagnostic::new(&format!("run.{code}"), ExitStatus::No, format!("the run refused {asked}: {message}"));
    let error = causes.into_iter().fold(error, Diagnostic::because);
    hint.into_iter().fold(error, Diagnostic::hint).at("the run goes on as before")
}

/// How the new plugin differs from the old one on the last batches.
fn comparison_text(comparison: &Comparison) -> String {
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.1} %", 100.0 * value));
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    format!(
        "  on the last {} rows: equal values {}, same order {}, rank correlation {}, drift {}, mean {} -> {}",
        comparison.rows,
        share(comparison.equal),
        share(comparison.agreement),
        number(comparison.spearman),
        number(comparison.drift),
        number(comparison.mean_old),
        number(comparison.mean_new),
    )
}
