//! What scripts rely on: the lines that commands print.

use serde_json::{Value, json};

use crate::support::Folder;

fn keys(line: &Value) -> Vec<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn score_answers_each_line_in_order_and_never_invents_a_number() {
    let folder = Folder::new();
    let input = folder.file(
        "in.jsonl",
        "{\"id\": \"a\", \"completion\": \"4\", \"answer\": \"4\"}\n\n{\"completion\": \"5\", \"answer\": 4}\n\
         {\"id\": 9, \"completion\": \"5\", \"answer\": \"\"}\n{\"id\": 10, \"answer\": \"4\"}\n",
    );
    let lines = folder.plumb(&["score", "--plugin", "reward-exact-match", "--input", &input]).ok().lines();
    assert_eq!(lines.iter().map(|line| line["id"].clone()).collect::<Vec<_>>(), [json!("a"), json!(3), json!(9), json!(10)]);
    assert_eq!(lines.iter().map(|line| line["status"].clone()).collect::<Vec<_>>(), ["scored", "scored", "abstained", "failed"]);
    assert_eq!(
        lines.iter().map(|line| line["value"].clone()).collect::<Vec<_>>(),
        [json!(1.0), json!(0.0), json!(null), json!(null)]
    );
    assert_eq!((lines[2]["code"].as_str(), lines[3]["code"].as_str()), (Some("abstain"), Some("missing-column")));
    for line in &lines {
        assert_eq!(keys(line), ["id", "status", "value", "parts", "code", "message"]);
    }
}

#[test]
fn score_writes_the_same_file_for_any_number_of_threads() {
    let folder = Folder::new();
    let row = |i| format!("{{\"completion\": \"{}\", \"answer\": \"{}\"}}\n", i % 7, i % 5);
    let input = folder.file("in.jsonl", &(0..1000).map(row).collect::<Vec<_>>().concat());
    for threads in ["1", "2"] {
        let output = folder.path(threads);
        let args = [
            "score",
            "--plugin",
            "reward-exact-match",
            "--input",
            &input,
            "--threads",
            threads,
            "--output",
            output.to_str().unwrap(),
        ];
        folder.plumb(&args).ok();
    }
    let (one, two) = (std::fs::read_to_string(folder.path("1")).unwrap(), std::fs::read_to_string(folder.path("2")).unwrap());
    assert_eq!(one.lines().count(), 1000);
    assert_eq!(one, two);
}

#[test]
fn logprobs_of_both_engines_agree_and_sum_up() {
    let folder = Folder::new();
    let model = folder.model();
    let input = folder.file(
        "in.jsonl",
        "{\"id\": 1, \"prompt\": \"1+2=\", \"completion\": \"3\"}\n{\"prompt\": \"9+\", \"completion\": \"12=\"}\n",
    );
    let run = |engine| folder.plumb(&["logprobs", "--model", &model, "--input", &input, "--engine", engine]).ok().lines();
    let (native, candle) = (run("native"), run("candle"));
    assert_eq!(native.iter().map(|line| line["tokens"].as_array().unwrap().len()).collect::<Vec<_>>(), [1, 3]);
    for (a, b) in native.iter().zip(&candle) {
        assert_eq!(keys(a), ["id", "tokens", "logprobs", "sum"]);
        assert_eq!(a["tokens"], b["tokens"]);
        let logprobs =
            |line: &Value| line["logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        let (x, y) = (logprobs(a), logprobs(b));
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-4 && *x < 0.0), "{x:?} {y:?}");
        assert!((x.iter().sum::<f64>() - a["sum"].as_f64().unwrap()).abs() < 1e-5);
    }
}

#[test]
fn rollout_repeats_by_seed_whatever_the_batch_and_reports_its_speed() {
    let folder = Folder::new();
    let model = folder.model();
    let input = folder.file("in.jsonl", "{\"prompt\": \"1+2=\", \"answer\": \"3\"}\n{\"id\": \"x\", \"prompt\": \"4\"}\n");
    let run = |seed: &str, batch: &str| {
        let args =
            ["rollout", "--model", &model, "--input", &input, "--num-generations", "3", "--max-completion-length", "5", "--raw"];
        let more = ["--seed", seed, "--max-batch", batch, "--stats", "stats.json"];
        folder.plumb(&[&args[..], &more[..]].concat()).ok()
    };
    let first = run("1", "64");
    assert_eq!(first.stdout, run("1", "2").stdout);
    assert_ne!(first.stdout, run("2", "64").stdout);
    let lines = first.lines();
    assert_eq!(lines.len(), 6);
    assert_eq!(
        (&lines[0]["id"], &lines[0]["answer"], &lines[5]["id"], &lines[5]["index"]),
        (&json!(1), &json!("3"), &json!("x"), &json!(2))
    );
    for line in &lines {
        assert_eq!(line["tokens"].as_array().unwrap().len(), line["logprobs"].as_array().unwrap().len());
        assert!(["stop", "length"].contains(&line["finish"].as_str().unwrap()));
    }
    let stats: Value = serde_json::from_str(&std::fs::read_to_string(folder.path("stats.json")).unwrap()).unwrap();
    for name in ["prefill_tokens_per_s", "decode_tokens_per_s", "wall_s", "peak_rss_mib"] {
        assert!(stats[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {stats}");
    }
}

#[test]
fn rollout_guesses_change_no_byte_and_stats_tell_of_work_that_was_shared() {
    let folder = Folder::new();
    let common = "0123456789012345678";
    let (a, b) = (format!("{{\"prompt\": \"{common}+1\"}}\n"), format!("{{\"prompt\": \"{common}+2\"}}\n"));
    let (model, input) = (folder.model(), folder.file("in.jsonl", &(a + &b)));
    let run = |more: &[&str]| {
        let args =
            ["rollout", "--model", &model, "--input", &input, "--num-generations", "2", "--max-completion-length", "9", "--raw"];
        let output = folder.plumb(&[&args[..], more, &["--stats", "stats.json"]].concat()).ok().stdout;
        let stats: Value = serde_json::from_str(&std::fs::read_to_string(folder.path("stats.json")).unwrap()).unwrap();
        (output, stats)
    };
    let ((plain, stats), (guessed, with_guesses)) = (run(&[]), run(&["--speculate", "3", "--speculate-ngram", "1"]));
    assert_eq!(plain, guessed);
    assert_eq!(stats["drafted_tokens"], 0);
    assert!(with_guesses["drafted_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{with_guesses}");
    assert!(stats["reused_prompt_tokens"].as_u64().is_some_and(|tokens| tokens >= 16), "{stats}");
    assert!(stats["kv_pages_peak"].as_u64().is_some_and(|pages| pages > 0), "{stats}");
    let args =
        ["rollout", "--model", &model, "--input", &input, "--raw", "--max-completion-length", "9", "--speculate", "0", "--json"];
    let none = folder.plumb(&args);
    assert_eq!((none.code, &none.error()["code"]), (Some(2), &json!("usage.value")));
}

#[test]
fn rollout_that_may_not_fit_memory_is_refused_before_it_begins() {
    let folder = Folder::new();
    let (model, input) = (folder.model(), folder.file("in.jsonl", "{\"prompt\": \"1+2=\"}\n"));
    let many = "1000000000";
    let args = ["rollout", "--model", &model, "--input", &input, "--raw", "--num-generations", many, "--max-batch", many];
    let refused = folder.plumb(&[&args[..], &["--max-completion-length", "20", "--json"]].concat());
    assert_eq!((refused.code, &refused.error()["code"]), (Some(4), &json!("memory.rollout")));
    assert!(refused.error()["hint"].as_str().unwrap().contains("--max-batch"), "{refused:?}");
}

#[test]
fn rollout_with_narrow_weights_repeats_and_has_logprobs_of_its_own() {
    let folder = Folder::new();
    let (model, input) = (folder.model(), folder.file("in.jsonl", "{\"prompt\": \"1+2=\"}\n"));
    let run = |weights: &str, batch: &str| {
        let args =
            ["rollout", "--model", &model, "--input", &input, "--num-generations", "4", "--max-completion-length", "5", "--raw"];
        folder.plumb(&[&args[..], &["--weights", weights, "--max-batch", batch]].concat()).ok().stdout
    };
    let outputs = ["f32", "bf16", "int8"].map(|weights| {
        let output = run(weights, "64");
        assert_eq!(output, run(weights, "2"), "{weights}");
        output
    });
    assert!(outputs[0] != outputs[1] && outputs[1] != outputs[2] && outputs[0] != outputs[2]);
}

#[test]
fn rollout_without_a_template_asks_for_raw() {
    let folder = Folder::new();
    let (model, input) = (folder.model(), folder.file("in.jsonl", "{\"prompt\": \"1\"}\n"));
    let done = folder.plumb(&["rollout", "--model", &model, "--input", &input, "--json"]);
    assert_eq!(done.error()["code"], "model.no_chat_template");
    assert!(done.error()["hint"].as_str().unwrap().contains("--raw"));
}

#[test]
fn config_show_prints_a_recipe_that_means_the_same() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let set = ["--set", "stages.grpo.grpo.beta=0.5"];
    let shown = folder.plumb(&[&["config", "show", &recipe][..], &set].concat()).ok().stdout;
    assert!(shown.contains("beta = 0.5") && shown.contains("epsilon = 0.2"), "defaults and changes are there: {shown}");
    let again = folder.file("again.toml", &shown);
    assert_eq!(folder.plumb(&["config", "show", &again]).ok().stdout, shown);
    let schema: Value = serde_json::from_str(&folder.plumb(&["config", "schema"]).ok().stdout).unwrap();
    assert!(schema["$defs"]["Grpo"]["properties"]["beta"].is_object());
}

#[test]
fn converted_model_gives_the_same_logprobs() {
    let folder = Folder::new();
    let (model, input) = (folder.model(), folder.file("in.jsonl", "{\"prompt\": \"1+2=\", \"completion\": \"34\"}\n"));
    folder.plumb(&["model", "convert", &model, "--output", "copy"]).ok();
    let logprobs = |model: &str| folder.plumb(&["logprobs", "--model", model, "--input", &input]).ok().stdout;
    assert_eq!(logprobs(&model), logprobs("copy"));
    let info = folder.plumb(&["model", "info", "copy", "--json"]).ok().lines().remove(0);
    assert_eq!((&info["data"]["architecture"], &info["data"]["num_hidden_layers"]), (&json!("LlamaForCausalLM"), &json!(2)));
    assert_eq!(folder.plumb(&["model", "convert", &model, "--output", "copy"]).code, Some(2), "a folder in use is left alone");
}

#[test]
fn doctor_and_completions_answer() {
    let folder = Folder::new();
    let facts = folder.plumb(&["doctor", "--json"]).ok().lines().remove(0);
    assert_eq!((&facts["type"], &facts["data"]["plugins_run"]), (&json!("doctor"), &json!("yes")));
    assert!(facts["data"]["slower"].is_array() && facts["data"]["vector_instructions"].is_string(), "{facts}");
    assert!(folder.plumb(&["completions", "bash"]).ok().stdout.contains("_plumb"));
}
