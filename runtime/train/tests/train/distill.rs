//! Distillation: a student learns a teacher's distributions.

use std::path::Path;

use plumb_core::recipe::{DistillSource, EngineKind, Recipe, TokenDivergence};
use plumb_train::run::{MetricSet, read_metrics};
use plumb_train::{Error, train};

use crate::support::{Closures, recipe, request, run};

const TEACHER: &str = "
[[stages]]
name = 'sft'
algorithm = 'sft'
max_steps = 40
data = { train = ['data.jsonl'], prompt = { chat = false } }
sft = { batch_size = 8 }
optimizer = { learning_rate = 1e-2, lr_scheduler_type = 'constant' }
";

const STUDENT: &str = "
[models.teacher]
path = 'teacher/model'

[[stages]]
name = 'student'
algorithm = 'distill'
max_steps = 60
data = { train = ['data.jsonl'], prompt = { chat = false } }
distill = { teacher = 'teacher', batch_size = 8 }
rollout = { prompts_per_step = 8, num_generations = 4, max_completion_length = 6 }
optimizer = { learning_rate = 1e-2, lr_scheduler_type = 'constant' }
";

/// A teacher in `folder/teacher`, and the recipe of a student of another seed.
fn with_teacher(folder: &Path) -> Recipe {
    run(&recipe(folder, TEACHER), folder, "teacher", &Closures::default(), &mut ());
    Recipe { seed: 11, ..recipe(folder, STUDENT) }
}

fn steps_of(recipe: &Recipe, folder: &Path, name: &str) -> Vec<MetricSet> {
    run(recipe, folder, name, &Closures::default(), &mut ());
    read_metrics(&folder.join(name)).unwrap()
}

#[test]
fn student_comes_near_its_teacher_on_data_and_on_its_own_samples() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = with_teacher(folder.path());
    for source in [DistillSource::Data, DistillSource::Policy] {
        for divergence in [TokenDivergence::ForwardKl, TokenDivergence::ReverseKl, TokenDivergence::GeneralizedJs] {
            recipe.stages[0].distill.source = source;
            recipe.stages[0].distill.divergence = divergence;
            let steps = steps_of(&recipe, folder.path(), &format!("{source:?}-{divergence:?}"));
            let mean =
                |steps: &[MetricSet]| steps.iter().map(|set| set.get("divergence").unwrap()).sum::<f64>() / steps.len() as f64;
            let (first, last) = (mean(&steps[..3]), mean(&steps[57..]));
            assert!(last < 0.5 * first, "{source:?}, {divergence:?}: {first} to {last}");
            assert!(steps.iter().all(|set| set.get("loss").unwrap() >= -1e-6));
        }
    }
}

#[test]
fn both_engines_take_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = with_teacher(folder.path());
    recipe.stages[0].max_steps = 1;
    recipe.stages[0].optimizer.gradient_accumulation_steps = 2;
    let norms = [EngineKind::Native, EngineKind::Candle].map(|engine| {
        let recipe = Recipe { engine, ..recipe.clone() };
        steps_of(&recipe, folder.path(), &format!("{engine:?}"))[0].get("grad_norm").unwrap()
    });
    assert!(norms[0] > 0.01 && (norms[0] / norms[1] - 1.0).abs() < 1e-3, "{norms:?}");
}

#[test]
fn student_that_is_its_teacher_has_nothing_to_learn() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = with_teacher(folder.path());
    (recipe.model.random, recipe.model.path) = (None, Some("teacher/model".into()));
    recipe.stages[0].max_steps = 1;
    let steps = steps_of(&recipe, folder.path(), "same");
    let (loss, norm) = (steps[0].get("loss").unwrap(), steps[0].get("grad_norm").unwrap());
    assert!(loss.abs() < 1e-6 && norm < 1e-3, "{loss}, {norm}");
}

#[test]
fn teachers_that_cannot_be_are_refused_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let good = with_teacher(folder.path());
    let refused = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = good.clone();
        change(&mut recipe);
        let error = train(&request(&recipe, folder.path(), "run", false), &Closures::default(), &mut ()).unwrap_err();
        assert!(!folder.path().join("run").exists());
        match error {
            Error::Recipe { key, reason } => (key, reason),
            other => panic!("{other:?}"),
        }
    };
    let key = "stages.student.distill.teacher";
    assert_eq!(refused(&|r| r.stages[0].distill.teacher.clear()).0, key);
    let (found, reason) = refused(&|r| r.stages[0].distill.teacher = "nobody".into());
    assert!(found == key && reason.contains("no model `nobody`"), "{found}: {reason}");
    let (found, reason) = refused(&|r| r.model.random.as_mut().unwrap().alphabet = "abcde".into());
    assert!(found == key && reason.contains("must be the same"), "{found}: {reason}");
    let (found, reason) = refused(&|r| r.model.random.as_mut().unwrap().alphabet = "abdc".into());
    assert!(found == key && reason.contains("is another text"), "{found}: {reason}");
    assert_eq!(refused(&|r| r.stages[0].distill.temperature = 0.0).0, "stages.student.distill.temperature");
    assert_eq!(refused(&|r| r.stages[0].distill.js_weight = 1.0).0, "stages.student.distill.js_weight");
}
