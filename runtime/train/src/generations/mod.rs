//! Generations: the plugins of a stage change while it runs, always between two steps.
//!
//! ```text
//! a new batch begins ─► known changes of a resumed run ─► or: schedule, requests, open circuits ─► changes.jsonl ─► the step
//! ```
//! A slot, that is a name in the run, holds the generation in use and the one before, which stays loaded. What replaces a plugin is
//! loaded and tried on a thread of its own; the switch itself hands the state over and takes a pointer's time.
//!
//! **Invariant.** A step never mixes generations, and what was changed before a step is on the disk before it begins, so a run that
//! was killed and resumed changes the same plugins before the same steps. While such a run repeats known changes it makes no others.
//!
//! A rollback, and a circuit that opens, put the generation before back with the state it had when it was replaced.

pub mod circuit;
pub mod control;
pub mod history;
pub mod kept;
pub mod loader;
pub mod observed;
pub mod poison;
pub mod shadow;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use plumb_core::PluginKind;
use plumb_core::recipe::{Circuit, PluginUse, Stage};

use crate::compare::Comparison;
use crate::error::{Error, Result};
use crate::plugins::{AnyPlugin, PluginFactory, Scheduled, StagePlugins};
use crate::run::{ChangeCause, ChangeRecord, PluginGeneration, Record};
use circuit::Breaker;
use control::{Answer, Inbox, Refusal, Request, RequestId};
use history::{Boundary, Change, History, Source, Standing, standing};
use loader::{Job, Loaded, Loader, Recorded};
use observed::Observed;
use poison::PoisonCases;
use shadow::{Asked, Said, Shadow};

/// A plugin that a slot holds.
struct Generation {
    plugin: AnyPlugin,
    source: Source,
}

struct Slot {
    current: Generation,
    previous: Option<Generation>,
}

/// A request on its way.
struct Waiting {
    id: RequestId,
    request: Request,
    /// Whether the run waits for it: it was there when the run was resumed.
    patient: bool,
    progress: Progress,
}

enum Progress {
    Unseen,
    Loading,
    /// With the plugin that it brings, and how that compares.
    Ready(std::result::Result<Option<(AnyPlugin, Option<Comparison>)>, Refusal>),
}

/// The changing plugins of a run.
pub struct Generations<'a> {
    run_dir: &'a Path,
    factory: &'a dyn PluginFactory,
    rule: &'a Circuit,
    inbox: Inbox,
    history: History,
    loader: Loader,
    waiting: VecDeque<Waiting>,
    poison: PoisonCases,
    /// Steps in a row that plugins failed in.
    pub breaker: Breaker,
    stage: String,
    /// Steps of the run before the stage's first.
    before: u64,
    slots: BTreeMap<String, Slot>,
    shadows: BTreeMap<String, Shadow>,
    scheduled: VecDeque<Scheduled>,
    recorded: Recorded,
    /// Changes that the ledger does not have yet.
    records: Vec<Record>,
    messages: Vec<String>,
}

impl<'a> Generations<'a> {
    /// Those of a run that goes on after step `step` (0 for a new one), with its lock and its loading thread.
    pub fn open(
        run_dir: &'a Path,
        factory: &'a dyn PluginFactory,
        rule: &'a Circuit,
        mut inbox: Inbox,
        loader: Loader,
        step: u64,
    ) -> Result<Self> {
        let history = History::open(run_dir, step)?;
        let left = inbox.take_over(|id| done_before(history.lines(), id))?;
        let waiting = |(id, request)| Waiting { id, request, patient: true, progress: Progress::Unseen };
        let waiting = left.into_iter().map(waiting).collect();
        Ok(Generations {
            run_dir,
            factory,
            rule,
            inbox,
            history,
            loader,
            waiting,
            poison: PoisonCases::new(run_dir),
            breaker: Breaker::default(),
            stage: String::new(),
            before: 0,
            slots: BTreeMap::new(),
            shadows: BTreeMap::new(),
            scheduled: VecDeque::new(),
            recorded: Recorded::default(),
            records: Vec::new(),
            messages: Vec::new(),
        })
    }

    /// Takes over the plugins of a stage whose first step comes after step `before` of the run, and which goes on after step
    /// `done`: the generations in force then are put into `plugins`. `state` gives what [`Generations::save`] gave.
    pub fn begin_stage(
        &mut self,
        stage: &Stage,
        plugins: &mut StagePlugins,
        before: u64,
        done: u64,
        state: impl Fn(&str) -> Result<Option<Vec<u8>>>,
    ) -> Result<()> {
        self.stage.clone_from(&stage.name);
        self.before = before;
        (self.shadows, self.recorded) = (BTreeMap::new(), Recorded::default());
        let lines =
            self.history.lines().iter().filter(|line| line.stage == stage.name && line.step > before && line.step <= done);
        let lines: Vec<Boundary> = lines.cloned().collect();
        let scheduled = |change: &&Change| matches!(change, Change::Replace { cause: ChangeCause::Schedule, .. });
        let followed = lines.iter().flat_map(|line| &line.changes).filter(scheduled).count();
        self.scheduled = std::mem::take(&mut plugins.scheduled).into_iter().skip(followed).collect();
        let slot = |(name, plugin, used): (String, AnyPlugin, PluginUse)| {
            let source = Source { digest: plugin.plugin().id().digest.clone(), used };
            (name, Slot { current: Generation { plugin, source }, previous: None })
        };
        self.slots = plugins.slots().into_iter().map(slot).collect();
        let (slots, shadows) = standing(&lines);
        for (name, Standing { current, previous }) in slots {
            let slot = self.slots.remove(&name).ok_or_else(|| self.unusable(format!("there is no plugin `{name}`")))?;
            let kind = slot.current.plugin.plugin().id().kind;
            let mut first = Some(slot.current);
            let mut take = |source: Option<Source>| match source {
                Some(source) => self.load(&name, kind, source),
                None => first.take().ok_or_else(|| self.unusable(format!("`{name}` came back twice"))),
            };
            let current = take(current)?;
            let previous = previous.map(take).transpose()?;
            if let Some(previous) = &previous {
                restore(&previous.plugin, done, state(&key("previous", &name, &previous.plugin))?)?;
            }
            plugins.set(&name, &current.plugin, &current.source.used);
            self.slots.insert(name, Slot { current, previous });
        }
        for (name, source) in shadows {
            let Generation { plugin, source } = self.load(&name, self.known(&name)?, source)?;
            restore(&plugin, done, state(&key("shadow", &name, &plugin))?)?;
            self.shadows.insert(name, Shadow { plugin, source });
        }
        Ok(())
    }

    /// What must survive a checkpoint besides the states of the plugins in use: those of generations before, and of shadows.
    pub fn save(&self, step: u64) -> Result<Vec<(String, Vec<u8>)>> {
        let previous = self.slots.iter().filter_map(|(name, slot)| Some(("previous", name, &slot.previous.as_ref()?.plugin)));
        let shadows = self.shadows.iter().map(|(name, shadow)| ("shadow", name, &shadow.plugin));
        let mut states = Vec::new();
        for (role, name, plugin) in previous.chain(shadows) {
            let state = plugin.plugin().save_state().map_err(|source| Error::Plugin { step, source })?;
            states.extend(state.map(|state| (key(role, name, plugin), state)));
        }
        Ok(states)
    }

    /// Makes the changes that are due before step `step` of the run, which is step `stage_step` of the stage (the first is 1).
    ///
    /// # Errors
    /// [`Error::CircuitOpen`]; [`Error::Plugin`] when a plugin that the recipe or the run's history names refuses the state.
    pub fn boundary(&mut self, plugins: &mut StagePlugins, stage_step: u64, step: u64) -> Result<()> {
        if self.history.repeats() {
            if let Some(line) = self.history.repeat(step) {
                line.changes.into_iter().try_for_each(|change| self.repeat(change, plugins, step))?;
            }
            return Ok(());
        }
        let mut changes = Vec::new();
        while let Some(next) = self.scheduled.pop_front_if(|next| next.step <= stage_step) {
            changes.push(self.follow_schedule(plugins, next, step)?);
        }
        // Requests come before circuits: who replaces a plugin that fails need not wait for its circuit, nor be stopped by it.
        let answers = self.serve(plugins, step, &mut changes)?;
        while let Some((name, streak)) = self.breaker.open(self.rule) {
            if self.slots.get(&name).is_none_or(|slot| slot.previous.is_none()) {
                return Err(Error::CircuitOpen { step: step - 1, plugin: name, streak });
            }
            let circuit::Streak { steps, failed, rows, code, .. } = streak;
            self.messages.push(format!(
                "`{name}` failed on {failed} of {rows} rows ({code}), {steps} batches in a row over the limit: the generation before takes its place"
            ));
            self.go_back(plugins, &name, ChangeCause::Circuit, step);
            changes.push(Change::Restore { name, cause: ChangeCause::Circuit, request: None });
        }
        if !changes.is_empty() {
            self.history.append(Boundary { step, stage: self.stage.clone(), changes })?;
        }
        answers.iter().try_for_each(|(id, answer)| Ok(self.inbox.answer(*id, answer)?))
    }

    /// Step `step` could not be begun: its changes are taken back from the history, so that who goes on need not repeat them, and
    /// those who asked for them are told.
    pub fn withdraw(&mut self, step: u64) -> Result<()> {
        let Some(line) = self.history.withdraw(step)? else { return Ok(()) };
        for change in &line.changes {
            let Some(id) = change.request() else { continue };
            let message = format!("step {step} could not be begun with it, and it was taken back");
            self.messages.push(format!("request {id} was done, but {message}"));
            let refusal = Refusal::new("withdrawn", message).hint("ask again when what stopped the run is mended");
            self.inbox.answer(id, &Answer::Refused(refusal))?;
        }
        Ok(())
    }

    /// Changes that the ledger is to have before the next step.
    pub fn records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Things to tell the user.
    pub fn messages(&mut self) -> Vec<String> {
        std::mem::take(&mut self.messages)
    }

    /// Takes note of what the plugins said about a batch, and asks the shadows about it.
    pub fn observe(&mut self, observed: Vec<Observed>) -> Result<Vec<Asked>> {
        for one in &observed {
            self.breaker.observe(self.rule, one);
            if let Some(slot) = self.slots.get(&one.name) {
                self.poison.add(one, &slot.current.source.used.config)?;
            }
        }
        let asked = shadow::ask_all(&self.shadows, &observed);
        self.recorded.push(observed.into());
        Ok(asked)
    }

    /// Waits for the shadows, whose step is over then.
    pub fn collect(&self, asked: Vec<Asked>) -> Result<Said> {
        let said = shadow::collect(self.run_dir, asked)?;
        for Shadow { plugin, .. } in self.shadows.values() {
            plugin.plugin().end_step();
            plugin.plugin().take_metrics();
        }
        Ok(said)
    }

    /// Refuses the requests that came too late.
    pub fn finish(mut self) -> Result<()> {
        let late: Vec<RequestId> = self.waiting.iter().map(|waiting| waiting.id).collect();
        let new = self.inbox.take()?.into_iter().map(|(id, _)| id);
        let refused = Answer::Refused(Refusal::new("run-over", "the run ended before it came to this request"));
        late.into_iter().chain(new).try_for_each(|id| Ok(self.inbox.answer(id, &refused)?))
    }

    /// Takes new requests, and serves those that are ready, in their order.
    fn serve(&mut self, plugins: &mut StagePlugins, step: u64, changes: &mut Vec<Change>) -> Result<Vec<(RequestId, Answer)>> {
        let new = self.inbox.take()?.into_iter();
        self.waiting.extend(new.map(|(id, request)| Waiting { id, request, patient: false, progress: Progress::Unseen }));
        let mut waiting = std::mem::take(&mut self.waiting);
        for one in waiting.iter_mut().filter(|one| matches!(one.progress, Progress::Unseen)) {
            one.progress = self.start(one.id, &one.request).unwrap_or_else(|refusal| Progress::Ready(Err(refusal)));
        }
        let mut answers = Vec::new();
        loop {
            let wait = waiting.front().is_some_and(|next| next.patient && matches!(next.progress, Progress::Loading));
            for Loaded { id, result } in self.loader.ready(wait) {
                if let Some(one) = waiting.iter_mut().find(|one| one.id == id) {
                    one.progress = Progress::Ready(result.map(Some));
                }
            }
            let Some(next) = waiting.pop_front_if(|next| matches!(next.progress, Progress::Ready(_))) else { break };
            let Progress::Ready(loaded) = next.progress else { unreachable!("just looked") };
            let comparison = loaded.as_ref().ok().and_then(|loaded| loaded.as_ref()?.1.clone());
            let name = next.request.name().to_owned();
            let done = match loaded {
                Ok(loaded) => self.change(next.id, next.request, loaded.map(|(plugin, _)| plugin), plugins, step)?,
                Err(refusal) => Err(refusal),
            };
            let answer = match done {
                Ok(change) => {
                    changes.push(change);
                    let digest = match changes.last() {
                        Some(Change::Shadow { plugin, .. }) => Some(plugin.digest.clone()),
                        _ => self.slots.get(&name).map(|slot| slot.current.source.digest.clone()),
                    };
                    Answer::Done { step, digest, comparison }
                }
                Err(refusal) => Answer::Refused(refusal),
            };
            answers.push((next.id, answer));
        }
        self.waiting = waiting;
        Ok(answers)
    }

    /// Begins with a request: hands what it brings to the loading thread.
    fn start(&self, id: RequestId, request: &Request) -> std::result::Result<Progress, Refusal> {
        let slot = self.slot(request.name())?;
        let (used, current) = match request {
            Request::Rollback { .. } | Request::Unshadow { .. } => return Ok(Progress::Ready(Ok(None))),
            Request::Swap { plugin, .. } => (plugin, Some(&slot.current.plugin)),
            Request::Shadow { plugin, .. } => (plugin, None),
        };
        let kind = slot.current.plugin.plugin().id().kind;
        if current.is_none() && kind == plumb_core::PluginKind::Judge {
            let refusal = Refusal::new("unsupported", format!("`{}` is a judge, and judges cannot have shadows", request.name()));
            return Err(
                refusal.hint("`plumb run swap` puts another judge in its place, and `plumb run rollback` brings this one back")
            );
        }
        let state = current.map(|plugin| plugin.plugin().save_state()).transpose();
        let state = state.map_err(|error| Refusal::from_error("state", &error))?.flatten();
        let used = PluginUse { name: Some(request.name().to_owned()), ..used.clone() };
        self.loader.submit(Job { id, kind, used, state, recorded: self.recorded.of(request.name()) });
        Ok(Progress::Loading)
    }

    /// Does what a request asks for.
    fn change(
        &mut self,
        id: RequestId,
        request: Request,
        loaded: Option<AnyPlugin>,
        plugins: &mut StagePlugins,
        step: u64,
    ) -> Result<std::result::Result<Change, Refusal>> {
        let name = request.name().to_owned();
        let slot = match self.slot(&name) {
            Ok(slot) => slot,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let generation = match (&request, loaded) {
            (Request::Swap { plugin: used, .. } | Request::Shadow { plugin: used, .. }, Some(plugin)) => {
                let id = plugin.plugin().id().clone();
                if id.kind != slot.current.plugin.plugin().id().kind {
                    // Loaded for a stage that is over.
                    return Ok(Err(Refusal::new("wrong-kind", format!("`{name}` is no {} in this stage", id.kind))));
                }
                Some(Generation { plugin, source: Source { digest: id.digest, used: used.clone() } })
            }
            _ => None,
        };
        Ok(match (request, generation) {
            (Request::Swap { .. }, Some(generation)) => {
                if let Err(refusal) = hand_over(&slot.current.plugin, &generation.plugin) {
                    return Ok(Err(refusal));
                }
                Ok(self.replace(plugins, &name, generation, ChangeCause::Command, Some(id), step)?)
            }
            (Request::Shadow { .. }, Some(Generation { plugin, .. })) if plugin.plugin().asks_models() => {
                Err(Refusal::new("unsupported", format!("the shadow of `{name}` asks models, which only plugins in use can")))
            }
            (Request::Shadow { .. }, Some(Generation { plugin, mut source })) => {
                self.keep(&plugin, &mut source)?;
                self.shadows.insert(name.clone(), Shadow { plugin, source: source.clone() });
                Ok(Change::Shadow { name, plugin: source, request: id })
            }
            (Request::Unshadow { .. }, _) => match self.shadows.remove(&name) {
                Some(_) => Ok(Change::Unshadow { name, request: id }),
                None => Err(Refusal::new("no-shadow", format!("`{name}` has no shadow"))),
            },
            (Request::Rollback { .. }, _) if slot.previous.is_none() => {
                let refusal = Refusal::new("nothing-before", format!("`{name}` has no generation before the one in use"));
                Err(refusal.hint("replace it with `plumb run swap`"))
            }
            (Request::Rollback { .. }, _) => {
                self.go_back(plugins, &name, ChangeCause::Rollback, step);
                Ok(Change::Restore { name, cause: ChangeCause::Rollback, request: Some(id) })
            }
            (Request::Swap { .. } | Request::Shadow { .. }, None) => unreachable!("they bring a plugin"),
        })
    }

    /// Makes a change that the run made before.
    fn repeat(&mut self, change: Change, plugins: &mut StagePlugins, step: u64) -> Result<()> {
        match change {
            Change::Replace { name, plugin: source, cause: ChangeCause::Schedule, .. } => {
                let next = self.scheduled.pop_front();
                let next = next.filter(|next| next.name == name && next.plugin.plugin().id().digest == source.digest);
                let next = next.ok_or_else(|| self.unusable(format!("the recipe does not replace `{name}` at step {step}")))?;
                self.follow_schedule(plugins, next, step)?;
            }
            Change::Replace { name, plugin: source, cause, request } => {
                let generation = self.load(&name, self.known(&name)?, source)?;
                self.adopted(&name, &generation.plugin, step)?;
                self.replace(plugins, &name, generation, cause, request, step)?;
            }
            Change::Restore { name, cause, .. } => {
                self.known(&name)?;
                self.go_back(plugins, &name, cause, step);
            }
            Change::Shadow { name, plugin: source, .. } => {
                let Generation { plugin, mut source } = self.load(&name, self.known(&name)?, source)?;
                self.keep(&plugin, &mut source)?;
                self.shadows.insert(name, Shadow { plugin, source });
            }
            Change::Unshadow { name, .. } => {
                self.shadows.remove(&name);
            }
        }
        Ok(())
    }

    fn follow_schedule(&mut self, plugins: &mut StagePlugins, next: Scheduled, step: u64) -> Result<Change> {
        let Scheduled { name, used, plugin, .. } = next;
        self.adopted(&name, &plugin, step)?;
        let source = Source { digest: plugin.plugin().id().digest.clone(), used };
        self.replace(plugins, &name, Generation { plugin, source }, ChangeCause::Schedule, None, step)
    }

    /// Hands the state of the plugin in use over to one that must take it.
    fn adopted(&self, name: &str, plugin: &AnyPlugin, step: u64) -> Result<()> {
        let failed = |source| Error::Plugin { step, source };
        match self.slots[name].current.plugin.plugin().save_state().map_err(failed)? {
            Some(state) => plugin.plugin().adopt_state(&state).map_err(failed),
            None => Ok(()),
        }
    }

    /// Puts a generation into its slot; the one in use becomes the one before.
    fn replace(
        &mut self,
        plugins: &mut StagePlugins,
        name: &str,
        mut generation: Generation,
        cause: ChangeCause,
        request: Option<RequestId>,
        step: u64,
    ) -> Result<Change> {
        self.keep(&generation.plugin, &mut generation.source)?;
        let source = generation.source.clone();
        let slot = self.slots.get_mut(name).expect("who calls this has looked");
        let before = std::mem::replace(&mut slot.current, generation);
        self.note(name, &before.source, cause, step);
        self.put(plugins, name);
        self.slots.get_mut(name).expect("just used").previous = Some(before);
        Ok(Change::Replace { name: name.to_owned(), plugin: source, cause, request })
    }

    /// Puts the generation before back into its slot, if there is one.
    fn go_back(&mut self, plugins: &mut StagePlugins, name: &str, cause: ChangeCause, step: u64) {
        let slot = self.slots.get_mut(name).expect("who calls this has looked");
        let Some(previous) = slot.previous.take() else { return };
        let gone = std::mem::replace(&mut slot.current, previous);
        let before = gone.source.clone();
        // One that failed too often is nothing to go back to.
        slot.previous = (cause == ChangeCause::Rollback).then_some(gone);
        self.note(name, &before, cause, step);
        self.put(plugins, name);
    }

    /// Puts what a slot holds into the stage.
    fn put(&mut self, plugins: &mut StagePlugins, name: &str) {
        let Generation { plugin, source } = &self.slots[name].current;
        plugins.set(name, plugin, &source.used);
        self.breaker.reset(name);
    }

    /// Notes a change for the ledger and for the user.
    fn note(&mut self, name: &str, before: &Source, cause: ChangeCause, step: u64) {
        let Generation { plugin, source } = &self.slots[name].current;
        let id = plugin.plugin().id().clone();
        let (stage, replaced, before) = (self.stage.clone(), name.to_owned(), before.digest.clone());
        let why = match cause {
            ChangeCause::Command => "a swap",
            ChangeCause::Rollback => "a rollback",
            ChangeCause::Schedule => "the recipe's schedule",
            ChangeCause::Circuit => "its open circuit",
        };
        let stage_step = step - self.before;
        self.messages.push(if self.before == 0 {
            format!("from step {step} on, by {why}: {id}")
        } else {
            format!("from step {step} on (step {stage_step} of stage `{stage}`), by {why}: {id}")
        });
        let plugin = PluginGeneration::new(&id, &source.used);
        self.records.push(Record::Change(ChangeRecord { stage, step, replaced, plugin, before, cause }));
    }

    /// Keeps a plugin's bytes with the run, and points its source to them.
    fn keep(&self, plugin: &AnyPlugin, source: &mut Source) -> Result<()> {
        let id = plugin.plugin().id();
        kept::keep(self.run_dir, self.factory, id, self.factory.locked(id, &source.used))?;
        source.settle(self.run_dir);
        Ok(())
    }

    /// Loads a plugin that the run used before.
    fn load(&self, name: &str, kind: PluginKind, source: Source) -> Result<Generation> {
        let used = source.to_use(self.run_dir, name)?;
        let load_error = |source| Error::LoadPlugin { kind, plugin: used.plugin.clone(), source };
        let plugin = AnyPlugin::load(kind, &used, self.factory).map_err(load_error)?;
        let found = &plugin.plugin().id().digest;
        if *found != source.digest {
            return Err(self.unusable(format!("`{name}` was {}, and is {found} now", source.digest)));
        }
        Ok(Generation { plugin, source })
    }

    fn slot(&self, name: &str) -> std::result::Result<&Slot, Refusal> {
        self.slots.get(name).ok_or_else(|| {
            let names = self.slots.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let refusal = Refusal::new("unknown-plugin", format!("stage `{}` has no plugin `{name}`", self.stage));
            refusal.hint(if names.is_empty() { "it has no plugins".into() } else { format!("it has {names}") })
        })
    }

    /// Kind of a plugin that the history names.
    fn known(&self, name: &str) -> Result<PluginKind> {
        let slot = self.slots.get(name).ok_or_else(|| self.unusable(format!("there is no plugin `{name}`")))?;
        Ok(slot.current.plugin.plugin().id().kind)
    }

    fn unusable(&self, reason: String) -> Error {
        crate::run::Error::Malformed { path: self.run_dir.join(history::FILE), reason }.into()
    }
}

fn key(role: &str, name: &str, plugin: &AnyPlugin) -> String {
    format!("{role}/{}/{name}", plugin.plugin().id().kind)
}

fn restore(plugin: &AnyPlugin, step: u64, state: Option<Vec<u8>>) -> Result<()> {
    match state {
        Some(state) => plugin.plugin().load_state(&state).map_err(|source| Error::Plugin { step, source }),
        None => Ok(()),
    }
}

/// Hands one generation's state over to the next.
fn hand_over(old: &AnyPlugin, new: &AnyPlugin) -> std::result::Result<(), Refusal> {
    match old.plugin().save_state().map_err(|error| Refusal::from_error("state", &error))? {
        Some(state) => loader::adopt(new, &state),
        None => Ok(()),
    }
}

/// The answer to a request that was done by a process that could not say so any more.
fn done_before(lines: &[Boundary], id: RequestId) -> Option<Answer> {
    let line = lines.iter().find(|line| line.changes.iter().any(|change| change.request() == Some(id)))?;
    Some(Answer::Done { step: line.step, digest: None, comparison: None })
}
