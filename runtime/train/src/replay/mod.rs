//! Asks a run's plugins again, and compares every answer with the ledger bit for bit.
//!
//! The completions come from the run's files, the plugins from `RUN/plugins`, models' answers from the ledger. What happens between
//! completions and loss is [`crate::pipeline`], the code that training uses. Plugins with state need all steps of their stage from
//! the first on, so those before a selected step are asked too, silently.
//!
//! Not on record, and so not replayed: the completions of evaluations, groups that a filter had sampled again, and choices among the
//! data. What counts discarded groups can therefore not be proven: a reward in its `kv`, and a judge that compares across groups in a step
//! that was refilled. Training asks judges about each sampling by itself, a replay about the groups that are left, together; a judge
//! whose verdicts on a group depend on that group alone says the same. A difference in such a step is marked ([`Difference::refilled`]).

mod difference;
mod models;
mod stage;

use plumb_core::PluginId;
use plumb_core::recipe::PluginUse;
use serde::Serialize;

use crate::archive::{Archive, Selection};
use crate::error::{Error, Result};
use crate::models::RecordedModels;
use crate::plugins::PluginFactory;
use crate::run::{LEDGER, PluginGeneration, Record};
pub use difference::{Compared, Difference};
use stage::Replay;

/// What a replay found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// Steps that were compared.
    pub steps: u64,
    /// Their values that are the same.
    pub values: u64,
    /// The first that is not. Nothing after it was compared.
    pub difference: Option<Difference>,
    /// Records of the ledger; its chain is whole.
    pub records: u64,
    /// SHA-256 of the ledger's last line.
    pub head: String,
}

/// Replays the selected steps of a run; `on_step` is told of each step before it is asked about. `models` are those that `factory`
/// hands to plugins: they get the answers of each step from the ledger.
///
/// # Errors
/// A broken chain, a missing file, [`crate::Error::NoSteps`], and [`crate::Error::MissingGeneration`] when there is no plugin or tool
/// of a recorded digest.
pub fn replay(
    archive: &Archive,
    selection: &Selection,
    factory: &dyn PluginFactory,
    models: &RecordedModels,
    on_step: &mut dyn FnMut(u64),
) -> Result<Replayed> {
    archive.check(selection)?;
    has_tools(&factory.tools(), &archive.tools)?;
    let mut replay = Replay::new(archive, selection, factory);
    let mut found = Replayed { steps: 0, values: 0, difference: None, records: archive.records, head: archive.head.clone() };
    for record in archive.ledger()? {
        let record = record?;
        // Answers are those of the record that follows them.
        let answered = matches!(record, Record::Step(_) | Record::Eval { .. } | Record::Dataset { .. });
        match record {
            Record::Plugins { stage, plugins, .. } => replay.begin(&stage, &plugins)?,
            Record::Change(change) => replay.change(&change)?,
            Record::Answers { answers, .. } => {
                let reason = |key| format!("the recorded answer {key} is none");
                let malformed = |key| crate::run::Error::Malformed { path: archive.run_dir.join(LEDGER), reason: reason(key) };
                models.replace(RecordedModels::new(&answers).map_err(|key| Error::Run(malformed(key)))?);
            }
            Record::Step(step) if replay.needs(&step) => {
                on_step(step.step);
                let compared = selection.has(&step.stage, step.step);
                let (same, difference) = replay.step(step, models)?;
                if compared {
                    found.steps += 1;
                    found.values += same;
                    found.difference = difference;
                }
                if found.difference.is_some() {
                    break;
                }
            }
            _ => {}
        }
        if answered {
            models.replace(RecordedModels::default());
        }
    }
    Ok(found)
}

/// Refuses tools that are not those on record: plugins that ask them would answer otherwise for a reason that no plugin is.
fn has_tools(loaded: &[(PluginId, PluginUse)], recorded: &[PluginGeneration]) -> Result<()> {
    for PluginGeneration { id, .. } in recorded {
        match loaded.iter().map(|(loaded, _)| loaded).find(|loaded| loaded.name == id.name) {
            Some(found) if found == id => {}
            found => {
                let found = found.map(|found| found.digest.clone());
                return Err(Error::MissingGeneration { plugin: id.clone(), found });
            }
        }
    }
    Ok(())
}
