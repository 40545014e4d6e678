use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plumb_core::recipe::PromptFormat;
use plumb_core::{Batch, Decision};
use plumb_train::prompt::Prompter;
use plumb_train::run::{self, Record, Table, completion_files, ledger};
use plumb_train::{Error, Observer, data, train};

use crate::support::{Closures, recipe, request, run, timeless_metrics};

const GRPO: &str = "
[checkpoints]
save_steps = 2
[[stages]]
name = 'rl'
algorithm = 'grpo'
max_steps = 5
data = { train = ['data.jsonl'], holdout = 4, prompt = { chat = false } }
rollout = { prompts_per_step = 3, num_generations = 4, max_completion_length = 3 }
optimizer = { learning_rate = 1e-2 }
rewards = [{ plugin = 'share-of-c' }]
";

#[test]
fn step_that_failed_leaves_no_trace_in_plugin_state_nor_in_a_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = "shapers = [{ plugin = 'centred' }]\nfilters = [{ plugin = 'all', on_failure = 'abort' }]\n";
    let recipe = recipe(folder.path(), &format!("{GRPO}{plugins}"));
    let failing = |at: u64| {
        let fails = Arc::new(AtomicBool::new(true));
        let again = fails.clone();
        // The filter comes after the shaper, whose state the failed step has changed by then.
        let select = move |batch: &Batch| {
            let broken = batch.step == at && again.load(Ordering::Relaxed);
            Decision { keep: vec![true; batch.rows() - usize::from(broken)], ..Decision::default() }
        };
        (Closures { select: Some(Arc::new(select)), ..Closures::default() }, fails)
    };
    run(&recipe, folder.path(), "whole", &failing(u64::MAX).0, &mut ());
    let model = |run: &str| std::fs::read(folder.path().join(run).join("model/model.safetensors")).unwrap();
    // After step 2 there is a checkpoint already, after step 3 one is written because step 4 failed.
    for at in [3, 4] {
        let name = format!("failed-{at}");
        let (plugins, fails) = failing(at);
        let error = train(&request(&recipe, folder.path(), &name, false), &plugins, &mut ()).unwrap_err();
        assert!(matches!(error, Error::Answer { step, .. } if step == at), "{error:?}");
        let checkpoint = folder.path().join(&name).join(format!("checkpoints/step-{:08}", at - 1));
        let manifest = std::fs::metadata(checkpoint.join("manifest.json")).unwrap().modified().unwrap();
        train(&request(&recipe, folder.path(), &name, true), &plugins, &mut ()).unwrap_err();
        assert_eq!(std::fs::metadata(checkpoint.join("manifest.json")).unwrap().modified().unwrap(), manifest);
        fails.store(false, Ordering::Relaxed);
        train(&request(&recipe, folder.path(), &name, true), &plugins, &mut ()).unwrap();
        assert!(model("whole") == model(&name), "failed at step {at}");
        assert_eq!(timeless_metrics(&folder.path().join("whole")), timeless_metrics(&folder.path().join(&name)));
    }
}

#[test]
fn run_does_not_go_on_with_other_data() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), GRPO);
    run(&recipe, folder.path(), "run", &Closures::default(), &mut ());
    let file = folder.path().join("data.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("ab", "ba", 1)).unwrap();
    let error = train(&request(&recipe, folder.path(), "run", true), &Closures::default(), &mut ()).unwrap_err();
    assert!(matches!(&error, Error::Run(run::Error::InputChanged { what, .. }) if what == "data file `data.jsonl`"), "{error:?}");
    std::fs::write(&file, text).unwrap();
    train(&request(&recipe, folder.path(), "run", true), &Closures::default(), &mut ()).unwrap();
}

#[derive(Default)]
struct Messages(Vec<String>);

impl Observer for Messages {
    fn message(&mut self, message: &str) {
        self.0.push(message.into());
    }
}

#[test]
fn evaluation_prompts_that_another_stage_trains_on_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let sft = "[[stages]]\nname = 'sft'\nalgorithm = 'sft'\nmax_steps = 1\nsft = { batch_size = 4 }\n\
               data = { train = ['data.jsonl'], prompt = { chat = false } }\n";
    let eval = "eval = { reward = { plugin = 'share-of-c' }, success_at = 0.5 }\n";
    let mut messages = Messages::default();
    let both = recipe(folder.path(), &format!("{GRPO}{eval}{sft}"));
    run(&both, folder.path(), "both", &Closures::default(), &mut messages);
    let expected = "evaluation of stage `rl`: 4 of 4 evaluation prompts are also trained on (stage `sft`)";
    assert_eq!(messages.0, [expected]);
    let mut messages = Messages::default();
    run(&recipe(folder.path(), &format!("{GRPO}{eval}")), folder.path(), "one", &Closures::default(), &mut messages);
    assert_eq!(messages.0, [""; 0]);
}

#[test]
fn masked_rows_say_so_and_columns_of_the_data_do_not_hide_the_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path(), GRPO);
    recipe.stages[0].max_steps = 1;
    recipe.stages[0].grpo.mask_truncated_completions = true;
    let file = folder.path().join("data.jsonl");
    let text = std::fs::read_to_string(&file).unwrap().replace("\"completion\"", "\"step\"");
    std::fs::write(file, text).unwrap();
    run(&recipe, folder.path(), "run", &Closures::default(), &mut ());
    let run = folder.path().join("run");
    let records = ledger::read(&run.join("ledger.jsonl")).unwrap();
    let step = records.iter().find_map(|record| if let Record::Step(step) = record { Some(step) } else { None }).unwrap();
    let truncated = |reason: &Option<String>| reason.as_deref() == Some("truncated");
    assert!(step.completions.iter().any(|completion| truncated(&completion.reason)));
    for completion in &step.completions {
        assert_eq!(completion.kept, completion.reason.is_none());
        assert!(!truncated(&completion.reason) || completion.tokens.len() == 3);
        assert_eq!((completion.weight, &completion.token_advantages), (1.0, &None));
    }
    let table = Table::read(&completion_files(&run).unwrap()[0].1).unwrap();
    assert!(table.column("step").is_some() && table.column("data/step").is_some());
}

#[test]
fn conversational_prompts_are_rendered_with_chat_and_refused_without() {
    let folder = tempfile::tempdir().unwrap();
    let spec = recipe(folder.path(), GRPO).model.random.unwrap();
    let model = plumb_model::random(&spec, 1).unwrap();
    let path = folder.path().join("model");
    plumb_model::save(&path, &model.params, &model.tokenizer).unwrap();
    std::fs::write(path.join("chat_template.jinja"), "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let model = plumb_model::load(&path).unwrap();
    let line = "{\"prompt\": [{\"role\": \"user\", \"content\": \"ab\"}], \"completion\": [{\"role\": \"assistant\", \"content\": \"cd\"}]}";
    std::fs::write(folder.path().join("chat.jsonl"), line).unwrap();
    let row = data::read(&["chat.jsonl".into()], folder.path()).unwrap().remove(0);
    let ends = &model.params.config.eos_token_ids;
    let format = PromptFormat::default();
    let prompter = Prompter::new(&format, &model.tokenizer, ends, "rl").unwrap();
    assert_eq!(prompter.prompt(&row, 0, 8).unwrap().0, "ab");
    assert_eq!(model.tokenizer.decode(&prompter.completion(&row).unwrap()), "cd");
    let raw = PromptFormat { chat: false, ..format };
    let error = Prompter::new(&raw, &model.tokenizer, ends, "rl").unwrap().prompt(&row, 0, 8).unwrap_err().to_string();
    assert!(error.contains("column `prompt` is a list of messages"), "{error}");
}
