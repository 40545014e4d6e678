//! `cargo xtask quickstart`: from a fresh checkout to an aligned model and a report.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{build_plumb, plugins, root, say, target};

/// What the run must reach; `cargo xtask test` holds it to that.
const ACCURACY_AFTER_SFT_MAX: f64 = 0.35;
const ACCURACY_AFTER_GRPO_MIN: f64 = 0.95;

/// Accuracy on the test set, before and after reinforcement learning.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub after_sft: f64,
    pub after_grpo: f64,
}

/// Sets up, builds, trains and says where the report is.
#[expect(clippy::print_stdout, reason = "the outcome is this command's output")]
pub fn run() -> Result<()> {
    plugins()?;
    build_plumb()?;
    let began = Instant::now();
    let outcome = train()?;
    let report = target().join("quickstart/report.html");
    println!();
    println!("A transformer made on this machine learned two-digit addition from a sandboxed reward plugin:");
    println!("  after supervised fine-tuning on too few examples   {:5.1} % of the test set right", 100.0 * outcome.after_sft);
    println!("  after GRPO with `reward-exact-match`               {:5.1} %", 100.0 * outcome.after_grpo);
    println!("  training took {:.0} s; neither stage saw a problem of the test set", began.elapsed().as_secs_f64());
    println!();
    println!("Report  {}", report.display());
    println!("Next    README.md, \"Write your own reward\"; recipes/smollm2-tasks.toml does the same with a real model");
    Ok(())
}

/// Runs the recipe in `target/quickstart` and checks what it reached.
pub fn train() -> Result<Outcome> {
    say("quickstart: SFT on too few examples, then GRPO with a reward plugin (about 90 s on 2 cores)");
    let run_dir = target().join("quickstart");
    if run_dir.exists() {
        std::fs::remove_dir_all(&run_dir).context("cannot remove the last quickstart")?;
    }
    let status = Command::new(target().join("release/plumb"))
        .arg("train")
        .arg(root().join("recipes/quickstart.toml"))
        .arg("--run-dir")
        .arg(&run_dir)
        .status()
        .context("cannot start plumb")?;
    ensure!(status.success(), "`plumb train recipes/quickstart.toml` failed");
    let outcome = read(&std::fs::read_to_string(run_dir.join("metrics.jsonl"))?)?;
    ensure!(
        outcome.after_sft <= ACCURACY_AFTER_SFT_MAX && outcome.after_grpo >= ACCURACY_AFTER_GRPO_MIN,
        "the quickstart should go from at most {ACCURACY_AFTER_SFT_MAX} to at least {ACCURACY_AFTER_GRPO_MIN}, but gave {outcome:?}"
    );
    Ok(outcome)
}

fn read(metrics: &str) -> Result<Outcome> {
    let last = |stage: &str| -> Result<f64> {
        let steps = metrics.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        let of_stage = steps.iter().filter(|step| step["stage"] == stage);
        of_stage
            .filter_map(|step| step["eval/accuracy"].as_f64())
            .next_back()
            .with_context(|| format!("no `eval/accuracy` in stage `{stage}`"))
    };
    Ok(Outcome { after_sft: last("sft")?, after_grpo: last("grpo")? })
}
