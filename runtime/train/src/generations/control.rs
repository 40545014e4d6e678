//! Requests to a run that is being trained, from another process: files in `RUN/control/`.
//!
//! | File | Holds |
//! |---|---|
//! | `trainer.lock` | locked (`flock`) by the process that trains the run, so a lock never outlives it |
//! | `submit.lock` | locked while a request takes its number |
//! | `000007-swap.json`, `000007.wasm` | request 7 and the plugin it brings |
//! | `000007.answer.json` | what became of it |
//!
//! Requests and answers appear by a rename, whole. The trainer looks for requests when a new batch begins.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plumb_core::recipe::PluginUse;
use serde::{Deserialize, Serialize};

use super::kept::signature;
use crate::compare::Comparison;
use crate::run::append::write_whole;
use crate::run::{Error, IoContext, Result};

/// Number of a request within its run.
pub type RequestId = u64;

/// What a running run can be asked for. Names are those that plugins have in the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Request {
    /// Another plugin of the same kind takes the place of `replace`, under its name.
    Swap {
        /// Which plugin goes.
        replace: String,
        /// Which comes. Its `name` is not used; the name in the run stays.
        plugin: PluginUse,
    },
    /// The generation before takes its place again, with the state it had when it was replaced.
    Rollback {
        /// Which plugin goes.
        name: String,
    },
    /// A second plugin of the same kind scores every batch of `name` without being used.
    Shadow {
        /// Which plugin it is compared with.
        name: String,
        /// The second one.
        plugin: PluginUse,
    },
    /// Ends a shadow.
    Unshadow {
        /// Which plugin it is compared with.
        name: String,
    },
}

impl Request {
    /// `swap`, `rollback`, `shadow` or `unshadow`.
    pub fn kind(&self) -> &'static str {
        match self {
            Request::Swap { .. } => "swap",
            Request::Rollback { .. } => "rollback",
            Request::Shadow { .. } => "shadow",
            Request::Unshadow { .. } => "unshadow",
        }
    }

    /// Name in the run of the plugin that is asked about.
    pub fn name(&self) -> &str {
        match self {
            Request::Swap { replace: name, .. }
            | Request::Rollback { name }
            | Request::Shadow { name, .. }
            | Request::Unshadow { name } => name,
        }
    }

    /// The plugin that the request brings.
    pub fn plugin_mut(&mut self) -> Option<&mut PluginUse> {
        match self {
            Request::Swap { plugin, .. } | Request::Shadow { plugin, .. } => Some(plugin),
            Request::Rollback { .. } | Request::Unshadow { .. } => None,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Answer {
    /// It was done.
    Done {
        /// First step of the run that it holds for.
        step: u64,
        /// SHA-256 of the plugin that is in use under that name now, for a shadow that of the shadow. None when the process that did
        /// it ended before it could say.
        digest: Option<String>,
        /// The new plugin's answers against the old one's on the last batches before; None for a rollback or when there were none.
        comparison: Option<Comparison>,
    },
    /// It was not done, and the run goes on as before.
    Refused(Refusal),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable code: `unknown-plugin`, `nothing-before`, `state-refused`, `run-over`, `restarted`, `withdrawn`, `malformed`, ... or one of
    /// loading plugins.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// The next step.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal without causes.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Refusal { code: code.into(), message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same in the words of who asked: `file` in place of the run's copy of it, which came with request `id`.
    #[must_use]
    fn of_file(mut self, id: RequestId, file: &str) -> Self {
        let copy = format!("control/{}", copy_name(id));
        // A path ends at a blank or a backtick.
        let word = |c: char| c.is_whitespace() || c == '`';
        let told = |text: &mut String| {
            let words = text.split_inclusive(word).map(|part| {
                let end = part.len() - part.chars().next_back().filter(|c| word(*c)).map_or(0, char::len_utf8);
                let path = part[..end].trim_end_matches([':', ',', ';']);
                if path.ends_with(&copy) { [file, &part[path.len()..]].concat() } else { part.to_owned() }
            });
            *text = words.collect();
        };
        told(&mut self.message);
        self.causes.iter_mut().chain(&mut self.hint).for_each(told);
        self
    }

    /// A refusal that says what an error and its causes say.
    pub fn from_error(code: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect();
        Refusal { code: code.into(), message: error.to_string(), causes, hint: None }
    }
}

/// A request's file.
#[derive(Serialize, Deserialize)]
struct Envelope {
    #[serde(flatten)]
    request: Request,
    /// Whether it waits for a process that trains the run.
    #[serde(default)]
    on_resume: bool,
    /// The file that the run's copy of the plugin was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// Hands a request to the process that trains the run. Where the plugin is a file its bytes are copied, so that the file may
/// change or go at once; else it is a name that the trainer looks up.
///
/// # Errors
/// [`Error::NotARun`], [`Error::NotTraining`] when no process trains the run, [`Error::Io`].
pub fn submit(run_dir: &Path, request: Request) -> Result<RequestId> {
    require_trainer(run_dir)?;
    write_request(run_dir, request, false)
}

/// Leaves a request for when the run is resumed: it is done before the first step then. That is how a plugin that made a run stop
/// is replaced.
///
/// # Errors
/// [`Error::NotARun`], [`Error::InUse`] when the run is being trained, [`Error::NotTraining`] when it is over, [`Error::Io`].
pub fn submit_for_resume(run_dir: &Path, request: Request) -> Result<RequestId> {
    match require_trainer(run_dir) {
        Ok(()) => Err(Error::InUse { path: run_dir.to_owned() }),
        Err(Error::NotTraining { .. }) if !crate::run::is_over(run_dir) => write_request(run_dir, request, true),
        Err(error) => Err(error),
    }
}

fn write_request(run_dir: &Path, mut request: Request, on_resume: bool) -> Result<RequestId> {
    let folder = folder(run_dir);
    fs::create_dir_all(&folder).at("create", &folder)?;
    let path = folder.join("submit.lock");
    let guard = open_lock(&path)?;
    guard.lock().at("lock", &path)?;
    let id = files(&folder)?.into_iter().map(|file| file.id).max().unwrap_or(0) + 1;
    let mut file = None;
    if let Some(plugin) = request.plugin_mut() {
        let source = PathBuf::from(&plugin.plugin);
        if source.is_file() {
            file = Some(plugin.plugin.clone());
            let copy = folder.join(copy_name(id));
            for (from, to) in [(signature(&source), signature(&copy)), (source.clone(), copy.clone())] {
                if from.is_file() {
                    write_whole(&to, &fs::read(&from).at("read", &from)?)?;
                }
            }
            plugin.plugin = copy.file_name().expect("just made").to_string_lossy().into_owned();
        }
    }
    let path = folder.join(format!("{id:06}-{}.json", request.kind()));
    write_whole(
        &path,
        &serde_json::to_vec_pretty(&Envelope { request, on_resume, file }).expect("requests have string keys only"),
    )?;
    Ok(id)
}

/// Waits for the answer to a request; None after `timeout`.
///
/// # Errors
/// [`Error::NotTraining`] when there is no answer, and no process left that could give one.
pub fn wait(run_dir: &Path, id: RequestId, timeout: Duration) -> Result<Option<Answer>> {
    let (start, folder) = (Instant::now(), folder(run_dir));
    loop {
        // Asked before looking for the answer: the trainer may answer and end in between.
        let trained = require_trainer(run_dir);
        if answer_path(&folder, id).exists() {
            return read_answer(&folder, id).map(Some);
        }
        trained?;
        if start.elapsed() >= timeout {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20).min(timeout));
    }
}

/// Requests without an answer, in their order. Files that hold none are left out: the trainer refuses them.
pub fn pending(run_dir: &Path) -> Result<Vec<(RequestId, Request)>> {
    Ok(unanswered(run_dir)?.into_iter().filter_map(|(id, envelope)| Some((id, envelope.ok()?.request))).collect())
}

/// Requests that were refused, in their order.
///
/// # Errors
/// [`Error::Malformed`] when an answer cannot be read.
pub fn refused(run_dir: &Path) -> Result<Vec<(RequestId, Refusal)>> {
    let folder = folder(run_dir);
    let files = if folder.exists() { files(&folder)? } else { Vec::new() };
    let mut refused = Vec::new();
    for file in files.iter().filter(|file| file.what == What::Answer) {
        if let Answer::Refused(refusal) = read_answer(&folder, file.id)? {
            refused.push((file.id, refusal));
        }
    }
    Ok(refused)
}

/// A request's answer, in the words of who asked.
fn read_answer(folder: &Path, id: RequestId) -> Result<Answer> {
    let path = answer_path(folder, id);
    let bytes = fs::read(&path).at("read", &path)?;
    let malformed = |e: serde_json::Error| Error::Malformed { path: path.clone(), reason: e.to_string() };
    let answer = serde_json::from_slice(&bytes).map_err(malformed)?;
    let Answer::Refused(refusal) = answer else { return Ok(answer) };
    let request = files(folder)?.into_iter().find(|file| file.id == id && file.what == What::Request);
    let envelope = request.and_then(|request| serde_json::from_slice::<Envelope>(&fs::read(request.path).ok()?).ok());
    Ok(Answer::Refused(match envelope.and_then(|envelope| envelope.file) {
        Some(file) => refusal.of_file(id, &file),
        None => refusal,
    }))
}

/// Requests without an answer; those that are none with the reason.
fn unanswered(run_dir: &Path) -> Result<Vec<(RequestId, std::result::Result<Envelope, Refusal>)>> {
    let folder = folder(run_dir);
    let files = if folder.exists() { files(&folder)? } else { Vec::new() };
    let answered = |id| files.iter().any(|file| file.id == id && file.what == What::Answer);
    let mut requests = Vec::new();
    for file in files.iter().filter(|file| file.what == What::Request && !answered(file.id)) {
        let bytes = fs::read(&file.path).at("read", &file.path)?;
        let malformed = |e: serde_json::Error| Refusal::new("malformed", format!("`{}` is no request: {e}", file.path.display()));
        let mut envelope: std::result::Result<Envelope, Refusal> = serde_json::from_slice(&bytes).map_err(malformed);
        if let Some(plugin) = envelope.as_mut().ok().and_then(|envelope| envelope.request.plugin_mut()) {
            let copy = folder.join(&plugin.plugin);
            if copy.is_file() {
                plugin.plugin = copy.to_string_lossy().into_owned();
            }
        }
        requests.push((file.id, envelope));
    }
    Ok(requests)
}

/// Whether a process trains the run.
///
/// # Errors
/// [`Error::NotTraining`] when none does, [`Error::NotARun`] when there is no run.
pub fn require_trainer(run_dir: &Path) -> Result<()> {
    if !crate::run::is_run(run_dir) {
        return Err(Error::NotARun { path: run_dir.to_owned(), missing: "recipe.toml" });
    }
    let path = folder(run_dir).join("trainer.lock");
    let free = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        // A lock that can be shared is not held by a trainer; it is given back at once.
        file => match file.at("open", &path)?.try_lock_shared() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
        },
    };
    if free { Err(Error::NotTraining { path: run_dir.to_owned() }) } else { Ok(()) }
}

/// The trainer's end of the folder. The run is locked while this lives.
#[derive(Debug)]
pub struct Inbox {
    folder: PathBuf,
    _lock: File,
    /// Requests up to this one were taken.
    taken: RequestId,
}

/// How often a trainer tries to lock a run, 20 ms apart: one who asks whether it is trained holds the lock for a moment.
const LOCK_TRIES: usize = 50;

impl Inbox {
    /// Locks a run for this process.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process trains it.
    pub fn open(run_dir: &Path) -> Result<Self> {
        let folder = folder(run_dir);
        fs::create_dir_all(&folder).at("create", &folder)?;
        let path = folder.join("trainer.lock");
        let lock = open_lock(&path)?;
        for _ in 0..LOCK_TRIES {
            match lock.try_lock() {
                Ok(()) => return Ok(Inbox { folder, _lock: lock, taken: 0 }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
        }
        Err(Error::InUse { path: run_dir.to_owned() })
    }

    /// Requests that a process before this one left without an answer, but for those in `done`, which it did without telling any
    /// more. Those for the resumed run are returned, the others are refused: who asked was told that nobody trains the run.
    pub fn take_over(&mut self, done: impl Fn(RequestId) -> Option<Answer>) -> Result<Vec<(RequestId, Request)>> {
        let mut waiting = Vec::new();
        for (id, envelope) in unanswered(self.run_dir())? {
            self.taken = id;
            match (done(id), envelope) {
                (Some(answer), _) => self.answer(id, &answer)?,
                (None, Err(refusal)) => self.answer(id, &Answer::Refused(refusal))?,
                (None, Ok(envelope)) if envelope.on_resume => waiting.push((id, envelope.request)),
                (None, Ok(_)) => {
                    let refusal =
                        Refusal::new("restarted", "the process that trained the run ended before it came to this request");
                    self.answer(id, &Answer::Refused(refusal.hint("ask again")))?;
                }
            }
        }
        Ok(waiting)
    }

    fn run_dir(&self) -> &Path {
        self.folder.parent().expect("the folder lies in the run's")
    }

    /// Requests that were not taken before, in their order.
    pub fn take(&mut self) -> Result<Vec<(RequestId, Request)>> {
        let newest = files(&self.folder)?.into_iter().filter(|file| file.what == What::Request).map(|file| file.id).max();
        if newest.is_none_or(|newest| newest <= self.taken) {
            return Ok(Vec::new());
        }
        let (mut requests, before) = (Vec::new(), self.taken);
        for (id, envelope) in unanswered(self.run_dir())?.into_iter().filter(|(id, _)| *id > before) {
            self.taken = id;
            match envelope {
                Ok(envelope) => requests.push((id, envelope.request)),
                Err(refusal) => self.answer(id, &Answer::Refused(refusal))?,
            }
        }
        Ok(requests)
    }

    /// Answers a request, and lets go of the plugin it brought.
    pub fn answer(&self, id: RequestId, answer: &Answer) -> Result<()> {
        let text = serde_json::to_vec_pretty(answer).expect("answers have string keys only");
        write_whole(&answer_path(&self.folder, id), &text)?;
        let copy = self.folder.join(copy_name(id));
        for copy in [signature(&copy), copy].iter().filter(|copy| copy.exists()) {
            fs::remove_file(copy).at("remove", copy)?;
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum What {
    Request,
    Answer,
    Plugin,
}

struct Item {
    id: RequestId,
    what: What,
    path: PathBuf,
}

/// Requests, answers and plugins in the folder, by number.
fn files(folder: &Path) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for item in fs::read_dir(folder).at("read", folder)? {
        let path = item.at("read", folder)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let (id, rest) = name.split_at(name.bytes().take_while(u8::is_ascii_digit).count());
        let what = match rest {
            ".answer.json" => What::Answer,
            ".wasm" => What::Plugin,
            request if request.starts_with('-') && request.ends_with(".json") => What::Request,
            _ => continue,
        };
        if let Ok(id) = id.parse() {
            items.push(Item { id, what, path });
        }
    }
    items.sort_by(|a, b| (a.id, &a.path).cmp(&(b.id, &b.path)));
    Ok(items)
}

fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("control")
}

/// Name of the copy of the plugin that a request brings.
fn copy_name(id: RequestId) -> String {
    format!("{id:06}.wasm")
}

fn answer_path(folder: &Path, id: RequestId) -> PathBuf {
    folder.join(format!("{id:06}.answer.json"))
}

fn open_lock(path: &Path) -> Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path).at("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join("recipe.toml"), "").unwrap();
        run
    }

    fn swap(plugin: &Path) -> Request {
        let plugin = serde_json::from_value(serde_json::json!({ "plugin": plugin })).unwrap();
        Request::Swap { replace: "exact".into(), plugin }
    }

    #[test]
    fn requests_reach_the_trainer_in_order_with_their_own_copy_of_the_plugin() {
        let run = run();
        let mut inbox = Inbox::open(run.path()).unwrap();
        let file = run.path().join("new.wasm");
        fs::write(&file, "bytes").unwrap();
        assert_eq!(submit(run.path(), swap(&file)).unwrap(), 1);
        fs::remove_file(&file).unwrap();
        assert_eq!(submit(run.path(), Request::Rollback { name: "exact".into() }).unwrap(), 2);
        let taken = inbox.take().unwrap();
        assert_eq!(taken.iter().map(|(id, request)| (*id, request.kind())).collect::<Vec<_>>(), [(1, "swap"), (2, "rollback")]);
        let Request::Swap { plugin, .. } = &taken[0].1 else { panic!() };
        assert_eq!(fs::read(&plugin.plugin).unwrap(), b"bytes");
        assert_eq!(inbox.take().unwrap(), []);
        assert_eq!(wait(run.path(), 1, Duration::ZERO).unwrap(), None);
        let answer = Answer::Refused(Refusal::new("load", "no"));
        inbox.answer(1, &answer).unwrap();
        assert_eq!(wait(run.path(), 1, Duration::ZERO).unwrap(), Some(answer));
        assert!(!Path::new(&plugin.plugin).exists());
        // It is told in the words of who asked, who never saw the copy.
        let copy = format!("cannot read `{}`", plugin.plugin);
        let hint = format!("sign it: plumb plugin sign {}: then ask again", plugin.plugin);
        inbox.answer(1, &Answer::Refused(Refusal::new("load", copy).hint(hint))).unwrap();
        let told = refused(run.path()).unwrap().remove(0).1;
        let file = file.display();
        assert_eq!(told.message, format!("cannot read `{file}`"));
        assert_eq!(told.hint.unwrap(), format!("sign it: plumb plugin sign {file}: then ask again"));
        assert_eq!(pending(run.path()).unwrap().len(), 1);
        assert_eq!(submit(run.path(), Request::Unshadow { name: "exact".into() }).unwrap(), 3);
    }

    #[test]
    fn file_that_holds_no_request_is_refused_and_the_others_are_taken() {
        let run = run();
        let mut inbox = Inbox::open(run.path()).unwrap();
        let rollback = || Request::Rollback { name: "exact".into() };
        let refused = |id| match wait(run.path(), id, Duration::ZERO).unwrap() {
            Some(Answer::Refused(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        };
        let spoil = |id: RequestId| fs::write(folder(run.path()).join(format!("{id:06}-rollback.json")), "{").unwrap();
        submit(run.path(), rollback()).unwrap();
        spoil(1);
        submit(run.path(), rollback()).unwrap();
        assert_eq!(inbox.take().unwrap(), [(2, rollback())]);
        assert_eq!(refused(1), "malformed");
        inbox.answer(2, &Answer::Refused(Refusal::new("load", "no"))).unwrap();
        submit(run.path(), rollback()).unwrap();
        spoil(3);
        drop(inbox);
        assert_eq!(Inbox::open(run.path()).unwrap().take_over(|_| None).unwrap(), []);
        assert_eq!(refused(3), "malformed");
    }

    #[test]
    fn run_without_a_trainer_takes_no_requests_and_a_run_has_one_trainer() {
        let run = run();
        let request = Request::Rollback { name: "exact".into() };
        assert!(matches!(submit(run.path(), request.clone()), Err(Error::NotTraining { .. })));
        let inbox = Inbox::open(run.path()).unwrap();
        assert!(matches!(Inbox::open(run.path()), Err(Error::InUse { .. })));
        let id = submit(run.path(), request.clone()).unwrap();
        drop(inbox);
        assert!(matches!(wait(run.path(), id, Duration::MAX), Err(Error::NotTraining { .. })));
        assert!(matches!(submit(run.path(), request.clone()), Err(Error::NotTraining { .. })));
        assert!(matches!(submit(&run.path().join("none"), request), Err(Error::NotARun { .. })));
    }
}
