//! Waiting for a plugin's sources to change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use crate::diagnostic::Diagnostic;

/// How long it must be quiet after a change: editors save in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// Folders that builds and tools write to.
const GENERATED: [&str; 5] = ["target", "node_modules", "__pycache__", "build", "dist"];

/// Files that are watched, and what they were when last looked at.
pub struct Watch {
    roots: Vec<PathBuf>,
    seen: BTreeMap<PathBuf, (SystemTime, u64)>,
    events: Receiver<()>,
    /// Events come as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches files and folders, folders with all that is in them.
    pub fn new(roots: Vec<PathBuf>) -> Result<Self, Diagnostic> {
        let failed = |e: notify::Error| Diagnostic::resource("watch", "cannot watch the plugin's files").because(e.to_string());
        let (send, events) = channel();
        // Events only wake; what changed is seen in the files themselves. Looking at them opens folders, which is an event too.
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = send.send(());
            }
        })
        .map_err(failed)?;
        for root in &roots {
            // Editors replace files: of a file, its folder is watched.
            let folder = if root.is_dir() { root.as_path() } else { root.parent().unwrap_or(Path::new("")) };
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let mode = if root.is_dir() { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            watcher.watch(folder, mode).map_err(failed)?;
        }
        let seen = look(&roots);
        Ok(Watch { roots, seen, events, _watcher: watcher })
    }

    /// Blocks until something changed since the last call, and it has been quiet for a moment.
    pub fn wait(&mut self) {
        loop {
            // A change during the last build is one too, so files are looked at before any event is waited for.
            let now = look(&self.roots);
            if now != self.seen {
                while self.events.recv_timeout(QUIET).is_ok() {}
                self.seen = look(&self.roots);
                return;
            }
            if self.events.recv().is_err() {
                return;
            }
        }
    }
}

/// Time and size of every file under the roots that is not generated.
fn look(roots: &[PathBuf]) -> BTreeMap<PathBuf, (SystemTime, u64)> {
    let mut seen = BTreeMap::new();
    let mut open: Vec<PathBuf> = roots.to_vec();
    while let Some(path) = open.pop() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_root = roots.contains(&path);
        if !is_root && (name.starts_with('.') || GENERATED.contains(&name) || name.ends_with(".lock")) {
            continue;
        }
        let Ok(facts) = std::fs::metadata(&path) else { continue };
        if facts.is_dir() {
            open.extend(std::fs::read_dir(&path).into_iter().flatten().filter_map(|item| item.ok().map(|item| item.path())));
        } else if let Ok(time) = facts.modified() {
            seen.insert(path, (time, facts.len()));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_count_and_what_builds_write_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("src/lib.rs", "1");
        let roots = [folder.path().to_owned()];
        let before = look(&roots);
        assert_eq!(before.len(), 1);
        write("target/x.wasm", "1");
        write("Cargo.lock", "1");
        write(".git/index", "1");
        assert_eq!(look(&roots), before);
        write("src/lib.rs", "22");
        assert_ne!(look(&roots), before);
    }

    #[test]
    fn looking_is_no_change_to_wake_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/lib.rs"), "1").unwrap();
        let watch = Watch::new(vec![folder.path().to_owned()]).unwrap();
        look(&watch.roots);
        assert!(watch.events.recv_timeout(QUIET).is_err(), "it would look again and again");
    }

    #[test]
    fn change_made_while_nobody_waited_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cases.jsonl");
        std::fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(vec![folder.path().to_owned()]).unwrap();
        std::fs::write(&file, "22").unwrap();
        watch.wait();
        assert_eq!(watch.seen.values().map(|(_, size)| *size).collect::<Vec<_>>(), [2]);
    }
}
