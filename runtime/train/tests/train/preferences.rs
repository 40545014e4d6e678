use std::path::Path;

use plumb_core::recipe::{DpoLoss, EngineKind, Recipe};
use plumb_model::engine::Precision;
use plumb_train::policy::Policy;
use plumb_train::run::{MetricSet, read_metrics};
use plumb_train::{Error, train};

use crate::support::{Closures, recipe, request, run, timeless_metrics};

pub const DPO: &str = "
[[stages]]
name = 'pairs'
algorithm = 'dpo'
max_steps = 20
data = { train = ['pairs.jsonl'], prompt = { chat = false } }
dpo = { batch_size = 8, beta = 0.5 }
optimizer = { learning_rate = 3e-3, lr_scheduler_type = 'constant' }
";

const REWARD_MODEL: &str = "
[[stages]]
name = 'rm'
algorithm = 'reward-model'
max_steps = 30
data = { train = ['pairs.jsonl'], prompt = { chat = false } }
reward_model = { batch_size = 8 }
optimizer = { learning_rate = 5e-3, lr_scheduler_type = 'constant' }
";

/// A recipe over pairs that prefer an answer which repeats its prompt's first letter to one of another letter.
pub fn pairs(folder: &Path, stages: &str) -> Recipe {
    let recipe = recipe(folder, stages);
    let letters = ["a", "b", "c", "d"];
    let lines = (0..16).map(|i| {
        let (x, y) = (letters[i / 4], letters[i % 4]);
        let other = letters[(i / 4 + 1) % 4];
        format!("{{\"prompt\": \"{x}{y}\", \"chosen\": \"{x}{x}{x}\", \"rejected\": \"{other}{x}\"}}\n")
    });
    std::fs::write(folder.join("pairs.jsonl"), lines.collect::<String>()).unwrap();
    recipe
}

pub fn metrics_of(recipe: &Recipe, folder: &Path, name: &str) -> Vec<MetricSet> {
    run(recipe, folder, name, &Closures::default(), &mut ());
    read_metrics(&folder.join(name)).unwrap()
}

#[test]
fn dpo_ranks_the_pairs_with_either_engine() {
    for engine in [EngineKind::Native, EngineKind::Candle] {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe { engine, ..pairs(folder.path(), DPO) };
        let steps = metrics_of(&recipe, folder.path(), "run");
        let of = |step: usize, name: &str| steps[step].get(name).unwrap();
        // Before the first update the policy is its reference: all rewards are 0, and ties are no successes.
        assert!((of(0, "loss") - std::f64::consts::LN_2).abs() < 1e-7, "{}", of(0, "loss"));
        for name in ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"] {
            assert_eq!(of(0, name), 0.0, "{name}");
        }
        assert!(of(19, "loss") < 0.3 && of(19, "rewards/accuracies") > 0.9, "{engine:?}: {}", of(19, "loss"));
        assert!(of(19, "rewards/margins") > 1.0 && of(19, "rewards/chosen") > of(19, "rewards/rejected"));
        assert!(of(0, "logps/chosen") < 0.0 && of(0, "logps/rejected") < 0.0);
    }
}

#[test]
fn each_dpo_loss_falls() {
    for (loss_type, smoothing) in [
        (DpoLoss::Sigmoid, 0.1),
        (DpoLoss::Hinge, 0.0),
        (DpoLoss::Ipo, 0.0),
        (DpoLoss::ExoPair, 0.01),
        (DpoLoss::NcaPair, 0.0),
        (DpoLoss::Robust, 0.1),
        (DpoLoss::BcoPair, 0.0),
        (DpoLoss::SppoHard, 0.0),
        (DpoLoss::Aot, 0.0),
        (DpoLoss::AotUnpaired, 0.0),
        (DpoLoss::ApoZero, 0.0),
        (DpoLoss::ApoDown, 0.0),
        (DpoLoss::Discopop, 0.0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = pairs(folder.path(), DPO);
        recipe.stages[0].dpo.loss_type = loss_type;
        recipe.stages[0].dpo.label_smoothing = smoothing;
        let steps = metrics_of(&recipe, folder.path(), "run");
        let losses: Vec<f64> = steps.iter().map(|set| set.get("loss").unwrap()).collect();
        assert!(losses[19] < 0.9 * losses[0], "{loss_type:?}: {losses:?}");
        assert!(steps[19].get("rewards/margins").unwrap() > 0.0, "{loss_type:?}");
    }
}

#[test]
fn parts_of_a_step_never_divide_a_pair_and_give_the_same_step() {
    let norms = [1, 3].map(|parts| {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = pairs(folder.path(), DPO);
        recipe.stages[0].max_steps = 2;
        recipe.stages[0].optimizer.gradient_accumulation_steps = parts;
        metrics_of(&recipe, folder.path(), "run")[1].get("grad_norm").unwrap()
    });
    assert!((norms[0] / norms[1] - 1.0).abs() < 1e-4, "{norms:?}");
}

#[test]
fn resumed_runs_over_pairs_go_on_bit_for_bit() {
    for stages in [DPO, REWARD_MODEL] {
        let folder = tempfile::tempdir().unwrap();
        let mut whole = pairs(folder.path(), stages);
        whole.stages[0].max_steps = 6;
        whole.checkpoints.save_steps = 3;
        run(&whole, folder.path(), "whole", &Closures::default(), &mut ());
        let weights = |run: &str| std::fs::read(folder.path().join(run).join("model/model.safetensors")).unwrap();
        // Runs whose newest checkpoint is that of step 3 or of the last one.
        for missing in [true, false] {
            let name = format!("part-{missing}");
            run(&whole, folder.path(), &name, &Closures::default(), &mut ());
            if missing {
                std::fs::remove_dir_all(folder.path().join(&name).join("checkpoints/step-00000006")).unwrap();
            }
            train(&request(&whole, folder.path(), &name, true), &Closures::default(), &mut ()).unwrap();
            assert_eq!(timeless_metrics(&folder.path().join("whole")), timeless_metrics(&folder.path().join(&name)));
            assert_eq!(weights("whole"), weights(&name));
        }
    }
}

#[test]
fn reward_model_ranks_the_pairs_with_either_engine_and_its_folder_scores() {
    for engine in [EngineKind::Native, EngineKind::Candle] {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe { engine, ..pairs(folder.path(), REWARD_MODEL) };
        let steps = metrics_of(&recipe, folder.path(), "run");
        let of = |step: usize, name: &str| steps[step].get(name).unwrap();
        assert!(of(0, "loss") > 0.6 && of(29, "loss") < 0.2, "{engine:?}: {} to {}", of(0, "loss"), of(29, "loss"));
        assert!(of(29, "accuracy") > 0.9 && of(29, "margin") > 1.0, "{engine:?}: {}", of(29, "accuracy"));
        assert!(of(29, "min_reward") < of(29, "mean_reward") && of(29, "mean_reward") < of(29, "max_reward"));

        // What was written is a classifier with one score, and it ranks by the last token's hidden state.
        let saved = plumb_model::load(&folder.path().join("run/model")).unwrap();
        let head = saved.score.clone().expect("a score head");
        assert_eq!(head.labels, ["LABEL_0"]);
        let mut model = Policy::new(saved, EngineKind::Native, Precision::default());
        let mut score = |text: &str| {
            let mut tokens = model.tokenizer.encode(text).unwrap();
            tokens.extend(&model.params.config.eos_token_ids);
            let width = model.params.config.hidden_size;
            let hidden = model.hidden(&tokens).unwrap();
            head.scores(&hidden[hidden.len() - width..])[0]
        };
        assert!(score("acaaa") > score("acba") && score("dbddd") > score("dbad"));
    }
}

#[test]
fn margins_and_centring_change_what_a_reward_model_learns() {
    let folder = tempfile::tempdir().unwrap();
    let plain = pairs(folder.path(), REWARD_MODEL);
    let mut centred = plain.clone();
    centred.stages[0].reward_model.center_rewards_coefficient = 1.0;
    let last = |recipe: &Recipe, name: &str| metrics_of(recipe, folder.path(), name).pop().unwrap();
    let (without, with) = (last(&plain, "plain"), last(&centred, "centred"));
    let mean = |set: &MetricSet| set.get("mean_reward").unwrap().abs();
    assert!(mean(&with) < 0.1 && mean(&with) <= mean(&without) + 0.05, "{} and {}", mean(&with), mean(&without));
    let path = folder.path().join("pairs.jsonl");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"chosen\"", "\"margin\": 3, \"chosen\"");
    std::fs::write(&path, text).unwrap();
    let wide = last(&plain, "wide");
    assert!(wide.get("margin").unwrap() > without.get("margin").unwrap(), "{:?}", wide.get("margin"));
}

#[test]
fn reward_models_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = pairs(folder.path(), REWARD_MODEL);
    let key = |recipe: &Recipe| match train(&request(recipe, folder.path(), "run", false), &Closures::default(), &mut ()) {
        Err(Error::Recipe { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    let mut early = good.clone();
    early.stages.push(pairs(folder.path(), DPO).stages.remove(0));
    assert_eq!(key(&early), "stages.rm.algorithm");
    let mut evaluated = good.clone();
    evaluated.stages[0].eval = Some(toml::from_str("files = ['pairs.jsonl']\nreward = { plugin = 'share-of-c' }").unwrap());
    assert_eq!(key(&evaluated), "stages.rm.eval");
    let line = r#"{"prompt": "ab", "chosen": "a", "rejected": "b", "margin": "wide"}"#;
    std::fs::write(folder.path().join("pairs.jsonl"), line).unwrap();
    let error = train(&request(&good, folder.path(), "run", false), &Closures::default(), &mut ()).unwrap_err();
    assert!(error.to_string().ends_with("stage `rm`: column `margin` is \"wide\", not a number"), "{error}");
}

#[test]
fn conversations_give_the_prompt_that_both_answers_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = pairs(folder.path(), DPO);
    let message = |role: &str, text: &str| format!("{{\"role\": \"{role}\", \"content\": \"{text}\"}}");
    let line = format!(
        "{{\"prompt\": \"ab\", \"chosen\": [{}], \"rejected\": [{}]}}\n",
        message("assistant", "aa"),
        message("assistant", "b")
    );
    std::fs::write(folder.path().join("pairs.jsonl"), line.repeat(8)).unwrap();
    let steps = metrics_of(&recipe, folder.path(), "run");
    assert_eq!(steps[0].get("completions/min_length"), Some(2.0));
    assert_eq!(steps[0].get("completions/max_length"), Some(3.0));
}

#[test]
fn unusable_pairs_are_refused_with_the_stage_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let good = pairs(folder.path(), DPO);
    let refused = |line: &str, change: &dyn Fn(&mut plumb_core::recipe::Stage)| {
        let mut recipe = good.clone();
        change(&mut recipe.stages[0]);
        let text = format!("{{\"prompt\": \"ab\", \"chosen\": \"aa\", \"rejected\": \"b\"}}\n{line}\n");
        std::fs::write(folder.path().join("pairs.jsonl"), text).unwrap();
        let error = train(&request(&recipe, folder.path(), "run", false), &Closures::default(), &mut ()).unwrap_err();
        assert!(!folder.path().join("run").exists());
        error
    };
    for (line, reason) in [
        (r#"{"prompt": "ab", "chosen": "a"}"#, "stage `pairs`: column `rejected` is missing; columns: "),
        (r#"{"prompt": "ab", "chosen": "", "rejected": "b"}"#, "stage `pairs`: column `chosen` is empty"),
        (r#"{"prompt": "ab", "chosen": "a", "rejected": "a"}"#, "stage `pairs`: `chosen` and `rejected` are the same tokens"),
        (
            r#"{"prompt": "ab", "chosen": "a", "rejected": "aaaaaaaaaaaaaaa"}"#,
            "18 tokens, more than the 16 allowed; raise `stages.pairs.dpo.max_length`",
        ),
        (r#"{"prompt": "ab", "chosen": [1], "rejected": "a"}"#, "a message lacks `role` or `content`"),
        (r#"{"prompt": "ab", "chosen": true, "rejected": "a"}"#, "column `chosen` is not a string"),
    ] {
        let error = refused(line, &|_| {});
        let Error::Row { number: 2, reason: found, .. } = &error else { panic!("{line}: {error:?}") };
        assert!(found.contains(reason), "{found}");
    }
    let line = r#"{"prompt": "ab", "chosen": "a", "rejected": "b"}"#;
    let sorted = refused(line, &|stage| {
        stage.dpo.loss_type = DpoLoss::Aot;
        stage.dpo.batch_size = 1;
    });
    assert!(matches!(sorted, Error::Recipe { key, .. } if key == "stages.pairs.dpo.batch_size"));
    let rewards = refused(line, &|stage| stage.rewards = vec![toml::from_str("plugin = 'share-of-c'").unwrap()]);
    assert!(matches!(rewards, Error::Recipe { key, .. } if key == "stages.pairs.rewards"));
    assert!(matches!(refused(line, &|_| {}), Error::TooFewRows { rows: 2, needed: 8, .. }));
}
