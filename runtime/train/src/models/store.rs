//! The models besides the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use plumb_core::recipe::{EngineKind, ModelUse, PluginUse, Recipe, Stage};
use plumb_model::ScoreHead;
use plumb_model::engine::Precision;

use super::cache::Cache;
use crate::error::{Error, Result};
use crate::objective::registry;
use crate::policy::Policy;

/// Names that are the run's own.
pub const POLICY: &str = "policy";
/// The policy as the stage began.
pub const REFERENCE: &str = "reference";

/// A model of the recipe that was read from files.
pub(super) struct Loaded {
    pub model: Policy,
    pub score: Option<ScoreHead>,
}

/// A copy of the policy that stays behind it.
pub(super) struct Lagged {
    /// Steps of a stage after which it is renewed.
    every: u64,
    /// None before the first stage.
    pub model: Option<Policy>,
}

/// The models that plugins may ask besides the policy, with what they answered.
///
/// Weights of the reference and of lagged copies are part of a checkpoint: [`ModelStore::vectors`].
pub struct ModelStore {
    pub(super) seed: u64,
    /// Most sequences decoded at once.
    pub(super) max_batch: usize,
    pub(super) loaded: BTreeMap<String, Loaded>,
    pub(super) lagged: BTreeMap<String, Lagged>,
    pub(super) reference: Option<Policy>,
    pub(super) cache: Cache,
    /// State of each model's weights that the cache belongs to.
    pub(super) generations: BTreeMap<String, u64>,
}

impl ModelStore {
    /// Reads those models of the recipe that some plugin is granted; paths start at `base`.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a model that is described by none or several of `path` and `lagged`, for a grant of a model that there
    /// is not; [`Error::Model`] when files cannot be read.
    pub fn load(recipe: &Recipe, base: &Path) -> Result<Self> {
        for (name, model) in &recipe.models {
            check(name, model).map_err(|reason| Error::Recipe { key: format!("models.{name}"), reason })?;
        }
        let mut granted = granted(recipe)?;
        granted.extend(recipe.stages.iter().filter_map(|stage| registry::method(stage.algorithm).teacher(stage)));
        ModelStore::open(recipe.models.iter().filter(|(name, _)| granted.contains(name.as_str())), base, recipe.seed)
    }

    /// Reads models; paths start at `base`. Answers are drawn by `seed`.
    ///
    /// # Errors
    /// [`Error::Model`] when files cannot be read.
    pub fn open<'a>(models: impl IntoIterator<Item = (&'a String, &'a ModelUse)>, base: &Path, seed: u64) -> Result<Self> {
        let mut store = ModelStore::without_models(seed);
        for (name, model) in models {
            if let Some(every) = model.lagged {
                store.lagged.insert(name.clone(), Lagged { every, model: None });
            } else if let Some(path) = &model.path {
                let mut read = plumb_model::load(&base.join(path))?;
                if let Some(adapter) = &model.adapter {
                    plumb_model::merge_adapter(&mut read.params, &base.join(adapter))?;
                }
                let score = read.score.take();
                store
                    .loaded
                    .insert(name.clone(), Loaded { model: Policy::new(read, EngineKind::Native, Precision::default()), score });
            }
        }
        Ok(store)
    }

    /// Only the policy can be asked, with answers drawn by `seed`.
    pub fn without_models(seed: u64) -> Self {
        ModelStore {
            seed,
            max_batch: plumb_core::recipe::Rollout::default().max_batch,
            loaded: BTreeMap::new(),
            lagged: BTreeMap::new(),
            reference: None,
            cache: Cache::default(),
            generations: BTreeMap::new(),
        }
    }

    /// The same store, which decodes at most so many sequences at once; answers do not depend on it.
    #[must_use]
    pub fn with_max_batch(self, max_batch: usize) -> Self {
        ModelStore { max_batch, ..self }
    }

    /// A stage begins with this policy: it becomes the reference, where the stage has one, and all lagged copies.
    pub fn begin_stage(&mut self, policy: &Policy, stage: &Stage, with_reference: bool) {
        self.max_batch = stage.rollout.max_batch;
        self.reference = with_reference.then(|| policy.copy());
        self.lagged.values_mut().for_each(|lagged| lagged.model = Some(policy.copy()));
        self.cache.clear();
        self.generations.clear();
    }

    /// Step `stage_step` of the stage (the first is 1) has changed the policy: renews the lagged copies that are due.
    pub fn end_step(&mut self, policy: &Policy, stage_step: u64) {
        for lagged in self.lagged.values_mut().filter(|lagged| stage_step.is_multiple_of(lagged.every)) {
            if let Some(model) = &mut lagged.model {
                model.params.data.copy_from_slice(&policy.params.data);
                model.weights_changed();
            }
        }
    }

    /// A model that was read from files.
    pub fn loaded_model(&mut self, name: &str) -> Option<&mut Policy> {
        self.loaded.get_mut(name).map(|loaded| &mut loaded.model)
    }

    /// Checks that each stage's teacher is there and has the policy's vocabulary.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the stage's key.
    pub fn check_teachers(&self, recipe: &Recipe, policy: &Policy) -> Result<()> {
        for stage in &recipe.stages {
            let method = registry::method(stage.algorithm);
            let Some(name) = method.teacher(stage) else { continue };
            let wrong = |reason: String| {
                let key = format!("stages.{}.{}.teacher", stage.name, stage.algorithm.name());
                Err(Error::Recipe { key, reason })
            };
            let Some(teacher) = self.loaded.get(name).map(|loaded| &loaded.model) else {
                return wrong(format!("there is no model `{name}` with a `path` under `[models]`"));
            };
            let (theirs, ours) = (teacher.params.config.vocab_size, policy.params.config.vocab_size);
            if theirs != ours {
                return wrong(format!(
                    "`{name}` has a vocabulary of {theirs} tokens and the policy one of {ours}; they must be the same"
                ));
            }
            let differs = |&id: &u32| teacher.tokenizer.decode_raw(&[id]) != policy.tokenizer.decode_raw(&[id]);
            if let Some(id) = (0..ours as u32).find(differs) {
                return wrong(format!(
                    "token {id} is another text for `{name}` than for the policy; their vocabularies must be the same"
                ));
            }
        }
        Ok(())
    }

    /// The reference, where the stage has one, becomes the policy as it is now.
    pub fn renew_reference(&mut self, policy: &Policy) {
        if let Some(reference) = &mut self.reference {
            reference.params.data.copy_from_slice(&policy.params.data);
            reference.weights_changed();
        }
    }

    /// The policy as the stage began, or as it was when the reference was last renewed, if the stage keeps it.
    pub fn reference(&mut self) -> Option<&mut Policy> {
        self.reference.as_mut()
    }

    /// Weights that a checkpoint must hold: `reference`, and `lagged/<name>`.
    pub fn vectors(&self) -> Vec<(String, &[f32])> {
        let reference = self.reference.iter().map(|model| (REFERENCE.to_owned(), model.params.data.as_slice()));
        let lagged = self.lagged.iter().filter_map(|(name, lagged)| {
            lagged.model.as_ref().map(|model| (format!("lagged/{name}"), model.params.data.as_slice()))
        });
        reference.chain(lagged).collect()
    }

    /// Takes back what [`ModelStore::vectors`] gave, within the same stage.
    pub fn restore(&mut self, mut take: impl FnMut(&str, &mut Vec<f32>) -> Result<()>) -> Result<()> {
        if let Some(reference) = &mut self.reference {
            take(REFERENCE, &mut reference.params.data)?;
            reference.weights_changed();
        }
        for (name, lagged) in &mut self.lagged {
            if let Some(model) = &mut lagged.model {
                take(&format!("lagged/{name}"), &mut model.params.data)?;
                model.weights_changed();
            }
        }
        Ok(())
    }

    /// Names that can be asked, for people.
    pub(super) fn names(&self, with_policy: bool) -> String {
        let policy = with_policy.then_some(POLICY);
        let reference = self.reference.iter().map(|_| REFERENCE);
        let others = self.loaded.keys().chain(self.lagged.keys()).map(String::as_str);
        let all = policy.into_iter().chain(reference).chain(others).collect::<Vec<_>>().join(", ");
        if all.is_empty() { "none".to_owned() } else { all }
    }
}

fn check(name: &str, model: &ModelUse) -> Result<(), String> {
    if [POLICY, REFERENCE].contains(&name) {
        return Err(format!("`{name}` is a model of the run's own; give this one another name"));
    }
    match model {
        ModelUse { path: None, lagged: None, .. } => Err("give `path` (a folder or a GGUF file) or `lagged` (steps)".into()),
        ModelUse { path: Some(_), lagged: Some(_), .. } => Err("give either `path` or `lagged`".into()),
        ModelUse { lagged: Some(0), .. } => Err("`lagged` must be at least 1".into()),
        ModelUse { path: None, adapter: Some(_), .. } => Err("`adapter` goes with `path`".into()),
        _ => Ok(()),
    }
}

/// Names of models that plugins are granted, each known.
fn granted(recipe: &Recipe) -> Result<BTreeSet<&str>> {
    let mut granted = BTreeSet::new();
    for stage in &recipe.stages {
        for plugin in uses(stage) {
            for name in &plugin.grants.models {
                if ![POLICY, REFERENCE].contains(&name.as_str()) && !recipe.models.contains_key(name) {
                    let known: Vec<&str> =
                        [POLICY, REFERENCE].into_iter().chain(recipe.models.keys().map(String::as_str)).collect();
                    return Err(Error::Recipe {
                        key: format!("stages.{}, grants of `{}`", stage.name, plugin.plugin),
                        reason: format!("there is no model `{name}`; there are {} (add it to `[models]`)", known.join(", ")),
                    });
                }
                granted.insert(name.as_str());
            }
        }
    }
    Ok(granted)
}

/// All plugins that a stage names.
fn uses(stage: &Stage) -> impl Iterator<Item = &PluginUse> {
    let rewards = stage.rewards.iter().map(|one| &one.plugin);
    let judges = stage.judges.iter().map(|one| &one.plugin);
    let shapers = stage.shapers.iter().map(|one| &one.plugin);
    let filters = stage.filters.iter().map(|one| &one.plugin);
    let swaps = stage.swaps.iter().map(|one| &one.plugin);
    let eval = stage.eval.iter().map(|eval| &eval.reward);
    rewards.chain(judges).chain(shapers).chain(filters).chain(swaps).chain(eval)
}
