//! Every mistake has a stable code, an exit status, a place and a next step.

use crate::support::{Done, Folder};

#[track_caller]
fn refused(done: &Done, exit: i32, code: &str) -> (String, String) {
    let error = done.error();
    assert_eq!((done.code, error["code"].as_str()), (Some(exit), Some(code)), "{done:?}");
    let text = format!("{} {} {}", error["message"], error["causes"], error["where"]);
    (text, error["hint"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn unknown_recipe_key_names_its_place_and_the_nearest_key() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let done = folder.plumb(&["train", &recipe, "--set", "stages.grpo.grpo.epsilon_hi=0.3", "--json"]);
    let (text, hint) = refused(&done, 2, "recipe.unknown_key");
    assert!(text.contains("stages.grpo.grpo.epsilon_hi"), "{text}");
    assert_eq!(hint, "did you mean `epsilon_high`?");
    assert!(!folder.path("runs").exists(), "nothing begins before the recipe is sound");
}

#[test]
fn errors_for_people_have_message_place_and_hint() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let done = folder.plumb(&["train", &recipe, "--set", "stages.grpo.rollout.num_generations=1"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.starts_with("error: must be at least 2"), "{}", done.stderr);
    assert!(done.stderr.contains("stages.grpo.rollout.num_generations"), "{}", done.stderr);
    assert!(!done.stderr.contains('\x1b'), "no colors without a terminal");
}

#[test]
fn missing_and_truncated_models_are_told_apart() {
    let folder = Folder::new();
    let input = folder.file("in.jsonl", "{\"prompt\": \"1+\", \"completion\": \"1\"}\n");
    let done = folder.plumb(&["logprobs", "--model", "none.gguf", "--input", &input, "--json"]);
    let (text, hint) = refused(&done, 4, "model.not_found");
    assert!(text.contains("none.gguf") && hint.contains("Hugging Face"), "{text} {hint}");

    let model = folder.model();
    let weights = folder.path("model/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let done = folder.plumb(&["logprobs", "--model", &model, "--input", &input, "--json"]);
    let (text, _) = refused(&done, 4, "model.malformed");
    assert!(text.contains("model.safetensors"), "{text}");
}

#[test]
fn row_without_a_needed_column_is_told_what_it_has() {
    let folder = Folder::new();
    let input = folder.file("in.jsonl", "{\"prompt\": \"p\", \"x\": \"1\"}\n");
    let done = folder.plumb(&["score", "--plugin", "reward-exact-match", "--input", &input]).ok();
    let row = &done.lines()[0];
    assert_eq!((&row["status"], &row["code"]), (&"failed".into(), &"missing-column".into()));
    assert!(row["message"].as_str().unwrap().ends_with("the line has `prompt`, `x`"), "{row}");
}

#[test]
fn precompiled_code_is_found_and_refused_as_what_it_is() {
    let folder = Folder::new();
    folder.file("x.cwasm", "\u{7f}ELF");
    let done = folder.plumb(&["plugin", "inspect", "x.cwasm", "--json"]);
    let (text, _) = refused(&done, 3, "plugin.not_a_component");
    assert!(text.contains("x.cwasm"), "{text}");
}

#[test]
fn broken_input_line_is_named_by_every_command() {
    let folder = Folder::new();
    let input = folder.file("in.jsonl", "{\"prompt\": \"1+\", \"completion\": \"1\", \"answer\": \"1\"}\n{\"prompt\": \n");
    let model = folder.model();
    for command in [
        &["score", "--plugin", "reward-exact-match", "--input", &input, "--json"][..],
        &["logprobs", "--model", &model, "--input", &input, "--json"],
        &["rollout", "--model", &model, "--raw", "--input", &input, "--json"],
    ] {
        let (text, _) = refused(&folder.plumb(command), 4, "input.broken_line");
        assert!(text.contains("in.jsonl`, line 2"), "{text}");
    }
    let recipe = folder.recipe();
    folder.file("data/train.jsonl", "{\"prompt\": \"1+1=\", \"completion\": \"2\"}\n[1]\n");
    let (text, _) = refused(&folder.plumb(&["train", &recipe, "--json"]), 4, "data.broken_row");
    assert!(text.contains("train.jsonl`, line 2"), "{text}");
}

#[test]
fn plugins_that_are_not_there_or_of_the_wrong_kind_are_refused() {
    let folder = Folder::new();
    let input = folder.file("in.jsonl", "{\"completion\": \"1\", \"answer\": \"1\"}\n");
    let done = folder.plumb(&["score", "--plugin", "reward-exact-mach", "--input", &input, "--json"]);
    let (text, hint) = refused(&done, 2, "plugin.not_found");
    assert!(text.contains("`shaper-par`"), "what is there is listed: {text}");
    assert_eq!(hint, "did you mean `reward-exact-match`?");

    let done = folder.plumb(&["score", "--plugin", "shaper-par", "--input", &input, "--json"]);
    let (text, hint) = refused(&done, 2, "plugin.wrong_kind");
    assert!(
        text.contains("is a shaper plugin, a reward plugin is needed here") && hint.contains("choose a reward plugin"),
        "{text} {hint}"
    );

    let file = folder.file("text.wasm", "not wasm");
    refused(&folder.plumb(&["score", "--plugin", &file, "--input", &input, "--json"]), 3, "plugin.not_a_component");

    let done =
        folder.plumb(&["score", "--plugin", "reward-exact-match", "--config", "{\"mod\": 1}", "--input", &input, "--json"]);
    refused(&done, 2, "plugin.config");
}

#[test]
fn folder_of_another_run_is_not_overwritten() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    folder.file("kept/notes.txt", "mine");
    let done = folder.plumb(&["train", &recipe, "--run-dir", "kept", "--json"]);
    let (_, hint) = refused(&done, 2, "run.not_empty");
    assert!(hint.contains("--run-dir"), "{hint}");
    assert_eq!(std::fs::read_to_string(folder.path("kept/notes.txt")).unwrap(), "mine");
    refused(&folder.plumb(&["train", &recipe, "--run-dir", "none", "--resume", "--json"]), 2, "run.not_found");
}

#[test]
fn mistyped_command_lines_exit_with_2() {
    let folder = Folder::new();
    assert_eq!(folder.plumb(&["trian"]).code, Some(2));
    refused(&folder.plumb(&["score", "--json"]), 2, "usage");
    assert_eq!(folder.plumb(&["--help"]).code, Some(0));
}

#[test]
fn new_plugin_without_the_sdk_leaves_nothing_and_says_which_variable_names_a_checkout() {
    let folder = Folder::new();
    for language in ["rust", "js", "python"] {
        let mut command = folder.command(&["plugin", "new", "reward-x", "--lang", language, "--json"]);
        let done = crate::support::done(command.env("PLUMB_SOURCE", folder.path("gone")));
        let (text, hint) = refused(&done, 2, "plugin.sdk");
        assert!(text.contains("gone` holds no `sdk/rust`"), "{text}");
        assert!(hint.contains("PLUMB_SOURCE=/path/to/plumb"), "{hint}");
        assert!(!folder.path("reward-x").exists());
    }
}

#[test]
fn componentize_wants_a_manifest_and_a_module_that_carries_its_types() {
    let folder = Folder::new();
    let module = folder.path("core.wasm");
    // A module that imports `exit` of `env`, and says nothing about components.
    std::fs::write(&module, b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0c\x01\x03env\x04exit\0\0").unwrap();
    let module = module.to_str().unwrap();
    let (text, hint) = refused(&folder.plumb(&["plugin", "componentize", module, "--json"]), 4, "file.not_found");
    assert!(text.contains("plugin.toml") && hint.contains("`name`, `kind` and `version`"), "{text} {hint}");
    folder.file("plugin.toml", "name = \"x\"\nkind = \"reward\"\nversion = \"1.0.0\"\n");
    let (text, hint) = refused(&folder.plumb(&["plugin", "componentize", module, "--json"]), 2, "plugin.build");
    assert!(text.contains("import interface named `env`"), "{text}");
    assert!(hint.contains("`sdk/c/README.md`"), "{hint}");
    assert!(!folder.path("x.wasm").exists());
}
