//! A run on record: replayed bit for bit, rescored by other plugins, exported.

use std::path::{Path, PathBuf};

use plumb_train::run::{self, Table, TableColumn, ledger};
use serde_json::Value;

use crate::support::{Folder, guest};

/// Trains both stages with a reward that abstains from every second row (those leave the step), a shaper that counts its calls, and
/// a filter. Seven steps of four groups of four.
fn trained(folder: &Folder) -> PathBuf {
    let recipe = folder.recipe();
    let (lengths, counts) = (guest("reward-misbehaves"), guest("shaper-counts"));
    let rewards = format!(
        "stages.grpo.rewards=[{{ plugin = \"reward-exact-match\", name = \"exact\" }}, \
         {{ plugin = {lengths:?}, name = \"lengths\", weight = 0.1, on_fault = \"drop-row\", config = {{ mode = \"row-faults\" }} }}]"
    );
    let shapers = format!("stages.grpo.shapers=[{{ plugin = {counts:?}, name = \"counts\" }}]");
    let filters = "stages.grpo.filters=[{ plugin = \"filter-zero-variance\", name = \"flat\" }]";
    folder.plumb(&["train", &recipe, "--set", &rewards, "--set", &shapers, "--set", filters, "--quiet"]).ok();
    folder.path("runs/tiny")
}

fn replay(folder: &Folder, more: &[&str]) -> (Option<i32>, Value) {
    let done = folder.plumb(&[&["run", "replay", "runs/tiny", "--json"], more].concat());
    assert_eq!(done.stdout.lines().count(), 1, "{done:?}");
    (done.code, done.lines()[0]["data"].clone())
}

/// Changes the records of step `step` in the ledger, and makes the chain whole again.
fn rewrite(run: &Path, step: u64, change: impl Fn(&mut Value)) {
    let path = run.join("ledger.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut prev = "0".repeat(64);
    let mut lines = String::new();
    for line in text.lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record["prev"] = prev.into();
        if record["type"] == "step" && record["step"] == step {
            change(&mut record);
        }
        let line = record.to_string();
        prev = ledger::hash(line.as_bytes());
        lines += &(line + "\n");
    }
    std::fs::write(path, lines).unwrap();
}

/// Changes a text of row `row` in the completions of step `step`.
fn retext(run: &Path, step: u64, column: &str, row: usize, text: &str) {
    let path = run::completions_file(run, step);
    let mut table = Table::read(&path).unwrap();
    let Some(TableColumn::Text(mut texts)) = table.column(column).cloned() else { panic!("`{column}` holds texts") };
    texts[row] = Some(text.to_owned());
    table.insert(column, TableColumn::Text(texts));
    table.write(&path).unwrap();
}

#[test]
fn replay_proves_a_run_with_state_faults_and_dropped_rows() {
    let folder = Folder::new();
    let path = trained(&folder);
    let (code, all) = replay(&folder, &[]);
    // Per row two answers, raw, shaped, advantage, weight, kept and reason; sft's five steps have none.
    assert_eq!((code, &all["steps"], &all["values"]), (Some(0), &12.into(), &(7 * 16 * 8).into()), "{all}");
    assert_eq!(all["difference"], Value::Null);
    let done = folder.plumb(&["run", "replay", "runs/tiny"]).ok();
    assert!(done.stdout.starts_with("12 steps, 896 values identical\n"), "{}", done.stdout);
    // The rows that the test is about are there.
    let text = std::fs::read_to_string(path.join("ledger.jsonl")).unwrap();
    assert!(text.contains("abstained") && text.contains("lengths: abstain"), "no row left the step");

    // The shaper's count at step 12 comes from the six steps before, which are asked about and not compared.
    let (code, some) = replay(&folder, &["--steps", "12"]);
    assert_eq!((code, &some["steps"], &some["values"]), (Some(0), &1.into(), &128.into()));
    let error = folder.plumb(&["run", "replay", "runs/tiny", "--steps", "13..20", "--json"]);
    assert_eq!((error.code, &error.error()["code"]), (Some(2), &"run.no_steps".into()));
    assert!(error.error()["hint"].as_str().unwrap().contains("`grpo` has steps 6..12"), "{error:?}");
}

#[test]
fn replay_names_step_and_row_of_a_value_that_was_changed_in_a_chain_made_whole() {
    let folder = Folder::new();
    let path = trained(&folder);
    let ledger = std::fs::read(path.join("ledger.jsonl")).unwrap();
    let named = |value: &str, change: &dyn Fn(&mut Value)| {
        std::fs::write(path.join("ledger.jsonl"), &ledger).unwrap();
        rewrite(&path, 9, change);
        folder.plumb(&["run", "verify", "runs/tiny"]).ok();
        let (code, found) = replay(&folder, &[]);
        let difference = &found["difference"];
        assert_eq!((code, &difference["step"], &difference["row"]), (Some(1), &9.into(), &5.into()), "{found}");
        assert_eq!(difference["value"]["kind"], value, "{found}");
        assert_eq!(difference["completions_changed"], false);
        difference.clone()
    };
    let outcome = named("outcome", &|step| step["completions"][5]["outcomes"][1]["value"] = 77.into());
    assert_eq!((&outcome["value"]["name"], &outcome["recorded"]["value"]), (&"lengths".into(), &77.0.into()));
    assert_eq!(outcome["plugins"][0]["digest"].as_str().map(str::len), Some(64));
    named("raw", &|step| step["completions"][5]["raw"] = 77.into());
    named("shaped", &|step| step["completions"][5]["shaped"] = 77.into());
    named("advantage", &|step| step["completions"][5]["advantage"] = 77.into());
    named("weight", &|step| step["completions"][5]["weight"] = 77.into());
    named("reason", &|step| step["completions"][5]["reason"] = "a whim".into());
    let text = folder.plumb(&["run", "replay", "runs/tiny"]);
    assert!(text.stdout.starts_with("stage `grpo`, step 9, row 5 (id 0x9000010"), "{}", text.stdout);
    // Without the chain made whole the line after is named.
    let text = String::from_utf8(ledger).unwrap();
    std::fs::write(path.join("ledger.jsonl"), text.replacen("\"loss\":", "\"loss\": ", 1)).unwrap();
    let broken = folder.plumb(&["run", "replay", "runs/tiny", "--json"]);
    assert_eq!((broken.code, &broken.error()["code"]), (Some(4), &"run.malformed".into()));
}

#[test]
fn replay_names_the_row_of_a_changed_completion_and_the_file_when_no_answer_depends_on_it() {
    let folder = Folder::new();
    let path = trained(&folder);
    let file = run::completions_file(&path, 9);
    let before = std::fs::read(&file).unwrap();
    retext(&path, 9, "completion", 5, "12345678");
    let (code, found) = replay(&folder, &[]);
    let difference = &found["difference"];
    assert_eq!((code, &difference["step"], &difference["row"]), (Some(1), &9.into(), &5.into()), "{found}");
    assert_eq!((&difference["value"]["name"], &difference["completions_changed"]), (&"lengths".into(), &true.into()));
    assert_eq!(difference["recomputed"]["value"], 8.0);

    std::fs::write(&file, &before).unwrap();
    retext(&path, 9, "status/exact", 6, "guessed");
    let difference = replay(&folder, &[]).1["difference"].clone();
    assert_eq!((&difference["row"], &difference["value"]["name"]), (&6.into(), &"status/exact".into()));

    // No plugin reads why a completion ended.
    std::fs::write(&file, &before).unwrap();
    let table = Table::read(&file).unwrap();
    let other = if table.texts("finish").unwrap()[4] == "stop" { "length" } else { "stop" };
    retext(&path, 9, "finish", 4, other);
    let difference = replay(&folder, &[]).1["difference"].clone();
    assert_eq!((&difference["step"], &difference["row"]), (&9.into(), &Value::Null));
    assert_eq!(difference["value"]["kind"], "completions-file");

    std::fs::remove_file(&file).unwrap();
    let missing = folder.plumb(&["run", "replay", "runs/tiny", "--json"]);
    assert_eq!(missing.code, Some(4));
    assert!(missing.error()["message"].as_str().unwrap().contains("completions_00009.parquet"), "{missing:?}");
}

#[test]
fn replay_needs_the_plugins_of_the_record() {
    let folder = Folder::new();
    let path = trained(&folder);
    // The run's own copy is enough, and so is the file that the recipe names.
    let copies: Vec<PathBuf> = std::fs::read_dir(path.join("plugins")).unwrap().map(|item| item.unwrap().path()).collect();
    assert_eq!(copies.len(), 4);
    copies.iter().for_each(|copy| std::fs::remove_file(copy).unwrap());
    assert_eq!(replay(&folder, &["--steps", "6"]).0, Some(0));
    rewrite_plugins(&path, |plugin| plugin["id"]["digest"] = "ab".repeat(32).into());
    let error = folder.plumb(&["run", "replay", "runs/tiny", "--json"]);
    assert_eq!((error.code, &error.error()["code"]), (Some(2), &"run.missing_plugin".into()));
    assert!(error.error()["hint"].as_str().unwrap().contains(&format!("RUN/plugins/{}.wasm", "ab".repeat(32))), "{error:?}");
}

/// Changes what the ledger says of the first plugin of each stage, and makes the chain whole again.
fn rewrite_plugins(run: &Path, change: impl Fn(&mut Value)) {
    let path = run.join("ledger.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            if let Some(plugin) = record["plugins"].get_mut(0) {
                change(plugin);
            }
            record.to_string()
        })
        .collect();
    text = lines.join("\n") + "\n";
    std::fs::write(&path, text).unwrap();
    rewrite(run, 0, |_| ());
}

fn rescore(folder: &Folder, args: &[&str]) -> Value {
    let done = folder.plumb(&[&["run", "rescore", "runs/tiny", "--json", "--plugin"], args].concat()).ok();
    done.lines()[0]["data"].clone()
}

#[test]
fn rescore_by_the_same_plugin_agrees_in_everything() {
    let folder = Folder::new();
    trained(&folder);
    let found = rescore(&folder, &["reward-exact-match", "--compare", "exact"]);
    let comparison = &found["summary"]["comparison"];
    assert_eq!((&comparison["rows"], &comparison["both"]), (&112.into(), &112.into()));
    assert_eq!((&comparison["agreement"], &comparison["drift"]), (&1.0.into(), &0.0.into()));
    assert_eq!((&comparison["changed_winners"], &comparison["max_abs_difference"]), (&0.0.into(), &0.0.into()));
    assert_eq!(found["largest"], Value::Array(Vec::new()));
    // The shaper adds the number of its calls, so its state must begin at the first step of the stage.
    let counts = guest("shaper-counts");
    let shaped = rescore(&folder, &[&counts]);
    assert_eq!((&shaped["summary"]["comparison"]["drift"], &shaped["summary"]["against"]), (&0.0.into(), &"shaped".into()));
    let flat = rescore(&folder, &["filter-zero-variance"]);
    assert_eq!((&flat["summary"]["comparison"]["agreement"], &flat["summary"]["against"]), (&1.0.into(), &"kept".into()));
}

#[test]
fn rescore_by_another_plugin_gives_the_numbers_by_hand() {
    let folder = Folder::new();
    let path = trained(&folder);
    let lengths = guest("reward-misbehaves");
    let out = folder.path("rows.parquet");
    let found = rescore(
        &folder,
        &[&lengths, "--config", r#"{"mode": "good"}"#, "--compare", "exact", "--steps", "6..7", "--out", out.to_str().unwrap()],
    );
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for step in [6, 7] {
        let table = Table::read(&run::completions_file(&path, step)).unwrap();
        let Some(TableColumn::Float(exact)) = table.column("rewards/exact") else { panic!() };
        old.extend(exact.iter().map(|value| value.unwrap()));
        new.extend(table.texts("completion").unwrap().iter().map(|text| text.len() as f64));
    }
    let (mut alike, mut pairs) = (0.0, 0.0);
    for i in 0..32 {
        for j in (i + 1..32).filter(|j| i / 4 == j / 4) {
            pairs += 1.0;
            alike += f64::from(u8::from((old[i] - old[j]).total_cmp(&0.0) == (new[i] - new[j]).total_cmp(&0.0)));
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / 32.0;
    let comparison = &found["summary"]["comparison"];
    assert_eq!(pairs, 48.0);
    assert_eq!(comparison["agreement"].as_f64(), Some(alike / pairs));
    assert!((comparison["drift"].as_f64().unwrap() - (mean(&new) - mean(&old))).abs() < 1e-12, "{comparison}");
    assert_eq!(found["largest"].as_array().unwrap().len(), 5);
    let table = Table::read(&out).unwrap();
    assert_eq!(table.column("new"), Some(&TableColumn::Float(new.into_iter().map(Some).collect())));
    let error = folder.plumb(&["run", "rescore", "runs/tiny", "--plugin", "reward-exact-match", "--compare", "exakt", "--json"]);
    assert_eq!((error.code, &error.error()["code"]), (Some(2), &"run.unknown_value".into()));
    assert!(error.error()["hint"].as_str().unwrap().contains("did you mean `exact`?"), "{error:?}");
}

#[test]
fn export_writes_what_trl_reads() {
    let folder = Folder::new();
    trained(&folder);
    let export = |args: &[&str]| folder.plumb(&[&["run", "export", "runs/tiny"], args].concat()).ok().lines();
    let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let completions = export(&["--what", "completions"]);
    // The reward `lengths` abstains from the first and third row of each group, which have no raw reward.
    assert_eq!((completions.len(), keys(&completions[0])), (56, ["prompt", "completion", "reward"].map(String::from).to_vec()));
    let all = export(&["--what", "completions", "--format", "jsonl", "--steps", "6"]);
    assert_eq!((all.len(), &all[0]["raw"], all[1]["rewards"]["lengths"].is_number()), (16, &Value::Null, true));
    let pairs = export(&["--what", "pairs", "--format", "jsonl"]);
    assert!(!pairs.is_empty() && pairs.iter().all(|pair| pair["margin"].as_f64().unwrap() > 0.0));
    let trl = export(&["--what", "pairs", "--margin", "0.5"]);
    let wide = pairs.iter().filter(|pair| pair["margin"].as_f64().unwrap() > 0.5);
    assert_eq!(trl.len(), wide.count());
    assert!(trl.iter().all(|pair| keys(pair) == ["prompt", "chosen", "rejected"]));
}
