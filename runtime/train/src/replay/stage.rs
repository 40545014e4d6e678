//! A stage's plugins as they were, step by step.

use std::collections::BTreeMap;

use plumb_core::PluginId;
use plumb_core::recipe::{PluginUse, ShapedValue, Stage};

use super::difference::{self, Compared, Difference};
use super::models::StepAnswers;
use crate::archive::{Archive, Selection};
use crate::error::{Error, Result};
use crate::generations::kept;
use crate::models::RecordedModels;
use crate::objective::registry;
use crate::pipeline::record::{record, table};
use crate::pipeline::rows::batch;
use crate::pipeline::{Scoring, assess, drop_unwanted, spans};
use crate::plugins::{AnyPlugin, PluginFactory, StagePlugins};
use crate::run::ledger::hash;
use crate::run::{ChangeCause, ChangeRecord, PluginGeneration, StepRecord};

/// A run while it is replayed.
pub(super) struct Replay<'a> {
    archive: &'a Archive,
    selection: &'a Selection,
    factory: &'a dyn PluginFactory,
    current: Option<Current<'a>>,
}

/// The stage under way.
struct Current<'a> {
    stage: &'a Stage,
    /// The plugins in force.
    plugins: StagePlugins,
    /// How each was asked for in the recipe: where its file is, if the run has no copy.
    used: BTreeMap<String, PluginUse>,
    /// The generation before, where there is one, with the state it had when it was replaced.
    previous: BTreeMap<String, AnyPlugin>,
    /// Steps of the stage that are done.
    done: u64,
}

impl<'a> Replay<'a> {
    pub fn new(archive: &'a Archive, selection: &'a Selection, factory: &'a dyn PluginFactory) -> Self {
        Replay { archive, selection, factory, current: None }
    }

    /// Loads the plugins that a stage began with, unless no step of it is selected.
    pub fn begin(&mut self, name: &str, generations: &[PluginGeneration]) -> Result<()> {
        self.current = None;
        let span = self.archive.stages.iter().find(|span| span.name == name);
        let stage = self.archive.recipe.recipe.stages.iter().find(|stage| stage.name == name);
        let Some((stage, _)) = stage.zip(span.filter(|span| self.selection.meets(span))) else { return Ok(()) };
        // Evaluations are not replayed. All other plugins are in the ledger in the order of the recipe, each under its own name.
        // Scheduled swaps are there as changes.
        let mut loading = Stage { eval: None, swaps: Vec::new(), ..stage.clone() };
        let uses = (loading.rewards.iter_mut().map(|reward| &mut reward.plugin))
            .chain(loading.judges.iter_mut().map(|judge| &mut judge.plugin))
            .chain(loading.shapers.iter_mut().map(|shaper| &mut shaper.plugin))
            .chain(loading.filters.iter_mut().map(|filter| &mut filter.plugin));
        let mut used = BTreeMap::new();
        for (plugin, generation) in uses.zip(generations) {
            used.insert(generation.id.name.clone(), plugin.clone());
            *plugin = self.source(generation, &plugin.plugin)?;
        }
        let plugins = StagePlugins::load(&loading, self.factory)?;
        for (plugin, generation) in plugins.generations.iter().zip(generations) {
            is_recorded(&plugin.id, &generation.id)?;
        }
        self.current = Some(Current { stage, plugins, used, previous: BTreeMap::new(), done: 0 });
        Ok(())
    }

    /// What loads a generation: the run's own copy, else the file or name `otherwise`.
    fn source(&self, generation: &PluginGeneration, otherwise: &str) -> Result<PluginUse> {
        let kept = kept::path(&self.archive.run_dir, &generation.id.digest);
        if !kept.exists() {
            return Ok(generation.plugin_use(otherwise));
        }
        // Its digest first: what is wrong inside a file that is another one is nobody's concern.
        let bytes = std::fs::read(&kept).map_err(|source| Error::Io { action: "read", path: kept.clone(), source })?;
        let found = hash(&bytes);
        if found != generation.id.digest {
            return Err(Error::MissingGeneration { plugin: generation.id.clone(), found: Some(found) });
        }
        let absolute = std::path::absolute(&kept).map_err(|source| Error::Io { action: "find", path: kept, source })?;
        Ok(generation.plugin_use(&absolute.to_string_lossy()))
    }

    /// Puts another generation in the place of a plugin, with the state handed over as in training.
    pub fn change(&mut self, change: &ChangeRecord) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let (name, id) = (&change.replaced, &change.plugin.id);
        let restored = match change.cause {
            ChangeCause::Rollback | ChangeCause::Circuit => current.previous.remove(name),
            ChangeCause::Command | ChangeCause::Schedule => None,
        };
        let in_force = slot(&current.plugins, name).filter(|plugin| plugin.plugin().id().kind == id.kind);
        let replaced = in_force.ok_or_else(|| Error::MissingGeneration { plugin: id.clone(), found: None })?;
        let plugin = match restored {
            Some(plugin) => plugin,
            None => {
                let otherwise = current.used.get(name).map_or("", |used| used.plugin.as_str());
                let used = self.source(&change.plugin, otherwise)?;
                let plugin = AnyPlugin::load(id.kind, &used, self.factory).map_err(|source| Error::LoadPlugin {
                    kind: id.kind,
                    plugin: used.plugin,
                    source,
                })?;
                let failed = |source| Error::Plugin { step: change.step, source };
                if let Some(state) = replaced.plugin().save_state().map_err(failed)? {
                    plugin.plugin().adopt_state(&state).map_err(failed)?;
                }
                plugin
            }
        };
        is_recorded(plugin.plugin().id(), id)?;
        current.plugins.set(name, &plugin, &change.plugin.plugin_use(""));
        if change.cause != ChangeCause::Circuit {
            current.previous.insert(name.clone(), replaced);
        }
        self.current = Some(current);
        Ok(())
    }

    /// Whether a step has to be asked about: for itself, or for the state of plugins.
    pub fn needs(&self, step: &StepRecord) -> bool {
        let wanted = self.selection.steps.as_ref().is_none_or(|steps| step.step <= *steps.end());
        wanted && self.current.as_ref().is_some_and(|current| current.stage.name == step.stage)
    }

    /// Asks the plugins about a step's completions. Returns the number of values that are the same, and the first that is not.
    pub fn step(&mut self, step: StepRecord, models: &RecordedModels) -> Result<(u64, Option<Difference>)> {
        let current = self.current.as_mut().expect("asked for steps of the stage under way only");
        current.done += 1;
        current.plugins.set_weights(current.done);
        // Further updates on the same completions call no plugin and record no values.
        let compared = if step.completions.is_empty() { (0, None) } else { current.ask(self.archive, step, models)? };
        current.plugins.end_step();
        Ok(compared)
    }
}

impl Current<'_> {
    fn ask(&self, archive: &Archive, step: StepRecord, models: &RecordedModels) -> Result<(u64, Option<Difference>)> {
        let (step, sha256) = archive.step(step)?;
        let mut rows = step.rows();
        let mut models = StepAnswers { answers: models, step: &step };
        let mut scoring = Scoring::new(&self.plugins, rows.groups.len());
        (0..rows.groups.len()).for_each(|place| scoring.submit(place, rows.group_batch(place)));
        let all = || batch(rows.step, rows.stage, rows.columns, &rows.rows());
        let scores = scoring.collect(rows.step, all, &mut models)?.scores;
        rows.scores = scores;
        if rows.scores.iter().any(|scores| !scores.spans.is_empty()) {
            spans::align(&mut rows, archive.tokenizer()?);
        }
        let scaling = registry::method(self.stage.algorithm).scaling(self.stage);
        let assessed = assess(&mut rows, &self.plugins, scaling, &mut models)?;
        drop_unwanted(&mut rows, &assessed.unwanted);
        let reasons = registry::method(self.stage.algorithm).reasons(self.stage, &rows, &assessed.pairs);
        let now = record(&rows, &reasons, &assessed.pairs);

        let names: Vec<String> = rows.scores.iter().map(|scores| scores.name.clone()).collect();
        let (same, difference) = difference::step(&names, &step.record, &now);
        let changed = step.record.completions_sha256.as_ref().filter(|recorded| **recorded != sha256);
        let (row, (value, recorded, recomputed)) = match (difference, changed) {
            (Some((row, cell)), _) => (row, cell),
            (None, changed) => match (difference::table(&step.table, &table(&rows, reasons)), changed) {
                (Some((row, cell)), _) => (Some(row), cell),
                (None, Some(recorded)) => (None, (Compared::CompletionsFile, recorded.as_str().into(), sha256.as_str().into())),
                (None, None) => return Ok((same, None)),
            },
        };
        let difference = Difference {
            stage: step.record.stage.clone(),
            step: step.record.step,
            row,
            row_id: row.map(|row| rows.rows()[row].id),
            plugins: self.makers(&value),
            value,
            recorded,
            recomputed,
            completions_changed: changed.is_some(),
            refilled: !step.record.places.is_empty(),
        };
        Ok((same, Some(difference)))
    }

    /// The plugins that a value comes from.
    fn makers(&self, value: &Compared) -> Vec<PluginId> {
        let plugins = &self.plugins;
        let shapers = |shapes: ShapedValue| {
            let shapers = plugins.shapers.iter().filter(move |shaper| shaper.shapes == shapes);
            shapers.map(|shaper| shaper.plugin.id().clone()).collect()
        };
        match value {
            Compared::Outcome { name } => slot(plugins, name).map(|plugin| plugin.plugin().id().clone()).into_iter().collect(),
            Compared::Shaped => shapers(ShapedValue::Reward),
            Compared::Advantage | Compared::TokenAdvantage { .. } => shapers(ShapedValue::Advantage),
            Compared::Weight | Compared::Kept | Compared::Reason | Compared::Relabelled | Compared::Pairs => {
                plugins.filters.iter().map(|filter| filter.plugin.id().clone()).collect()
            }
            Compared::Judgements => plugins.judges.iter().map(|judge| judge.plugin.id().clone()).collect(),
            Compared::Spans => plugins.rewards.iter().map(|reward| reward.plugin.id().clone()).collect(),
            Compared::Raw | Compared::Column { .. } | Compared::CompletionsFile => Vec::new(),
        }
    }
}

/// The plugin in force under a name.
fn slot(plugins: &StagePlugins, name: &str) -> Option<AnyPlugin> {
    plugins.slots().into_iter().find(|(have, ..)| have == name).map(|(_, plugin, _)| plugin)
}

/// Refuses a plugin that is not the one on record.
fn is_recorded(found: &PluginId, recorded: &PluginId) -> Result<()> {
    if found == recorded {
        return Ok(());
    }
    Err(Error::MissingGeneration { plugin: recorded.clone(), found: Some(found.digest.clone()) })
}
