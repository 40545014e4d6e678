//! What `plumb bench` prints: the same keys every time, numbers that fit together, and errors with the next step.

use serde_json::{Value, json};

use crate::support::Folder;

/// Runs a measurement of few rounds over a small array and returns its data.
fn bench(folder: &Folder, args: &[&str]) -> Value {
    let quick = ["--rounds", "2", "--ceiling-mib", "1", "--json"];
    let mut lines = folder.plumb(&[&["bench"], args, &quick].concat()).ok().lines();
    assert_eq!(lines.len(), 1, "one line of JSON");
    assert_eq!((&lines[0]["type"], &lines[0]["v"], &lines[0]["data"]["bench"]), (&json!("bench"), &json!(1), &json!(args[0])));
    lines[0]["data"].take()
}

/// A measured number: rounds in their order, all above 0.
#[track_caller]
fn median(row: &Value, name: &str) -> f64 {
    let [median, low, high] = ["median", "low", "high"].map(|part| row[name][part].as_f64().unwrap_or(f64::NAN));
    assert!(0.0 < low && low <= median && median <= high, "{name}: {row}");
    median
}

#[test]
fn decode_has_a_row_for_each_batch_beside_the_ceilings_of_the_machine() {
    let folder = Folder::new();
    let args =
        ["decode", "--model", "random:tiny", "--batch", "2,6", "--group", "2", "--prompt-tokens", "9", "--new-tokens", "5"];
    for weights in ["f32", "bf16", "int8"] {
        let data = bench(&folder, &[&args[..], &["--weights", weights]].concat());
        assert_eq!((&data["model"], &data["weights"], &data["rounds"]), (&json!("random:tiny"), &json!(weights), &json!(2)));
        let rows = data["rows"].as_array().unwrap();
        let shapes = rows.iter().map(|row| (row["batch"].as_u64(), row["prompts"].as_u64())).collect::<Vec<_>>();
        assert_eq!(shapes, [(Some(2), Some(1)), (Some(6), Some(3))]);
        for row in rows {
            assert!(median(row, "decode_tokens_per_s") > 0.0 && median(row, "tokens_per_s") > 0.0);
            for name in ["gb_per_s", "read_share", "gflop_per_s", "flop_share"] {
                assert!(row[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {row}");
            }
        }
        for name in ["read_gb_per_s", "read_gb_per_s_1_thread", "f32_gflop_per_s", "f32_gflop_per_s_1_thread"] {
            assert!(data["ceilings"][name].as_f64().is_some_and(|value| value > 0.0), "{name}: {data}");
        }
    }
}

#[test]
fn bench_measures_a_model_of_the_disk_too() {
    let folder = Folder::new();
    let model = folder.model();
    let data = bench(&folder, &["prefill", "--model", &model, "--tokens", "12", "--batch", "2"]);
    let row = &data["rows"][0];
    assert_eq!((&row["batch"], &row["tokens"]), (&json!(2), &json!(12)));
    let (rate, seconds) = (median(row, "prefill_tokens_per_s"), median(row, "prefill_s"));
    // Medians of two rounds are means, and a mean of quotients is at least the quotient of the means.
    assert!(rate * seconds >= 24.0 * 0.999, "{row}");
}

#[test]
fn training_step_is_divided_into_phases_that_add_up() {
    let folder = Folder::new();
    let args = ["train-step", "--model", "random:tiny", "--batch", "4", "--length", "12"];
    let sft = bench(&folder, &args);
    assert_eq!(names(&sft), ["forward", "backward", "optimizer", "step"]);
    assert_eq!((&sft["loss"], &sft["computed_tokens"]), (&json!("sft"), &json!(4 * 11)));
    let grpo = bench(&folder, &[&args[..], &["--loss", "grpo", "--group", "2"]].concat());
    assert_eq!(names(&grpo), ["reference", "forward", "backward", "optimizer", "step"]);
    // Two prompts of 4, then 8 tokens a sequence, of which the last is not run.
    assert_eq!(grpo["computed_tokens"], json!(2 * 4 + 4 * 7));
    let dpo = bench(&folder, &[&args[..], &["--loss", "dpo"]].concat());
    assert_eq!((names(&dpo), &dpo["group"]), (names(&grpo), &json!(2)));
    assert_eq!(dpo["computed_tokens"], grpo["computed_tokens"], "a pair is a group of two");
    for data in [&sft, &grpo, &dpo] {
        assert!(median(data, "tokens_per_s") > 0.0);
        let shares: Vec<f64> = data["rows"].as_array().unwrap().iter().map(|row| row["step_share"].as_f64().unwrap()).collect();
        let (step, phases) = shares.split_last().unwrap();
        assert!(*step == 1.0 && phases.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
    }
}

fn names(data: &Value) -> Vec<&str> {
    data["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[test]
fn rewards_are_measured_alone_and_side_by_side() {
    let folder = Folder::new();
    let tags = r#"reward-format={"tags": {"names": ["think"], "only": false}}"#;
    let data = bench_rewards(&folder, &["--plugin", "reward-exact-match", "--plugin", tags, "--rows", "40"]);
    assert_eq!(names(&data), ["reward-exact-match", "reward-format", "all together"]);
    for row in data["rows"].as_array().unwrap() {
        let (rate, us) = (median(row, "rows_per_s"), median(row, "us_per_row"));
        assert!(rate * us >= 1e6 * 0.999, "{row}");
    }
    assert_eq!(data["rows"][0]["scored_rows"], json!(40));
    let input =
        folder.file("in.jsonl", "{\"completion\": \"4\", \"answer\": \"4\"}\n{\"completion\": \"5\", \"answer\": \"\"}\n");
    let data = bench_rewards(&folder, &["--plugin", "reward-exact-match", "--rows", "10", "--input", &input]);
    assert_eq!((names(&data), &data["rows"][0]["scored_rows"]), (vec!["reward-exact-match"], &json!(5)), "others abstain");
}

fn bench_rewards(folder: &Folder, args: &[&str]) -> Value {
    let mut data = bench(folder, &[&["reward"], args].concat());
    assert_eq!(data["ceilings"], Value::Null, "nothing is held against them");
    data.take()
}

#[test]
fn grpo_steps_come_from_the_trainer_with_their_phases() {
    let folder = Folder::new();
    let args = ["grpo-step", "--model", "random:tiny", "--prompts", "2", "--group", "3", "--new-tokens", "4"];
    let data = bench(&folder, &[&args[..], &["--plugin", "reward-exact-match"]].concat());
    let phases = ["rollout", "reward wait", "reference", "forward", "backward", "optimizer", "step"];
    assert_eq!(names(&data), phases);
    assert!(median(&data, "decode_tokens_per_s") > 0.0);
    assert!(data["reward_busy_share"].as_f64().is_some_and(|share| share > 0.0), "the plugin was asked: {data}");
    let without = bench(&folder, &[&args[..], &["--beta", "0"]].concat());
    assert!(without["rows"][2]["s"]["high"] == json!(0.0), "no reference is asked: {without}");
    assert_eq!(std::fs::read_dir(folder.path(".")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn table_for_people_has_units_ceilings_and_memory() {
    let folder = Folder::new();
    let args =
        ["bench", "decode", "--model", "random:tiny", "--batch", "1", "--new-tokens", "3", "--rounds", "1", "--ceiling-mib", "1"];
    let text = folder.plumb(&args).ok().stdout;
    for word in ["decode tokens/s", "GB/s", "read share", "GFLOP/s", "ceilings: reading 1 MiB", "batch 1"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(text.contains("peak memory"), cfg!(target_os = "linux"));
}

#[test]
fn measurements_that_make_no_sense_are_refused_with_the_next_step() {
    let folder = Folder::new();
    let missing = folder.file("in.jsonl", "{\"answer\": \"4\"}\n");
    let refused: [(&[&str], i32, &str, &str); 11] = [
        (&["decode", "--model", "random:big"], 2, "usage.model", "random:smollm2-135m,layers=8"),
        (&["decode", "--model", "nowhere"], 4, "model.not_found", ""),
        (&["decode", "--model", "random:tiny", "--batch", "3", "--group", "2"], 2, "usage", "multiples of 2"),
        (&["decode", "--model", "random:tiny", "--batch", "0"], 2, "usage", "--batch 1"),
        (&["decode", "--model", "random:tiny", "--prompt-tokens", "600"], 4, "model.too_long", "shorten"),
        (&["prefill", "--model", "random:tiny", "--rounds", "0"], 2, "usage", "--rounds 1"),
        (&["train-step", "--model", "random:tiny", "--length", "8", "--prompt-tokens", "8"], 2, "usage", "larger `--length`"),
        (&["train-step", "--model", "random:tiny", "--loss", "dpo", "--batch", "3"], 2, "usage", "multiple of 2"),
        (&["train-step", "--model", "random:tiny", "--loss", "dpo", "--beta", "0"], 2, "usage", "--beta 0.04"),
        (&["grpo-step", "--model", "random:tiny", "--group", "1"], 2, "usage", "--group 2"),
        (&["reward", "--plugin", "reward-exact-match", "--input", &missing], 2, "input.missing_column", "--input FILE"),
    ];
    for (args, exit, code, hint) in refused {
        let done = folder.plumb(&[&["bench"], args, &["--json"]].concat());
        let error = done.error();
        assert_eq!((done.code, error["code"].as_str()), (Some(exit), Some(code)), "{args:?}: {done:?}");
        assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{args:?}: {error}");
    }
}
