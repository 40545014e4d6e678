//! Ten optimizer steps of SmolLM2-135M-Instruct against transformers and PyTorch (`tests/reference/README.md`).

use std::path::{Path, PathBuf};

use plumb_core::recipe::{EngineKind, Stage};
use plumb_kernels::cpu::global_norm::global_norm;
use plumb_methods::loss::grpo::{Totals, token_weight};
use plumb_model::ScoreHead;
use plumb_model::engine::Precision;
use plumb_train::data::Sampler;
use plumb_train::objective::registry::{self, Start};
use plumb_train::optimizer::clip_scale;
use plumb_train::pack::LossRow;
use plumb_train::policy::Policy;
use plumb_train::stage::StageData;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The default is held to the reference as float32 is.
const PRECISIONS: [Precision; 2] = [Precision::Highest, Precision::High];

/// The model, or None where the environment says to go without.
fn policy(precision: Precision) -> Option<Policy> {
    let path = root().join("target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() && std::env::var_os("PLUMB_SKIP_REAL_MODEL").is_some_and(|skip| skip == "1") {
        return None;
    }
    assert!(path.exists(), "the model is not there: run `cargo xtask model`, or set PLUMB_SKIP_REAL_MODEL=1");
    Some(Policy::new(plumb_model::load(&path).unwrap(), EngineKind::Native, precision))
}

fn reference(name: &str) -> Value {
    let folder = std::env::var_os("PLUMB_REFERENCE_DIR").map_or_else(|| root().join("tests/reference"), PathBuf::from);
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

fn rows(curve: &Value) -> Vec<LossRow> {
    let ids = |row: &Value, name: &str| numbers::<u32>(&row[name]);
    let all = curve["batch"].as_array().unwrap().iter();
    all.map(|row| LossRow::new(ids(row, "prompt").into(), ids(row, "completion"), 0.0)).collect()
}

/// Two rows for each pair, chosen before rejected.
fn pairs(curve: &Value) -> Vec<LossRow> {
    let pairs = curve["batch"].as_array().unwrap();
    let weight = 1.0 / pairs.len() as f64;
    let rows = pairs.iter().flat_map(|pair| {
        let prompt: std::sync::Arc<[u32]> = numbers::<u32>(&pair["prompt"]).into();
        ["chosen", "rejected"].map(|name| LossRow::new(prompt.clone(), numbers(&pair[name]), weight))
    });
    rows.collect()
}

fn stage(algorithm: &str, extra: &str) -> Stage {
    let text = format!(
        "name = 'curve'\nalgorithm = '{algorithm}'\nmax_steps = 10\ndata.train = []\n\
         optimizer = {{ learning_rate = 1e-5, lr_scheduler_type = 'constant' }}\n{extra}"
    );
    toml::from_str(&text).unwrap()
}

/// Takes the curve's steps with the parts that the training loop is made of.
fn assert_follows(precision: Precision, curve: &Value, policy: &mut Policy, rows: &[LossRow], stage: &Stage) {
    let (data, sampler) = (StageData::default(), Sampler::new(0, 0, 1, 1).unwrap());
    let objective = registry::method(stage.algorithm).objective(Start { seed: 0, stage, data: &data, sampler });
    let losses = numbers::<f64>(&curve["loss"]);
    // The reward model's curve has no norms. And AdamW's first steps take the sign of a gradient, however small: of those that rounding turns, a
    // norm shows more than the loss.
    let norms = curve.get("grad_norm").filter(|_| precision == Precision::Highest).map(numbers::<f64>);
    let mut optimizer = policy.optimizer();
    let mut grads = vec![0.0; policy.weights_len()];
    for (step, &loss) in losses.iter().enumerate() {
        grads.fill(0.0);
        let (got_loss, _) = policy.add_gradients(&*objective, rows, std::slice::from_ref(&(0..rows.len())), &mut grads).unwrap();
        let got_norm = global_norm(&grads);
        let norm = norms.as_ref().map(|norms| ("gradient norm", got_norm, norms[step]));
        for (what, got, want) in [("loss", got_loss, loss)].into_iter().chain(norm) {
            let tolerance = 0.01 * want.abs() + 2e-3;
            assert!((got - want).abs() <= tolerance, "{precision:?}, step {step}: {what} is {got}, the reference has {want}");
        }
        let rate = plumb_train::schedule::learning_rate(&stage.optimizer, step as u64, stage.max_steps);
        policy.step(&mut optimizer, &grads, clip_scale(got_norm, stage.optimizer.max_grad_norm), rate, &stage.optimizer);
    }
}

#[test]
fn golden_sft_curve_of_the_real_model() {
    PRECISIONS.into_iter().for_each(sft_curve);
}

fn sft_curve(precision: Precision) {
    let Some(mut policy) = policy(precision) else { return };
    let (curve, stage) = (reference("curve-sft.json"), stage("sft", ""));
    let mut rows = rows(&curve);
    let tokens: usize = rows.iter().map(|row| row.completion.len()).sum();
    for row in &mut rows {
        row.token_weight = 1.0 / tokens as f64;
    }
    assert_follows(precision, &curve, &mut policy, &rows, &stage);
}

#[test]
fn golden_dpo_curve_of_the_real_model() {
    PRECISIONS.into_iter().for_each(dpo_curve);
}

fn dpo_curve(precision: Precision) {
    let Some(mut policy) = policy(precision) else { return };
    let curve = reference("curve-dpo.json");
    let stage = stage("dpo", "dpo = { beta = 0.1 }");
    let mut rows = pairs(&curve);
    let initial = policy.logprobs(&rows, 2, 1.0).unwrap();
    rows.iter_mut().zip(initial).for_each(|(row, initial)| row.ref_logprobs = initial);
    assert_follows(precision, &curve, &mut policy, &rows, &stage);
}

#[test]
fn golden_reward_model_curve_of_the_real_model() {
    PRECISIONS.into_iter().for_each(reward_model_curve);
}

fn reward_model_curve(precision: Precision) {
    let Some(mut policy) = policy(precision) else { return };
    let curve = reference("curve-reward.json");
    let (stage, rows) = (stage("reward-model", ""), pairs(&curve));
    policy.add_head(ScoreHead { labels: vec!["LABEL_0".into()], weights: numbers(&curve["head_init"]) });
    assert_follows(precision, &curve, &mut policy, &rows, &stage);
}

#[test]
fn golden_grpo_curve_of_the_real_model() {
    PRECISIONS.into_iter().for_each(grpo_curve);
}

fn grpo_curve(precision: Precision) {
    let Some(mut policy) = policy(precision) else { return };
    let curve = reference("curve-grpo.json");
    let stage = stage("grpo", "grpo = { loss_type = 'grpo', epsilon = 0.2, beta = 0.04, num_iterations = 10 }");
    let mut rows = rows(&curve);
    let initial = policy.logprobs(&rows, 1, 1.0).unwrap();
    let advantages = numbers::<f32>(&curve["advantages"]);
    let totals = Totals { sequences: rows.len(), tokens: 0, part_tokens: 0, parts: 1 };
    for ((row, initial), advantage) in rows.iter_mut().zip(initial).zip(advantages) {
        row.token_weight = token_weight(stage.grpo.loss_type, row.completion.len(), stage.rollout.max_completion_length, totals);
        row.advantages = vec![advantage];
        row.old_logprobs.clone_from(&initial);
        row.ref_logprobs = initial;
    }
    assert_follows(precision, &curve, &mut policy, &rows, &stage);
}
