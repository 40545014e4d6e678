//! What plugins say: warnings to the terminal, everything to a file of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plumb_host::{LogLevel, LogLine, Sink};

use crate::output::Output;

/// Name of the file in the run's folder: one JSON object a line, so that no plugin can write a line that looks like another's.
pub const FILE: &str = "plugins.log";
/// Size beyond which the file does not grow.
const FILE_BYTES: u64 = 16 << 20;
/// Different warnings and errors of a plugin that are shown, each once; more are counted.
const SHOWN: usize = 10;

/// Takes the log lines of all plugins of a command.
pub struct PluginLog {
    output: Output,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Warnings and errors by plugin.
    warnings: BTreeMap<String, Warned>,
    path: Option<PathBuf>,
    /// Opened by the first line, so that quiet plugins leave no file.
    file: Option<LogFile>,
    /// Why the file takes no more lines.
    failed: Option<String>,
    /// Lines that the file did not take.
    lost: u64,
}

#[derive(Default)]
struct Warned {
    /// Messages that were shown.
    shown: BTreeSet<String>,
    /// Lines that were not: the same again, as one panic is for every row, or too many.
    more: u64,
}

struct LogFile {
    file: File,
    bytes: u64,
}

impl PluginLog {
    /// Shows warnings; keeps nothing before [`PluginLog::keep_in`].
    pub fn new(output: Output) -> Self {
        PluginLog { output, state: Mutex::default() }
    }

    /// From now on also appends every line to [`FILE`] in a run's folder, which must be there.
    pub fn keep_in(&self, run_dir: &Path) {
        self.state().path = Some(run_dir.join(FILE));
    }

    /// Tells how much was not shown or not kept.
    pub fn finish(&self) {
        let state = std::mem::take(&mut *self.state());
        let place = state.path.as_ref().map_or_else(String::new, |path| format!(", see `{}`", path.display()));
        for (plugin, Warned { more, .. }) in state.warnings.iter().filter(|(_, warned)| warned.more > 0) {
            self.output.warn(format!("plugin `{plugin}` wrote {more} more warnings and errors{place}"));
        }
        if let (Some(reason), Some(path)) = (state.failed, state.path) {
            self.output.warn(format!("{} lines of plugins are not in `{}`: {reason}", state.lost, path.display()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for PluginLog {
    fn log(&self, line: LogLine) {
        let mut state = self.state();
        if line.level >= LogLevel::Warn {
            let warned = state.warnings.entry(line.plugin.clone()).or_default();
            if warned.shown.len() < SHOWN && warned.shown.insert(line.message.clone()) {
                self.output.warn(shown(&line));
            } else {
                warned.more += 1;
            }
        }
        state.keep(&line);
    }
}

impl State {
    /// A log that cannot be written must not end a run: the first failure is kept for [`PluginLog::finish`].
    fn keep(&mut self, line: &LogLine) {
        let Some(path) = &self.path else { return };
        if self.failed.is_none() {
            let text = serde_json::to_string(line).expect("a log line is JSON") + "\n";
            let file = match self.file.take() {
                Some(file) => Ok(file),
                None => LogFile::open(path),
            };
            match file.and_then(|file| file.append(&text)) {
                Ok(file) => self.file = Some(file),
                Err(error) => self.failed = Some(error.to_string()),
            }
        }
        self.lost += u64::from(self.failed.is_some());
    }
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile { file, bytes })
    }

    fn append(mut self, text: &str) -> io::Result<Self> {
        self.bytes += text.len() as u64;
        if self.bytes > FILE_BYTES {
            return Err(io::Error::other(format!("the file would be larger than {} MiB", FILE_BYTES >> 20)));
        }
        self.file.write_all(text.as_bytes())?;
        Ok(self)
    }
}

/// A line for a terminal. What a plugin writes may hold what a model wrote, so that control characters are written out.
fn shown(line: &LogLine) -> String {
    let fields: String = line.fields.iter().map(|(name, value)| [" ", name, "=", value].concat()).collect();
    let text = format!("plugin `{}`, step {}: {}{fields}", line.plugin, line.step, line.message);
    let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.trim_end().chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: LogLevel, message: &str) -> LogLine {
        LogLine { plugin: "p".into(), step: 3, level, message: message.into(), fields: vec![("row".into(), "7".into())] }
    }

    fn log() -> PluginLog {
        PluginLog::new(Output::new(false, true, true))
    }

    #[test]
    fn every_line_is_kept_from_the_runs_begin_on_and_appended_to_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        for message in ["first", "second\n{\"plugin\":\"other\"}"] {
            let log = log();
            log.log(line(LogLevel::Error, "before the run"));
            log.keep_in(folder.path());
            log.log(line(LogLevel::Trace, message));
        }
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        let expected = [
            r#"{"plugin":"p","step":3,"level":"trace","message":"first","fields":[["row","7"]]}"#,
            r#"{"plugin":"p","step":3,"level":"trace","message":"second\n{\"plugin\":\"other\"}","fields":[["row","7"]]}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn file_is_bounded_and_what_it_lacks_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let log = log();
        log.keep_in(folder.path());
        let long = "x".repeat(1 << 20);
        (0..20).for_each(|_| log.log(line(LogLevel::Info, &long)));
        assert!(std::fs::metadata(folder.path().join(FILE)).unwrap().len() <= FILE_BYTES);
        let state = log.state();
        assert_eq!(state.lost, 5);
        assert_eq!(state.failed.as_deref(), Some("the file would be larger than 16 MiB"));
    }

    #[test]
    fn same_warning_is_shown_once_and_counted_after_that() {
        let log = log();
        ["panic", "panic", "other", "panic"].iter().for_each(|message| log.log(line(LogLevel::Error, message)));
        let state = log.state();
        assert_eq!((state.warnings["p"].shown.len(), state.warnings["p"].more), (2, 2));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shown(&line(LogLevel::Warn, "a\x1b[31m\nb")), "plugin `p`, step 3: a\\u{1b}[31m\\nb row=7");
    }
}
