//! A whole run of both stages, and what it leaves behind.

use std::path::Path;

use plumb_train::run::{self, Record, Table};
use serde_json::Value;

use crate::support::{Folder, metrics};

#[test]
fn run_leaves_all_that_was_promised() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let done = folder.plumb(&["train", &recipe]).ok();
    assert!(done.stdout.contains("grpo       accuracy"), "{}", done.stdout);
    assert!(done.stdout.contains("report     runs/tiny/report.html"), "{}", done.stdout);
    assert!(done.stderr.lines().any(|line| line.starts_with("grpo step 12  accuracy 0.")), "{}", done.stderr);
    let path = folder.path("runs/tiny");

    let text = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let metrics: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |stage: &str| metrics.iter().filter(|m| m["stage"] == stage && m["time/step_s"].is_number()).collect::<Vec<_>>();
    assert_eq!((of("sft").len(), of("grpo").len()), (5, 7));
    for line in of("grpo") {
        for name in [
            "step",
            "reward",
            "reward_std",
            "kl",
            "entropy",
            "completions/mean_length",
            "rewards/exact/mean",
            "time/rollout_s",
            "time/reward_s",
            "time/train_s",
        ] {
            assert!(line[name].is_number(), "`{name}` of {line}");
        }
    }
    let evaluated: Vec<u64> =
        metrics.iter().filter(|m| m["eval/accuracy"].is_number()).map(|m| m["step"].as_u64().unwrap()).collect();
    assert_eq!(evaluated, [5, 8, 11, 12]);

    let locked = run::read_plugins_lock(&path).unwrap();
    assert_eq!((locked[0].name.as_str(), locked[0].sha256.len(), locked[0].wit.as_str()), ("exact", 64, "0.1.1"));
    assert!(locked[0].grants.iter().any(|import| import.starts_with("plumb:align/data")), "{locked:?}");

    let completions = run::completion_files(&path).unwrap();
    assert_eq!(completions.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [6, 7, 8, 9, 10, 11, 12]);
    let table = Table::read(&completions[0].1).unwrap();
    assert_eq!(table.rows(), 16);
    for name in [
        "step",
        "prompt",
        "completion",
        "answer",
        "rewards/exact",
        "status/exact",
        "raw",
        "shaped",
        "advantage",
        "kept",
        "reason",
    ] {
        assert!(table.column(name).is_some(), "column `{name}`");
    }

    let ledger = run::ledger::read(&path.join("ledger.jsonl")).unwrap();
    assert_eq!(ledger.iter().filter(|record| matches!(record, Record::Step(_))).count(), 12);
    assert!(matches!(ledger.last(), Some(Record::Checkpoint { step: 12, .. })));

    let html = std::fs::read_to_string(path.join("report.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("Held-out accuracy"));
    let kept: Vec<_> = std::fs::read_dir(path.join("checkpoints")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    let model = path.join("model");
    folder.plumb(&["model", "info", model.to_str().unwrap()]).ok();
    assert!(folder.plumb(&["run", "list"]).ok().stdout.contains("grpo step 12"));
    assert!(folder.plumb(&["run", "verify", "runs/tiny"]).ok().stdout.contains("the chain is whole"));
}

#[test]
fn train_with_json_prints_steps_and_the_result() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let lines = folder
        .plumb(&["train", &recipe, "--json", "--set", "stages.sft.max_steps=1", "--set", "stages.grpo.max_steps=1"])
        .ok()
        .lines();
    let types: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["step", "step", "step", "result"]);
    assert_eq!(lines[3]["data"]["results"][0]["after"]["n"], 20);
}

#[test]
fn what_a_plugin_reports_and_logs_is_in_the_run() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/reward-misbehaves.wasm");
    assert!(guest.is_file(), "`{}` is missing, run `cargo xtask guests`", guest.display());
    let rewards =
        format!("stages.grpo.rewards=[{{ plugin = {guest:?}, name = \"lengths\", config = {{ mode = \"metrics\" }} }}]");
    let train = |run: &str, threads: &str| {
        folder.plumb(&["train", &recipe, "--set", &rewards, "--run-dir", run, "--threads", threads]).ok()
    };
    let done = train("one", "1");
    let of_steps = |run: &str| metrics(&folder.path(run)).into_iter().filter(|m| m["plugin/lengths/calls"].is_number()).collect();
    let steps: Vec<Value> = of_steps("one");
    assert_eq!(steps.len(), 7);
    for step in &steps {
        let get = |name: &str| step[name].as_f64().unwrap_or_else(|| panic!("`{name}` is missing in {step}"));
        // Four groups of four, each a call; the guest observes a tenth of its reward.
        assert_eq!((get("plugin/lengths/scored"), get("plugin/lengths/rows"), get("plugin/lengths/calls")), (16.0, 16.0, 4.0));
        assert!((get("plugin/lengths/length") * 10.0 - get("reward")).abs() < 1e-9, "{step}");
        assert!(get("plugin/lengths/fuel") > 0.0 && step["plugin/exact/calls"].is_null());
    }
    let evaluated = metrics(&folder.path("one")).into_iter().filter(|m| m["eval/plugin/exact/rows"] == 20.0).count();
    assert_eq!(evaluated, 4);
    let text = std::fs::read_to_string(folder.path("one/metrics.jsonl")).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"time/reward_busy_s\"")).count(), 7);

    // 28 calls with a warning each, all the same.
    let log = std::fs::read_to_string(folder.path("one/plugins.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["step"], &lines[0]["message"]), (28, &6.into(), &"4 rows\n".into()));
    assert_eq!(done.stderr.matches("warning: plugin `lengths`, step 6: 4 rows\n").count(), 1);
    assert_eq!(done.stderr.matches("warning: plugin `lengths`").count(), 2);
    assert!(done.stderr.contains("plugin `lengths` wrote 27 more warnings and errors, see `one/plugins.log`"), "{}", done.stderr);

    train("four", "4");
    assert_eq!(of_steps("four"), steps, "threads change no number");
}

#[test]
fn training_goes_on_when_nobody_reads_its_remarks_any_more() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let mut command = folder.command(&["train", &recipe, "--run-dir", "run", "--no-progress"]);
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    assert!(folder.path("run/model").is_dir());
}

#[test]
fn shipped_preference_recipe_learns_to_rank_its_pairs() {
    let folder = Folder::new();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/tiny-dpo.toml");
    let set = ["--set", "stages.dpo.max_steps=60"];
    folder.plumb(&["train", recipe.to_str().unwrap(), "--run-dir", "runs/dpo", set[0], set[1]]).ok();
    let steps = metrics(&folder.path("runs/dpo"));
    let of = |step: usize, name: &str| steps[step][name].as_f64().unwrap_or_else(|| panic!("`{name}` of {}", steps[step]));
    assert_eq!((steps.len(), of(0, "rewards/accuracies")), (60, 0.0));
    let accuracy = (50..60).map(|step| of(step, "rewards/accuracies")).sum::<f64>() / 10.0;
    assert!(accuracy > 0.8 && of(59, "rewards/margins") > 0.5, "{accuracy}, {}", steps[59]);
    for name in ["rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "entropy", "num_tokens"] {
        of(59, name);
    }
    folder.plumb(&["model", "info", folder.path("runs/dpo/model").to_str().unwrap()]).ok();
}

#[test]
fn shipped_reward_model_recipe_learns_and_leaves_a_classifier() {
    let folder = Folder::new();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/tiny-reward-model.toml");
    folder.plumb(&["train", recipe.to_str().unwrap(), "--run-dir", "runs/rm"]).ok();
    let steps = metrics(&folder.path("runs/rm"));
    let of = |step: usize, name: &str| steps[step][name].as_f64().unwrap_or_else(|| panic!("`{name}` of {}", steps[step]));
    let last = steps.len() - 1;
    assert!(of(0, "loss") > 0.5 && of(last, "loss") < 0.3, "{}", steps[last]);
    let accuracy = (last - 10..last).map(|step| of(step, "accuracy")).sum::<f64>() / 10.0;
    assert!(accuracy > 0.85 && of(last, "margin") > 0.5, "{accuracy}, {}", steps[last]);
    for name in ["mean_reward", "min_reward", "max_reward", "grad_norm"] {
        of(last, name);
    }
    let saved = plumb_model::load(&folder.path("runs/rm/model")).unwrap();
    assert_eq!(saved.score.unwrap().labels, ["LABEL_0"]);
    let config = std::fs::read_to_string(folder.path("runs/rm/model/config.json")).unwrap();
    assert!(config.contains("LlamaForSequenceClassification"), "{config}");
}
