//! Shipped recipes, without plugins or with native ones in their place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_core::recipe::Recipe;
use plumb_train::run::{MetricSet, read_metrics};
use plumb_train::{TrainRequest, train};

use crate::support::Closures;

/// `recipes/<name>.toml` with another seed and fewer steps of its last stage, and the folder of recipes.
fn shipped(name: &str, seed: u64, max_steps: u64) -> (Recipe, PathBuf) {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("recipes");
    let mut recipe: Recipe = toml::from_str(&std::fs::read_to_string(recipes.join(format!("{name}.toml"))).unwrap()).unwrap();
    recipe.seed = seed;
    recipe.stages.last_mut().unwrap().max_steps = max_steps;
    (recipe, recipes)
}

/// The metrics of a run of a recipe in `run_dir`.
fn run_in(run_dir: &Path, (recipe, recipe_dir): (Recipe, PathBuf)) -> Vec<MetricSet> {
    let (models, interrupt) = (Arc::default(), Arc::default());
    let request = TrainRequest { recipe, recipe_dir, run_dir: run_dir.to_owned(), resume: false, models, interrupt };
    train(&request, &Closures::default(), &mut ()).unwrap();
    read_metrics(run_dir).unwrap()
}

fn metrics_of(name: &str, seed: u64, max_steps: u64) -> Vec<MetricSet> {
    run_in(&tempfile::tempdir().unwrap().path().join("run"), shipped(name, seed, max_steps))
}

#[test]
fn recipes_over_preferences_learn_to_rank_on_every_seed() {
    for name in ["tiny-kto", "tiny-orpo", "tiny-cpo", "tiny-simpo"] {
        for seed in [1, 2, 3] {
            let steps = metrics_of(name, seed, 60);
            let margin = |range: std::ops::Range<usize>| {
                let of = |step: usize| steps[step].get("rewards/margins").unwrap();
                let n = range.len() as f64;
                range.map(of).sum::<f64>() / n
            };
            let (first, last) = (margin(0..5), margin(55..60));
            assert!(last > first + 0.1 && last > 0.1, "{name}, seed {seed}: margin {first} to {last}");
            if let Some(accuracy) = steps[59].get("rewards/accuracies") {
                assert!(accuracy > 0.7, "{name}, seed {seed}: accuracy {accuracy}");
            }
        }
    }
}

#[test]
fn recipes_over_own_samples_raise_the_reward_on_every_seed() {
    for name in ["tiny-raft", "tiny-online-dpo", "tiny-rloo", "tiny-reinforce-plus-plus"] {
        for seed in [1, 2, 3] {
            let steps = metrics_of(name, seed, 60);
            let rewards: Vec<f64> = steps.iter().filter_map(|set| set.get("reward")).collect();
            let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
            let (first, last) = (mean(&rewards[..5]), mean(&rewards[55..]));
            assert!(last > first + 0.1, "{name}, seed {seed}: reward {first} to {last}");
        }
    }
}

#[test]
fn distillation_recipe_comes_near_the_teacher_that_another_recipe_leaves_on_every_seed() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = folder.path().join("teacher");
    run_in(&teacher, shipped("tiny-orpo", 1, 60));
    for seed in [1, 2, 3] {
        let (mut recipe, recipes) = shipped("tiny-distill", seed, 60);
        recipe.models.get_mut("teacher").unwrap().path = Some(teacher.join("model"));
        let steps = run_in(&folder.path().join(format!("student-{seed}")), (recipe, recipes));
        let mean = |steps: &[MetricSet]| steps.iter().map(|set| set.get("divergence").unwrap()).sum::<f64>() / steps.len() as f64;
        let (first, last) = (mean(&steps[..5]), mean(&steps[55..]));
        assert!(last < 0.6 * first, "seed {seed}: {first} to {last}");
    }
}
