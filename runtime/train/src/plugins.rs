//! Where plugins come from, and a stage's plugins once they are there.
//!
//! `train` does not know what a plugin is made of: a closure in a test and a sandboxed component look the same.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use plumb_core::recipe::{
    Eval, FaultPolicy, FilterScope, FilterStage, FilterUse, JudgeUse, PluginUse, RewardUse, ScheduledSwap, ShapedValue,
    ShaperUse, Stage, StepPolicy, WeightAt,
};
use plumb_core::{Filter, Judge, Plugin, PluginId, PluginKind, RewardFn, Shaper};

use crate::error::{Error, Result};
use crate::generations::control::Refusal;
use crate::run::{LockedPlugin, PluginGeneration};

/// Why a plugin could not be loaded.
pub type LoadError = Box<dyn StdError + Send + Sync>;

/// Loads plugins by what the recipe says of them; also while training goes on, from another thread.
pub trait PluginFactory: Sync {
    /// A reward plugin.
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError>;

    /// A judge.
    fn judge(&self, plugin: &PluginUse) -> Result<Arc<dyn Judge>, LoadError>;

    /// A shaper.
    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError>;

    /// A filter.
    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError>;

    /// The recipe's tool plugins, in the order of their names. They are loaded before any other plugin, and stay as they are.
    fn tools(&self) -> Vec<(PluginId, PluginUse)> {
        Vec::new()
    }

    /// The file that a loaded plugin came from; None for a function of this program.
    fn file(&self, _id: &PluginId) -> Option<PathBuf> {
        None
    }

    /// Why a plugin that was asked for while the run goes on was not loaded.
    fn explain(&self, error: Error) -> Refusal {
        Refusal::from_error("load", &error)
    }

    /// What `plugins.lock` says of a loaded plugin.
    fn locked(&self, id: &PluginId, plugin: &PluginUse) -> LockedPlugin {
        LockedPlugin::new(id, &plugin.config)
    }
}

/// A plugin of any kind that a stage has.
#[derive(Clone)]
pub enum AnyPlugin {
    /// A reward plugin.
    Reward(Arc<dyn RewardFn>),
    /// A judge.
    Judge(Arc<dyn Judge>),
    /// A shaper.
    Shaper(Arc<dyn Shaper>),
    /// A filter.
    Filter(Arc<dyn Filter>),
}

impl AnyPlugin {
    /// Loads a plugin of that kind.
    pub fn load(kind: PluginKind, plugin: &PluginUse, factory: &dyn PluginFactory) -> Result<Self, LoadError> {
        Ok(match kind {
            PluginKind::Reward => AnyPlugin::Reward(factory.reward(plugin)?),
            PluginKind::Judge => AnyPlugin::Judge(factory.judge(plugin)?),
            PluginKind::Shaper => AnyPlugin::Shaper(factory.shaper(plugin)?),
            PluginKind::Filter => AnyPlugin::Filter(factory.filter(plugin)?),
            PluginKind::Tool => return Err("a tool is no plugin of a stage".into()),
        })
    }

    /// What all kinds have in common.
    pub fn plugin(&self) -> &dyn Plugin {
        match self {
            AnyPlugin::Reward(plugin) => &**plugin,
            AnyPlugin::Judge(plugin) => &**plugin,
            AnyPlugin::Shaper(plugin) => &**plugin,
            AnyPlugin::Filter(plugin) => &**plugin,
        }
    }
}

/// A plugin that takes the place of another at a step of the stage.
pub struct Scheduled {
    /// The first step of the stage that it is for.
    pub step: u64,
    /// Name in the run.
    pub name: String,
    /// As the recipe says.
    pub used: PluginUse,
    /// The plugin.
    pub plugin: AnyPlugin,
}

/// A weight in the raw reward, and its course over the stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weight {
    /// Where there is no schedule.
    pub constant: f64,
    /// Points in the order of their steps.
    pub schedule: Vec<WeightAt>,
}

impl Weight {
    /// The weight at step `step` of the stage (the first is 1): on the line between the two points around it, before the first
    /// and after the last point that point's weight.
    pub fn at(&self, step: u64) -> f64 {
        let after = self.schedule.partition_point(|point| point.step <= step);
        match (after.checked_sub(1).map(|before| self.schedule[before]), self.schedule.get(after)) {
            (None, None) => self.constant,
            (None, Some(point)) => point.weight,
            (Some(point), None) => point.weight,
            (Some(from), Some(to)) => {
                let share = (step - from.step) as f64 / (to.step - from.step) as f64;
                from.weight + share * (to.weight - from.weight)
            }
        }
    }

    /// Whether it is 0 at every step: what is weighed so only informs.
    pub fn informs_only(&self) -> bool {
        self.constant == 0.0 && self.schedule.is_empty()
    }
}

impl From<f64> for Weight {
    fn from(constant: f64) -> Self {
        Weight { constant, schedule: Vec::new() }
    }
}

/// A reward plugin in the sum.
pub struct RewardSlot {
    /// Name in the run.
    pub name: String,
    /// The plugin.
    pub plugin: Arc<dyn RewardFn>,
    /// The weight in force.
    pub weight: f64,
    /// Its course over the stage.
    pub weights: Weight,
    /// What a missing score means.
    pub on_fault: FaultPolicy,
}

/// A judge, whose verdicts count in the sum like a reward.
pub struct JudgeSlot {
    /// Name in the run.
    pub name: String,
    /// The plugin.
    pub plugin: Arc<dyn Judge>,
    /// The weight in force.
    pub weight: f64,
    /// Its course over the stage.
    pub weights: Weight,
    /// What a missing verdict means.
    pub on_fault: FaultPolicy,
    /// Most tokens that models read and write for it in a step, by row of the step.
    pub tokens_per_row: u64,
}

/// Tokens per row that a judge has without `grants.tokens_per_row`.
pub const TOKENS_PER_ROW: u64 = 4096;

/// A shaper in the chain.
pub struct ShaperSlot {
    /// Name in the run.
    pub name: String,
    /// The plugin.
    pub plugin: Arc<dyn Shaper>,
    /// What it shapes.
    pub shapes: ShapedValue,
    /// What a step means on which it fails as a whole.
    pub on_failure: StepPolicy,
}

/// A filter in the chain.
pub struct FilterSlot {
    /// Name in the run.
    pub name: String,
    /// The plugin.
    pub plugin: Arc<dyn Filter>,
    /// Which value it reads.
    pub reads: FilterStage,
    /// Which rows it sees.
    pub scope: FilterScope,
    /// What a step means on which it fails as a whole.
    pub on_failure: StepPolicy,
}

/// The plugins of a stage, in the recipe's order.
#[derive(Default)]
pub struct StagePlugins {
    /// Rewards.
    pub rewards: Vec<RewardSlot>,
    /// Judges.
    pub judges: Vec<JudgeSlot>,
    /// Shapers.
    pub shapers: Vec<ShaperSlot>,
    /// Filters.
    pub filters: Vec<FilterSlot>,
    /// Says what success is in the evaluation.
    pub eval: Option<Arc<dyn RewardFn>>,
    /// Replacements by the recipe, in the order of their steps. They are taken out when the stage begins.
    pub scheduled: Vec<Scheduled>,
    /// As the recipe uses the plugins of training, by their names.
    pub used: BTreeMap<String, PluginUse>,
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
        for RewardUse { plugin, weight, on_fault, weight_schedule } in &stage.rewards {
            let loaded = factory.reward(plugin).map_err(failed(PluginKind::Reward, plugin))?;
            plugins.note(loaded.id(), plugin, factory);
            let name = plugins.new_name(stage, "rewards", loaded.id(), plugin)?;
            let weights = course(stage, &name, *weight, weight_schedule)?;
            plugins.rewards.push(RewardSlot { name, plugin: loaded, weight: weights.at(1), weights, on_fault: *on_fault });
        }
        for JudgeUse { plugin, weight, on_fault, weight_schedule } in &stage.judges {
            let loaded = factory.judge(plugin).map_err(failed(PluginKind::Judge, plugin))?;
            plugins.note(loaded.id(), plugin, factory);
            let name = plugins.new_name(stage, "judges", loaded.id(), plugin)?;
            let weights = course(stage, &name, *weight, weight_schedule)?;
            let tokens_per_row = tokens_per_row(plugin);
            let (weight, on_fault) = (weights.at(1), *on_fault);
            plugins.judges.push(JudgeSlot { name, plugin: loaded, weight, weights, on_fault, tokens_per_row });
        }
        for ShaperUse { plugin, shapes, on_failure } in &stage.shapers {
            let loaded = factory.shaper(plugin).map_err(failed(PluginKind::Shaper, plugin))?;
            plugins.note(loaded.id(), plugin, factory);
            let name = plugins.new_name(stage, "shapers", loaded.id(), plugin)?;
            plugins.shapers.push(ShaperSlot { name, plugin: loaded, shapes: *shapes, on_failure: *on_failure });
        }
        for FilterUse { plugin, reads, scope, on_failure } in &stage.filters {
            let loaded = factory.filter(plugin).map_err(failed(PluginKind::Filter, plugin))?;
            plugins.note(loaded.id(), plugin, factory);
            let name = plugins.new_name(stage, "filters", loaded.id(), plugin)?;
            let (reads, scope, on_failure) = (*reads, *scope, *on_failure);
            plugins.filters.push(FilterSlot { name, plugin: loaded, reads, scope, on_failure });
        }
        if let Some(Eval { reward, .. }) = &stage.eval {
            let loaded = factory.reward(reward).map_err(failed(PluginKind::Reward, reward))?;
            plugins.note(loaded.id(), reward, factory);
            plugins.eval = Some(loaded);
        }
        plugins.load_scheduled(stage, factory)?;
        Ok(plugins)
    }

    fn load_scheduled(&mut self, stage: &Stage, factory: &dyn PluginFactory) -> Result<()> {
        for (i, ScheduledSwap { step, replace, plugin }) in stage.swaps.iter().enumerate() {
            let wrong =
                |key: &str, reason: String| Err(Error::Recipe { key: format!("stages.{}.swaps.{i}.{key}", stage.name), reason });
            let Some((_, old, _)) = self.slots().into_iter().find(|(name, ..)| name == replace) else {
                let names = self.used.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                return wrong("replace", format!("there is no plugin `{replace}` in the stage; there are {names}"));
            };
            if !(1..=stage.max_steps).contains(step) {
                return wrong("step", format!("must be between 1 and the stage's {} steps", stage.max_steps));
            }
            let kind = old.plugin().id().kind;
            let used = PluginUse { name: Some(replace.clone()), ..plugin.clone() };
            let loaded = AnyPlugin::load(kind, &used, factory).map_err(failed(kind, plugin))?;
            self.lock(loaded.plugin().id(), &used, factory);
            self.scheduled.push(Scheduled { step: *step, name: replace.clone(), used, plugin: loaded });
        }
        self.scheduled.sort_by_key(|swap| swap.step);
        Ok(())
    }

    /// The plugins of training by name, with how the recipe uses them.
    pub fn slots(&self) -> Vec<(String, AnyPlugin, PluginUse)> {
        let rewards = self.rewards.iter().map(|slot| (&slot.name, AnyPlugin::Reward(Arc::clone(&slot.plugin))));
        let judges = self.judges.iter().map(|slot| (&slot.name, AnyPlugin::Judge(Arc::clone(&slot.plugin))));
        let shapers = self.shapers.iter().map(|slot| (&slot.name, AnyPlugin::Shaper(Arc::clone(&slot.plugin))));
        let filters = self.filters.iter().map(|slot| (&slot.name, AnyPlugin::Filter(Arc::clone(&slot.plugin))));
        let all = rewards.chain(judges).chain(shapers).chain(filters);
        all.map(|(name, plugin)| (name.clone(), plugin, self.used[name].clone())).collect()
    }

    /// Puts another generation into the slot of that name and of its kind; `used` is how it was asked for.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn set(&mut self, name: &str, plugin: &AnyPlugin, used: &PluginUse) {
        let found = match plugin {
            AnyPlugin::Reward(new) => {
                self.rewards.iter_mut().find(|slot| slot.name == name).map(|slot| slot.plugin = Arc::clone(new))
            }
            AnyPlugin::Judge(new) => self.judges.iter_mut().find(|slot| slot.name == name).map(|slot| {
                (slot.plugin, slot.tokens_per_row) = (Arc::clone(new), tokens_per_row(used));
            }),
            AnyPlugin::Shaper(new) => {
                self.shapers.iter_mut().find(|slot| slot.name == name).map(|slot| slot.plugin = Arc::clone(new))
            }
            AnyPlugin::Filter(new) => {
                self.filters.iter_mut().find(|slot| slot.name == name).map(|slot| slot.plugin = Arc::clone(new))
            }
        };
        found.expect("a slot is changed only by what looked it up");
    }

    /// A plugin's name, if no other plugin of training has it.
    fn new_name(&mut self, stage: &Stage, list: &str, id: &PluginId, used: &PluginUse) -> Result<String> {
        let name = id.name.clone();
        if self.training().any(|(_, other)| other.id().name == name) {
            let reason = format!("two plugins are named `{name}`; give one a `name`");
            return Err(Error::Recipe { key: format!("stages.{}.{list}", stage.name), reason });
        }
        self.used.insert(name.clone(), used.clone());
        Ok(name)
    }

    fn note(&mut self, id: &PluginId, plugin: &PluginUse, factory: &dyn PluginFactory) {
        let generation = PluginGeneration::new(id, plugin);
        if !self.generations.contains(&generation) {
            self.generations.push(generation);
        }
        self.lock(id, plugin, factory);
    }

    fn lock(&mut self, id: &PluginId, plugin: &PluginUse, factory: &dyn PluginFactory) {
        let locked = LockedPlugin { source: plugin.plugin.clone(), ..factory.locked(id, plugin) };
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
        let judges = self.judges.iter().map(|j| (format!("judge/{}", j.name), &*j.plugin as &dyn Plugin));
        let shapers = self.shapers.iter().map(|s| (format!("shaper/{}", s.name), &*s.plugin as &dyn Plugin));
        let filters = self.filters.iter().map(|f| (format!("filter/{}", f.name), &*f.plugin as &dyn Plugin));
        rewards.chain(judges).chain(shapers).chain(filters)
    }

    /// The weights in force, of the rewards and then the judges, in the recipe's order.
    pub fn weights(&self) -> Vec<(&str, f64)> {
        let rewards = self.rewards.iter().map(|slot| (slot.name.as_str(), slot.weight));
        rewards.chain(self.judges.iter().map(|slot| (slot.name.as_str(), slot.weight))).collect()
    }

    /// Puts the weights of step `stage_step` of the stage (the first is 1) in force.
    pub fn set_weights(&mut self, stage_step: u64) {
        self.rewards.iter_mut().for_each(|reward| reward.weight = reward.weights.at(stage_step));
        self.judges.iter_mut().for_each(|judge| judge.weight = judge.weights.at(stage_step));
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

fn tokens_per_row(plugin: &PluginUse) -> u64 {
    plugin.grants.tokens_per_row.unwrap_or(TOKENS_PER_ROW)
}

fn end_step(plugin: &(impl Plugin + ?Sized), prefix: &str) -> Vec<(String, f64)> {
    plugin.end_step();
    let name = &plugin.id().name;
    plugin.take_metrics().into_iter().map(|(metric, value)| (format!("{prefix}/{name}/{metric}"), value)).collect()
}

/// A weight, if its schedule is one: steps that rise from 1, finite weights.
fn course(stage: &Stage, name: &str, constant: f64, schedule: &[WeightAt]) -> Result<Weight> {
    let rising = schedule.windows(2).all(|pair| pair[0].step < pair[1].step);
    if !rising || schedule.iter().any(|point| point.step == 0 || !point.weight.is_finite()) {
        let reason = format!("the points of `{name}` must have finite weights, and steps that rise, the first 1 or more");
        return Err(Error::Recipe { key: format!("stages.{}.weight_schedule", stage.name), reason });
    }
    Ok(Weight { constant, schedule: schedule.to_vec() })
}

fn failed(kind: PluginKind, plugin: &PluginUse) -> impl FnOnce(LoadError) -> Error {
    let plugin = plugin.plugin.clone();
    move |source| Error::LoadPlugin { kind, plugin, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_runs_through_its_points_in_lines_and_stays_at_both_ends() {
        let at = |schedule: &[(u64, f64)]| {
            let schedule = schedule.iter().map(|&(step, weight)| WeightAt { step, weight }).collect();
            let weight = Weight { constant: 7.0, schedule };
            (1..=6).map(|step| weight.at(step)).collect::<Vec<_>>()
        };
        assert_eq!(at(&[]), [7.0; 6]);
        assert_eq!(at(&[(3, 2.0)]), [2.0; 6]);
        assert_eq!(at(&[(2, 0.0), (4, 1.0), (5, -1.0)]), [0.0, 0.0, 0.5, 1.0, -1.0, -1.0]);
    }
}
