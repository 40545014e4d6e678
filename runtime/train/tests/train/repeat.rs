use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plumb_core::recipe::{Recipe, Stage};
use plumb_train::run::{MetricSet, completion_files};
use plumb_train::{Error, Observer, train};

use crate::support::{Closures, recipe, request, run, timeless_metrics};

/// Two stages, a reference, several updates per batch, a shaper with state: all that a checkpoint has to hold.
const STAGES: &str = "
[checkpoints]
save_steps = 2
[[stages]]
name = 'sft'
algorithm = 'sft'
max_steps = 3
data = { train = ['data.jsonl'], prompt = { chat = false } }
sft = { batch_size = 4 }
optimizer = { learning_rate = 1e-2, weight_decay = 0.1 }
[[stages]]
name = 'rl'
algorithm = 'grpo'
max_steps = 9
data = { train = ['data.jsonl'], holdout = 4, prompt = { chat = false } }
rollout = { prompts_per_step = 3, num_generations = 4, max_completion_length = 5, max_batch = 5 }
grpo = { beta = 0.1, num_iterations = 2, epsilon = 0.05 }
optimizer = { learning_rate = 1e-2, warmup_steps = 2, lr_scheduler_type = 'cosine', gradient_accumulation_steps = 2 }
rewards = [{ plugin = 'share-of-c' }, { plugin = 'share-of-d', weight = 0.3 }]
shapers = [{ plugin = 'centred' }]
eval = { reward = { plugin = 'share-of-c' }, every_steps = 4, success_at = 0.5 }
";

/// Stops the process's part of a run the hard way, as SIGKILL would: after a step was logged, wherever that is.
struct KillAfter(u64);

impl Observer for KillAfter {
    fn step(&mut self, metrics: &MetricSet) {
        assert!(metrics.step < self.0, "killed");
    }
}

pub fn assert_same_run(a: &Path, b: &Path, what: &str) {
    for name in ["model/model.safetensors", "ledger.jsonl", "plugins.lock"] {
        assert!(std::fs::read(a.join(name)).unwrap() == std::fs::read(b.join(name)).unwrap(), "{what}: `{name}` differs");
    }
    assert_eq!(timeless_metrics(a), timeless_metrics(b), "{what}");
    let files = |run: &Path| completion_files(run).unwrap().into_iter().map(|(step, path)| (step, std::fs::read(path).unwrap()));
    assert!(files(a).eq(files(b)), "{what}: completions differ");
}

fn killed_and_resumed(recipe: &Recipe, folder: &Path, step: u64) {
    let name = format!("killed-{step}");
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let killed = catch_unwind(AssertUnwindSafe(|| run(recipe, folder, &name, &Closures::default(), &mut KillAfter(step))));
    std::panic::set_hook(quiet);
    assert!(killed.is_err());
    train(&request(recipe, folder, &name, true), &Closures::default(), &mut ()).unwrap();
}

#[test]
fn killed_and_resumed_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), STAGES);
    run(&recipe, folder.path(), "whole", &Closures::default(), &mut ());
    let whole = folder.path().join("whole");
    let stages: Vec<_> = timeless_metrics(&whole).iter().map(|set| (set.stage.clone(), set.step)).collect();
    assert_eq!(stages.len(), 3 + 1 + 9);
    // In the first stage before and after its checkpoint, at its end, and in the second stage in all positions of a batch.
    for step in [1, 2, 3, 5, 6, 8, 12] {
        killed_and_resumed(&recipe, folder.path(), step);
        assert_same_run(&whole, &folder.path().join(format!("killed-{step}")), &format!("killed after step {step}"));
    }
}

struct InterruptAfter(u64, Arc<AtomicBool>);

impl Observer for InterruptAfter {
    fn step(&mut self, metrics: &MetricSet) {
        self.1.store(metrics.step >= self.0, Ordering::Relaxed);
    }
    fn stage(&mut self, _stage: &Stage, _done: u64) {}
}

#[test]
fn interrupted_run_leaves_a_checkpoint_and_ends_with_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), STAGES);
    run(&recipe, folder.path(), "whole", &Closures::default(), &mut ());
    let first = request(&recipe, folder.path(), "stopped", false);
    let mut observer = InterruptAfter(6, first.interrupt.clone());
    // Step 6 is the first half of a batch's two updates, so the run stops after step 7.
    let error = train(&first, &Closures::default(), &mut observer).unwrap_err();
    assert!(matches!(error, Error::Interrupted { step: 7, checkpoint: Some(7) }), "{error:?}");
    assert!(folder.path().join("stopped/checkpoints/step-00000007").is_dir());
    train(&request(&recipe, folder.path(), "stopped", true), &Closures::default(), &mut ()).unwrap();
    let model = |run: &str| std::fs::read(folder.path().join(run).join("model/model.safetensors")).unwrap();
    assert!(model("whole") == model("stopped"));
    assert_eq!(timeless_metrics(&folder.path().join("whole")), timeless_metrics(&folder.path().join("stopped")));
}

#[test]
fn thread_count_and_decoding_batch_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), STAGES);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&recipe, folder.path(), &format!("threads-{threads}"), &Closures::default(), &mut ()));
    }
    assert_same_run(&folder.path().join("threads-1"), &folder.path().join("threads-2"), "threads");
    let mut other = recipe.clone();
    other.stages[1].rollout.max_batch = 64;
    run(&other, folder.path(), "wide", &Closures::default(), &mut ());
    let model = |run: &str| std::fs::read(folder.path().join(run).join("model/model.safetensors")).unwrap();
    assert!(model("threads-1") == model("wide"));
}
