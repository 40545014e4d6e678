use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use plumb_core::feedback::{Pairs, PluginFault, Relabel};
use plumb_core::recipe::PluginUse;
use plumb_core::{Batch, Column, Decision, Filter, Judge, Plugin, PluginError, PluginId, PluginKind, RewardFn, Shaper};
use plumb_train::archive::{Archive, Selection};
use plumb_train::run::{PairLine, Record, StepRecord, Table, completions_file, ledger, pairs_file, read_metrics};
use plumb_train::{Error, LoadError, PluginFactory, export, train};

use crate::support::{Closures, Select, numbers, recipe, request, run};

const GRPO: &str = "
[[stages]]
name = 'rl'
algorithm = 'grpo'
max_steps = 3
data = { train = ['data.jsonl'], prompt = { chat = false } }
rollout = { prompts_per_step = 3, num_generations = 4, max_completion_length = 3, max_refills = 2 }
optimizer = { learning_rate = 1e-2 }
rewards = [{ plugin = 'share-of-c' }]
filters = [{ plugin = 'choose', on_failure = 'abort' }]
";

fn with(select: impl Fn(&Batch) -> Decision + Send + Sync + 'static) -> Closures {
    let select: Select = Arc::new(select);
    Closures { select: Some(select), ..Closures::default() }
}

fn keep_all(batch: &Batch) -> Decision {
    Decision { keep: vec![true; batch.rows()], ..Decision::default() }
}

fn texts<'a>(batch: &'a Batch, column: &str) -> Vec<&'a str> {
    let Some(Column::Text(texts)) = batch.column(column) else { panic!("no text column `{column}`") };
    (0..texts.len()).map(|row| texts.get(row).unwrap()).collect()
}

fn steps(run: &Path) -> Vec<StepRecord> {
    let records = ledger::read(&run.join("ledger.jsonl")).unwrap().into_iter();
    records.filter_map(|record| if let Record::Step(step) = record { Some(step) } else { None }).collect()
}

#[test]
fn pairs_are_written_for_preference_training_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), GRPO);
    // One pair within a group, one of two prompts.
    let choose = |batch: &Batch| {
        let pairs = Pairs {
            chosen: vec![1, 5],
            rejected: vec![0, 0],
            probability: vec![0.75, 1.0],
            margin: vec![0.5, -2.0],
            level: vec![0, 3],
        };
        Decision { pairs: Some(pairs), ..keep_all(batch) }
    };
    run(&recipe, folder.path(), "pairs", &with(choose), &mut ());
    let run_dir = folder.path().join("pairs");
    for step in steps(&run_dir) {
        assert_eq!((step.pairs[1].chosen, step.pairs[1].rejected, step.pairs[1].level), (5, 0, 3));
        let lines = std::fs::read_to_string(pairs_file(&run_dir, step.step)).unwrap();
        let lines: Vec<PairLine> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let table = Table::read(&completions_file(&run_dir, step.step)).unwrap();
        let (prompts, answers) = (table.texts("prompt").unwrap(), table.texts("completion").unwrap());
        assert_eq!((lines[0].chosen.as_str(), lines[0].rejected.as_str()), (answers[1], answers[0]));
        assert_eq!((lines[0].prompt.as_str(), &lines[0].rejected_prompt), (prompts[0], &None));
        assert_eq!((lines[1].prompt.as_str(), lines[1].rejected_prompt.as_deref()), (prompts[5], Some(prompts[0])));
        assert_eq!((lines[1].probability, lines[1].margin, lines[1].filter.as_str()), (1.0, -2.0, "choose"));
        assert_eq!(lines[1].chosen_row, table.ints("row_id").unwrap()[5]);
    }
    let itself = |batch: &Batch| {
        let one = vec![1];
        let pairs = Pairs { chosen: one.clone(), rejected: one, probability: vec![0.5], margin: vec![0.0], level: vec![0] };
        Decision { pairs: Some(pairs), ..keep_all(batch) }
    };
    let error = train(&request(&recipe, folder.path(), "itself", false), &with(itself), &mut ()).unwrap_err();
    assert!(matches!(&error, Error::Answer { reason, .. } if reason.contains("row 1 to itself")), "{error:?}");
}

#[test]
fn new_texts_reach_later_plugins_the_loss_and_the_records_with_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let two = "filters = [{ plugin = 'choose', on_failure = 'abort' }, { plugin = 'look', name = 'look' }]";
    let recipe = recipe(folder.path(), &GRPO.replace("filters = [{ plugin = 'choose', on_failure = 'abort' }]", two));
    let data = folder.path().join("data.jsonl");
    std::fs::write(&data, std::fs::read_to_string(&data).unwrap().replace("\"completion\"", "\"hint\"")).unwrap();
    let looks = Arc::new(Mutex::new(0));
    let seen = looks.clone();
    let choose = move |batch: &Batch| {
        if batch.column("relabelled").is_none() {
            let completion = Relabel { column: "completion".into(), rows: vec![(2, "dd".into()), (3, "xyz".into())] };
            let hint = Relabel { column: "hint".into(), rows: vec![(1, "another hint".into())] };
            return Decision { relabels: vec![completion, hint], ..keep_all(batch) };
        }
        // The second filter, over the rows that are left: the one whose text the vocabulary cannot express is gone.
        *seen.lock().unwrap() += 1;
        assert_eq!((batch.rows(), texts(batch, "completion")[2], texts(batch, "hint")[1]), (11, "dd", "another hint"));
        let Some(Column::U32(relabelled)) = batch.column("relabelled") else { panic!() };
        assert_eq!(relabelled[..4], [0, 1, 1, 0]);
        let Some(Column::TokenF32(logprobs)) = batch.column("old_logprobs") else { panic!() };
        let Some(Column::Tokens(tokens)) = batch.column("completion_ids") else { panic!() };
        assert_eq!(logprobs.row(2).len(), tokens.row(2).len());
        assert!(logprobs.row(2).iter().all(|x| *x < 0.0));
        keep_all(batch)
    };
    run(&recipe, folder.path(), "run", &with(choose), &mut ());
    assert_eq!(*looks.lock().unwrap(), 3);
    let run_dir = folder.path().join("run");
    for step in steps(&run_dir) {
        let table = Table::read(&completions_file(&run_dir, step.step)).unwrap();
        assert_eq!(table.texts("completion").unwrap()[2], "dd");
        let record = &step.completions[2];
        let sampled = record.relabelled.as_ref().unwrap().sampled.as_ref().unwrap();
        // The letters are tokens 1 to 4; the end-of-text token is there if the sampled completion had it.
        assert_eq!(record.tokens[..2], [4, 4]);
        assert_eq!(record.tokens.len(), 2 + usize::from(sampled.tokens.last() == Some(&0)));
        assert_eq!(record.logprobs.len(), record.tokens.len());
        assert!(step.completions[1].relabelled.as_ref().unwrap().columns.contains_key("hint"));
        assert!(step.completions[3].reason.as_ref().unwrap().contains("its new completion cannot be used"));
        assert_eq!(step.completions[0].relabelled, None);
    }
    // What the model has read is what its answer is learned from.
    let of_prompt = |batch: &Batch| {
        let prompt = Relabel { column: "prompt".into(), rows: vec![(1, "ab".into())] };
        Decision { relabels: vec![prompt], ..keep_all(batch) }
    };
    let error = train(&request(&recipe, folder.path(), "prompt", false), &with(of_prompt), &mut ()).unwrap_err();
    assert!(matches!(&error, Error::Answer { reason, .. } if reason.contains("`prompt`")), "{error:?}");
}

/// Fails, or answers about too few rows.
struct Broken {
    id: PluginId,
    fails: bool,
    calls: AtomicU64,
    retracted: AtomicU64,
}

impl Plugin for Broken {
    fn id(&self) -> &PluginId {
        &self.id
    }

    fn retract(&self) {
        self.retracted.fetch_add(1, Ordering::Relaxed);
    }
}

impl Filter for Broken {
    fn select(&self, _: &Batch) -> Result<Decision, PluginError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let fault = PluginFault::Fault { code: "broken".into(), message: String::new() };
        if self.fails { Err(PluginError { plugin: self.id.clone(), export: "select", fault }) } else { Ok(Decision::default()) }
    }
}

struct WithBroken(Arc<Broken>);

impl PluginFactory for WithBroken {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        Closures::default().reward(plugin)
    }

    fn judge(&self, _: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        Err("there is none".into())
    }

    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        Closures::default().shaper(plugin)
    }

    fn filter(&self, _: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        Ok(Arc::clone(&self.0) as _)
    }
}

#[test]
fn filter_is_called_once_a_step_and_a_refused_answer_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), &GRPO.replace("'abort'", "'pass-through'"));
    for (run, fails, retracted) in [("fails", true, 0), ("wrong", false, 3)] {
        let id = PluginId { name: "choose".into(), kind: PluginKind::Filter, digest: "native".into() };
        let broken = Arc::new(Broken { id, fails, calls: AtomicU64::new(0), retracted: AtomicU64::new(0) });
        train(&request(&recipe, folder.path(), run, false), &WithBroken(Arc::clone(&broken)), &mut ()).unwrap();
        let counts = [&broken.calls, &broken.retracted].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [3, retracted], "{run}");
    }
}

#[test]
fn exported_pairs_have_the_texts_that_their_filter_put_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), GRPO);
    let choose = |batch: &Batch| {
        let new = Relabel { column: "completion".into(), rows: vec![(2, "dd".into())] };
        let pairs = Pairs { chosen: vec![2], rejected: vec![1], probability: vec![1.0], margin: vec![0.5], level: vec![0] };
        Decision { pairs: Some(pairs), relabels: vec![new], ..keep_all(batch) }
    };
    run(&recipe, folder.path(), "run", &with(choose), &mut ());
    let run_dir = folder.path().join("run");
    let archive = Archive::open(&run_dir).unwrap();
    let selection = Selection::default();
    let mut exported = export::pairs(&archive, &selection, 0.0).unwrap().map(Result::unwrap);
    for step in steps(&run_dir) {
        let lines = std::fs::read_to_string(pairs_file(&run_dir, step.step)).unwrap();
        let line: PairLine = serde_json::from_str(&lines).unwrap();
        let texts: Vec<(String, String)> =
            exported.next().unwrap().into_iter().map(|pair| (pair.chosen, pair.rejected)).collect();
        assert_eq!(line.chosen, "dd");
        assert!(texts == [(line.chosen, line.rejected.clone())] || line.rejected == "dd", "{texts:?}");
    }
    // What was scored is what was sampled.
    let sampled = |one: &StepRecord| one.completions[2].relabelled.as_ref().unwrap().sampled.as_ref().unwrap().text.clone();
    let rows = export::completions(&archive, &selection).unwrap().next().unwrap().unwrap();
    assert_eq!(rows[2].completion, sampled(&steps(&run_dir)[0]));
    // A file that is not the one of the run is no record of it.
    let path = completions_file(&run_dir, 2);
    let mut table = Table::read(&path).unwrap();
    table.text("more", vec![""; table.rows()]);
    table.write(&path).unwrap();
    let read: Vec<_> = export::completions(&archive, &selection).unwrap().collect();
    let error = read[1].as_ref().unwrap_err().to_string() + &format!("{:?}", read[1].as_ref().unwrap_err());
    assert!(read[0].is_ok() && error.contains("step 2"), "{error}");
}

#[test]
fn unwanted_groups_are_replaced_by_further_prompts_and_the_last_leave_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), GRPO);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    // Never wants the second group, whatever it is.
    let choose = move |batch: &Batch| {
        let Some(Column::F64(values)) = batch.column("value") else { panic!() };
        assert_eq!(values.len(), 12);
        assert_eq!(numbers(batch, "raw"), numbers(batch, "reward/share-of-c"));
        seen.lock().unwrap().push((batch.step, batch.row_ids.clone(), texts(batch, "prompt").join(" ")));
        Decision { regenerate: vec![1], ..keep_all(batch) }
    };
    run(&recipe, folder.path(), "run", &with(choose), &mut ());
    let calls = calls.lock().unwrap();
    assert_eq!(calls.iter().map(|call| call.0).collect::<Vec<_>>(), [1, 1, 1, 2, 2, 2, 3, 3, 3]);
    for of_step in calls.chunks(3) {
        let ids: BTreeSet<u64> = of_step.iter().flat_map(|call| call.1[4..8].iter().copied()).collect();
        assert_eq!(ids.len(), 12, "each group has ids of its own");
        let prompts: BTreeSet<&str> = of_step.iter().map(|call| call.2.split(' ').nth(4).unwrap()).collect();
        assert_eq!(prompts.len(), 3, "each is of another prompt");
        assert_eq!(of_step[0].1[..4], of_step[2].1[..4]);
    }
    let run_dir = folder.path().join("run");
    for (step, calls) in steps(&run_dir).iter().zip(calls.chunks(3)) {
        assert_eq!(step.places, [0, 4, 2]);
        let table = Table::read(&completions_file(&run_dir, step.step)).unwrap();
        assert_eq!(table.ints("row_id").unwrap(), calls[2].1);
        let kept: Vec<bool> = step.completions.iter().map(|completion| completion.kept).collect();
        assert_eq!(kept, [[true; 4], [false; 4], [true; 4]].concat());
        assert!(step.completions[4].reason.as_ref().unwrap().starts_with("choose: "));
    }
    for metrics in read_metrics(&run_dir).unwrap() {
        assert_eq!((metrics.get("rollout/refills"), metrics.get("rollout/regenerated_groups")), (Some(2.0), Some(2.0)));
        assert!(metrics.get("loss").is_some());
    }
}

#[test]
fn step_on_which_a_filter_fails_follows_its_rule() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |batch: &Batch| Decision { keep: vec![true; batch.rows() - 1], ..Decision::default() };
    for (rule, learns) in [("skip-step", false), ("pass-through", true)] {
        let recipe = recipe(folder.path(), &GRPO.replace("'abort'", &format!("'{rule}'")));
        run(&recipe, folder.path(), rule, &with(wrong), &mut ());
        for (step, metrics) in steps(&folder.path().join(rule)).iter().zip(read_metrics(&folder.path().join(rule)).unwrap()) {
            assert_eq!(metrics.get("plugin/choose/failed"), Some(12.0));
            assert_eq!(metrics.get("plugin/choose/faults/bad_answer"), Some(12.0));
            assert_eq!((step.loss.is_some(), step.completions[7].kept), (learns, learns));
        }
    }
    let recipe = recipe(folder.path(), GRPO);
    let error = train(&request(&recipe, folder.path(), "abort", false), &with(wrong), &mut ()).unwrap_err();
    assert!(matches!(error, Error::Answer { step: 1, .. }), "{error:?}");
}

const DATASET: &str = "
[checkpoints]
save_steps = 1
[[stages]]
name = 'sft'
algorithm = 'sft'
max_steps = 3
data = { train = ['data.jsonl'], prompt = { chat = false } }
sft = { batch_size = 4 }
optimizer = { learning_rate = 1e-2 }
filters = [{ plugin = 'choose', scope = 'dataset' }]
";

/// Keeps the rows whose prompt comes after the middle one of all, which takes two passes.
fn upper_half() -> Closures {
    let all = Arc::new(Mutex::new(BTreeSet::new()));
    with(move |batch: &Batch| {
        assert_eq!((batch.attrs["scope"].as_str(), batch.step), ("dataset", 0));
        assert_eq!(batch.group_ends.len(), batch.rows());
        let (prompts, completions) = (texts(batch, "prompt"), texts(batch, "completion"));
        assert!(prompts.iter().zip(completions).all(|(prompt, completion)| completion == format!("{prompt}{prompt}")));
        let mut all = all.lock().unwrap();
        if batch.attrs["pass"] == "observe" {
            all.extend(prompts.iter().map(ToString::to_string));
            return Decision { keep: vec![false; batch.rows()], ..Decision::default() };
        }
        let middle = all.iter().nth(all.len() / 2).unwrap();
        Decision { keep: prompts.iter().map(|prompt| *prompt >= middle.as_str()).collect(), ..Decision::default() }
    })
}

#[test]
fn dataset_filter_chooses_once_before_the_first_step_in_two_passes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), DATASET);
    run(&recipe, folder.path(), "run", &upper_half(), &mut ());
    let run_dir = folder.path().join("run");
    let first = &read_metrics(&run_dir).unwrap()[0];
    assert_eq!((first.step, first.get("dataset/choose/rows"), first.get("dataset/choose/kept")), (0, Some(16.0), Some(8.0)));
    let records = ledger::read(&run_dir.join("ledger.jsonl")).unwrap();
    let dropped: Vec<u64> = records
        .iter()
        .find_map(|record| if let Record::Dataset { dropped, .. } = record { Some(dropped.clone()) } else { None })
        .unwrap();
    assert_eq!(dropped.len(), 8);
    assert!(steps(&run_dir).iter().flat_map(|step| &step.prompt_ids).all(|id| !dropped.contains(id)));

    // A run that goes on does not choose again: this filter would fail.
    let broken = with(|_: &Batch| panic!("asked again"));
    std::fs::remove_dir_all(run_dir.join("checkpoints/step-00000003")).unwrap();
    let whole = std::fs::read(run_dir.join("ledger.jsonl")).unwrap();
    train(&request(&recipe, folder.path(), "run", true), &broken, &mut ()).unwrap();
    assert!(std::fs::read(run_dir.join("ledger.jsonl")).unwrap() == whole);

    let mut step_scope = recipe.clone();
    step_scope.stages[0].filters[0].scope = plumb_core::recipe::FilterScope::Step;
    let error = train(&request(&step_scope, folder.path(), "no", false), &broken, &mut ()).unwrap_err().to_string();
    assert!(error.contains("scope = \"dataset\""), "{error}");
    // Nothing is left to train on: the error says so before the first step.
    let none = with(|batch: &Batch| Decision { keep: vec![false; batch.rows()], ..Decision::default() });
    let error = train(&request(&recipe, folder.path(), "none", false), &none, &mut ()).unwrap_err();
    assert!(matches!(error, Error::TooFewRows { rows: 0, needed: 4, .. }), "{error:?}");
}
