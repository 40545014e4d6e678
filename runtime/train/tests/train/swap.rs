use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plumb_core::feedback::PluginFault;
use plumb_core::recipe::{Checkpoints, PluginUse, Recipe};
use plumb_core::{
    Batch, Column, Filter, Judge, Outcome, Pending, Plugin, PluginError, PluginId, PluginKind, RewardFn, Rewards, RowFault,
    Shaper,
};
use plumb_train::control::{self, Answer, Request};
use plumb_train::run::ChangeCause::{self, Circuit, Command, Rollback, Schedule};
use plumb_train::run::{ChangeRecord, MetricSet, OutcomeRecord, Record, ledger, read_metrics};
use plumb_train::{Error, LoadError, Observer, PluginFactory, train};

use crate::repeat::assert_same_run;
use crate::support::{recipe, request, share_of};

/// A reward that tells which generation it is: the whole part of its scores is its number, the rest depends on the text and on the
/// steps it (or who handed its state over) has seen.
struct Numbered {
    id: PluginId,
    number: f64,
    /// Fails on every row from its so many-th batch on.
    fails_from: u64,
    adopts: bool,
    batches: AtomicU64,
    steps: Mutex<u64>,
}

impl Plugin for Numbered {
    fn id(&self) -> &PluginId {
        &self.id
    }

    fn end_step(&self) {
        *self.steps.lock().unwrap() += 1;
    }

    fn save_state(&self) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(Some(self.steps.lock().unwrap().to_le_bytes().to_vec()))
    }

    fn load_state(&self, state: &[u8]) -> Result<(), PluginError> {
        *self.steps.lock().unwrap() = u64::from_le_bytes(state.try_into().unwrap());
        Ok(())
    }

    fn adopt_state(&self, state: &[u8]) -> Result<(), PluginError> {
        if !self.adopts {
            let fault = PluginFault::Fault { code: "too-old".into(), message: "version 1 is not known".into() };
            return Err(PluginError { plugin: self.id.clone(), export: "state.load", fault });
        }
        self.load_state(state)
    }
}

impl RewardFn for Numbered {
    fn submit(&self, batch: Batch) -> Pending<Result<Rewards, PluginError>> {
        let Some(Column::Text(texts)) = batch.column("completion") else { panic!("every batch has completions") };
        let fails = self.batches.fetch_add(1, Ordering::Relaxed) >= self.fails_from;
        let steps = *self.steps.lock().unwrap();
        let share = share_of('c');
        let outcome = |row: usize| {
            if fails {
                return Outcome::Failed(RowFault { code: "worn-out".into(), message: String::new() });
            }
            Outcome::Scored(self.number + 0.5 * share(texts.get(row).unwrap()) + 1e-4 * steps as f64)
        };
        Pending::ready(Ok(Rewards { outcomes: (0..batch.rows()).map(outcome).collect(), ..Rewards::default() }))
    }
}

/// `generation-N`, `stubborn-N` (refuses every state), `fails-from-N` (generation 0 that fails from its batch N on).
struct Factory;

impl Factory {
    fn numbered(plugin: &PluginUse) -> Result<Numbered, LoadError> {
        let (what, number) = plugin.plugin.rsplit_once('-').ok_or("no number")?;
        let number: u64 = number.parse()?;
        let (number, fails_from) = match what {
            "generation" | "stubborn" => (number, u64::MAX),
            "fails-from" => (0, number),
            _ => return Err(format!("no reward is named `{}`", plugin.plugin).into()),
        };
        let name = plugin.name.clone().unwrap_or_else(|| "score".into());
        Ok(Numbered {
            id: PluginId { name, kind: PluginKind::Reward, digest: plugin.plugin.clone() },
            number: number as f64,
            fails_from,
            adopts: what != "stubborn",
            batches: AtomicU64::new(0),
            steps: Mutex::new(0),
        })
    }
}

impl PluginFactory for Factory {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        Ok(Arc::new(Self::numbered(plugin)?))
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

/// The plugins of [`Factory`] from files that hold their names.
#[derive(Default)]
struct Files(Mutex<BTreeMap<String, PathBuf>>);

impl PluginFactory for Files {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        let text = std::fs::read_to_string(&plugin.plugin)?;
        let digest = ledger::hash(text.as_bytes());
        self.0.lock().unwrap().insert(digest.clone(), PathBuf::from(&plugin.plugin));
        let mut numbered = Factory::numbered(&PluginUse { plugin: text, ..plugin.clone() })?;
        numbered.id.digest = digest;
        Ok(Arc::new(numbered))
    }

    fn judge(&self, plugin: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        Factory.judge(plugin)
    }

    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        Factory.shaper(plugin)
    }

    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        Factory.filter(plugin)
    }

    fn file(&self, id: &PluginId) -> Option<PathBuf> {
        self.0.lock().unwrap().get(&id.digest).cloned()
    }
}

fn stage(max_steps: u64, plugin: &str, more: &str) -> String {
    format!(
        "[checkpoints]
save_steps = 4
save_total_limit = 100
[circuit]
failed_steps = 2
[[stages]]
name = 'rl'
algorithm = 'grpo'
max_steps = {max_steps}
data = {{ train = ['data.jsonl'], prompt = {{ chat = false }} }}
rollout = {{ prompts_per_step = 2, num_generations = 3, max_completion_length = 3 }}
optimizer = {{ learning_rate = 1e-2 }}
rewards = [{{ plugin = '{plugin}', name = 'score', on_fault = 'drop-row' }}]
{more}"
    )
}

fn swap(to: &str) -> Request {
    let plugin = serde_json::from_value(serde_json::json!({ "plugin": to })).unwrap();
    Request::Swap { replace: "score".into(), plugin }
}

fn shadow(to: &str) -> Request {
    let plugin = serde_json::from_value(serde_json::json!({ "plugin": to })).unwrap();
    Request::Shadow { name: "score".into(), plugin }
}

fn back() -> Request {
    Request::Rollback { name: "score".into() }
}

/// Makes requests after given steps, and gives the loading thread time.
struct Asks {
    run: PathBuf,
    after: Vec<(u64, Request)>,
    messages: Vec<String>,
}

impl Asks {
    fn new(run: &Path, after: &[(u64, Request)]) -> Self {
        Asks { run: run.to_owned(), after: after.to_vec(), messages: Vec::new() }
    }
}

impl Observer for Asks {
    fn step(&mut self, metrics: &MetricSet) {
        for (_, request) in self.after.iter().filter(|(step, _)| *step == metrics.step) {
            control::submit(&self.run, request.clone()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    fn message(&mut self, message: &str) {
        self.messages.push(message.into());
    }
}

fn answers(run: &Path) -> Vec<Answer> {
    (1..).map_while(|id| control::wait(run, id, Duration::ZERO).ok().flatten()).collect()
}

fn changes(run: &Path) -> Vec<ChangeRecord> {
    let records = ledger::read(&run.join("ledger.jsonl")).unwrap();
    records.into_iter().filter_map(|record| if let Record::Change(change) = record { Some(change) } else { None }).collect()
}

/// Holds every score of a run to the generation that the ledger says was in force, and returns the steps.
fn assert_no_step_is_lost_or_mixed(run: &Path, mut generation: f64) -> u64 {
    let mut steps = 0;
    for record in ledger::read(&run.join("ledger.jsonl")).unwrap() {
        match record {
            Record::Change(change) => {
                assert_eq!(change.step, steps + 1, "a change stands before the step it holds for");
                generation = change.plugin.id.digest.rsplit_once('-').unwrap().1.parse().unwrap();
            }
            Record::Step(step) => {
                steps += 1;
                assert_eq!((step.step, step.completions.len()), (steps, 6));
                for outcome in step.completions.iter().flat_map(|completion| &completion.outcomes) {
                    let OutcomeRecord::Scored { value } = outcome else { panic!("{outcome:?}") };
                    assert_eq!(value.floor(), generation, "step {steps}");
                }
            }
            _ => {}
        }
    }
    steps
}

/// Ends the run when its thread ends, whether or not it panicked.
struct StopsRun(Arc<AtomicBool>);

impl Drop for StopsRun {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn two_hundred_swaps_under_load_lose_no_step_and_mix_no_generations() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe { checkpoints: Checkpoints::default(), ..recipe(folder.path(), &stage(1_000_000, "generation-0", "")) };
    let request = request(&recipe, folder.path(), "run", false);
    let (run, stop) = (request.run_dir.clone(), Arc::clone(&request.interrupt));
    let asking = std::thread::spawn(move || {
        let _stop = StopsRun(stop);
        while control::require_trainer(&run).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        for number in 1..=200 {
            let id = control::submit(&run, swap(&format!("generation-{number}"))).unwrap();
            let answer = control::wait(&run, id, Duration::from_mins(1)).unwrap().expect("an answer");
            assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
        }
    });
    let error = train(&request, &Factory, &mut ()).unwrap_err();
    asking.join().unwrap();
    let Error::Interrupted { step, .. } = error else { panic!("{error:?}") };
    assert_eq!(assert_no_step_is_lost_or_mixed(&request.run_dir, 0.0), step);
    let changes = changes(&request.run_dir);
    assert_eq!(changes.len(), 200);
    assert!(changes.windows(2).all(|pair| pair[1].before == pair[0].plugin.id.digest));
}

#[test]
fn killed_run_repeats_its_changes_at_their_steps_and_leaves_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let more = "swaps = [{ step = 9, replace = 'score', plugin = 'generation-7' }, { step = 10, replace = 'score', plugin = 'fails-from-0' }]
grpo = { beta = 0.1 }";
    let recipe = recipe(folder.path(), &stage(24, "generation-1", more));
    let first = request(&recipe, folder.path(), "whole", false);
    let whole = &first.run_dir;
    let asks = [
        (1, swap("generation-2")),
        (2, shadow("generation-5")),
        (5, swap("generation-3")),
        (14, swap("generation-8")),
        (17, back()),
    ];
    train(&first, &Factory, &mut Asks::new(whole, &asks)).unwrap();
    let done = answers(whole);
    assert!(done.len() == 5 && done.iter().all(|answer| matches!(answer, Answer::Done { .. })), "{done:?}");
    let causes: Vec<ChangeCause> = changes(whole).iter().map(|change| change.cause).collect();
    assert_eq!(causes, [Command, Command, Schedule, Schedule, Circuit, Command, Rollback]);
    assert!(whole.join("poison/score.jsonl").exists() && whole.join("shadow/score.jsonl").exists());

    for kept in [0, 4, 8, 12, 16, 20] {
        let name = format!("killed-{kept}");
        let killed = folder.path().join(&name);
        copy(whole, &killed);
        std::fs::remove_dir_all(killed.join("model")).unwrap();
        for step in (kept + 1..=24).filter(|step| step % 4 == 0) {
            std::fs::remove_dir_all(killed.join(format!("checkpoints/step-{step:08}"))).unwrap();
        }
        train(&request(&recipe, folder.path(), &name, true), &Factory, &mut ()).unwrap();
        assert_same_run(whole, &killed, &name);
        for file in ["changes.jsonl", "poison/score.jsonl", "shadow/score.jsonl", "checkpoints/step-00000024/manifest.json"] {
            assert!(std::fs::read(whole.join(file)).unwrap() == std::fs::read(killed.join(file)).unwrap(), "{name}: {file}");
        }
    }
}

/// Rebuilds the plugin in place after step 5, and swaps it in.
struct Rebuilds<'a> {
    run: &'a Path,
    file: &'a Path,
}

impl Observer for Rebuilds<'_> {
    fn step(&mut self, metrics: &MetricSet) {
        if metrics.step == 5 {
            std::fs::write(self.file, "generation-2").unwrap();
            control::submit(self.run, swap(self.file.to_str().unwrap())).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn plugin_that_was_rebuilt_in_place_and_swapped_in_is_not_what_the_run_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wasm");
    std::fs::write(&file, "generation-1").unwrap();
    let recipe = recipe(folder.path(), &stage(12, file.to_str().unwrap(), ""));
    let whole = request(&recipe, folder.path(), "whole", false);
    train(&whole, &Files::default(), &mut Rebuilds { run: &whole.run_dir, file: &file }).unwrap();
    assert_eq!(changes(&whole.run_dir).len(), 1);
    let killed = folder.path().join("killed");
    copy(&whole.run_dir, &killed);
    std::fs::remove_dir_all(killed.join("model")).unwrap();
    for step in [8, 12] {
        std::fs::remove_dir_all(killed.join(format!("checkpoints/step-{step:08}"))).unwrap();
    }
    // Step 5 comes before the swap: it is the first generation's, whatever the file holds by now.
    train(&request(&recipe, folder.path(), "killed", true), &Files::default(), &mut ()).unwrap();
    assert_same_run(&whole.run_dir, &killed, "killed");
    // Another file that nobody swapped in is refused, as ever.
    std::fs::write(&file, "generation-3").unwrap();
    let error = train(&request(&recipe, folder.path(), "killed", true), &Files::default(), &mut ()).unwrap_err();
    assert!(matches!(&error, Error::Run(plumb_train::run::Error::InputChanged { .. })), "{error:?}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn bad_requests_are_refused_with_what_is_wrong_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), &stage(14, "generation-1", ""));
    let request = request(&recipe, folder.path(), "run", false);
    let unknown = Request::Rollback { name: "scores".into() };
    let bad =
        [back(), unknown, swap("nothing"), swap("stubborn-2"), swap("fails-from-0"), Request::Unshadow { name: "score".into() }];
    let asks: Vec<(u64, Request)> = bad.into_iter().map(|request| (3, request)).collect();
    train(&request, &Factory, &mut Asks::new(&request.run_dir, &asks)).unwrap();
    let refused: Vec<_> = answers(&request.run_dir)
        .into_iter()
        .map(|answer| match answer {
            Answer::Refused(refusal) => refusal,
            done @ Answer::Done { .. } => panic!("{done:?}"),
        })
        .collect();
    let codes: Vec<&str> = refused.iter().map(|refusal| refusal.code.as_str()).collect();
    assert_eq!(codes, ["nothing-before", "unknown-plugin", "load", "state-refused", "fails", "no-shadow"]);
    assert_eq!(refused[1].hint.as_deref(), Some("it has `score`"));
    assert!(refused[3].causes.iter().any(|cause| cause.contains("too-old")), "{:?}", refused[3]);
    assert!(refused[4].message.contains("worn-out"), "{:?}", refused[4]);
    assert_eq!(assert_no_step_is_lost_or_mixed(&request.run_dir, 1.0), 14);
}

#[test]
fn rollback_restores_the_generation_before_with_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), &stage(12, "generation-1", ""));
    let request = request(&recipe, folder.path(), "run", false);
    let mut asks = Asks::new(&request.run_dir, &[(2, swap("generation-2")), (7, back())]);
    train(&request, &Factory, &mut asks).unwrap();
    let [Answer::Done { step: swapped, comparison: Some(compared), .. }, Answer::Done { step: restored, digest, .. }] =
        &answers(&request.run_dir)[..]
    else {
        panic!("{:?}", answers(&request.run_dir))
    };
    assert_eq!(digest.as_deref(), Some("generation-1"));
    // Both order completions alike and differ by one generation.
    assert_eq!((compared.agreement, compared.drift.map(|drift| (1e3 * drift).round() / 1e3)), (Some(1.0), Some(1.0)));
    // The score's last digits count the steps seen: the new generation took them over, the old one goes on from its own.
    let records = ledger::read(&request.run_dir.join("ledger.jsonl")).unwrap();
    let steps_seen = |at: u64| {
        let record = records.iter().find_map(|record| match record {
            Record::Step(step) if step.step == at => Some(step),
            _ => None,
        });
        let completion = &record.unwrap().completions[0];
        let OutcomeRecord::Scored { value } = completion.outcomes[0] else { panic!() };
        let text_free = [0.0, 0.5 / 3.0, 0.25, 1.0 / 3.0, 0.5].map(|share| (value - value.floor() - share) * 1e4);
        text_free.into_iter().find(|steps| (steps - steps.round()).abs() < 1e-6 && (0.0..20.0).contains(steps)).map(f64::round)
    };
    assert_eq!(steps_seen(*swapped), Some(*swapped as f64 - 1.0));
    assert_eq!(steps_seen(*restored), Some(*swapped as f64 - 1.0));
    assert!(asks.messages.iter().any(|message| message.contains("by a rollback")), "{:?}", asks.messages);
}

#[test]
fn plugin_that_keeps_failing_stops_the_run_and_is_replaced_when_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), &stage(12, "fails-from-6", ""));
    let first = request(&recipe, folder.path(), "run", false);
    // Two prompts are two batches a step, so the fourth step is the first that fails.
    let error = train(&first, &Factory, &mut ()).unwrap_err();
    assert!(matches!(&error, Error::CircuitOpen { step: 5, plugin, .. } if plugin == "score"), "{error:?}");
    assert!(error.to_string().contains("failed on 6 of 6 rows (worn-out)"), "{error}");
    let cases = std::fs::read_to_string(first.run_dir.join("poison/score.jsonl")).unwrap();
    assert!(cases.lines().count() > 0 && cases.lines().all(|case| case.contains("worn-out")), "{cases}");
    assert!(first.run_dir.join("checkpoints/step-00000005").is_dir());
    control::submit_for_resume(&first.run_dir, swap("generation-4")).unwrap();
    train(&request(&recipe, folder.path(), "run", true), &Factory, &mut ()).unwrap();
    let changes = changes(&first.run_dir);
    assert_eq!((changes.len(), changes[0].step, changes[0].cause), (1, 6, Command));
    assert!(matches!(&answers(&first.run_dir)[..], [Answer::Done { step: 6, .. }]));
}

/// Stops the run after a step.
struct StopsAfter(u64, Arc<AtomicBool>);

impl Observer for StopsAfter {
    fn step(&mut self, metrics: &MetricSet) {
        self.1.store(metrics.step == self.0, Ordering::Relaxed);
    }
}

#[test]
fn run_that_a_circuit_stopped_at_a_checkpoint_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let every_step = stage(12, "fails-from-6", "").replace("save_steps = 4", "save_steps = 1");
    let recipe = recipe(folder.path(), &every_step);
    let resumed = |resume: bool| train(&request(&recipe, folder.path(), "run", resume), &Factory, &mut ());
    assert!(matches!(resumed(false), Err(Error::CircuitOpen { step: 5, .. })));
    // The plugin is new and fails again only from its sixth batch on: it has got its steps again.
    assert!(matches!(resumed(true), Err(Error::CircuitOpen { step: 10, .. })));

    // A checkpoint that holds the whole streak: stopped between the step that fills it and the circuit.
    let stopped = request(&recipe, folder.path(), "stopped", false);
    let error = train(&stopped, &Factory, &mut StopsAfter(5, Arc::clone(&stopped.interrupt))).unwrap_err();
    assert!(matches!(error, Error::Interrupted { step: 5, .. }), "{error:?}");
    control::submit_for_resume(&stopped.run_dir, swap("generation-4")).unwrap();
    train(&request(&recipe, folder.path(), "stopped", true), &Factory, &mut ()).unwrap();
    assert!(matches!(&answers(&stopped.run_dir)[..], [Answer::Done { step: 6, .. }]));
    // The run is over: there is nothing to wait for.
    let late = control::submit_for_resume(&stopped.run_dir, swap("generation-5"));
    assert!(matches!(late, Err(plumb_train::run::Error::NotTraining { .. })), "{late:?}");
}

#[test]
fn swap_into_a_step_that_cannot_be_begun_is_taken_back_and_its_asker_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), &stage(8, "generation-1", "").replace("'drop-row'", "'abort'"));
    let first = request(&recipe, folder.path(), "run", false);
    // It is tried on the batches of two steps, and the next one is the first that it fails on.
    let mut asks = Asks::new(&first.run_dir, &[(2, swap("fails-from-2"))]);
    let error = train(&first, &Factory, &mut asks).unwrap_err();
    assert!(matches!(error, Error::FaultAborts { .. }), "{error:?}");
    let [Answer::Refused(refusal)] = &answers(&first.run_dir)[..] else { panic!("{:?}", answers(&first.run_dir)) };
    assert_eq!(refusal.code, "withdrawn");
    assert!(asks.messages.iter().any(|message| message.contains("taken back")), "{:?}", asks.messages);
    train(&request(&recipe, folder.path(), "run", true), &Factory, &mut ()).unwrap();
    assert_eq!(assert_no_step_is_lost_or_mixed(&first.run_dir, 1.0), 8);
}

#[test]
fn schedule_replaces_plugins_and_moves_weights_at_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(6, "generation-1", "swaps = [{ step = 4, replace = 'score', plugin = 'generation-2' }]")
        .replace("on_fault", "weight_schedule = [{ step = 2, weight = 0.0 }, { step = 4, weight = 1.0 }], on_fault");
    let recipe = recipe(folder.path(), &stage);
    let request = request(&recipe, folder.path(), "run", false);
    train(&request, &Factory, &mut ()).unwrap();
    let metrics = read_metrics(&request.run_dir).unwrap();
    let of = |name: &str| metrics.iter().filter_map(|set| set.get(name)).collect::<Vec<_>>();
    assert_eq!(of("rewards/score/weight"), [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]);
    assert_eq!(of("rewards/score/mean").into_iter().map(f64::floor).collect::<Vec<_>>(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    let changes = changes(&request.run_dir);
    assert_eq!((changes.len(), changes[0].step, changes[0].cause), (1, 4, Schedule));
    let steps = ledger::read(&request.run_dir.join("ledger.jsonl")).unwrap();
    let weights: Vec<f64> =
        steps.iter().filter_map(|record| if let Record::Step(step) = record { Some(step.weights[0]) } else { None }).collect();
    assert_eq!(weights, of("rewards/score/weight"));
}

#[test]
fn schedule_that_names_no_plugin_of_the_stage_is_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let recipe =
        recipe(folder.path(), &stage(6, "generation-1", "swaps = [{ step = 4, replace = 'scor', plugin = 'generation-2' }]"));
    let request = request(&recipe, folder.path(), "run", false);
    let error = train(&request, &Factory, &mut ()).unwrap_err();
    assert!(error.to_string().contains("there are `score`"), "{error}");
    assert!(!request.run_dir.exists());
}

#[test]
fn shadow_is_compared_each_step_and_changes_no_byte_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), &stage(8, "generation-1", ""));
    let plain = request(&recipe, folder.path(), "plain", false);
    train(&plain, &Factory, &mut ()).unwrap();
    let shadowed = request(&recipe, folder.path(), "shadowed", false);
    let unshadow = Request::Unshadow { name: "score".into() };
    let mut asks = Asks::new(&shadowed.run_dir, &[(2, shadow("generation-3")), (6, unshadow)]);
    train(&shadowed, &Factory, &mut asks).unwrap();
    let bytes = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
    for file in ["ledger.jsonl", "model/model.safetensors"] {
        assert!(bytes(&plain.run_dir, file) == bytes(&shadowed.run_dir, file), "{file}");
    }
    let metrics = read_metrics(&shadowed.run_dir).unwrap();
    let compared: Vec<&MetricSet> = metrics.iter().filter(|set| set.get("shadow/score/failed").is_some()).collect();
    assert!(!compared.is_empty() && compared.len() < 7, "{}", compared.len());
    for set in &compared {
        assert!((1.99..2.0).contains(&set.get("shadow/score/mean_drift").unwrap()), "the shadow saw fewer steps");
        assert_eq!((set.get("shadow/score/agreement"), set.get("shadow/score/failed")), (Some(1.0), Some(0.0)));
    }
    let lines = std::fs::read_to_string(shadowed.run_dir.join("shadow/score.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), compared.len());
}
