use std::sync::Arc;

use plumb_core::Decision;
use plumb_core::recipe::{EngineKind, RolloutWeights};
use plumb_train::run::read_metrics;
use plumb_train::{Error, train};

use crate::support::{Closures, recipe, request, run};

const GRPO: &str = "
[[stages]]
name = 'rl'
algorithm = 'grpo'
max_steps = 30
data = { train = ['data.jsonl'], prompt = { chat = false } }
rollout = { prompts_per_step = 4, num_generations = 8, max_completion_length = 6, max_batch = 16 }
optimizer = { learning_rate = 1e-2, lr_scheduler_type = 'constant' }
rewards = [{ plugin = 'share-of-c' }]
eval = { files = ['data.jsonl'], reward = { plugin = 'share-of-c' }, success_at = 0.9 }
";

#[test]
fn grpo_raises_the_reward_with_either_engine() {
    for engine in [EngineKind::Native, EngineKind::Candle] {
        let folder = tempfile::tempdir().unwrap();
        let recipe = plumb_core::recipe::Recipe { engine, ..recipe(folder.path(), GRPO) };
        let summary = run(&recipe, folder.path(), "run", &Closures::default(), &mut ());
        let metrics = read_metrics(&folder.path().join("run")).unwrap();
        let steps: Vec<_> = metrics.iter().filter(|set| set.get("reward").is_some()).collect();
        let (first, last) = (steps[0].get("reward").unwrap(), steps[29].get("reward").unwrap());
        assert!(first < 0.4 && last > 0.9, "{engine:?}: reward went from {first} to {last}");
        let accuracies: Vec<f64> = summary.evaluations.iter().map(|(_, _, result)| result.accuracy()).collect();
        assert!(accuracies[0] < 0.5 && accuracies[1] > 0.9, "{engine:?}: {accuracies:?}");
        for name in ["reward_std", "entropy", "grad_norm", "completions/mean_length", "rewards/share-of-c/mean", "time/train_s"] {
            assert!(steps[0].get(name).is_some(), "`{name}` is missing");
        }
        let saved = plumb_model::load(&summary.model).unwrap();
        assert!(saved.params.data.iter().all(|weight| weight.is_finite()));
    }
}

#[test]
fn grpo_with_rounded_rollouts_learns_and_reports_how_far_the_sampler_was_off() {
    const NAMES: [&str; 5] = [
        "sampling/sampling_logp_difference/mean",
        "sampling/sampling_logp_difference/max",
        "sampling/importance_sampling_ratio/mean",
        "sampling/importance_sampling_ratio/min",
        "sampling/importance_sampling_ratio/max",
    ];
    for (weights, bound) in [(RolloutWeights::F32, None), (RolloutWeights::Bf16, Some(0.01)), (RolloutWeights::Int8, Some(0.03))]
    {
        for num_iterations in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            let mut recipe = recipe(folder.path(), GRPO);
            recipe.stages[0].rollout.weights = weights;
            recipe.stages[0].grpo.num_iterations = num_iterations;
            run(&recipe, folder.path(), "run", &Closures::default(), &mut ());
            let metrics = read_metrics(&folder.path().join("run")).unwrap();
            let steps: Vec<_> = metrics.iter().filter(|set| set.get("loss").is_some()).collect();
            assert_eq!(steps.len(), 30);
            assert!(steps[29].get("reward").unwrap() > 0.9, "{weights:?} did not learn");
            for (i, step) in steps.into_iter().enumerate() {
                let Some(bound) = bound else {
                    assert!(NAMES.iter().all(|name| step.get(name).is_none()), "float32 has nothing to correct");
                    continue;
                };
                let [mean, max, ratio_mean, ratio_min, ratio_max] = NAMES.map(|name| step.get(name).unwrap());
                assert!(mean > 0.0 && mean < bound && mean <= max, "{weights:?}: logp difference {mean}, at most {max}");
                assert!((ratio_mean - 1.0).abs() < bound, "{weights:?}: mean ratio {ratio_mean}");
                assert!(
                    ratio_min <= ratio_mean && ratio_mean <= ratio_max && ratio_max <= 2.0,
                    "{weights:?}: {ratio_min} to {ratio_max}"
                );
                assert!(i > 0 || (ratio_min < 1.0 && 1.0 < ratio_max), "an untrained policy is rounded to both sides");
            }
        }
    }
}

#[test]
fn sft_learns_the_completions_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let stages = "
[[stages]]
name = 'sft'
algorithm = 'sft'
max_steps = 60
data = { train = ['data.jsonl'], prompt = { chat = false } }
sft = { batch_size = 8 }
optimizer = { learning_rate = 1e-2, lr_scheduler_type = 'constant', gradient_accumulation_steps = 2 }
";
    let recipe = recipe(folder.path(), stages);
    run(&recipe, folder.path(), "run", &Closures::default(), &mut ());
    let metrics = read_metrics(&folder.path().join("run")).unwrap();
    let losses: Vec<f64> = metrics.iter().map(|set| set.get("loss").unwrap()).collect();
    // A uniform guess over four letters and the end costs ln 5 = 1.6.
    assert!(losses[0] > 1.2 && losses[59] < 0.7, "{losses:?}");
}

#[test]
fn accumulated_gradients_give_the_same_step_but_for_rounding() {
    for loss_type in ["grpo", "dr_grpo", "dapo"] {
        let norms = [1, 3].map(|parts| {
            let folder = tempfile::tempdir().unwrap();
            let mut recipe = recipe(folder.path(), GRPO);
            recipe.stages[0].max_steps = 1;
            recipe.stages[0].eval = None;
            recipe.stages[0].optimizer.gradient_accumulation_steps = parts;
            recipe.stages[0].grpo.loss_type = serde_json::from_value(loss_type.into()).unwrap();
            run(&recipe, folder.path(), "run", &Closures::default(), &mut ());
            read_metrics(&folder.path().join("run")).unwrap()[0].get("grad_norm").unwrap()
        });
        assert!((norms[0] / norms[1] - 1.0).abs() < 1e-5, "{loss_type}: {norms:?}");
    }
}

#[test]
fn step_whose_rows_are_all_dropped_learns_nothing_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path(), GRPO);
    recipe.stages[0].max_steps = 3;
    recipe.stages[0].filters = vec![toml::from_str("plugin = 'none'").unwrap()];
    let select = |batch: &plumb_core::Batch| Decision {
        keep: vec![batch.step == 2; batch.rows()],
        reasons: vec![(0, "not this step".into())],
        ..Decision::default()
    };
    let plugins = Closures { select: Some(Arc::new(select)), ..Closures::default() };
    run(&recipe, folder.path(), "run", &plugins, &mut ());
    let metrics = read_metrics(&folder.path().join("run")).unwrap();
    let of_steps: Vec<_> = metrics.iter().filter(|set| set.step > 0).collect();
    let losses: Vec<bool> = of_steps.iter().map(|set| set.get("loss").is_some()).collect();
    assert_eq!(losses, [false, true, false]);
    assert_eq!(of_steps[0].get("completions/kept_ratio"), Some(0.0));
    assert!(of_steps.iter().all(|set| set.get("reward").is_some()));
}

#[test]
fn unusable_recipes_and_data_are_refused_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let good = recipe(folder.path(), GRPO);
    let refused = |change: &dyn Fn(&mut plumb_core::recipe::Stage)| {
        let mut recipe = good.clone();
        change(&mut recipe.stages[0]);
        let error = train(&request(&recipe, folder.path(), "run", false), &Closures::default(), &mut ()).unwrap_err();
        assert!(!folder.path().join("run").exists());
        error
    };
    assert!(matches!(refused(&|s| s.rewards.clear()), Error::Recipe { key, .. } if key == "stages.rl.rewards"));
    assert!(matches!(refused(&|s| s.rewards[0].plugin.plugin = "other".into()), Error::LoadPlugin { .. }));
    assert!(matches!(refused(&|s| s.rollout.prompts_per_step = 17), Error::TooFewRows { rows: 16, needed: 17, .. }));
    let key = "stages.rl.rollout.prompts_per_step";
    assert!(matches!(refused(&|s| s.rollout.prompts_per_step = 0), Error::Recipe { key: found, .. } if found == key));
    assert!(matches!(refused(&|s| s.rollout.max_prompt_length = 1), Error::Row { unit: "line", .. }));
    assert!(matches!(refused(&|s| s.rollout.max_completion_length = 16), Error::Recipe { .. }));
    assert!(matches!(refused(&|s| s.data.prompt.template = "{{ question }}".into()), Error::Row { unit: "line", .. }));
    assert!(matches!(refused(&|s| s.data.prompt.template = "{{ prompt".into()), Error::Recipe { .. }));
    assert!(matches!(refused(&|s| s.data.prompt.chat = true), Error::Recipe { .. }));
}
