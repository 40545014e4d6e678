use std::sync::{Arc, Mutex};

use plumb_core::recipe::PluginUse;
use plumb_core::{
    Batch, Filter, Judge, Outcome, Pending, Plugin, PluginError, PluginId, PluginKind, RewardFn, Rewards, RowFault, Shaper,
};
use plumb_train::pipeline::fault_counts;
use plumb_train::run::read_metrics;
use plumb_train::{Error, LoadError, PluginFactory, train};

use crate::support::{recipe, request};

/// Fails on the first row of each batch, scores the others, and reports how many rows it was given in a step. Says that each
/// row took a second; its state is the number of rows of all steps.
struct Counting {
    id: PluginId,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    all: u64,
    before: u64,
    ended: Option<u64>,
}

impl Plugin for Counting {
    fn id(&self) -> &PluginId {
        &self.id
    }

    fn end_step(&self) {
        let mut rows = self.rows.lock().unwrap();
        rows.ended = Some(rows.all - rows.before).filter(|&rows| rows > 0);
        rows.before = rows.all;
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        let ended = self.rows.lock().unwrap().ended.take();
        ended.map_or_else(Vec::new, |rows| vec![("seen".into(), rows as f64), ("failed".into(), 99.0)])
    }

    fn busy_s(&self) -> Option<f64> {
        Some(self.rows.lock().unwrap().all as f64)
    }

    fn save_state(&self) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(Some(self.rows.lock().unwrap().before.to_le_bytes().to_vec()))
    }
}

impl RewardFn for Counting {
    fn submit(&self, batch: Batch) -> Pending<Result<Rewards, PluginError>> {
        self.rows.lock().unwrap().all += batch.rows() as u64;
        let failed = Outcome::Failed(RowFault { code: "first-row".into(), message: String::new() });
        let scored = (1..batch.rows()).map(|row| Outcome::Scored((row % 2) as f64));
        let outcomes = std::iter::once(failed).chain(scored).collect();
        Pending::ready(Ok(Rewards { outcomes, ..Rewards::default() }))
    }
}

struct Factory;

impl PluginFactory for Factory {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        let id = PluginId { name: plugin.plugin.clone(), kind: PluginKind::Reward, digest: "native".into() };
        Ok(Arc::new(Counting { id, rows: Mutex::default() }))
    }

    fn judge(&self, _: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        Err("there is none".into())
    }

    fn shaper(&self, _: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        Err("there is none".into())
    }

    fn filter(&self, _: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        Err("there is none".into())
    }
}

const GRPO: &str = "
[[stages]]
name = 'rl'
algorithm = 'grpo'
max_steps = 4
data = { train = ['data.jsonl'], prompt = { chat = false } }
rollout = { prompts_per_step = 3, num_generations = 4, max_completion_length = 4 }
grpo.num_iterations = 2
rewards = [{ plugin = 'counting', on_fault = 'drop-row' }]
eval = { files = ['data.jsonl'], reward = { plugin = 'counting' }, every_steps = 2, success_at = 1.0 }
";

#[test]
fn plugins_numbers_are_those_of_the_step_and_apart_from_the_evaluations() {
    let folder = tempfile::tempdir().unwrap();
    train(&request(&recipe(folder.path(), GRPO), folder.path(), "run", false), &Factory, &mut ()).unwrap();
    let metrics = read_metrics(&folder.path().join("run")).unwrap();
    let of = |name: &str| metrics.iter().map(|set| set.get(name)).collect::<Vec<_>>();
    // Before the first step and after the second and fourth is an evaluation; the second and fourth step reuse a batch.
    assert_eq!(of("plugin/counting/seen"), [None, Some(12.0), None, Some(12.0), None]);
    assert_eq!(of("time/reward_busy_s"), [None, Some(12.0), None, Some(12.0), None]);
    assert_eq!(of("eval/plugin/counting/seen"), [Some(16.0), None, Some(16.0), None, Some(16.0)]);
    assert_eq!(of("plugin/counting/failed"), [None, Some(3.0), None, Some(3.0), None], "the trainer's count, not the plugin's");
    assert_eq!(of("plugin/counting/faults/first-row"), of("plugin/counting/failed"));
    assert_eq!(of("rewards/counting/mean").iter().flatten().count(), 4, "what describes the batch stays");
}

#[test]
fn state_of_an_evaluations_plugin_is_kept_in_checkpoints_of_every_algorithm() {
    let folder = tempfile::tempdir().unwrap();
    let sft = "
[[stages]]
name = 'sft'
algorithm = 'sft'
max_steps = 2
data = { train = ['data.jsonl'], prompt = { chat = false } }
sft = { batch_size = 4 }
rollout = { max_completion_length = 4 }
eval = { files = ['data.jsonl'], reward = { plugin = 'judging' }, success_at = 1.0 }
";
    train(&request(&recipe(folder.path(), sft), folder.path(), "run", false), &Factory, &mut ()).unwrap();
    let states = std::fs::read_dir(folder.path().join("run/checkpoints/step-00000002/plugins")).unwrap();
    let states: Vec<_> = states.map(|state| std::fs::read(state.unwrap().path()).unwrap()).collect();
    assert_eq!(states, [32_u64.to_le_bytes()], "two evaluations of 16 rows");
}

#[test]
fn two_plugins_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), &GRPO.replace("'drop-row' }", "'drop-row' }, { plugin = 'counting' }"));
    let error = train(&request(&recipe, folder.path(), "run", false), &Factory, &mut ()).unwrap_err();
    assert!(matches!(&error, Error::Recipe { key, .. } if key == "stages.rl.rewards"), "{error:?}");
}

#[test]
fn codes_of_faults_are_counted_and_bounded() {
    let count = |codes: &[&str]| fault_counts("p", codes.iter().copied());
    let expected = [("plugin/p/faults/other", 2.0), ("plugin/p/faults/trap", 2.0)];
    assert_eq!(count(&["trap", "a code\nof two lines", "trap", ""]), expected.map(|(name, rows)| (name.to_owned(), rows)));
    let many: Vec<String> = (0..40).map(|i| format!("code{i:02}")).collect();
    let counts = count(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((counts.len(), counts.last().unwrap()), (16, &("plugin/p/faults/other".to_owned(), 25.0)));
}
