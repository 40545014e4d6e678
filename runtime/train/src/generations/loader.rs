//! Loads the plugins of requests on a thread of its own while training goes on, and tries them on the last batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use plumb_core::recipe::PluginUse;
use plumb_core::{Outcome, PluginKind};

use super::control::{Refusal, RequestId};
use super::observed::{Observed, ask};
use crate::Error;
use crate::compare::{Comparison, compare};
use crate::plugins::{AnyPlugin, PluginFactory};

/// Steps whose batches a new plugin is tried on.
pub const RECORDED_STEPS: usize = 4;

/// A plugin to load and to try.
pub struct Job {
    /// The request it came with.
    pub id: RequestId,
    /// Of which kind it must be.
    pub kind: PluginKind,
    /// What to load.
    pub used: PluginUse,
    /// State to take over, where it takes the place of one that has state.
    pub state: Option<Vec<u8>>,
    /// What the plugin in use was asked last.
    pub recorded: Vec<Observed>,
}

/// A plugin that is ready, or why there is none.
pub struct Loaded {
    /// The request it came with.
    pub id: RequestId,
    /// The plugin, and how it compares on the recorded batches.
    pub result: Result<(AnyPlugin, Option<Comparison>), Refusal>,
}

/// The loading thread. It ends when this is dropped.
pub struct Loader {
    jobs: Sender<Job>,
    ready: Receiver<Loaded>,
}

impl Loader {
    /// Starts the thread.
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, factory: &'scope dyn PluginFactory) -> Self {
        let (jobs, todo) = channel::<Job>();
        let (done, ready) = channel();
        scope.spawn(move || {
            for job in todo {
                let (id, result) = (job.id, load(job, factory));
                if done.send(Loaded { id, result }).is_err() {
                    return;
                }
            }
        });
        Loader { jobs, ready }
    }

    /// Hands over a job; it is done in its turn.
    pub fn submit(&self, job: Job) {
        // The thread lives as long as this, unless a plugin's loading panicked; the scope tells that when the run ends.
        let _ = self.jobs.send(job);
    }

    /// What is ready now; with `wait` at least one thing.
    pub fn ready(&self, wait: bool) -> Vec<Loaded> {
        let first = if wait { self.ready.recv().ok() } else { None };
        first.into_iter().chain(self.ready.try_iter()).collect()
    }
}

fn load(job: Job, factory: &dyn PluginFactory) -> Result<(AnyPlugin, Option<Comparison>), Refusal> {
    let load_error = |source| Error::LoadPlugin { kind: job.kind, plugin: job.used.plugin.clone(), source };
    let plugin = AnyPlugin::load(job.kind, &job.used, factory).map_err(|source| factory.explain(load_error(source)))?;
    if let Some(state) = &job.state {
        adopt(&plugin, state)?;
    }
    let comparison = tried(&plugin, &job.recorded)?;
    Ok((plugin, comparison))
}

/// Hands a state over.
pub fn adopt(plugin: &AnyPlugin, state: &[u8]) -> Result<(), Refusal> {
    plugin.plugin().adopt_state(state).map_err(|error| {
        let hint = "let its `state.load` take what the version before saved, or give the new version no state";
        Refusal::from_error("state-refused", &error).hint(hint)
    })
}

/// Asks a new plugin about the recorded batches. What that leaves behind in it is taken back.
fn tried(plugin: &AnyPlugin, recorded: &[Observed]) -> Result<Option<Comparison>, Refusal> {
    if matches!(plugin, AnyPlugin::Judge(_)) || plugin.plugin().asks_models() {
        // There are models to ask only inside a step.
        return Ok(None);
    }
    let (mut old, mut new, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let (mut fault, mut failed) = (None, 0);
    for observed in recorded {
        let before = old.len() as u32;
        for outcome in ask(plugin, &observed.batch)() {
            new.push(outcome.value());
            if let Outcome::Failed(found) = outcome {
                failed += 1;
                fault.get_or_insert(found);
            }
        }
        old.extend(observed.values());
        ends.extend(observed.batch.group_ends.iter().map(|end| before + end));
    }
    plugin.plugin().retract();
    if let Some(fault) = fault.filter(|_| failed == new.len()) {
        let message = format!("it fails on all {failed} rows of the last batches ({}: {})", fault.code, fault.message);
        return Err(Refusal::new("fails", message).hint("run its cases with `plumb plugin test`"));
    }
    Ok((!old.is_empty()).then(|| compare(&old, &new, &ends)))
}

/// The last batches of each plugin.
#[derive(Default)]
pub struct Recorded(VecDeque<Arc<[Observed]>>);

impl Recorded {
    /// Adds a step's, and forgets older ones.
    pub fn push(&mut self, step: Arc<[Observed]>) {
        if !step.is_empty() {
            self.0.push_back(step);
            while self.0.len() > RECORDED_STEPS {
                self.0.pop_front();
            }
        }
    }

    /// Those of one plugin.
    pub fn of(&self, name: &str) -> Vec<Observed> {
        self.0.iter().flat_map(|step| step.iter()).filter(|observed| observed.name == name).cloned().collect()
    }
}
