//! Stages that learn from the policy's own completions: RAFT, online DPO, and policy gradients with other baselines than GRPO's.

use std::path::Path;
use std::sync::Arc;

use plumb_core::feedback::Pairs;
use plumb_core::recipe::{RaftStrategy, Recipe, Stage};
use plumb_core::{Batch, Decision};
use plumb_train::archive::{Archive, Selection};
use plumb_train::models::RecordedModels;
use plumb_train::replay::replay;
use plumb_train::run::{MetricSet, Table, TableColumn, completion_files, read_metrics};
use plumb_train::{Error, train};

use crate::support::{Closures, recipe, request, run, timeless_metrics};

/// A stage of 30 steps that rewards the letter c.
fn stage(algorithm: &str, settings: &str) -> String {
    format!(
        "[[stages]]\nname = 'own'\nalgorithm = '{algorithm}'\nmax_steps = 30\n\
         data = {{ train = ['data.jsonl'], prompt = {{ chat = false }} }}\n{settings}\n\
         rollout = {{ prompts_per_step = 4, num_generations = 8, max_completion_length = 6 }}\n\
         optimizer = {{ learning_rate = 1e-2, lr_scheduler_type = 'constant' }}\n\
         rewards = [{{ plugin = 'share-of-c' }}]\n"
    )
}

fn steps_of(recipe: &Recipe, folder: &Path, name: &str, plugins: &Closures) -> Vec<MetricSet> {
    run(recipe, folder, name, plugins, &mut ());
    read_metrics(&folder.join(name)).unwrap()
}

#[test]
fn each_way_to_learn_from_own_samples_raises_the_reward() {
    for (algorithm, settings) in [
        ("rloo", ""),
        ("reinforce", "grpo = { num_iterations = 2 }"),
        ("reinforce-plus-plus", "grpo = { beta = 0.01, kl_estimator = 'k2' }"),
        ("grpo", "grpo = { importance_sampling_level = 'sequence', num_iterations = 2 }"),
        ("grpo", "grpo = { loss_type = 'cispo', epsilon_high = 5.0, num_iterations = 2 }"),
        ("raft", ""),
        ("raft", "raft = { strategy = 'global', top_fraction = 0.25 }"),
        ("raft", "raft = { per_prompt = 4, min_reward = 0.3, num_iterations = 2 }"),
        ("online-dpo", "dpo = { beta = 0.1 }"),
        ("online-dpo", "dpo = { beta = 0.1 }\nonline_dpo = { pairing = 'max_random' }"),
        ("online-dpo", "dpo = { beta = 0.2, loss_type = 'ipo' }\nonline_dpo = { reference_update_steps = 5 }"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let steps = steps_of(&recipe(folder.path(), &stage(algorithm, settings)), folder.path(), "run", &Closures::default());
        let reward = |steps: &[MetricSet]| {
            let rewards: Vec<f64> = steps.iter().map(|set| set.get("reward").unwrap()).collect();
            rewards.iter().sum::<f64>() / rewards.len() as f64
        };
        let (first, last) = (reward(&steps[..2]), reward(&steps[27..]));
        assert!(first < 0.45 && last > first + 0.3, "{algorithm}, {settings}: {first} to {last}");
    }
}

/// Kept rows of the first step's completions, by group of 8, and the reasons of the others.
fn kept(run_dir: &Path) -> (Vec<Vec<(String, f64)>>, Vec<String>) {
    let table = Table::read(&completion_files(run_dir).unwrap()[0].1).unwrap();
    let texts = |name: &str| match table.column(name) {
        Some(TableColumn::Text(texts)) => texts.iter().map(|text| text.clone().unwrap_or_default()).collect::<Vec<_>>(),
        other => panic!("{name}: {other:?}"),
    };
    let Some(TableColumn::Float(rewards)) = table.column("shaped") else { panic!("no rewards") };
    let (completions, reasons) = (texts("completion"), texts("reason"));
    let rows: Vec<usize> = (0..completions.len()).collect();
    let groups = rows.chunks(8).map(|group| {
        let kept = group.iter().filter(|&&row| reasons[row].is_empty());
        kept.map(|&row| (completions[row].clone(), rewards[row].unwrap())).collect()
    });
    (groups.collect(), reasons.into_iter().filter(|reason| !reason.is_empty()).collect())
}

#[test]
fn raft_learns_the_best_of_each_prompt_and_records_why_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path(), &stage("raft", "raft = { per_prompt = 2 }"));
    recipe.stages[0].max_steps = 1;
    let steps = steps_of(&recipe, folder.path(), "run", &Closures::default());
    let (groups, reasons) = kept(&folder.path().join("run"));
    assert_eq!(groups.len(), 4);
    for group in &groups {
        assert!(group.len() == 2 && group[0].0 != group[1].0, "two that differ: {group:?}");
    }
    assert_eq!((steps[0].get("raft/chosen"), reasons.len()), (Some(8.0), 24));
    assert!(reasons.iter().all(|reason| reason == "not among the best"));
    assert!(steps[0].get("raft/chosen_reward").unwrap() > steps[0].get("reward").unwrap());
}

#[test]
fn global_ranking_takes_a_share_of_the_step_and_rejection_only_what_is_good_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path(), &stage("raft", ""));
    recipe.stages[0].max_steps = 1;
    recipe.stages[0].raft.strategy = RaftStrategy::Global;
    recipe.stages[0].raft.top_fraction = 0.25;
    let steps = steps_of(&recipe, folder.path(), "share", &Closures::default());
    assert_eq!(steps[0].get("raft/chosen"), Some(8.0));
    recipe.stages[0].raft.min_reward = Some(2.0);
    let steps = steps_of(&recipe, folder.path(), "none", &Closures::default());
    assert_eq!((steps[0].get("raft/chosen"), steps[0].get("loss"), steps[0].get("raft/chosen_reward")), (Some(0.0), None, None));
}

#[test]
fn online_dpo_pairs_the_best_with_the_worst_and_skips_groups_without_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path(), &stage("online-dpo", ""));
    recipe.stages[0].max_steps = 1;
    let steps = steps_of(&recipe, folder.path(), "run", &Closures::default());
    let (groups, reasons) = kept(&folder.path().join("run"));
    assert!(groups.iter().all(|group| group.is_empty() || (group.len() == 2 && group[0].1 != group[1].1)), "{groups:?}");
    let pairs = groups.iter().filter(|group| !group.is_empty()).count();
    assert_eq!((steps[0].get("pairs/count"), reasons.len()), (Some(pairs as f64), 32 - 2 * pairs));
    assert!(steps[0].get("pairs/margin").unwrap() > 0.0);
    // The policy is its reference.
    assert!((steps[0].get("loss").unwrap() - std::f64::consts::LN_2).abs() < 1e-6);

    recipe.stages[0].rollout.num_generations = 2;
    recipe.stages[0].rewards[0].plugin.plugin = "share-of-z".into();
    let ties = steps_of(&recipe, folder.path(), "ties", &Closures::default());
    assert_eq!((ties[0].get("pairs/count"), ties[0].get("loss"), ties[0].get("pairs/margin")), (Some(0.0), None, None));
}

#[test]
fn replay_finds_the_same_choice_of_rows() {
    let pairs = |batch: &Batch| Decision {
        keep: vec![true; batch.rows()],
        pairs: Some(Pairs { chosen: vec![0], rejected: vec![1], probability: vec![1.0], margin: vec![0.5], level: vec![0] }),
        ..Decision::default()
    };
    for (algorithm, settings) in
        [("raft", "raft = { per_prompt = 2 }"), ("online-dpo", ""), ("online-dpo", "filters = [{ plugin = 'two' }]")]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = recipe(folder.path(), &stage(algorithm, settings));
        recipe.stages[0].max_steps = 2;
        let plugins = Closures { select: Some(Arc::new(pairs)), ..Closures::default() };
        run(&recipe, folder.path(), "run", &plugins, &mut ());
        let archive = Archive::open(&folder.path().join("run")).unwrap();
        let models = RecordedModels::default();
        let replayed = replay(&archive, &Selection::default(), &plugins, &models, &mut |_| {}).unwrap();
        assert_eq!((replayed.steps, replayed.difference), (2, None), "{algorithm}, {settings}");
    }
}

#[test]
fn pairs_of_a_filter_take_the_place_of_best_and_worst() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(folder.path(), &stage("online-dpo", "filters = [{ plugin = 'two' }]"));
    recipe.stages[0].max_steps = 1;
    // The first two of the first prompt, and a pair across prompts, which no loss can compare.
    let select = |batch: &Batch| Decision {
        keep: vec![true; batch.rows()],
        pairs: Some(Pairs {
            chosen: vec![0, 0],
            rejected: vec![1, 8],
            probability: vec![1.0; 2],
            margin: vec![0.5; 2],
            level: vec![0; 2],
        }),
        ..Decision::default()
    };
    let plugins = Closures { select: Some(Arc::new(select)), ..Closures::default() };
    let steps = steps_of(&recipe, folder.path(), "run", &plugins);
    assert_eq!((steps[0].get("pairs/count"), steps[0].get("pairs/margin")), (Some(1.0), Some(0.5)));
    assert_eq!(kept(&folder.path().join("run")).0[0].len(), 2);
}

#[test]
fn runs_over_own_samples_resume_bit_for_bit_across_rounds() {
    for (algorithm, settings) in [("raft", ""), ("online-dpo", "online_dpo = { reference_update_steps = 2 }")] {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = recipe(folder.path(), &stage(algorithm, settings));
        recipe.stages[0].max_steps = 6;
        recipe.checkpoints.save_steps = 3;
        for name in ["whole", "part"] {
            run(&recipe, folder.path(), name, &Closures::default(), &mut ());
        }
        std::fs::remove_dir_all(folder.path().join("part/checkpoints/step-00000006")).unwrap();
        train(&request(&recipe, folder.path(), "part", true), &Closures::default(), &mut ()).unwrap();
        assert_eq!(timeless_metrics(&folder.path().join("whole")), timeless_metrics(&folder.path().join("part")));
    }
}

#[test]
fn settings_that_cannot_be_are_refused_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let key = |algorithm: &str, change: &dyn Fn(&mut Stage)| {
        let mut recipe = recipe(folder.path(), &stage(algorithm, ""));
        change(&mut recipe.stages[0]);
        let error = train(&request(&recipe, folder.path(), "run", false), &Closures::default(), &mut ()).unwrap_err();
        assert!(!folder.path().join("run").exists());
        match error {
            Error::Recipe { key, .. } => key,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(key("raft", &|s| s.raft.per_prompt = 9), "stages.own.raft.per_prompt");
    assert_eq!(key("raft", &|s| s.raft.top_fraction = 0.0), "stages.own.raft.top_fraction");
    let small = |s: &mut Stage| (s.raft.strategy, s.raft.top_fraction) = (RaftStrategy::Global, 0.01);
    assert_eq!(key("raft", &|s| small(s)), "stages.own.raft.top_fraction");
    assert_eq!(key("raft", &|s| s.raft.num_iterations = 0), "stages.own.raft.num_iterations");
    assert_eq!(key("raft", &|s| s.rewards.clear()), "stages.own.rewards");
    assert_eq!(key("online-dpo", &|s| s.rollout.num_generations = 1), "stages.own.rollout.num_generations");
    assert_eq!(key("online-dpo", &|s| s.dpo.beta = 0.0), "stages.own.dpo.beta");
    let free = |s: &mut Stage| (s.dpo.reference_free, s.online_dpo.reference_update_steps) = (true, 3);
    assert_eq!(key("online-dpo", &|s| free(s)), "stages.own.online_dpo.reference_update_steps");
}
