//! What the kinds share: calls on fresh instances, their effects, state and counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plumb_core::{Batch, PluginError, PluginFault, PluginId, PluginKind};

use crate::context::{Context, Identity, Line};
use crate::descriptor::Descriptor;
use crate::effects::{Effects, StepEffects};
use crate::instance::{CallError, Code, Instance};
use crate::kv;
use crate::limits::{self, EffectiveLimits};
use crate::services::Services;
use crate::sink::{LogLevel, LogLine, Sink};
use crate::snapshot::Snapshot;
use crate::stats::{Counts, PluginStats, count_code};
use crate::tally::{Tally, add_counts};
use crate::view::BatchView;

/// A loaded plugin. Shared by its calls; holds no thread.
pub struct Runner {
    pub id: PluginId,
    pub code: Arc<Code>,
    pub identity: Arc<Identity>,
    pub services: Arc<Services>,
    pub limits: EffectiveLimits,
    pub descriptor: Descriptor,
    /// Columns that a batch must have.
    pub needs: Vec<String>,
    pub stateful: bool,
    /// Whether it imports `models`.
    pub asks_models: bool,
    pub sink: Arc<dyn Sink>,
    pub stats: Arc<Mutex<PluginStats>>,
    pub memory: Mutex<Memory>,
    pub tickets: AtomicU64,
}

/// What a plugin keeps between calls.
#[derive(Default)]
pub struct Memory {
    /// `kv` and the guest's own state as of the beginning of the step.
    kept: Snapshot,
    /// What the guest's `state.save` gave in this step; kept once the step ends.
    pending_state: Option<Arc<[u8]>>,
    /// What this step's calls left.
    effects: StepEffects,
    /// Numbers of the step that ended last, until they are taken.
    metrics: Vec<(String, f64)>,
    /// Counts as of the end of that step.
    counted: Counts,
}

/// A submitted batch: its place in the order of the step, and what its calls begin with.
#[derive(Clone)]
pub struct Ticket {
    number: u64,
    kept: Snapshot,
}

impl Runner {
    /// Takes the next place in the order of submission.
    pub fn ticket(&self) -> Ticket {
        let kept = self.memory().kept.clone();
        Ticket { number: self.tickets.fetch_add(1, Ordering::Relaxed), kept }
    }

    /// Whether its calls are made side by side, so that their states have to be merged.
    pub fn merges(&self) -> bool {
        self.stateful && self.id.kind == PluginKind::Reward
    }

    /// Refuses a batch that lacks a column the plugin needs: no row of it could be answered.
    pub fn check_columns(&self, batch: &Batch) -> Result<(), PluginFault> {
        match self.needs.iter().find(|name| batch.column(name).is_none()) {
            None => Ok(()),
            Some(missing) => {
                let names: Vec<String> = batch.columns().map(|(name, _)| format!("`{name}`")).collect();
                let there = match (batch.rows(), names.is_empty()) {
                    (0, true) => "no rows, and so no columns".to_owned(),
                    (_, true) => "no columns".to_owned(),
                    (_, false) => names.join(", "),
                };
                let message = format!("needs column `{missing}`, the batch has {there}");
                Err(PluginFault::Fault { code: "missing-column".into(), message })
            }
        }
    }

    /// A fresh instance, started and initialised.
    pub fn instance(&self, rows: usize, step: u64, values: kv::Values) -> Instance {
        let (code, identity, services) = (Arc::clone(&self.code), Arc::clone(&self.identity), Arc::clone(&self.services));
        Instance::new(code, identity, services, self.limits, rows, step, values)
    }

    /// Calls a fresh instance. Its effects wait for the end of the step, and are dropped with a call that fails.
    pub fn call<T>(
        &self,
        ticket: &Ticket,
        view: &BatchView,
        call: impl FnOnce(&mut Instance) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let (answer, effects) = self.invoke(view.rows(), view.batch().step, Arc::clone(&ticket.kept.values), call)?;
        self.leave(ticket, view, effects);
        Ok(answer)
    }

    /// As [`Runner::call`], for calls that are made side by side: each begins with the guest's state as of the beginning of the
    /// step, and what it saves is merged with the others' when the step ends.
    pub fn call_beside_others<T>(
        &self,
        ticket: &Ticket,
        view: &BatchView,
        call: impl FnOnce(&mut Instance) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        if !self.stateful {
            return self.call(ticket, view, call);
        }
        let ((answer, saved), effects) =
            self.invoke(view.rows(), view.batch().step, Arc::clone(&ticket.kept.values), |instance| {
                ticket.kept.restore(instance)?;
                let answer = call(instance)?;
                Ok((answer, instance.save()?))
            })?;
        self.leave(ticket, view, Effects { state: Some(saved), ..effects });
        Ok(answer)
    }

    fn leave(&self, ticket: &Ticket, view: &BatchView, effects: Effects) {
        let first = view.batch().row_ids.get(view.start()).copied().unwrap_or_default();
        self.memory().effects.add((first, ticket.number), effects);
    }

    /// Calls a fresh instance, counts the call and passes its log lines on.
    pub fn invoke<T>(
        &self,
        rows: usize,
        step: u64,
        values: kv::Values,
        call: impl FnOnce(&mut Instance) -> Result<T, CallError>,
    ) -> Result<(T, Effects), CallError> {
        let begin = Instant::now();
        let mut instance = self.instance(rows, step, values);
        let started = instance.start().and_then(|()| instance.init());
        let started = started.map_err(|error| CallError { at_start: true, ..error });
        let result = started.and_then(|()| call(&mut instance));
        let fuel = instance.fuel_used();
        let Context { lines, metrics, kv, .. } = instance.finish();
        {
            let mut stats = lock(&self.stats);
            stats.latency.add(begin.elapsed());
            stats.counts.calls += 1;
            stats.counts.fuel += fuel;
            stats.counts.log_lines_dropped += lines.dropped;
            if let Err(error) = &result {
                count_code(&mut stats.counts.call_faults, error.fault.code());
            }
        }
        for Line { level, message, fields } in lines.kept {
            self.sink.log(LogLine { plugin: self.id.name.clone(), step, level, message, fields });
        }
        Ok((result?, Effects { step, writes: kv.into_writes(), metrics, state: None }))
    }

    /// Calls, and once more, in a fresh instance, after an error of the kind `again`.
    pub fn call_again<T>(
        &self,
        again: impl Fn(&CallError) -> bool,
        call: impl Fn() -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        call().or_else(|error| {
            if !again(&error) {
                return Err(error);
            }
            lock(&self.stats).counts.retries += 1;
            call()
        })
    }

    /// As [`Runner::call`], with a second try after a fault that may pass, and carries the guest's own state over from the last such call that succeeded.
    pub fn call_with_state<T>(
        &self,
        batch: &Arc<Batch>,
        export: &'static str,
        call: impl Fn(&mut Instance, &BatchView) -> Result<T, CallError>,
    ) -> Result<T, PluginError> {
        let view = BatchView::new(Arc::clone(batch));
        let failed = |error: CallError| self.error(export, error.fault);
        self.check_columns(batch).map_err(|fault| self.error(export, fault))?;
        let ticket = self.ticket();
        if !self.stateful {
            let call = || self.call(&ticket, &view, |instance| call(instance, &view));
            return self.call_again(CallError::may_pass, call).map_err(failed);
        }
        let begin = {
            let memory = self.memory();
            match &memory.pending_state {
                // A state of this run is of this version.
                Some(state) => Snapshot {
                    state: Some(Arc::clone(state)),
                    state_version: self.descriptor.state_version,
                    ..Snapshot::default()
                },
                None => memory.kept.clone(),
            }
        };
        let call = || {
            self.call(&ticket, &view, |instance| {
                begin.restore(instance)?;
                let answer = call(instance, &view)?;
                Ok((answer, instance.save()?))
            })
        };
        let (answer, new) = self.call_again(CallError::may_pass, call).map_err(failed)?;
        self.memory().pending_state = Some(new.into());
        Ok(answer)
    }

    /// See [`plumb_core::Plugin::end_step`]. Runs the guest where there are states to merge.
    pub fn end_step(&self) {
        let (effects, lost, before) = {
            let mut memory = self.memory();
            if let Some(state) = memory.pending_state.take() {
                (memory.kept.state, memory.kept.state_version) = (Some(state), self.descriptor.state_version);
            }
            let (effects, lost) = memory.effects.take();
            (effects, lost, memory.kept.clone())
        };
        let (mut tally, mut step, mut writes, mut states) = (Tally::default(), 0, Vec::new(), Vec::new());
        for effects in effects {
            writes.push(effects.writes);
            tally.merge(effects.metrics);
            states.extend(effects.state);
            step = effects.step;
        }
        let merged = if states.is_empty() { None } else { self.merge(step, &before, &states) };
        let mut memory = self.memory();
        if let Some((state, effects)) = merged {
            (memory.kept.state, memory.kept.state_version) = (Some(state), self.descriptor.state_version);
            writes.push(effects.writes);
            tally.merge(effects.metrics);
        }
        let refused: Vec<String> = writes.into_iter().flat_map(|writes| kv::apply(&mut memory.kept.values, writes)).collect();
        let (mut numbers, beyond) = tally.finish();
        let counts = lock(&self.stats).counts.clone();
        add_counts(&mut numbers, &memory.counted, &counts);
        (memory.metrics, memory.counted) = (numbers, counts);
        drop(memory);
        if lost > 0 {
            let limit = limits::STEP_EFFECT_BYTES >> 20;
            self.warn(
                step,
                format!("`kv` writes, metrics and states of a step take more than {limit} MiB: those of {lost} calls are lost"),
            );
        }
        if let Some(first) = refused.first() {
            self.warn(step, format!("`kv` is full: {} writes of the step are lost, the first to `{first}`", refused.len()));
        }
        if let Some(first) = beyond.first() {
            self.warn(step, format!("{} metrics of a step are too many, `{first}` is the first that is left out", beyond.len()));
        }
    }

    /// One state of those after the calls of a step; None, and a warning, where the guest fails: the state stays as it was.
    fn merge(&self, step: u64, before: &Snapshot, states: &[Vec<u8>]) -> Option<(Arc<[u8]>, Effects)> {
        let merged = self.call_again(CallError::may_pass, || {
            self.invoke(states.len(), step, Arc::clone(&before.values), |instance| {
                before.restore(instance)?;
                instance.merge(states)?;
                instance.save()
            })
        });
        match merged {
            Ok((state, effects)) => Some((state.into(), effects)),
            Err(error) => {
                self.warn(step, format!("`merge` failed, the state stays that of the step before: {}", error.message()));
                None
            }
        }
    }

    /// Tells the run's log what the host noticed.
    pub fn warn(&self, step: u64, message: String) {
        self.sink.log(LogLine { plugin: self.id.name.clone(), step, level: LogLevel::Warn, message, fields: Vec::new() });
    }

    /// See [`plumb_core::Plugin::take_metrics`].
    pub fn take_metrics(&self) -> Vec<(String, f64)> {
        std::mem::take(&mut self.memory().metrics)
    }

    /// See [`plumb_core::Plugin::busy_s`].
    pub fn busy_s(&self) -> f64 {
        Duration::from_micros(lock(&self.stats).latency.total_us).as_secs_f64()
    }

    /// See [`plumb_core::Plugin::save_state`].
    pub fn save_state(&self) -> Option<Vec<u8>> {
        let memory = self.memory();
        (memory.kept != Snapshot::default()).then(|| memory.kept.encode())
    }

    /// See [`plumb_core::Plugin::load_state`]. The guest tries its part at once, in an instance of its own.
    pub fn load_state(&self, bytes: &[u8]) -> Result<(), PluginError> {
        let kept = self.decode(bytes)?;
        if kept.state.is_some() && !self.stateful {
            let message = "the saved state comes from a version with an export `state`, this one has none".into();
            return Err(self.error("state.load", PluginFault::Host { message }));
        }
        self.keep(kept)
    }

    /// See [`plumb_core::Plugin::adopt_state`]. A generation without an export `state` has no use for that of another.
    pub fn adopt_state(&self, bytes: &[u8]) -> Result<(), PluginError> {
        let kept = self.decode(bytes)?;
        self.keep(if self.stateful { kept } else { Snapshot { values: kept.values, ..Snapshot::default() } })
    }

    fn decode(&self, bytes: &[u8]) -> Result<Snapshot, PluginError> {
        Snapshot::decode(bytes).ok_or_else(|| {
            self.error("state.load", PluginFault::Host { message: "the saved state of the plugin is damaged".into() })
        })
    }

    /// Goes on from `kept`, once the guest took its part of it in an instance of its own.
    fn keep(&self, kept: Snapshot) -> Result<(), PluginError> {
        if kept.state.is_some() {
            let mut instance = self.instance(1, 0, Arc::clone(&kept.values));
            let tried = instance.start().and_then(|()| instance.init()).and_then(|()| kept.restore(&mut instance));
            tried.map_err(|error| self.error("state.load", error.fault))?;
        }
        let mut memory = self.memory();
        memory.kept = kept;
        (memory.pending_state, memory.effects) = (None, StepEffects::default());
        Ok(())
    }

    /// See [`plumb_core::Plugin::retract`]. The calls are in no step's counts either, so that a step's numbers do not depend on
    /// what was tried before.
    pub fn retract(&self) {
        let mut memory = self.memory();
        (memory.pending_state, memory.effects) = (None, StepEffects::default());
        memory.counted = lock(&self.stats).counts.clone();
    }

    /// An error of this plugin.
    pub fn error(&self, export: &'static str, fault: PluginFault) -> PluginError {
        PluginError { plugin: self.id.clone(), export, fault }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

/// Locks; data behind this crate's locks is whole between statements, so that a panic elsewhere does not spoil it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
