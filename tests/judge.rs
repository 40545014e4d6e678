//! `plumb judge`: verdicts about files of items, and what a plugin may ask on the command line.

use plumb_core::recipe::RandomModel;
use plumb_core::services::Sampling;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Folder, guest};

/// Template of the comparisons here: short, so that a test can say what was asked.
const TEMPLATE: &str = "template={prompt}{a}|{b}";

/// The key of a question, as [`plumb_train::run::AnswerRecord`] defines it.
fn key(function: &str, texts: &[&str], more: &[u8]) -> String {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    part(function.as_bytes());
    part(b"judge");
    texts.iter().for_each(|text| part(text.as_bytes()));
    if !more.is_empty() {
        part(more);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record in which the model `judge` gives these greedy answers, each of two tokens, to these prompts of five.
fn record(answers: &[(&str, &str)]) -> String {
    let (temperature, stop, extra) = (0.0, Vec::new(), Vec::new());
    let sampling = Sampling { max_tokens: 256, temperature, top_p: 1.0, count: 1, seed: 0, stop, extra };
    let sampling = serde_json::to_vec(&sampling).unwrap();
    let lines = answers.iter().flat_map(|(prompt, text)| {
        let said = json!([{ "text": text, "tokens": [1, 2], "logprobs": [0.0, 0.0], "finish": "stop" }]);
        [
            json!({ "key": key("count-tokens", &[prompt], &[]), "answer": { "tokens": 5 } }),
            json!({ "key": key("generate", &[prompt], &sampling), "answer": { "completions": said } }),
        ]
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// A model that can read English and say nothing that means anything, with room for 256 tokens.
fn model(folder: &Folder) -> String {
    let spec = RandomModel {
        alphabet: (b' '..=b'~').map(char::from).chain(['\n']).collect(),
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: Some(1),
        max_position_embeddings: 256,
        initializer_range: 0.3,
    };
    let model = plumb_model::random(&spec, 7).unwrap();
    let path = folder.path("reader");
    std::fs::create_dir_all(&path).unwrap();
    plumb_model::save(&path, &model.params, &model.tokenizer).unwrap();
    path.to_str().unwrap().to_owned()
}

fn stats(folder: &Folder) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.path("stats.json")).unwrap()).unwrap()
}

fn field(lines: &[Value], name: &str) -> Vec<Value> {
    lines.iter().map(|line| line[name].clone()).collect()
}

#[test]
fn pairs_are_asked_in_both_orders_and_held_to_the_verdicts_that_the_judge_is_not_shown() {
    let folder = Folder::new();
    let answers = [
        // Right in both orders; a liking for the first place; wrong in both; nothing readable.
        ("q1 x|y", "[[A]]"),
        ("q1 y|x", "[[B]]"),
        ("q2 x|y", "[[A]]"),
        ("q2 y|x", "[[A]]"),
        ("q3 x|y", "[[A]]"),
        ("q3 y|x", "[[B]]"),
        ("q4 x|y", "hm"),
        ("q4 y|x", "[[A]]"),
    ];
    let answers = folder.file("answers.jsonl", &record(&answers));
    let input = folder.file(
        "in.jsonl",
        "{\"prompt\": \"q1 \", \"chosen\": \"x\", \"rejected\": \"y\"}\n{\"id\": \"t\", \"prompt\": \"q2 \", \"chosen\": \"x\", \"rejected\": \"y\"}\n\
         {\"prompt\": \"q3 \", \"completion_a\": \"x\", \"completion_b\": \"y\", \"verdict\": \"b\"}\n{\"prompt\": \"q4 \", \"chosen\": \"x\", \"rejected\": \"y\"}\n",
    );
    let args = ["judge", "--plugin", "judge-pairwise", "--recorded", &answers, "--set", TEMPLATE, "--input", &input];
    let done = folder.plumb(&[&args[..], &["--stats", "stats.json"]].concat()).ok();
    let lines = done.lines();
    assert_eq!(field(&lines, "id"), [json!(1), json!("t"), json!(3), json!(4)]);
    assert_eq!(field(&lines, "status"), ["scored", "scored", "scored", "unparseable"]);
    assert_eq!(field(&lines, "value"), [json!(1.0), json!(0.5), json!(1.0), json!(null)]);
    assert_eq!(field(&lines, "prefers"), [json!("chosen"), json!("tie"), json!("completion_a"), json!(null)]);
    // Two prompts of five tokens, and two answers of two.
    assert_eq!(field(&lines, "tokens"), [14; 4]);
    assert_eq!(lines[1]["rows"][0]["parts"]["order_bias"], 1.0);
    let expected = json!({"pairs": 4, "judged": 3, "correct": 1, "ties": 1, "accuracy": 0.5});
    assert_eq!(stats(&folder)["agreement"], expected);
    assert!(done.stderr.contains("3 scored, 0 abstained, 1 unparseable, 0 failed; 8 prompts, 56 tokens"), "{}", done.stderr);
    assert!(done.stderr.contains("accuracy 0.500 on pairs: 1 of 3 as given, 1 ties count half"), "{}", done.stderr);
}

#[test]
fn groups_are_compared_within_and_come_back_in_the_order_of_the_lines() {
    let folder = Folder::new();
    // Of group 1: z beats x, both beat y. The line of group 2 stands between, and is alone.
    let beats = [("zx", true), ("xy", true), ("zy", true)];
    let asked = beats.iter().flat_map(|(pair, _)| {
        let (a, b) = pair.split_at(1);
        [(format!("q {a}|{b}"), "[[A]]"), (format!("q {b}|{a}"), "[[B]]")]
    });
    let asked: Vec<(String, &str)> = asked.collect();
    let answers: Vec<(&str, &str)> = asked.iter().map(|(prompt, text)| (prompt.as_str(), *text)).collect();
    let answers = folder.file("answers.jsonl", &record(&answers));
    let line = |group: u32, text: &str, verdict: u32| {
        format!("{{\"prompt\": \"q \", \"group\": {group}, \"completion\": \"{text}\", \"verdict\": {verdict}}}\n")
    };
    let input = [line(1, "x", 2), line(2, "w", 0), line(1, "y", 1), line(1, "z", 3)].concat();
    let input = folder.file("in.jsonl", &input);
    let args = ["judge", "--plugin", "judge-pairwise", "--recorded", &answers, "--set", TEMPLATE, "--input", &input];
    for form in ["form=pairs", "form=matrix"] {
        let lines = folder.plumb(&[&args[..], &["--set", form, "--stats", "stats.json"]].concat()).ok().lines();
        assert_eq!(field(&lines, "value"), [json!(0.5), json!(null), json!(0.0), json!(1.0)], "{form}");
        assert_eq!(field(&lines, "status"), ["scored", "abstained", "scored", "scored"]);
        assert_eq!(lines[0]["matrix"], json!([0.0, 1.0, -1.0]), "{form}");
        assert_eq!(lines[3]["matrix"], json!([1.0, 1.0, 0.0]), "{form}");
        let comparison = &stats(&folder)["comparison"];
        assert_eq!(
            (&comparison["both"], &comparison["spearman"], &comparison["agreement"]),
            (&json!(3), &json!(1.0), &json!(1.0))
        );
    }
}

#[test]
fn record_replays_without_the_model_and_one_long_item_costs_only_itself() {
    let folder = Folder::new();
    let model = model(&folder);
    let long = "x".repeat(300);
    let input = format!(
        "{{\"prompt\": \"p\", \"completion\": \"a\"}}\n{{\"prompt\": \"p\", \"completion\": \"{long}\"}}\n{{\"prompt\": \"p\", \"completion\": \"b\"}}\n"
    );
    let input = folder.file("in.jsonl", &input);
    let common = ["judge", "--plugin", "judge-rubric", "--set", "rubric=r", "--set", "template={rubric}:{completion}"];
    let more = ["--max-tokens", "8", "--samples", "2", "--temperature", "1", "--tokens-per-row", "1000", "--input", &input];
    let judged = |who: &[&str]| folder.plumb(&[&common[..], &more[..], who].concat()).ok();
    let live = judged(&["--model", &model, "--record", "record.jsonl"]);
    let lines = live.lines();
    assert_eq!(field(&lines, "status"), ["unparseable", "failed", "unparseable"]);
    assert_eq!(lines[1]["code"], "too-long");
    let message = lines[1]["message"].as_str().unwrap();
    for told in ["judge `judge-rubric`", "prompt 1 of 1", "model `judge`", "302 tokens", "310", "256", "lower `max_tokens`"] {
        assert!(message.contains(told), "{told}: {message}");
    }
    // Nothing else is asked about the short items than without the long one, one at a time, and nobody has to answer again.
    assert_eq!(judged(&["--model", &model, "--max-batch", "1"]).stdout, live.stdout);
    assert_eq!(judged(&["--recorded", "record.jsonl"]).stdout, live.stdout);
    let other = judged(&["--recorded", "record.jsonl", "--seed", "1", "--set", "rubric=other"]).lines();
    assert_eq!(field(&other, "code"), ["not-recorded"; 3]);
}

#[test]
fn judge_of_a_recipe_brings_its_configuration_and_asks_who_stands_for_the_policy() {
    let folder = Folder::new();
    let text = std::fs::read_to_string(folder.recipe()).unwrap().replace(
        "[stages.eval]",
        "[[stages.judges]]\nplugin = \"judge-rubric\"\nname = \"style\"\nconfig = { model = \"policy\", rubric = \"r\", template = \"{completion}\", max_tokens = 4 }\n\
         grants = { models = [\"policy\"], tokens_per_row = 9 }\n\n[stages.eval]",
    );
    let recipe = folder.file("judged.toml", &text);
    let input = folder
        .file("in.jsonl", "{\"prompt\": \"p\", \"completion\": \"abc\"}\n{\"prompt\": \"p\", \"completion\": \"abcdef\"}\n");
    let args = ["--json", "judge", "--recipe", &recipe, "--input", &input];
    let error = folder.plumb(&args).error();
    assert_eq!((&error["code"], &error["hint"]), (&json!("usage.model"), &json!("say who stands for it: `--model policy=PATH`")));
    let lines =
        folder.plumb(&[&args[..], &["--judge", "style", "--model", &format!("policy={}", model(&folder))]].concat()).ok().lines();
    // Three tokens and four more are within nine a row; six and four are not.
    assert_eq!(field(&lines, "code"), ["unparseable", "budget"]);
    let error = folder.plumb(&[&args[..], &["--judge", "styl"]].concat()).error();
    assert_eq!((&error["code"], &error["hint"]), (&json!("usage.judge"), &json!("did you mean `style`?")));
}

#[test]
fn score_grants_what_its_flags_name_and_nothing_else() {
    let folder = Folder::new();
    let (asks, tool, model) = (guest("reward-asks"), guest("tool-probe"), model(&folder));
    let input = folder.file("in.jsonl", "{\"completion\": \"2\"}\n{\"completion\": \"40\"}\n");
    let args = ["--json", "score", "--plugin", &asks, "--input", &input, "--set"];
    let score = |more: &[&str]| folder.plumb(&[&args[..], more].concat());
    let error = score(&["mode=logprobs"]).error();
    assert_eq!(error["code"], "plugin.not_granted");
    assert!(error["hint"].as_str().unwrap().contains("--model NAME=PATH"), "{error}");
    // The guest imports both capabilities, so both have to be granted.
    let grader = format!("grader={model}");
    let add = format!("add={tool}");
    let lines = score(&["mode=logprobs", "--model", &grader, "--tool", "calculator"]).ok().lines();
    assert!(lines.iter().all(|line| line["value"].as_f64().unwrap() < 0.0), "{lines:?}");
    let lines = score(&["mode=tool", "--set", "tool=add", "--model", &grader, "--tool", &add]).ok().lines();
    assert_eq!(field(&lines, "value"), [2.0, 40.0]);
    let lines = score(&["mode=tool", "--set", "tool=add", "--model", &grader, "--tool", "calculator"]).ok().lines();
    assert_eq!(field(&lines, "code"), ["denied", "denied"]);
}

#[test]
fn columns_have_the_types_of_a_run_and_a_value_that_does_not_fit_is_named_by_line() {
    let folder = Folder::new();
    let score = |text: &str, more: &[&str]| {
        let input = folder.file("in.jsonl", text);
        folder.plumb(&[&["--json", "score", "--plugin", "reward-exact-match", "--input", &input], more].concat())
    };
    // A number in the data is text, as in training; what a run counts is a number.
    let good = "{\"completion\": \"4\", \"answer\": 4, \"completion_tokens\": 1}\n";
    assert_eq!(score(good, &[]).ok().lines()[0]["value"], 1.0);
    let mixed = format!("{good}\n{{\"completion\": \"5\", \"answer\": 4, \"completion_tokens\": \"one\"}}\n");
    let error = score(&mixed, &[]).error();
    assert_eq!(error["code"], "input.column_type");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .ends_with("line 3: `completion_tokens` is \"one\", and the column holds whole numbers from 0 to 4294967295"),
        "{error}"
    );
    assert_eq!(error["hint"], "mend the line, or give the column another type: `--type completion_tokens=text`");
    assert_eq!(score(&mixed, &["--type", "completion_tokens=text"]).ok().lines().len(), 2);
    // The plugin reads `answer` as text: a number there is its own to refuse.
    let typed = score(good, &["--type", "answer=f64"]).ok().lines();
    assert_eq!(typed[0]["status"], "failed", "{typed:?}");
}
