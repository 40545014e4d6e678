//! `changes.jsonl`: what was changed in a run and before which step, one line per step boundary.
//!
//! A line is on the disk before its step begins. So a run that was killed and goes on from a checkpoint knows which generations
//! were in force there, and repeats the changes after it at exactly their steps.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use plumb_core::recipe::PluginUse;
use serde::{Deserialize, Serialize};

use crate::generations::control::RequestId;
use crate::run::append::{AppendFile, line_end, sync_name};
use crate::run::{ChangeCause, Error, IoContext, Result};

/// The file in the run's folder.
pub(super) const FILE: &str = "changes.jsonl";

/// A plugin that can be loaded again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// SHA-256 of the component; its bytes are `RUN/plugins/<digest>.wasm`. Functions of the program have none.
    pub digest: String,
    /// As it was asked for: configuration, limits, grants.
    #[serde(flatten)]
    pub used: PluginUse,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Change {
    /// Another plugin took the place of `name`.
    Replace {
        /// Name in the run.
        name: String,
        /// What took its place.
        plugin: Source,
        /// Who wanted it.
        cause: ChangeCause,
        /// By which request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestId>,
    },
    /// The generation before took its place again.
    Restore {
        /// Name in the run.
        name: String,
        /// Who wanted it: after a rollback the generation that went is the one before, after an open circuit there is none.
        cause: ChangeCause,
        /// By which request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestId>,
    },
    /// A second plugin scores along.
    Shadow {
        /// Name in the run of the plugin it is compared with.
        name: String,
        /// The second one.
        plugin: Source,
        /// By which request.
        request: RequestId,
    },
    /// It does no more.
    Unshadow {
        /// Name in the run of the plugin it was compared with.
        name: String,
        /// By which request.
        request: RequestId,
    },
}

impl Change {
    /// The request that it came from.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Change::Replace { request, .. } | Change::Restore { request, .. } => *request,
            Change::Shadow { request, .. } | Change::Unshadow { request, .. } => Some(*request),
        }
    }
}

/// All changes of one step boundary, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boundary {
    /// First step of the run that they hold for.
    pub step: u64,
    /// Name of the stage.
    pub stage: String,
    /// In the order in which they were made.
    pub changes: Vec<Change>,
}

/// The changes of a run, in the order of their steps. A torn last line, whose step never began, is left out.
///
/// # Errors
/// [`Error::BrokenLine`] names a line that cannot be read.
pub fn read(run_dir: &Path) -> Result<Vec<Boundary>> {
    let path = run_dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.at("read", &path)?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line)| {
        let broken = |e: serde_json::Error| Error::BrokenLine { path: path.clone(), line: i + 1, reason: e.to_string() };
        serde_json::from_str(line).map_err(broken)
    };
    whole.lines().enumerate().map(parse).collect()
}

/// Writes what is changed, and knows what a process before this one changed.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    file: AppendFile,
    /// Lines in the file.
    lines: Vec<Boundary>,
    /// Those whose steps are still to be repeated.
    ahead: VecDeque<Boundary>,
}

impl History {
    /// Opens the history of a run that goes on after step `step`.
    pub fn open(run_dir: &Path, step: u64) -> Result<Self> {
        let lines = read(run_dir)?;
        let path = run_dir.join(FILE);
        let file = AppendFile::open(&path, lines.len() as u64, line_end)?;
        let ahead = lines.iter().filter(|line| line.step > step).cloned().collect();
        Ok(History { path, file, lines, ahead })
    }

    /// All lines.
    pub fn lines(&self) -> &[Boundary] {
        &self.lines
    }

    /// Whether changes of later steps are known already, so that nobody may make others.
    pub fn repeats(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The known changes before step `step`.
    pub fn repeat(&mut self, step: u64) -> Option<Boundary> {
        self.ahead.pop_front_if(|line| line.step == step)
    }

    /// Writes a line and waits until it is on the disk.
    pub fn append(&mut self, boundary: Boundary) -> Result<()> {
        let mut line = serde_json::to_string(&boundary).expect("changes have string keys only");
        line.push('\n');
        self.file.append(line.as_bytes())?;
        self.file.sync()?;
        if self.lines.is_empty() {
            // Its name too: the file may be new.
            sync_name(&self.path)?;
        }
        self.lines.push(boundary);
        Ok(())
    }

    /// Takes back the line of step `step`, if there is one and nothing after it: the step was never done, and whoever goes on may
    /// do it otherwise. Returns that line.
    pub fn withdraw(&mut self, step: u64) -> Result<Option<Boundary>> {
        let line = self.lines.pop_if(|line| line.step == step);
        if line.is_some() {
            self.file = AppendFile::open(&self.path, self.lines.len() as u64, line_end)?;
            self.file.sync()?;
        }
        Ok(line)
    }
}

/// Where a slot of a stage stands after some changes; None is what the recipe says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The generation in force.
    pub current: Option<Source>,
    /// The one before. The outer None: there is none.
    pub previous: Option<Option<Source>>,
}

/// What `lines` made of the recipe's plugins: the slots that changed and the shadows, by name.
pub fn standing<'a>(lines: impl IntoIterator<Item = &'a Boundary>) -> (BTreeMap<String, Standing>, BTreeMap<String, Source>) {
    let (mut slots, mut shadows) = (BTreeMap::<String, Standing>::new(), BTreeMap::new());
    for change in lines.into_iter().flat_map(|line| &line.changes) {
        match change {
            Change::Replace { name, plugin, .. } => {
                let slot = slots.entry(name.clone()).or_default();
                slot.previous = Some(slot.current.replace(plugin.clone()));
            }
            Change::Restore { name, cause, .. } => {
                let slot = slots.entry(name.clone()).or_default();
                let restored = slot.previous.take().unwrap_or_default();
                let gone = std::mem::replace(&mut slot.current, restored);
                slot.previous = (*cause == ChangeCause::Rollback).then_some(gone);
            }
            Change::Shadow { name, plugin, .. } => {
                shadows.insert(name.clone(), plugin.clone());
            }
            Change::Unshadow { name, .. } => {
                shadows.remove(name);
            }
        }
    }
    (slots, shadows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(digest: &str) -> Source {
        Source { digest: digest.into(), used: serde_json::from_str(r#"{"plugin": "p", "config": {"x": 1}}"#).unwrap() }
    }

    fn replace(step: u64, digest: &str) -> Boundary {
        let change = Change::Replace { name: "a".into(), plugin: source(digest), cause: ChangeCause::Command, request: Some(3) };
        Boundary { step, stage: "rl".into(), changes: vec![change] }
    }

    fn restore(step: u64, cause: ChangeCause) -> Boundary {
        Boundary { step, stage: "rl".into(), changes: vec![Change::Restore { name: "a".into(), cause, request: None }] }
    }

    #[test]
    fn reopened_history_repeats_what_lies_after_the_checkpoint_and_forgets_a_torn_line() {
        let run = tempfile::tempdir().unwrap();
        let mut history = History::open(run.path(), 0).unwrap();
        let lines = [replace(3, "11"), replace(5, "22"), restore(8, ChangeCause::Rollback)];
        lines.iter().for_each(|line| history.append(line.clone()).unwrap());
        drop(history);
        let path = run.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"step\":"].concat()).unwrap();

        let mut history = History::open(run.path(), 4).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(history.lines(), lines);
        assert_eq!(history.repeat(4), None);
        assert_eq!(history.repeat(5).as_ref(), Some(&lines[1]));
        assert!(history.repeats());
        history.withdraw(8).unwrap();
        history.withdraw(8).unwrap();
        assert_eq!(read(run.path()).unwrap(), lines[..2]);
    }

    #[test]
    fn standing_follows_swaps_rollbacks_and_open_circuits() {
        let after = |lines: &[Boundary]| standing(lines).0.remove("a").unwrap();
        let two = [replace(1, "11"), replace(2, "22")];
        assert_eq!(after(&two), Standing { current: Some(source("22")), previous: Some(Some(source("11"))) });
        let back = [&two[..], &[restore(3, ChangeCause::Rollback)]].concat();
        assert_eq!(after(&back), Standing { current: Some(source("11")), previous: Some(Some(source("22"))) });
        let opened = [&two[..], &[restore(3, ChangeCause::Circuit)]].concat();
        assert_eq!(after(&opened), Standing { current: Some(source("11")), previous: None });
        let first = [replace(1, "11"), restore(2, ChangeCause::Circuit)];
        assert_eq!(after(&first), Standing { current: None, previous: None });
    }
}
