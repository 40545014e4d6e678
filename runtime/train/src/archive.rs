//! A run on record: its recipe, its ledger with the chain verified, and its steps made again of ledger and completions.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use plumb_core::PluginId;
use plumb_model::Tokenizer;

use crate::error::{Error, Result};
use crate::generations::history::{self, Source};
use crate::pipeline::record::RecordedStep;
use crate::run::ledger::Reader;
use crate::run::{ChangeRecord, LEDGER, PluginGeneration, Record, RunRecipe, StepRecord, Table, completions_file, read_recipe};

/// A run whose ledger is whole.
pub struct Archive {
    /// The run's folder.
    pub run_dir: PathBuf,
    /// The recipe it was started with.
    pub recipe: RunRecipe,
    /// Stages that have steps, in order.
    pub stages: Vec<StageSpan>,
    /// The tool plugins that it ran with; empty in ledgers of older builds.
    pub tools: Vec<PluginGeneration>,
    /// Records in the ledger.
    pub records: u64,
    /// SHA-256 of the ledger's last line: it stands for all lines, so two ledgers with one head are the same.
    pub head: String,
    tokenizer: OnceCell<Tokenizer>,
}

/// The steps of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSpan {
    /// Name of the stage.
    pub name: String,
    /// Its first step, counted over the run.
    pub first: u64,
    /// The last that is on record.
    pub last: u64,
}

/// Which steps of a run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Those of this stage alone.
    pub stage: Option<String>,
    /// Those in this range, counted over the run.
    pub steps: Option<RangeInclusive<u64>>,
}

impl Selection {
    /// Whether a step is meant.
    pub fn has(&self, stage: &str, step: u64) -> bool {
        self.stage.as_ref().is_none_or(|name| name == stage) && self.steps.as_ref().is_none_or(|steps| steps.contains(&step))
    }

    /// Whether a stage has steps that are meant.
    pub fn meets(&self, span: &StageSpan) -> bool {
        let overlap = |steps: &RangeInclusive<u64>| *steps.start() <= span.last && span.first <= *steps.end();
        self.stage.as_ref().is_none_or(|name| *name == span.name) && self.steps.as_ref().is_none_or(overlap)
    }
}

impl Archive {
    /// Reads the recipe and all of the ledger.
    ///
    /// # Errors
    /// [`crate::run::Error::NotARun`]; [`crate::run::Error::BrokenLine`] at the first line that does not continue the chain;
    /// [`crate::run::Error::Malformed`] when the recipe is not the one that the ledger names.
    pub fn open(run_dir: &Path) -> Result<Self> {
        let recipe = read_recipe(run_dir)?;
        let mut reader = Reader::open(&run_dir.join(LEDGER))?;
        let (mut stages, mut used, mut records) = (Vec::<StageSpan>::new(), Vec::new(), 0);
        for record in reader.by_ref() {
            records += 1;
            match record? {
                Record::RunStart { recipe_sha256, .. } if recipe_sha256 != recipe.sha256 => {
                    let reason = format!("its SHA-256 is {}, the ledger names {recipe_sha256}", recipe.sha256);
                    return Err(crate::run::Error::Malformed { path: run_dir.join("recipe.toml"), reason }.into());
                }
                Record::Step(step) => match stages.last_mut().filter(|span| span.name == step.stage) {
                    Some(span) => span.last = step.step,
                    None => stages.push(StageSpan { name: step.stage, first: step.step, last: step.step }),
                },
                // A run goes on with the tools that it began with alone.
                Record::Plugins { tools, .. } => used = tools,
                _ => {}
            }
        }
        let head = reader.head().to_owned();
        Ok(Archive { run_dir: run_dir.to_owned(), recipe, stages, tools: used, records, head, tokenizer: OnceCell::new() })
    }

    /// The tokenizer of the run's model.
    ///
    /// # Errors
    /// When the model that the recipe names is not there any more.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let RunRecipe { recipe, folder, .. } = &self.recipe;
        let model = match (&recipe.model.random, &recipe.model.path) {
            (Some(spec), _) => plumb_model::random(spec, recipe.seed)?,
            (None, path) => plumb_model::load(&folder.join(path.as_deref().unwrap_or(Path::new(""))))?,
        };
        Ok(self.tokenizer.get_or_init(|| model.tokenizer))
    }

    /// The ledger's records, from the first on.
    pub fn ledger(&self) -> Result<impl Iterator<Item = Result<Record>>> {
        Ok(Reader::open(&self.run_dir.join(LEDGER))?.map(|record| record.map_err(Error::from)))
    }

    /// A step of completions, and the SHA-256 of its file of completions as it is now.
    ///
    /// # Errors
    /// When the file is missing, or not about the completions of the record.
    pub fn step(&self, record: StepRecord) -> Result<(RecordedStep, String)> {
        let path = completions_file(&self.run_dir, record.step);
        let (table, sha256) = Table::read_hashed(&path)?;
        Ok((RecordedStep::new(record, table, &path)?, sha256))
    }

    /// The selected steps that have completions, in order.
    ///
    /// # Errors
    /// [`Error::NoSteps`] when there are none to select; [`crate::run::Error::Malformed`] at a step whose file of completions is not the one
    /// that the ledger names.
    pub fn steps<'a>(&'a self, selection: &'a Selection) -> Result<impl Iterator<Item = Result<RecordedStep>> + 'a> {
        self.check(selection)?;
        let steps = self.ledger()?.filter_map(|record| match record {
            Ok(Record::Step(step)) if selection.has(&step.stage, step.step) && !step.completions.is_empty() => {
                Some(self.step(step).and_then(|(step, sha256)| self.unchanged(step, &sha256)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        Ok(steps)
    }

    fn unchanged(&self, step: RecordedStep, sha256: &str) -> Result<RecordedStep> {
        match &step.record.completions_sha256 {
            Some(recorded) if recorded != sha256 => {
                let path = completions_file(&self.run_dir, step.record.step);
                let reason = format!("its SHA-256 is {sha256}, the ledger's step {} names {recorded}", step.record.step);
                Err(crate::run::Error::Malformed { path, reason }.into())
            }
            _ => Ok(step),
        }
    }

    /// Refuses a selection without steps.
    pub fn check(&self, selection: &Selection) -> Result<()> {
        if self.stages.iter().any(|span| selection.meets(span)) {
            return Ok(());
        }
        Err(Error::NoSteps { path: self.run_dir.clone(), stages: self.stages.clone() })
    }
}

/// The plugins of a run's last stage, and what was changed in it.
#[derive(Clone, Debug, Default)]
pub struct Generations {
    /// Name of the stage; empty before the first one.
    pub stage: String,
    /// Those in force, in the order of the recipe: what the next step is done with.
    pub in_force: Vec<PluginGeneration>,
    /// The plugins that score along, by the names of those they are compared with.
    pub shadows: BTreeMap<String, Source>,
    /// All changes that the ledger has, in their order.
    pub changes: Vec<ChangeRecord>,
}

/// Reads which plugins a run has, also while it goes on: a line that is being written is left out. The ledger has a change once its
/// step is done; `changes.jsonl` has it before, which counts for what is in force.
///
/// # Errors
/// [`crate::run::Error::NotARun`] when there is no ledger; [`crate::run::Error::BrokenLine`].
pub fn generations(run_dir: &Path) -> Result<Generations> {
    let path = run_dir.join(LEDGER);
    if !path.is_file() {
        return Err(crate::run::Error::NotARun { path: run_dir.to_owned(), missing: LEDGER }.into());
    }
    let mut found = Generations::default();
    for record in Reader::open(&path)?.map_while(std::result::Result::ok) {
        match record {
            Record::Plugins { stage, plugins, .. } => (found.stage, found.in_force) = (stage, plugins),
            Record::Change(change) => found.changes.push(change),
            _ => {}
        }
    }
    let lines = history::read(run_dir)?;
    let (slots, shadows) = history::standing(lines.iter().filter(|line| line.stage == found.stage));
    for generation in &mut found.in_force {
        if let Some(Source { digest, used }) = slots.get(&generation.id.name).and_then(|slot| slot.current.clone()) {
            *generation = PluginGeneration::new(&PluginId { digest, ..generation.id.clone() }, &used);
        }
    }
    found.shadows = shadows;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_is_by_stage_and_by_steps_of_the_run() {
        let span = StageSpan { name: "rl".into(), first: 6, last: 12 };
        let select = |stage: Option<&str>, steps| Selection { stage: stage.map(Into::into), steps };
        assert!(select(None, None).meets(&span) && select(Some("rl"), Some(12..=90)).meets(&span));
        assert!(!select(Some("sft"), None).meets(&span) && !select(None, Some(1..=5)).meets(&span));
        assert!(select(None, Some(6..=6)).has("rl", 6) && !select(None, Some(6..=6)).has("rl", 7));
        assert!(!select(Some("sft"), None).has("rl", 7));
    }
}
