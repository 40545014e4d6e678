//! The loop: stages in order, each a run of optimizer steps over the policy that the stage before left.
//!
//! **Invariant.** Everything that a step depends on is a pure function of the recipe, the step's number and what a checkpoint
//! holds (weights, moments, reference, plugin states, counters). So a resumed run goes on bit for bit.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use plumb_core::PluginId;
use plumb_core::recipe::{MatmulPrecision, Recipe, Stage};
use plumb_core::seed::Stream;
use plumb_kernels::cpu::global_norm::global_norm;
use plumb_model::engine::Precision;
use plumb_model::{LoadedModel, ScoreHead};
use serde::{Deserialize, Serialize};

use crate::data::{Sampler, digests};
use crate::error::{Error, Result};
use crate::evaluation::{Evaluated, evaluate};
use crate::generations::Generations;
use crate::generations::circuit::Breaker;
use crate::generations::control::Inbox;
use crate::generations::kept::{self, OrKept};
use crate::generations::loader::Loader;
use crate::models::{ModelServer, ModelStore, Served};
use crate::objective::registry::{self, Start};
use crate::objective::{Lesson, Objective};
use crate::optimizer::{AdamW, clip_scale};
use crate::pipeline::dataset;
use crate::plugins::{PluginFactory, StagePlugins};
use crate::policy::Policy;
use crate::run::{Checkpoint, CheckpointParts, Inputs, LockedPlugin, MetricSet, PluginGeneration, Progress, Record, RunDir};
use crate::schedule::learning_rate;
use crate::stage::{StageData, leaks};

/// What to train, and where.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// The recipe, checked by its schema.
    pub recipe: Recipe,
    /// What the recipe's paths are relative to.
    pub recipe_dir: PathBuf,
    /// Where everything the run leaves goes.
    pub run_dir: PathBuf,
    /// Whether to go on with the run that lies there.
    pub resume: bool,
    /// Where plugins ask models; the plugin host hands it to guests.
    pub models: Arc<ModelServer>,
    /// Set from outside (Ctrl-C) to stop after the current step, with a checkpoint.
    pub interrupt: Arc<AtomicBool>,
}

/// Is told what happens, for the terminal.
pub trait Observer {
    /// A stage begins, or goes on after step `done`.
    fn stage(&mut self, _stage: &Stage, _done: u64) {}

    /// A step (or the evaluation before the first) is over.
    fn step(&mut self, _metrics: &MetricSet) {}

    /// Something worth a line.
    fn message(&mut self, _message: &str) {}
}

/// Nobody listens.
impl Observer for () {}

/// What a finished run has to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The final policy, a Hugging Face folder.
    pub model: PathBuf,
    /// The report.
    pub report: PathBuf,
    /// Optimizer steps done, of all stages.
    pub steps: u64,
    /// Wall clock of this process's part of the run, seconds.
    pub wall_s: f64,
    /// Evaluations of this process's part of the run: stage, step and result.
    pub evaluations: Vec<(String, u64, Evaluated)>,
}

/// Trains by the recipe.
///
/// # Errors
/// [`Error::Interrupted`] after [`TrainRequest::interrupt`] was set. Whatever the error, the run's folder is whole up to the last
/// finished step, and `resume` goes on from its newest checkpoint; one is written on [`Error::Interrupted`] and on plugin errors,
/// unless no step of the stage is done.
pub fn train(request: &TrainRequest, factory: &dyn PluginFactory, observer: &mut dyn Observer) -> Result<Summary> {
    std::thread::scope(|scope| train_with(request, factory, observer, Loader::start(scope, factory)))
}

fn train_with(
    request: &TrainRequest,
    factory: &dyn PluginFactory,
    observer: &mut dyn Observer,
    loader: Loader,
) -> Result<Summary> {
    let start = Instant::now();
    let recipe = &request.recipe;
    check(recipe)?;
    let kept = OrKept::new(factory, &request.run_dir)?;
    let load = |stage| StagePlugins::load(stage, if request.resume { &kept } else { factory });
    let mut plugins = recipe.stages.iter().map(load).collect::<Result<Vec<_>>>()?;
    // A fresh run creates its folder last, when all that the user gave has been read and found good.
    let tools = factory.tools();
    let inputs = inputs(
        request,
        &plugins,
        tools.iter().map(|(id, used)| LockedPlugin { source: used.plugin.clone(), ..factory.locked(id, used) }),
    )?;
    let goes_on = request.resume && crate::run::is_run(&request.run_dir);
    let lock = goes_on.then(|| Inbox::open(&request.run_dir)).transpose()?;
    let resume = || RunDir::resume(&request.run_dir, recipe, &inputs, &mut |message| observer.message(&message));
    let resumed = request.resume.then(resume).transpose()?;
    let checkpoint = resumed.as_ref().and_then(|(_, checkpoint)| checkpoint.as_ref());
    let mut loaded = load_model(request, checkpoint)?;
    let score = loaded.score.take();
    let mut policy = Policy::new(loaded, recipe.engine, precision(recipe.matmul_precision));
    if recipe.stages.last().is_some_and(|stage| registry::method(stage.algorithm).needs(stage).score_head) {
        continue_head(&mut policy, score)?;
    }
    let store = ModelStore::load(recipe, &request.recipe_dir)?;
    store.check_teachers(recipe, &policy)?;
    let read = |stage| StageData::read(stage, &request.recipe_dir, recipe.seed, &policy.tokenizer, &policy.params.config);
    let mut data = recipe.stages.iter().map(read).collect::<Result<Vec<_>>>()?;
    let samplers = recipe.stages.iter().zip(&data).enumerate().map(|(i, (stage, data))| sampler(recipe.seed, i, stage, data));
    let samplers = samplers.collect::<Result<Vec<_>>>()?;

    for message in leaks(&recipe.stages, &data) {
        observer.message(&message);
    }

    let (dir, checkpoint) = match resumed {
        Some(resumed) => resumed,
        None => (RunDir::create(&request.run_dir, recipe, &request.recipe_dir, &inputs)?, None),
    };
    let inbox = lock.map_or_else(|| Inbox::open(&request.run_dir), Ok)?;
    for locked in &inputs.plugins {
        let id = PluginId { name: locked.name.clone(), kind: locked.kind, digest: locked.sha256.clone() };
        kept::keep(&request.run_dir, factory, &id, locked.clone())?;
    }
    let progress = checkpoint.as_ref().map(|checkpoint| checkpoint.progress.clone()).unwrap_or_default();
    let mut run = Run {
        request,
        dir,
        optimizer: policy.optimizer(),
        policy,
        store,
        counters: serde_json::from_value(progress.trainer.clone()).unwrap_or_default(),
        step: progress.step,
        generations: Generations::open(&request.run_dir, factory, &recipe.circuit, inbox, loader, progress.step)?,
        tools: tools.iter().map(|(id, used)| PluginGeneration::new(id, used)).collect(),
        saved: checkpoint.as_ref().map(|checkpoint| checkpoint.progress.step),
        evaluations: Vec::new(),
        said: BTreeSet::new(),
        observer,
    };
    for (index, stage) in recipe.stages.iter().enumerate().skip(progress.stage) {
        let from = checkpoint.as_ref().filter(|_| index == progress.stage);
        if progress.stage_step == stage.max_steps && from.is_some() {
            continue;
        }
        run.stage(index, &mut data[index], samplers[index].clone(), &mut plugins[index], from)?;
    }
    run.generations.finish()?;
    let model = run.dir.save_model(|folder| run.policy.save(folder).map_err(Into::into))?;
    let report = crate::run::report::write(&request.run_dir)?;
    Ok(Summary { model, report, steps: run.step, wall_s: start.elapsed().as_secs_f64(), evaluations: run.evaluations })
}

fn check(recipe: &Recipe) -> Result<()> {
    let wrong = |key: String, reason: &str| Err(Error::Recipe { key, reason: reason.into() });
    if recipe.stages.is_empty() {
        return wrong("stages".into(), "there is none");
    }
    if recipe.model.path.is_some() == recipe.model.random.is_some() {
        return wrong("model".into(), "give either `path` or `random`");
    }
    for (index, stage) in recipe.stages.iter().enumerate() {
        let place = |key: &str| format!("stages.{}.{key}", stage.name);
        registry::check(stage).map_err(|flaw| Error::Recipe { key: place(&flaw.key), reason: flaw.rule })?;
        if registry::method(stage.algorithm).needs(stage).score_head && index + 1 < recipe.stages.len() {
            return wrong(place("algorithm"), "a reward model has no words for later stages; make it the last one");
        }
    }
    Ok(())
}

/// What must be the same when the run goes on.
fn inputs(request: &TrainRequest, plugins: &[StagePlugins], tools: impl Iterator<Item = LockedPlugin>) -> Result<Inputs> {
    let mut inputs = Inputs::default();
    for locked in plugins.iter().flat_map(|plugins| plugins.locked.iter().cloned()).chain(tools) {
        if !inputs.plugins.contains(&locked) {
            inputs.plugins.push(locked);
        }
    }
    inputs.data = digests(recipe_files(&request.recipe), &request.recipe_dir)?;
    Ok(inputs)
}

fn recipe_files(recipe: &Recipe) -> impl Iterator<Item = &PathBuf> {
    recipe.stages.iter().flat_map(|stage| stage.data.train.iter().chain(stage.eval.iter().flat_map(|eval| &eval.files)))
}

fn load_model(request: &TrainRequest, checkpoint: Option<&Checkpoint>) -> Result<LoadedModel> {
    let source = &request.recipe.model;
    Ok(match (checkpoint, &source.path, &source.random) {
        (Some(checkpoint), ..) => plumb_model::load(&checkpoint.model())?,
        (None, Some(path), _) => plumb_model::load(&request.recipe_dir.join(path))?,
        (None, None, Some(spec)) => plumb_model::random(spec, request.recipe.seed)?,
        (None, None, None) => unreachable!("the recipe was checked"),
    })
}

/// A reward model goes on with the head it was loaded with.
fn continue_head(policy: &mut Policy, score: Option<ScoreHead>) -> Result<()> {
    match score {
        Some(head) if head.labels.len() == 1 => policy.add_head(head),
        Some(head) => {
            let reason = format!("its head has {} scores, and a reward model has one", head.labels.len());
            return Err(Error::Recipe { key: "model.path".into(), reason });
        }
        None => {}
    }
    Ok(())
}

/// A head of random weights with the deviation of transformers' `initializer_range`.
fn new_head(seed: u64, width: usize) -> ScoreHead {
    let stream = Stream::new(seed, "score-head", &[]);
    let weights = (0..width as u64).map(|i| (HEAD_INITIALIZER_RANGE * stream.normal_at(i)) as f32).collect();
    ScoreHead { labels: vec!["LABEL_0".into()], weights }
}

fn precision(of: MatmulPrecision) -> Precision {
    match of {
        MatmulPrecision::Highest => Precision::Highest,
        MatmulPrecision::High => Precision::High,
        MatmulPrecision::Medium => Precision::Medium,
    }
}

fn sampler(seed: u64, index: usize, stage: &Stage, data: &StageData) -> Result<Sampler> {
    let needed = registry::method(stage.algorithm).needs(stage).rows;
    let rows = data.examples.len();
    Sampler::new(seed, index as u64, rows, needed).ok_or_else(|| Error::TooFewRows { stage: stage.name.clone(), rows, needed })
}

/// Standard deviation of a new head's weights.
const HEAD_INITIALIZER_RANGE: f64 = 0.02;

/// Beginnings of the names of numbers that count for the first step over a batch alone: later ones spend no such time, sample nothing and
/// call no plugin.
const OF_THE_BATCH: [&str; 4] = ["time/", "plugin/", "judge/", "rollout/"];

/// What the loop counts, kept in checkpoints.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counters {
    /// Tokens read so far, prompts included.
    num_tokens: u64,
    /// Updates of the stage's optimizer.
    optimizer_steps: u64,
    /// Rows that filters took out of the stage's data before its first step, as ascending indices.
    #[serde(default)]
    left_out: Vec<usize>,
    /// Plugins that fail.
    #[serde(default)]
    failing: Breaker,
}

struct Run<'a> {
    request: &'a TrainRequest,
    dir: RunDir,
    policy: Policy,
    /// All other models.
    store: ModelStore,
    optimizer: AdamW,
    counters: Counters,
    generations: Generations<'a>,
    /// Optimizer steps of the run that are done.
    step: u64,
    /// Tool plugins, for the ledger.
    tools: Vec<PluginGeneration>,
    /// Step of the newest whole checkpoint.
    saved: Option<u64>,
    evaluations: Vec<(String, u64, Evaluated)>,
    said: BTreeSet<String>,
    observer: &'a mut dyn Observer,
}

impl Run<'_> {
    /// One stage, from its beginning or from a checkpoint taken within it.
    fn stage(
        &mut self,
        index: usize,
        data: &mut StageData,
        mut sampler: Sampler,
        plugins: &mut StagePlugins,
        from: Option<&Checkpoint>,
    ) -> Result<()> {
        let stage = &self.request.recipe.stages[index];
        let done = from.map_or(0, |checkpoint| checkpoint.progress.stage_step);
        self.observer.stage(stage, done);
        let method = registry::method(stage.algorithm);
        let needs = method.needs(stage);
        self.store.begin_stage(&self.policy, stage, needs.reference);
        if needs.score_head && self.policy.head.is_none() {
            self.policy.add_head(new_head(self.request.recipe.seed, self.policy.params.config.hidden_size));
        }
        self.optimizer = self.policy.optimizer();
        let state = |key: &str| from.map_or(Ok(None), |checkpoint| Ok(checkpoint.plugin(key)?));
        self.generations.begin_stage(stage, plugins, self.step - done, self.step, state)?;
        if let Some(checkpoint) = from {
            self.restore(checkpoint, plugins)?;
        } else {
            self.generations.breaker = Breaker::default();
            self.counters.optimizer_steps = 0;
            let (generations, tools) = (plugins.generations.clone(), self.tools.clone());
            self.dir.record(&Record::Plugins { stage: stage.name.clone(), plugins: generations, tools })?;
            self.counters.left_out = self.choose_data(stage, data, plugins)?;
        }
        if !self.counters.left_out.is_empty() {
            data.leave_out(&self.counters.left_out);
            sampler = self::sampler(self.request.recipe.seed, index, stage, data)?;
        }
        let data = &*data;
        let mut objective = method.objective(Start { seed: self.request.recipe.seed, stage, data, sampler });
        if done == 0 && stage.eval.is_some() {
            let mut metrics = MetricSet::new(&stage.name, self.step);
            self.evaluate(stage, data, plugins, &mut metrics)?;
            self.log(&metrics)?;
        }
        self.steps(index, data, plugins, &mut *objective, done)
    }

    fn steps(
        &mut self,
        index: usize,
        data: &StageData,
        plugins: &mut StagePlugins,
        objective: &mut dyn Objective,
        done: u64,
    ) -> Result<()> {
        let stage = &self.request.recipe.stages[index];
        let per_batch = objective.steps_per_batch();
        let mut lesson = Lesson::default();
        let mut asked = Vec::new();
        let mut grads = vec![0.0; self.policy.weights_len()];
        for stage_step in done..stage.max_steps {
            let start = Instant::now();
            let fresh = stage_step % per_batch == 0;
            if fresh {
                // Taken now: what a step that fails tells a plugin is not part of the step before.
                let states = self.states(plugins)?;
                if self.request.interrupt.load(Ordering::Relaxed) {
                    self.save(index, stage_step, &states)?;
                    return Err(Error::Interrupted { step: self.step, checkpoint: self.saved });
                }
                let failing = self.generations.breaker.clone();
                if let Err(error) = self.generations.boundary(plugins, stage_step + 1, self.step + 1) {
                    self.generations.breaker = failing;
                    if let Error::CircuitOpen { plugin, .. } = &error {
                        // Who goes on gives the plugin its steps again, also where a checkpoint of this step has counted the last of them.
                        self.generations.breaker.reset(plugin);
                        self.saved = None;
                    }
                    self.save_before(index, stage_step, &states);
                    return Err(error);
                }
                self.tell();
                plugins.set_weights(stage_step + 1);
                let (batch, next) = (stage_step / per_batch, self.step + 1);
                lesson = match objective.prepare(&mut self.served(objective.temperature()), plugins, batch, next) {
                    Ok(lesson) => lesson,
                    Err(error) => {
                        self.generations.withdraw(self.step + 1)?;
                        self.tell();
                        self.generations.breaker = failing;
                        self.save_before(index, stage_step, &states);
                        return Err(error);
                    }
                };
                asked = self.generations.observe(std::mem::take(&mut lesson.observed))?;
            }
            self.step += 1;
            let mut metrics = MetricSet::new(&stage.name, self.step);
            let loss = self.update(stage, stage_step, &lesson, objective, &mut grads, &mut metrics)?;
            let of_plugins = plugins.end_step();
            let of_shadows = self.generations.collect(std::mem::take(&mut asked))?;
            lesson.messages.extend(of_shadows.messages);
            lesson.record.weights = plugins.weights().into_iter().map(|(_, weight)| weight).collect();
            for change in self.generations.records() {
                self.dir.record(&change)?;
            }
            lesson.record.loss = loss;
            lesson.record.step = self.step;
            if let Some(table) = lesson.table.take() {
                lesson.record.completions_sha256 = Some(self.dir.log_completions(self.step, &table)?);
            }
            self.dir.log_pairs(self.step, &std::mem::take(&mut lesson.pairs))?;
            self.record_answers()?;
            self.dir.record(&Record::Step(lesson.record.clone()))?;
            self.store.end_step(&self.policy, stage_step + 1);
            if fresh {
                self.counters.num_tokens += lesson.tokens;
                for message in &lesson.messages {
                    if self.said.insert(message.clone()) {
                        self.observer.message(message);
                    }
                }
                // Later steps over the same completions record what they add, not the completions again.
                lesson.record.completions.clear();
                lesson.record.pairs.clear();
                lesson.record.completions_sha256 = None;
            }
            metrics.set("num_tokens", self.counters.num_tokens as f64);
            for (name, weight) in plugins.weights() {
                metrics.set(format!("rewards/{name}/weight"), weight);
            }
            let once = |name: &str| OF_THE_BATCH.iter().any(|prefix| name.starts_with(prefix));
            for (name, value) in lesson.metrics.iter().filter(|(name, _)| fresh || !once(name)) {
                metrics.set(name, *value);
            }
            // What the trainer says of a plugin (`failed`, say) wins over a metric of the plugin under the same name.
            for (name, value) in of_plugins {
                if metrics.get(&name).is_none() {
                    metrics.set(name, value);
                }
            }
            for (name, value) in of_shadows.metrics {
                metrics.set(name, value);
            }
            let step_s = start.elapsed().as_secs_f64();
            metrics.set("time/step_s", step_s);
            metrics.set_some("time/reward_share", metrics.get("time/reward_s").map(|reward_s| reward_s / step_s));
            metrics.set("time/tokens_per_s", lesson.tokens as f64 / step_s);
            let last = stage_step + 1 == stage.max_steps;
            let due = |every: u64| every > 0 && (stage_step + 1) % every == 0;
            if stage.eval.as_ref().is_some_and(|eval| last || due(eval.every_steps)) {
                self.evaluate(stage, data, plugins, &mut metrics)?;
            }
            self.log(&metrics)?;
            // A batch that serves several steps is not part of a checkpoint, so checkpoints wait for its last step.
            let between_batches = (stage_step + 1) % per_batch == 0;
            let save_steps = self.request.recipe.checkpoints.save_steps;
            let due_since_batch =
                save_steps > 0 && (stage_step + 1) / save_steps > (stage_step + 1 - per_batch.min(stage_step + 1)) / save_steps;
            if last || (between_batches && due_since_batch) {
                self.save(index, stage_step + 1, &self.states(plugins)?)?;
            }
        }
        Ok(())
    }

    /// One optimizer step. Without rows nothing is learned, and there is no loss.
    fn update(
        &mut self,
        stage: &Stage,
        stage_step: u64,
        lesson: &Lesson,
        objective: &dyn Objective,
        grads: &mut [f32],
        metrics: &mut MetricSet,
    ) -> Result<Option<f64>> {
        let rate = learning_rate(&stage.optimizer, stage_step, stage.max_steps);
        metrics.set("learning_rate", rate);
        if lesson.rows.is_empty() {
            metrics.set("time/train_s", 0.0);
            return Ok(None);
        }
        let start = Instant::now();
        grads.fill(0.0);
        let (loss, stats) = self.policy.add_gradients(objective, &lesson.rows, &lesson.parts, grads)?;
        let times = self.policy.take_times();
        let optimizer = Instant::now();
        let norm = global_norm(grads);
        for (what, value) in [("loss", loss), ("gradient norm", norm)] {
            if !value.is_finite() {
                return Err(Error::Diverged { step: self.step, what, value });
            }
        }
        let scale = clip_scale(norm, stage.optimizer.max_grad_norm);
        self.policy.step(&mut self.optimizer, grads, scale, rate, &stage.optimizer);
        self.counters.optimizer_steps = self.optimizer.steps;
        metrics.set("loss", loss);
        metrics.set("grad_norm", norm);
        objective.report(&stats, metrics);
        metrics.set("time/forward_s", times.forward_s);
        metrics.set("time/backward_s", times.backward_s);
        metrics.set("time/optimizer_s", optimizer.elapsed().as_secs_f64());
        metrics.set("time/train_s", start.elapsed().as_secs_f64());
        Ok(Some(loss))
    }

    fn evaluate(&mut self, stage: &Stage, data: &StageData, plugins: &StagePlugins, metrics: &mut MetricSet) -> Result<()> {
        let eval = stage.eval.as_ref().expect("asked only of stages with an evaluation");
        let (seed, step) = (self.request.recipe.seed, self.step);
        let result = evaluate(&mut self.served(1.0), stage, eval, data, plugins, seed, step)?;
        result.report(metrics);
        plugins.end_evaluation().into_iter().for_each(|(name, value)| metrics.set(name, value));
        self.record_answers()?;
        self.dir.record(&result.record(&stage.name, self.step))?;
        self.evaluations.push((stage.name.clone(), self.step, result));
        Ok(())
    }

    /// The run's models, for plugins to ask. `temperature` is that of sampled completions.
    fn served(&mut self, temperature: f32) -> Served<'_> {
        Served { server: &self.request.models, policy: &mut self.policy, store: &mut self.store, temperature }
    }

    /// Writes down what models answered since the last time, before the record of what was made of it.
    fn record_answers(&mut self) -> Result<()> {
        let answers = self.request.models.take_answers();
        if !answers.is_empty() {
            self.dir.record(&Record::Answers { step: self.step, answers })?;
        }
        Ok(())
    }

    /// Lets the stage's dataset filters choose; returns the rows that leave its data.
    fn choose_data(&mut self, stage: &Stage, data: &StageData, plugins: &StagePlugins) -> Result<Vec<usize>> {
        let tokenizer = self.policy.tokenizer.clone();
        let choices = dataset::choose(&stage.name, data, &tokenizer, plugins, &mut self.served(1.0))?;
        self.record_answers()?;
        let mut metrics = MetricSet::new(&stage.name, self.step);
        for choice in &choices {
            let (filter, rows, left) = (&choice.filter, choice.rows, choice.rows - choice.dropped.len());
            let dropped = choice.dropped.iter().map(|&row| data.examples[row].prompt.id).collect();
            let stage = stage.name.clone();
            self.dir.record(&Record::Dataset { stage, filter: filter.clone(), rows: rows as u64, dropped })?;
            metrics.set(format!("dataset/{filter}/rows"), rows as f64);
            metrics.set(format!("dataset/{filter}/kept"), left as f64);
            self.observer.message(&format!("filter `{filter}` keeps {left} of {rows} rows of the data"));
        }
        if !choices.is_empty() {
            self.log(&metrics)?;
        }
        let mut dropped: Vec<usize> = choices.into_iter().flat_map(|choice| choice.dropped).collect();
        dropped.sort_unstable();
        Ok(dropped)
    }

    /// Tells what happened to plugins.
    fn tell(&mut self) {
        for message in self.generations.messages() {
            self.observer.message(&message);
        }
    }

    fn log(&mut self, metrics: &MetricSet) -> Result<()> {
        self.dir.log_metrics(metrics)?;
        self.observer.step(metrics);
        Ok(())
    }

    /// States of all plugins, for a checkpoint.
    fn states(&self, plugins: &StagePlugins) -> Result<Vec<(String, Vec<u8>)>> {
        let mut states = plugins.save(self.step)?;
        states.extend(self.generations.save(self.step)?);
        Ok(states)
    }

    /// Writes a checkpoint because the next step cannot be done. The weights are still those after the last step, so this is a step
    /// boundary to go on from.
    fn save_before(&mut self, stage: usize, stage_step: u64, states: &[(String, Vec<u8>)]) {
        if let Err(second) = self.save(stage, stage_step, states) {
            self.observer.message(&format!("no checkpoint could be written: {second}"));
        }
    }

    /// Writes a checkpoint, unless there is one of this step; before the first step of a stage there is nothing new to keep.
    fn save(&mut self, stage: usize, stage_step: u64, states: &[(String, Vec<u8>)]) -> Result<()> {
        if stage_step == 0 || self.saved == Some(self.step) {
            return Ok(());
        }
        self.counters.failing.clone_from(&self.generations.breaker);
        let mut vectors =
            vec![("exp_avg", self.optimizer.exp_avg.as_slice()), ("exp_avg_sq", self.optimizer.exp_avg_sq.as_slice())];
        let of_models = self.store.vectors();
        vectors.extend(of_models.iter().map(|(name, values)| (name.as_str(), *values)));
        let parts = CheckpointParts {
            model: &|folder| self.policy.save(folder).map_err(Into::into),
            optimizer: &vectors,
            plugins: states,
            progress: Progress {
                stage,
                stage_step,
                step: self.step,
                trainer: serde_json::to_value(&self.counters).expect("counters are numbers"),
                ..Progress::default()
            },
        };
        self.dir.save_checkpoint(parts, self.request.recipe.checkpoints.save_total_limit)?;
        self.saved = Some(self.step);
        crate::run::report::write(&self.request.run_dir)?;
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint, plugins: &StagePlugins) -> Result<()> {
        let mut vectors = checkpoint.optimizer()?;
        let mut take = |name: &str, into: &mut Vec<f32>| match vectors.remove(name) {
            Some(vector) if vector.len() == into.len() => {
                *into = vector;
                Ok(())
            }
            found => Err(Error::Run(crate::run::Error::Malformed {
                path: checkpoint.path.clone(),
                reason: format!("`{name}` has {} numbers, expected {}", found.map_or(0, |found| found.len()), into.len()),
            })),
        };
        take("exp_avg", &mut self.optimizer.exp_avg)?;
        take("exp_avg_sq", &mut self.optimizer.exp_avg_sq)?;
        self.store.restore(&mut take)?;
        self.optimizer.steps = self.counters.optimizer_steps;
        self.generations.breaker.clone_from(&self.counters.failing);
        plugins.restore(checkpoint.progress.step, |key| Ok(checkpoint.plugin(key)?))
    }
}
