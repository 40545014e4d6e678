//! Where plugins come from, and a stage's plugins once they are there.
//!
//! `train` does not know what a plugin is made of: a closure in a test and a sandboxed component look the same.

use std::error::Error as StdError;
use std::sync::Arc;

use plumb_core::recipe::{Eval, FaultPolicy, FilterStage, FilterUse, PluginUse, RewardUse, ShapedValue, ShaperUse, Stage};
use plumb_core::{Filter, Plugin, PluginId, PluginKind, RewardFn, Shaper};

use crate::error::{Error, Result};
use crate::run::{LockedPlugin, PluginGeneration};

/// Why a plugin could not be loaded.
pub type LoadError = Box<dyn StdError + Send + Sync>;

/// Loads plugins by what the recipe says of them.
pub trait PluginFactory {
    /// A reward plugin.
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError>;

    /// A shaper.
    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError>;

    /// A filter.
    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError>;

    /// What `plugins.lock` says of a loaded plugin.
    fn locked(&self, id: &PluginId, plugin: &PluginUse) -> LockedPlugin {
        LockedPlugin::new(id, &plugin.config)
    }
}

/// A reward plugin in the sum.
pub struct Reward {
    /// Name in the run.
    pub name: String,
    /// The plugin.
    pub plugin: Arc<dyn RewardFn>,
    /// Its weight.
    pub weight: f64,
    /// What a missing score means.
    pub on_fault: FaultPolicy,
}

/// The plugins of a stage, in the recipe's order.
#[derive(Default)]
pub struct StagePlugins {
    /// Rewards.
    pub rewards: Vec<Reward>,
    /// Shapers and what they shape.
    pub shapers: Vec<(Arc<dyn Shaper>, ShapedValue)>,
    /// Filters and what they read.
    pub filters: Vec<(Arc<dyn Filter>, FilterStage)>,
    /// Says what success is in the evaluation.
    pub eval: Option<Arc<dyn RewardFn>>,
    /// What the ledger says of them.
    pub generations: Vec<PluginGeneration>,
    /// What `plugins.lock` says of them.
    pub locked: Vec<LockedPlugin>,
}

impl StagePlugins {
    /// Loads a stage's plugins.
    ///
    /// # Errors
    /// [`Error::LoadPlugin`]; [`Error::Recipe`] when two plugins of training have one name, since metrics could not tell them apart.
    pub fn load(stage: &Stage, factory: &dyn PluginFactory) -> Result<Self> {
        let mut plugins = StagePlugins::default();
        for RewardUse { plugin, weight, on_fault, .. } in &stage.rewards {
            let loaded = factory.reward(plugin).map_err(failed(PluginKind::Reward, plugin))?;
            plugins.note(loaded.id(), plugin, factory);
            let name = plugins.new_name(stage, "rewards", loaded.id())?;
            plugins.rewards.push(Reward { name, plugin: loaded, weight: *weight, on_fault: *on_fault });
        }
        for ShaperUse { plugin, shapes, .. } in &stage.shapers {
            let loaded = factory.shaper(plugin).map_err(failed(PluginKind::Shaper, plugin))?;
            plugins.note(loaded.id(), plugin, factory);
            plugins.new_name(stage, "shapers", loaded.id())?;
            plugins.shapers.push((loaded, *shapes));
        }
        for FilterUse { plugin, reads, .. } in &stage.filters {
            let loaded = factory.filter(plugin).map_err(failed(PluginKind::Filter, plugin))?;
            plugins.note(loaded.id(), plugin, factory);
            plugins.new_name(stage, "filters", loaded.id())?;
            plugins.filters.push((loaded, *reads));
        }
        if let Some(Eval { reward, .. }) = &stage.eval {
            let loaded = factory.reward(reward).map_err(failed(PluginKind::Reward, reward))?;
            plugins.note(loaded.id(), reward, factory);
            plugins.eval = Some(loaded);
        }
        Ok(plugins)
    }

    /// A plugin's name, if no other plugin of training has it.
    fn new_name(&self, stage: &Stage, list: &str, id: &PluginId) -> Result<String> {
        let name = id.name.clone();
        if self.training().any(|(_, other)| other.id().name == name) {
            let reason = format!("two plugins are named `{name}`; give one a `name`");
            return Err(Error::Recipe { key: format!("stages.{}.{list}", stage.name), reason });
        }
        Ok(name)
    }

    fn note(&mut self, id: &PluginId, plugin: &PluginUse, factory: &dyn PluginFactory) {
        let generation = PluginGeneration { id: id.clone(), config: plugin.config.clone() };
        let locked = factory.locked(id, plugin);
        if !self.generations.contains(&generation) {
            self.generations.push(generation);
        }
        if !self.locked.contains(&locked) {
            self.locked.push(locked);
        }
    }

    /// All plugins with a key that is theirs alone in the stage: the key of their saved state.
    fn all(&self) -> Vec<(String, &dyn Plugin)> {
        let eval = self.eval.iter().map(|e| (format!("eval/{}", e.id().name), &**e as &dyn Plugin));
        self.training().chain(eval).collect()
    }

    /// Those of [`StagePlugins::all`] that steps call.
    fn training(&self) -> impl Iterator<Item = (String, &dyn Plugin)> {
        let rewards = self.rewards.iter().map(|r| (format!("reward/{}", r.name), &*r.plugin as &dyn Plugin));
        let shapers =
            self.shapers.iter().enumerate().map(|(i, (s, _))| (format!("shaper/{i}/{}", s.id().name), &**s as &dyn Plugin));
        let filters =
            self.filters.iter().enumerate().map(|(i, (f, _))| (format!("filter/{i}/{}", f.id().name), &**f as &dyn Plugin));
        rewards.chain(shapers).chain(filters)
    }

    /// Tells the plugins of training that a step is over, and returns their numbers as `plugin/<name>/<metric>`.
    pub fn end_step(&self) -> Vec<(String, f64)> {
        self.training().flat_map(|(_, plugin)| end_step(plugin, "plugin")).collect()
    }

    /// Tells the evaluation's plugin that an evaluation is over, and returns its numbers as `eval/plugin/<name>/<metric>`. It is
    /// an instance of its own, so that they are never part of a step's.
    pub fn end_evaluation(&self) -> Vec<(String, f64)> {
        self.eval.iter().flat_map(|plugin| end_step(&**plugin, "eval/plugin")).collect()
    }

    /// States to checkpoint; plugins without one are not listed.
    pub fn save(&self, step: u64) -> Result<Vec<(String, Vec<u8>)>> {
        let mut states = Vec::new();
        for (key, plugin) in self.all() {
            states.extend(plugin.save_state().map_err(|source| Error::Plugin { step, source })?.map(|state| (key, state)));
        }
        Ok(states)
    }

    /// Takes back what [`StagePlugins::save`] gave.
    pub fn restore(&self, step: u64, state: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<()> {
        for (key, plugin) in self.all() {
            if let Some(state) = state(&key)? {
                plugin.load_state(&state).map_err(|source| Error::Plugin { step, source })?;
            }
        }
        Ok(())
    }

    /// Seconds that workers have spent in the reward plugins so far, where the plugins know.
    pub fn reward_busy_s(&self) -> Option<f64> {
        self.rewards.iter().filter_map(|reward| reward.plugin.busy_s()).reduce(|sum, busy| sum + busy)
    }
}

fn end_step(plugin: &(impl Plugin + ?Sized), prefix: &str) -> Vec<(String, f64)> {
    plugin.end_step();
    let name = &plugin.id().name;
    plugin.take_metrics().into_iter().map(|(metric, value)| (format!("{prefix}/{name}/{metric}"), value)).collect()
}

fn failed(kind: PluginKind, plugin: &PluginUse) -> impl FnOnce(LoadError) -> Error {
    let plugin = plugin.plugin.clone();
    move |source| Error::LoadPlugin { kind, plugin, source }
}
