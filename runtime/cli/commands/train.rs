//! `plumb train`: a recipe, run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;
use plumb_core::recipe::Stage;
use plumb_core::{PluginId, PluginKind};
use plumb_train::evaluation::Evaluated;
use plumb_train::run::report::wilson_interval;
use plumb_train::run::{LockedPlugin, MetricSet, read_plugins_lock};
use plumb_train::{ModelServer, Observer, Summary, TrainRequest};
use serde_json::json;

use crate::args::GlobalArgs;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::{Output, count};
use crate::plugin_log::PluginLog;
use crate::plugins::{self, Plugins};
use crate::recipe_file::{self, RecipeFile};
use crate::trust::Trust;
use crate::{lock, plugin_path};

/// Run a recipe.
///
/// The run's folder gets metrics, completions, checkpoints, the final model and a report. Ctrl-C stops after the step that is
/// under way, with a checkpoint; a second Ctrl-C stops at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb train recipes/quickstart.toml
  plumb train recipes/smollm2-tasks.toml --set stages.grpo.grpo.beta=0.04 --run-dir runs/beta --resume")]
pub struct TrainArgs {
    /// The recipe, a TOML file
    pub recipe: PathBuf,
    /// The run's folder [default: runs/NAME, after the recipe's name]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Change a value of the recipe, as in `--set stages.grpo.grpo.beta=0.04`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Go on with the run in the folder, from its newest whole checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Run only with the plugins of the lock file beside the recipe, which `plumb plugin lock` writes: also those that `plumb run
    /// swap` and `shadow` bring. Without this flag a lock that is there holds for the recipe's own plugins
    #[arg(long)]
    pub locked: bool,
}

/// Runs the command.
pub fn run(args: &TrainArgs, global: &GlobalArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let file = recipe_file::load(&args.recipe, &args.sets)?;
    let run_dir = args.run_dir.clone().unwrap_or_else(|| PathBuf::from("runs").join(&file.recipe.name));
    let log = Arc::new(PluginLog::new(output));
    let lock = lock::check(&file, args.locked)?;
    let trust = Trust::new(&file.recipe.trust)?;
    let models = Arc::new(ModelServer::default());
    let host = plugins::host_with_models(file.recipe.seed, Arc::clone(&log) as _, Arc::clone(&models) as _)?;
    let mut plugins = Plugins::new(host, file.folder.clone(), trust).held_to(lock);
    let kept = if args.resume { kept_tools(&file, &run_dir)? } else { BTreeMap::new() };
    plugins.load_tools(&file.recipe.tools, &kept)?;
    let request = TrainRequest {
        recipe: file.recipe,
        recipe_dir: file.folder,
        run_dir: run_dir.clone(),
        resume: args.resume,
        models,
        interrupt: interrupt_flag(output)?,
    };
    let threads = global.threads.map_or_else(String::new, |threads| format!(", {}", count(threads, "thread")));
    output.note(format!("run `{}` in `{}`{threads}", request.recipe.name, run_dir.display()));
    let mut progress = Progress { output, bar: None, began: Instant::now(), log: &log, run_dir: &run_dir };
    let result = plumb_train::train(&request, &plugins, &mut progress);
    progress.finish();
    log.finish();
    match result {
        Ok(summary) => {
            show(&summary, output)?;
            Ok(ExitStatus::Success)
        }
        Err(plumb_train::Error::Interrupted { step, checkpoint }) => {
            let error = Diagnostic::new("train.interrupted", ExitStatus::Interrupted, format!("interrupted after step {step}"));
            let there = checkpoint.map_or_else(
                || "there is no checkpoint yet: begin again".to_owned(),
                |step| format!("there is a checkpoint of step {step}: go on"),
            );
            Err(error.hint(format!("{there} with `--run-dir {} --resume`", run_dir.display())).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The run's own copies of those tools whose files are gone.
fn kept_tools(file: &RecipeFile, run_dir: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let tools = read_plugins_lock(run_dir)?.into_iter().filter(|locked| locked.kind == PluginKind::Tool);
    let ids = tools.map(|LockedPlugin { name, kind, sha256, .. }| PluginId { name, kind, digest: sha256 });
    let mut kept = plugins::kept_tools(run_dir, ids)?;
    let is_there = |plugin: &String| plugin_path::resolve(plugin, Some(&file.folder)).is_ok();
    let plugin = |name: &String| file.recipe.tools.get(name).and_then(|tool| tool.plugin.as_ref());
    kept.retain(|name, _| plugin(name).is_some_and(|plugin| !is_there(plugin)));
    Ok(kept)
}

/// A flag that Ctrl-C sets. The second Ctrl-C ends the process: whoever presses twice does not want to wait for the step.
fn interrupt_flag(output: Output) -> Result<Arc<AtomicBool>, Diagnostic> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let handler = move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(ExitStatus::Interrupted.code()));
        }
        output.note("stopping after this step; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).map_err(|e| Diagnostic::resource("signal", "cannot listen for Ctrl-C").because(e.to_string()))?;
    Ok(flag)
}

/// What is seen while a run goes on: a bar and a line on a terminal, one line per step elsewhere.
struct Progress<'a> {
    output: Output,
    bar: Option<ProgressBar>,
    began: Instant,
    log: &'a PluginLog,
    run_dir: &'a Path,
}

impl Progress<'_> {
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A line above the bar.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.note(text)),
            None => self.output.note(text),
        }
    }
}

impl Observer for Progress<'_> {
    fn stage(&mut self, stage: &Stage, done: u64) {
        // The folder is there by now, and no plugin has been asked yet.
        self.log.keep_in(self.run_dir);
        self.finish();
        self.say(&format!(
            "stage {}: {} steps{}",
            stage.name,
            stage.max_steps,
            if done > 0 { format!(", {done} done") } else { String::new() }
        ));
        if self.output.bars {
            let bar = self.output.bar(stage.max_steps, "");
            bar.set_position(done);
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn step(&mut self, metrics: &MetricSet) {
        if self.output.json {
            let data: serde_json::Value = serde_json::from_str(&metrics.to_json()).expect("metrics are JSON");
            // Progress is not the command's data: it must not stop the run when nobody reads it.
            let _ = self.output.data(json!({ "type": "step", "v": 1, "data": data }).to_string());
            return;
        }
        let evaluated = metrics.get("eval/accuracy").is_some();
        let stepped = metrics.get("time/step_s").is_some();
        let line = step_line(metrics, self.began.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => {
                bar.set_message(line.clone());
                if evaluated {
                    self.say(&line);
                }
                bar.inc(u64::from(stepped));
            }
            None => self.say(&line),
        }
    }

    fn message(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.warn(message)),
            None => self.output.warn(message),
        }
    }
}

/// `grpo step 12  reward 0.531  kl 0.0012  ...`: what is there of what matters.
fn step_line(metrics: &MetricSet, elapsed_s: f64) -> String {
    let mut line = format!("{} step {}", metrics.stage, metrics.step);
    for (label, name, digits) in [
        ("accuracy", "eval/accuracy", 3),
        ("reward", "reward", 3),
        ("loss", "loss", 4),
        ("kl", "kl", 4),
        ("length", "completions/mean_length", 1),
    ] {
        if let Some(value) = metrics.get(name) {
            let _ = write!(line, "  {label} {value:.digits$}");
        }
    }
    for (name, rows) in metrics.iter() {
        let plugin = name.strip_prefix("plugin/").and_then(|rest| rest.strip_suffix("/failed"));
        if let Some(plugin) = plugin.filter(|_| rows > 0.0) {
            let _ = write!(line, "  {plugin} failed on {rows:.0} rows");
        }
    }
    if let Some(step_s) = metrics.get("time/step_s") {
        let _ = write!(line, "  {step_s:.2} s/step");
    }
    let _ = write!(line, "  {elapsed_s:.0} s");
    line
}

/// The result: accuracy of each stage's first and last evaluation, and where everything lies.
fn show(summary: &Summary, output: Output) -> anyhow::Result<()> {
    let mut stages: Vec<&str> = summary.evaluations.iter().map(|(stage, ..)| stage.as_str()).collect();
    stages.dedup();
    let mut results = Vec::new();
    for stage in stages {
        let mut of_stage =
            summary.evaluations.iter().filter(|(name, ..)| name == stage).map(|(_, step, evaluated)| (step, evaluated));
        let first = of_stage.next().expect("the stage was evaluated");
        results.push((stage, first, of_stage.next_back().unwrap_or(first)));
    }
    if output.json {
        let evaluation = |(step, evaluated): (&u64, &Evaluated)| {
            let (successes, n) = (evaluated.successes, evaluated.outcomes.len());
            json!({ "step": step, "successes": successes, "n": n, "accuracy": evaluated.accuracy() })
        };
        let results = results
            .into_iter()
            .map(|(stage, first, last)| json!({ "stage": stage, "before": evaluation(first), "after": evaluation(last) }));
        let data = json!({
            "model": summary.model, "report": summary.report, "steps": summary.steps, "wall_s": summary.wall_s,
            "results": results.collect::<Vec<_>>(),
        });
        output.data(json!({ "type": "result", "v": 1, "data": data }).to_string())?;
        return Ok(());
    }
    for (stage, (_, first), (_, last)) in results {
        let share = |evaluated: &plumb_train::evaluation::Evaluated| {
            let (low, high) = wilson_interval(evaluated.successes as f64, evaluated.outcomes.len() as f64);
            let (successes, n) = (evaluated.successes, evaluated.outcomes.len());
            format!(
                "{:.1} % ({successes}/{n}, 95 % interval {:.1}-{:.1})",
                100.0 * evaluated.accuracy(),
                100.0 * low,
                100.0 * high
            )
        };
        output.data(format!("{stage:<10} accuracy {} -> {}", share(first), share(last)))?;
    }
    output.data(format!("model      {}", summary.model.display()))?;
    output.data(format!("report     {}", summary.report.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_line_has_what_there_is_and_nothing_else() {
        let mut metrics = MetricSet::new("grpo", 12);
        metrics.set("reward", 0.53125);
        metrics.set("time/step_s", 0.25);
        assert_eq!(step_line(&metrics, 3.0), "grpo step 12  reward 0.531  0.25 s/step  3 s");
        metrics.set("plugin/exact/failed", 0.0);
        metrics.set("plugin/format/failed", 3.0);
        assert_eq!(step_line(&metrics, 3.0), "grpo step 12  reward 0.531  format failed on 3 rows  0.25 s/step  3 s");
    }
}
