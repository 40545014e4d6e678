//! `report.html`: a run for people. One file without anything external: plots are SVG that reads without a script, and a small
//! script adds the numbers under the pointer.

mod chart;
mod facts;

use std::fs;
use std::path::{Path, PathBuf};

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use super::completions::{Table, TableColumn};
use super::error::{IoContext, Result};
use super::metrics::MetricSet;
use super::{RECIPE, completion_files, read_metrics, read_plugins_lock};
use chart::{Chart, Rendered, Series};
pub use facts::wilson_interval;
use facts::{PluginRow, StageResult};

/// Prompts of a file of completions that the report shows.
const SAMPLES: usize = 4;

/// Makes `report.html` from what lies in a run's folder, and returns its path.
pub fn write(run_dir: &Path) -> Result<PathBuf> {
    let recipe_file = run_dir.join(RECIPE);
    let recipe_text = fs::read_to_string(&recipe_file).at("read", &recipe_file)?;
    let recipe: toml::Table = toml::from_str(&recipe_text).unwrap_or_default();
    let metrics = read_metrics(run_dir)?;
    let files = completion_files(run_dir)?;
    let samples = [files.first(), files.last().filter(|_| files.len() > 1)];
    let samples = samples.into_iter().flatten().map(|(step, file)| Samples::read(*step, file)).collect::<Result<Vec<_>>>()?;

    let mut environment = Environment::new();
    environment.add_template("report.html", include_str!("report.html"))?;
    let html = environment.get_template("report.html")?.render(Serde(Page {
        name: recipe.get("name").and_then(toml::Value::as_str).unwrap_or("run"),
        description: recipe.get("description").and_then(toml::Value::as_str).unwrap_or_default(),
        model: facts::model_name(&recipe),
        seed: recipe.get("seed").and_then(toml::Value::as_integer).unwrap_or_default(),
        results: facts::results(&metrics),
        facts: facts::facts(&metrics),
        charts: charts(&metrics).iter().map(Chart::render).collect(),
        plugins: facts::plugins(&read_plugins_lock(run_dir)?, &crate::generations::history::read(run_dir)?, &metrics),
        samples,
        recipe: &recipe_text,
        version: env!("CARGO_PKG_VERSION"),
    }))?;
    let path = run_dir.join("report.html");
    let tmp = run_dir.join("report.html.tmp");
    fs::write(&tmp, html).at("write", &tmp)?;
    fs::rename(&tmp, &path).at("rename", &tmp)?;
    Ok(path)
}

/// What the template takes.
#[derive(Serialize)]
struct Page<'a> {
    name: &'a str,
    description: &'a str,
    model: String,
    seed: i64,
    results: Vec<StageResult>,
    facts: Vec<(&'static str, String)>,
    charts: Vec<Rendered>,
    plugins: Vec<PluginRow>,
    samples: Vec<Samples>,
    recipe: &'a str,
    version: &'static str,
}

/// The plots there are numbers for, most telling first.
fn charts(metrics: &[MetricSet]) -> Vec<Chart> {
    let line = |label: &str, metric: &str| Series::line(label, metric, metrics);
    let mut rewards: Vec<Series> = Vec::new();
    for set in metrics {
        for (name, _) in set.iter() {
            let reward = name.strip_prefix("rewards/").and_then(|rest| rest.strip_suffix("/mean"));
            if let Some(label) = reward.filter(|label| rewards.iter().all(|series| series.label != *label)) {
                rewards.push(line(label, name));
            }
        }
    }
    let all = vec![
        Chart::new(
            "Held-out accuracy",
            "share of the evaluation rows that succeed, with 95 % intervals",
            vec![Series::accuracy(metrics)],
        )
        .starting_at_zero(),
        Chart::new("Reward", "mean over a step's completions", vec![line("raw", "reward"), line("shaped", "shaped_reward")])
            .smoothed(),
        Chart::new("Rewards by plugin", "mean over a step's completions", if rewards.len() > 1 { rewards } else { Vec::new() })
            .smoothed(),
        Chart::new(
            "Reward spread",
            "standard deviation inside groups; groups without any teach nothing",
            vec![line("standard deviation", "reward_std"), line("groups without spread", "frac_reward_zero_std")],
        )
        .smoothed()
        .starting_at_zero(),
        Chart::new("KL to the reference", "nats per token", vec![line("KL", "kl")]).smoothed().starting_at_zero(),
        Chart::new("Entropy", "nats per token", vec![line("entropy", "entropy")]).smoothed().starting_at_zero(),
        Chart::new(
            "Completion length",
            "tokens",
            vec![line("mean", "completions/mean_length"), line("longest", "completions/max_length")],
        )
        .smoothed()
        .starting_at_zero(),
        Chart::new("Loss", "", vec![line("loss", "loss")]).smoothed(),
        Chart::new("Gradient norm", "before clipping", vec![line("norm", "grad_norm")]).smoothed().starting_at_zero(),
        Chart::new(
            "Time per step",
            "seconds, stacked",
            vec![line("rollout", "time/rollout_s"), line("reward", "time/reward_s"), line("train", "time/train_s")],
        )
        .stacked(),
        Chart::new(
            "Throughput",
            "tokens per second",
            vec![line("decoding", "time/decode_tokens_per_s"), line("whole step", "time/tokens_per_s")],
        )
        .smoothed()
        .starting_at_zero(),
        Chart::new("Learning rate", "", vec![line("rate", "learning_rate")]).starting_at_zero(),
    ];
    all.into_iter().map(Chart::without_empty_series).filter(|chart| !chart.series.is_empty()).collect()
}

/// Some completions of one step.
#[derive(Serialize)]
struct Samples {
    step: u64,
    rows: Vec<Sample>,
}

#[derive(Serialize)]
struct Sample {
    prompt: String,
    completion: String,
    answer: Option<String>,
    kept: bool,
    reason: Option<String>,
    /// Name and value, or what there was in place of a value.
    numbers: Vec<(String, String)>,
}

impl Samples {
    /// The first completion of each of the step's first prompts.
    fn read(step: u64, file: &Path) -> Result<Self> {
        let table = Table::read(file)?;
        let text = |name: &str, row: usize| match table.column(name) {
            Some(TableColumn::Text(values)) => values[row].clone(),
            _ => None,
        };
        let mut seen: Vec<String> = Vec::new();
        let mut rows = Vec::new();
        for row in 0..table.rows() {
            let prompt = text("prompt", row).unwrap_or_default();
            if seen.contains(&prompt) {
                continue;
            }
            let mut numbers = Vec::new();
            for (name, column) in table.columns() {
                let shown = name.starts_with("rewards/") || ["raw", "shaped", "advantage"].contains(&name);
                if let (true, TableColumn::Float(values)) = (shown, column) {
                    let label = name.strip_prefix("rewards/").unwrap_or(name);
                    let status = || text(&format!("status/{label}"), row).unwrap_or_else(|| "none".into());
                    numbers.push((label.to_owned(), values[row].map_or_else(status, chart::short)));
                }
            }
            let kept = !matches!(table.column("kept"), Some(TableColumn::Bool(kept)) if kept[row] == Some(false));
            let (completion, answer) = (text("completion", row).unwrap_or_default(), text("answer", row));
            rows.push(Sample { completion, answer, kept, reason: text("reason", row), numbers, prompt: prompt.clone() });
            seen.push(prompt);
            if rows.len() == SAMPLES {
                break;
            }
        }
        Ok(Samples { step, rows })
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::{PluginId, PluginKind};

    use super::*;
    use crate::run::{LockedPlugin, write_plugins_lock};

    #[test]
    fn report_is_one_file_that_escapes_what_the_model_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        fs::write(run.join(RECIPE), "name = \"tiny\"\nmodel.path = \"models/m.gguf\"\n").unwrap();
        let mut lines = String::new();
        for step in 0..=3_u32 {
            let mut set = MetricSet::new("grpo", u64::from(step));
            if step > 0 {
                set.set("reward", f64::from(step) / 4.0);
                set.set("rewards/exact/mean", f64::from(step) / 4.0);
                set.set("plugin/exact/failed", 1.0);
                set.set("plugin/exact/faults/trap", 1.0);
                set.set("plugin/exact/faults/unparseable", 4.0);
            }
            if step == 0 || step == 3 {
                set.set("eval/accuracy", 0.25 + f64::from(step) / 6.0);
                set.set("eval/successes", 25.0 + 50.0 * f64::from(step) / 3.0);
                set.set("eval/n", 100.0);
            }
            lines += &(set.to_json() + "\n");
        }
        fs::write(run.join("metrics.jsonl"), lines).unwrap();
        fs::create_dir(run.join("completions")).unwrap();
        let mut table = Table::new(1);
        table.text("prompt", ["2+2="]);
        table.text("completion", ["<script>alert(1)</script>"]);
        table.float("rewards/exact", [None]);
        table.text("status/exact", ["failed:trap"]);
        table.write(&run.join("completions/completions_00001.parquet")).unwrap();

        let id = PluginId { name: "exact".into(), kind: PluginKind::Reward, digest: "native".into() };
        let lock = LockedPlugin::new(&id, &serde_json::Map::new());
        write_plugins_lock(run, &[lock.clone(), LockedPlugin { sha256: "4e5f6a7b8c".into(), ..lock }]).unwrap();
        let replace = r#"{"type":"replace","name":"exact","plugin":{"digest":"4e5f6a7b8c","plugin":"p"},"cause":"command"}"#;
        fs::write(run.join("changes.jsonl"), format!("{{\"step\":2,\"stage\":\"grpo\",\"changes\":[{replace}]}}\n")).unwrap();

        let html = fs::read_to_string(write(run).unwrap()).unwrap();
        assert!(html.contains("&lt;script&gt;alert(1)"), "completions are escaped");
        assert!(!html.contains("<script>alert"));
        assert!(html.contains("25.0") && html.contains("75.0") && html.contains("of 100"), "before and after, with counts");
        assert!(html.contains("failed:trap"), "a missing score is shown as what it was");
        assert!(html.contains("unparseable 12, trap 3"), "faults of a plugin, summed over the steps");
        assert_eq!(html.matches("native, 4e5f6a7b from step 2 (swap)").count(), 1, "a row per name, with its generations");
        assert_eq!(html.matches("<svg").count(), 2, "one plot each for accuracy and reward");
        for external in ["http://", "https://", "<link", "src="] {
            assert!(!html.contains(external), "the report is self-contained: {external}");
        }
    }
}
