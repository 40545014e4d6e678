//! A running guest: one store, one instance, dropped after its call. A trap poisons a store, and memory that is never reused
//! makes answers independent of what was asked before.

use std::sync::Arc;

use plumb_core::{Decision, PluginFault, PluginKind, Rewards, Shaped, Texts, Turn};
use wasmtime::component::{Component, HasSelf, Instance as Wasm, InstancePre, Linker, Resource};
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};

use crate::answer;
use crate::bindings::types::{Fault, Generated};
use crate::bindings::{config, data, kv as kv_import, log, metrics, models, random, tools, types};
use crate::bindings::{filtering, judging, lifecycle, merging, rewarding, shaping, state, tooling};
use crate::context::{Breach, Context, Identity};
use crate::engine::Ticker;
use crate::kv;
use crate::limits::{self, EffectiveLimits};
use crate::meter::Spent;
use crate::services::{Services, ToolAnswers, of_the_call};
use crate::view::BatchView;

/// A compiled component with its imports resolved and its exports found.
pub struct Code {
    pre: InstancePre<Context>,
    lifecycle: lifecycle::GuestIndices,
    rewarding: Option<rewarding::GuestIndices>,
    shaping: Option<shaping::GuestIndices>,
    filtering: Option<filtering::GuestIndices>,
    judging: Option<judging::GuestIndices>,
    tooling: Option<tooling::GuestIndices>,
    state: Option<state::GuestIndices>,
    merging: Option<merging::GuestIndices>,
}

impl Code {
    /// Links a component to the host's imports: those of every plugin, and the capabilities that this one was granted.
    ///
    /// # Errors
    /// What the component imports and no host has, or does not export.
    pub fn link(
        engine: &Engine,
        component: &Component,
        kind: PluginKind,
        stateful: bool,
        services: &Services,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        let context: fn(&mut Context) -> &mut Context = |context| context;
        types::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        data::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        log::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        metrics::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        random::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        config::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        kv_import::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        if services.grants_models() {
            models::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        }
        if services.grants_tools() {
            tools::add_to_linker::<_, HasSelf<_>>(&mut linker, context)?;
        }
        let pre = linker.instantiate_pre(component)?;
        let is = |of: PluginKind| (kind == of).then_some(&pre);
        Ok(Code {
            lifecycle: lifecycle::GuestIndices::new(&pre)?,
            rewarding: is(PluginKind::Reward).map(rewarding::GuestIndices::new).transpose()?,
            shaping: is(PluginKind::Shaper).map(shaping::GuestIndices::new).transpose()?,
            filtering: is(PluginKind::Filter).map(filtering::GuestIndices::new).transpose()?,
            judging: is(PluginKind::Judge).map(judging::GuestIndices::new).transpose()?,
            tooling: is(PluginKind::Tool).map(tooling::GuestIndices::new).transpose()?,
            state: stateful.then(|| state::GuestIndices::new(&pre)).transpose()?,
            merging: (stateful && kind == PluginKind::Reward).then(|| merging::GuestIndices::new(&pre)).transpose()?,
            pre,
        })
    }
}

/// A call failed: the fault, and whether the plugin itself says that asking again may help.
#[derive(Clone, Debug, PartialEq)]
pub struct CallError {
    /// What happened.
    pub fault: PluginFault,
    /// The plugin's word; false for all that is not [`PluginFault::Fault`].
    pub retryable: bool,
    /// Whether the instance failed before it was asked: then no row is to blame.
    pub at_start: bool,
}

impl CallError {
    /// Whether a second call may end otherwise. A fault of the machine may pass: memory that the system lacked, a clock that ran out
    /// under load. Fuel is counted, so that the same call runs out of it again; and what a plugin says about its own fault is taken
    /// at its word.
    pub fn may_pass(&self) -> bool {
        match self.fault {
            PluginFault::OutOfFuel { .. } => false,
            PluginFault::Fault { .. } => self.retryable,
            _ => true,
        }
    }

    /// Whether it concerns every row of the call alike: it failed before it was asked, or answered with a fault of its own.
    pub fn of_every_row(&self) -> bool {
        self.at_start || matches!(self.fault, PluginFault::Fault { .. })
    }

    /// The plugin's own words for its own fault, the host's for the others.
    pub fn message(&self) -> String {
        match &self.fault {
            PluginFault::Fault { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the host failed, and not the plugin.
    pub fn of_the_host(&self) -> bool {
        matches!(self.fault, PluginFault::Host { .. })
    }
}

impl From<PluginFault> for CallError {
    fn from(fault: PluginFault) -> Self {
        CallError { fault, retryable: false, at_start: false }
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        match answer::code(fault.code) {
            Ok(code) => {
                let message = answer::clip(fault.message);
                CallError { fault: PluginFault::Fault { code, message }, retryable: fault.retryable, at_start: false }
            }
            Err(fault) => fault.into(),
        }
    }
}

type Called<T> = Result<T, CallError>;

/// One instance of a plugin. Calls refuel it, so that each has the whole limits.
pub struct Instance {
    store: Store<Context>,
    wasm: Option<Wasm>,
    code: Arc<Code>,
    limits: EffectiveLimits,
    rows: usize,
    fuel_used: u64,
}

impl Instance {
    /// Prepares a store for a batch of `rows` rows; [`Instance::start`] runs the first code of the guest.
    pub(crate) fn new(
        code: Arc<Code>,
        identity: Arc<Identity>,
        services: Arc<Services>,
        limits: EffectiveLimits,
        rows: usize,
        step: u64,
        values: kv::Values,
    ) -> Self {
        let context = Context::new(identity, services, limits.memory_mib, step, values);
        let mut store = Store::new(code.pre.component().engine(), context);
        store.limiter(|context| &mut context.memory);
        // What models and tools took of the time is not the guest's: once, and then again as long as there was such time.
        store.epoch_deadline_callback(|mut store| {
            Ok(match store.data_mut().asking.take_waited() {
                Some(waited) => UpdateDeadline::Continue(Ticker::epochs(waited.as_millis() as u64)),
                None => UpdateDeadline::Interrupt,
            })
        });
        store.set_hostcall_fuel(limits::ANSWER_BYTES);
        store.set_max_component_handles(limits::HANDLES);
        Instance { store, wasm: None, code, limits, rows, fuel_used: 0 }
    }

    /// Instantiates the component.
    pub(crate) fn start(&mut self) -> Called<()> {
        let code = Arc::clone(&self.code);
        let wasm = self.run(|store, _| code.pre.instantiate(store))?;
        self.wasm = Some(wasm);
        Ok(())
    }

    /// Finds the exports of the plugin's kind, whose types are compared with the interface's.
    pub(crate) fn check_exports(&mut self) -> Called<()> {
        let code = Arc::clone(&self.code);
        self.run(|store, wasm| {
            let wasm = wasm()?;
            code.lifecycle.load(&mut *store, wasm)?;
            code.rewarding.as_ref().map(|found| found.load(&mut *store, wasm)).transpose()?;
            code.shaping.as_ref().map(|found| found.load(&mut *store, wasm)).transpose()?;
            code.filtering.as_ref().map(|found| found.load(&mut *store, wasm)).transpose()?;
            code.judging.as_ref().map(|found| found.load(&mut *store, wasm)).transpose()?;
            code.tooling.as_ref().map(|found| found.load(&mut *store, wasm)).transpose()?;
            code.state.as_ref().map(|found| found.load(&mut *store, wasm)).transpose()?;
            code.merging.as_ref().map(|found| found.load(&mut *store, wasm)).transpose()?;
            Ok(())
        })
    }

    /// `lifecycle.describe`.
    pub(crate) fn describe(&mut self) -> Called<lifecycle::Descriptor> {
        let code = Arc::clone(&self.code);
        self.run(|store, wasm| code.lifecycle.load(&mut *store, wasm()?)?.call_describe(store))
    }

    /// `lifecycle.init`.
    pub(crate) fn init(&mut self) -> Called<()> {
        let code = Arc::clone(&self.code);
        Ok(self.run(|store, wasm| code.lifecycle.load(&mut *store, wasm()?)?.call_init(store))??)
    }

    /// `state.save`.
    pub(crate) fn save(&mut self) -> Called<Vec<u8>> {
        let code = Arc::clone(&self.code);
        Ok(self.run(|store, wasm| exported(code.state.as_ref())?.load(&mut *store, wasm()?)?.call_save(store))??)
    }

    /// `state.load`.
    pub(crate) fn load(&mut self, version: u32, bytes: &[u8]) -> Called<()> {
        let code = Arc::clone(&self.code);
        Ok(self.run(|store, wasm| exported(code.state.as_ref())?.load(&mut *store, wasm()?)?.call_load(store, version, bytes))??)
    }

    /// `merging.merge`.
    pub(crate) fn merge(&mut self, states: &[Vec<u8>]) -> Called<()> {
        let code = Arc::clone(&self.code);
        Ok(self.run(|store, wasm| exported(code.merging.as_ref())?.load(&mut *store, wasm()?)?.call_merge(store, states))??)
    }

    /// `rewarding.score`, checked.
    pub(crate) fn score(&mut self, view: &BatchView) -> Called<Rewards> {
        let code = Arc::clone(&self.code);
        let answer = self.with_batch(view, |store, wasm, batch| {
            exported(code.rewarding.as_ref())?.load(&mut *store, wasm)?.call_score(store, batch)
        })??;
        Ok(answer::rewards(answer, view)?)
    }

    /// `shaping.shape`, checked.
    pub(crate) fn shape(&mut self, view: &BatchView) -> Called<Shaped> {
        let code = Arc::clone(&self.code);
        let answer = self.with_batch(view, |store, wasm, batch| {
            exported(code.shaping.as_ref())?.load(&mut *store, wasm)?.call_shape(store, batch)
        })??;
        Ok(answer::shaped(answer, view.batch())?)
    }

    /// `filtering.select`, checked.
    pub(crate) fn select(&mut self, view: &BatchView) -> Called<Decision> {
        let code = Arc::clone(&self.code);
        let answer = self.with_batch(view, |store, wasm, batch| {
            exported(code.filtering.as_ref())?.load(&mut *store, wasm)?.call_select(store, batch)
        })??;
        Ok(answer::decision(answer, view.batch())?)
    }

    /// `judging.begin`, checked.
    pub(crate) fn begin(&mut self, view: &BatchView) -> Called<Turn> {
        let code = Arc::clone(&self.code);
        let answer = self.with_batch(view, |store, wasm, batch| {
            exported(code.judging.as_ref())?.load(&mut *store, wasm)?.call_begin(store, batch)
        })??;
        self.turn(answer, view)
    }

    /// `judging.resume`, checked.
    pub(crate) fn resume(&mut self, view: &BatchView, memo: &[u8], answers: &[Generated]) -> Called<Turn> {
        let code = Arc::clone(&self.code);
        let answer = self.with_batch(view, |store, wasm, batch| {
            exported(code.judging.as_ref())?.load(&mut *store, wasm)?.call_resume(store, batch, memo, answers)
        })??;
        self.turn(answer, view)
    }

    fn turn(&self, turn: judging::Turn, view: &BatchView) -> Called<Turn> {
        let turn = answer::turn(turn, view.batch())?;
        if let Turn::Ask(ask) = &turn {
            self.store.data().services.check_questions(&ask.questions, view.rows()).map_err(of_the_call)?;
        }
        Ok(turn)
    }

    /// `tooling.call`, checked.
    pub(crate) fn call_tool(&mut self, arguments: &Texts) -> Called<ToolAnswers> {
        let code = Arc::clone(&self.code);
        self.rows = arguments.len();
        let sent = types::Texts { bytes: arguments.bytes.clone(), ends: arguments.ends.clone() };
        let answer =
            self.run(|store, wasm| exported(code.tooling.as_ref())?.load(&mut *store, wasm()?)?.call_call(store, &sent))??;
        Ok(answer::tool_outputs(answer, arguments.len())?)
    }

    /// Fuel used so far, in wasmtime's units.
    pub(crate) fn fuel_used(&self) -> u64 {
        self.fuel_used
    }

    /// Ends the instance and hands out what it left.
    pub(crate) fn finish(self) -> Context {
        self.store.into_data()
    }

    /// Lends the guest the batch for one call.
    fn with_batch<T>(
        &mut self,
        view: &BatchView,
        call: impl FnOnce(&mut Store<Context>, &Wasm, Resource<BatchView>) -> wasmtime::Result<T>,
    ) -> Called<T> {
        self.rows = view.rows();
        self.run(|store, wasm| {
            let batch = store.data_mut().table.push(view.clone())?;
            let lent = Resource::new_borrow(batch.rep());
            store.data_mut().open_services(view.rows());
            let answer = call(store, wasm()?, lent);
            store.data_mut().close_services();
            store.data_mut().table.delete(batch)?;
            answer
        })
    }

    /// Runs guest code within the limits, and says in the interface's words how it failed.
    fn run<'a, T>(
        &'a mut self,
        call: impl FnOnce(&mut Store<Context>, &dyn Fn() -> wasmtime::Result<&'a Wasm>) -> wasmtime::Result<T>,
    ) -> Called<T> {
        let fuel = self.limits.call_fuel(self.rows);
        let deadline_ms = self.limits.call_deadline_ms(self.rows);
        let host = |error: wasmtime::Error| CallError::from(PluginFault::Host { message: format!("{error:#}") });
        self.store.set_fuel(fuel).map_err(host)?;
        self.store.data_mut().meter.begin(fuel);
        self.store.set_epoch_deadline(Ticker::epochs(deadline_ms));
        self.store.data_mut().asking.take_waited();
        let wasm = &self.wasm;
        let started = || wasm.as_ref().ok_or_else(|| wasmtime::Error::msg("the instance was not started"));
        let result = call(&mut self.store, &started);
        let used = (fuel - self.store.get_fuel().map_err(host)?).saturating_add(self.store.data().meter.used());
        self.fuel_used = self.fuel_used.saturating_add(used);
        match result {
            // Instructions and host calls each kept to the limit, but not together.
            Ok(_) if used > fuel => Err(PluginFault::OutOfFuel { limit_fuel: fuel, rows: self.rows }.into()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.fault(&error, fuel, deadline_ms, used).into()),
        }
    }

    fn fault(&self, error: &wasmtime::Error, limit_fuel: u64, limit_ms: u64, used_fuel: u64) -> PluginFault {
        let context = self.store.data();
        if let Some(breach) = error.downcast_ref::<Breach>() {
            return PluginFault::BadOutput { message: answer::clip(breach.to_string()) };
        }
        if error.is::<Spent>() {
            return PluginFault::OutOfFuel { limit_fuel, rows: self.rows };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => PluginFault::OutOfFuel { limit_fuel, rows: self.rows },
            Some(Trap::Interrupt) => PluginFault::DeadlineMissed { limit_ms },
            // A guest that is denied memory has no choice but to give up.
            _ if let Some(asked) = context.memory.denied => {
                PluginFault::OutOfMemory { limit_mib: self.limits.memory_mib, asked_mib: asked.div_ceil(1 << 20) as u64 }
            }
            Some(trap) => PluginFault::Trap { message: answer::clip(trap_message(*trap, error, context)) },
            // What is left are places and memory for an instance, which the host owes, and data at the boundary that break the
            // rules, which a start function can produce too. Nothing of the guest ran where no fuel was used.
            None if self.wasm.is_none() && (used_fuel == 0 || error.is::<PoolConcurrencyLimitError>()) => {
                PluginFault::Host { message: answer::clip(root(error)) }
            }
            None => PluginFault::BadOutput { message: answer::clip(root(error)) },
        }
    }
}

fn exported<T>(indices: Option<&T>) -> wasmtime::Result<&T> {
    indices.ok_or_else(|| wasmtime::Error::msg("the component has no such export"))
}

fn root(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

/// The innermost functions, without those that only carry a panic out, and in the words of the source.
fn readable<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const FRAMES: usize = 6;
    // Rust's own, through which a panic goes on its way from the author's code to the trap.
    const MACHINERY: [&str; 9] =
        ["core::", "<core::", "std::", "<std::", "alloc::", "<alloc::", "__rust", "rust_panic", "rust_begin_unwind"];
    let names: Vec<String> = names.map(|name| format!("{:#}", rustc_demangle::demangle(name))).collect();
    let own = names.iter().filter(|name| *name != "abort" && !MACHINERY.iter().any(|prefix| name.starts_with(prefix)));
    let own: Vec<String> = own.take(FRAMES).cloned().collect();
    if own.is_empty() { names.into_iter().take(FRAMES).collect() } else { own }
}

/// The trap, what the guest's last words were, and where it happened: the innermost functions with names.
fn trap_message(trap: Trap, error: &wasmtime::Error, context: &Context) -> String {
    use std::fmt::Write;
    let mut message = trap.to_string();
    if let Some(last) = context.lines.kept.iter().rfind(|line| line.level == crate::sink::LogLevel::Error) {
        write!(message, ": {}", last.message).expect("writing to a string cannot fail");
    }
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    let names = readable(frames.iter().filter_map(wasmtime::FrameInfo::func_name));
    if !names.is_empty() {
        write!(message, "; in {}", names.join(" < ")).expect("writing to a string cannot fail");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_panic_are_the_authors_in_the_words_of_the_source() {
        let panic = [
            "abort",
            "_ZN3std9panicking20rust_panic_with_hook17h0123456789abcdefE",
            "rust_begin_unwind",
            "_ZN4core6option13unwrap_failed17h0123456789abcdefE",
            "_ZN7brevity7Brevity9score_row17h0123456789abcdefE",
            "score",
        ];
        assert_eq!(readable(panic.into_iter()), ["brevity::Brevity::score_row", "score"]);
        assert_eq!(readable(panic.into_iter().take(3)), ["abort", "std::panicking::rust_panic_with_hook", "rust_begin_unwind"]);
    }
}
