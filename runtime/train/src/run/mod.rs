//! The run's folder: everything a run leaves behind, and all that is needed to go on with it.
//!
//! | File | Holds |
//! |---|---|
//! | `recipe.toml` | the recipe with every default and `--set` applied |
//! | `plugins.lock` | name, version, digest and grants of each plugin |
//! | `metrics.jsonl`, `events.out.tfevents.*` | the numbers of each step ([`metrics`]), for scripts and for TensorBoard |
//! | `plugins.log` | what plugins logged, a JSON object a line; written by the command line, and only if there is something |
//! | `completions/completions_00001.parquet` | what was sampled in a step, with a column per reward ([`completions`]) |
//! | `pairs/pairs_00001.jsonl` | preference pairs that filters made in a step, for preference training |
//! | `ledger.jsonl` | every value of every step, hash-chained ([`ledger`]) |
//! | `plugins/<sha256>.wasm` | every plugin that the run used ([`crate::generations::kept`]) |
//! | `changes.jsonl` | which plugins were changed before which step ([`crate::generations::history`]) |
//! | `control/` | requests to the running run and their answers ([`crate::control`]) |
//! | `shadow/`, `poison/` | values of shadows, and what plugins failed on ([`crate::generations`]) |
//! | `checkpoints/step-00000060/` | policy, optimizer, plugin state, progress, checksums ([`checkpoint`]) |
//! | `model/` | the final policy, a Hugging Face folder |
//! | `report.html` | the run for people ([`report`]) |
//!
//! **Invariant.** A run that was killed at any moment and resumed leaves the same bytes as one that was not, but for clock
//! times (`time/*` in the metrics and all of TensorBoard's) and `plugins.log`, where steps that were done twice are told twice:
//! growing files are cut back to the records that the checkpoint counted, and completions of later steps are removed.

pub(crate) mod append;
mod error;
mod inputs;
mod lock;
mod pairs;

pub mod checkpoint;
pub mod completions;
pub mod ledger;
pub mod metrics;
pub mod report;
pub mod tensorboard;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use plumb_core::recipe::Recipe;

use crate::generations::{poison, shadow};

use append::AppendFile;
pub use checkpoint::{Checkpoint, CheckpointParts, Progress, Records};
pub use completions::{Table, TableColumn};
pub(crate) use error::IoContext;
pub use error::{Error, Result};
pub use inputs::{DataFile, Inputs};
use ledger::LedgerWriter;
pub use ledger::{
    AnswerRecord, ChangeCause, ChangeRecord, CompletionRecord, OutcomeRecord, PluginGeneration, Record, StepRecord,
};
pub(crate) use lock::config_sha256;
pub use lock::{LockedPlugin, read_lock, read_plugins_lock, write_lock, write_plugins_lock};
pub use metrics::MetricSet;
pub use pairs::{PairLine, pairs_file};
use tensorboard::EventWriter;

const RECIPE: &str = "recipe.toml";
/// How the first line of `recipe.toml` begins; the folder of the recipe's paths follows.
const BASE_NOTE: &str = "# Resolved; paths are relative to `";
const METRICS: &str = "metrics.jsonl";
/// Folder of the final policy.
const MODEL: &str = "model";
/// The ledger's file in a run's folder.
pub const LEDGER: &str = "ledger.jsonl";
const EVENTS_PREFIX: &str = "events.out.tfevents.";

/// The open folder of a run.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    metrics: AppendFile,
    events: EventWriter,
    ledger: LedgerWriter,
    /// Files of the steps since the last checkpoint, which nobody has waited for yet.
    unsynced: Vec<PathBuf>,
}

impl RunDir {
    /// Begins a run in a folder that is empty or not there.
    ///
    /// `recipe_dir` is what the recipe's paths are relative to; it is noted in `recipe.toml`.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] when the folder holds anything.
    pub fn create(path: &Path, recipe: &Recipe, recipe_dir: &Path, inputs: &Inputs) -> Result<Self> {
        fs::create_dir_all(path).at("create", path)?;
        if fs::read_dir(path).at("read", path)?.next().is_some() {
            return Err(Error::NotEmpty { path: path.to_owned(), resumable: is_run(path) });
        }
        let file = path.join(RECIPE);
        let note = format!("{BASE_NOTE}{}`.\n\n", recipe_dir.display());
        fs::write(&file, note + &recipe_text(recipe)).at("write", &file)?;
        Self::start(path, recipe, inputs)
    }

    /// Goes on with a run: opens it at its newest whole checkpoint, or at its start when there is none.
    ///
    /// `message` gets a line for each damaged checkpoint.
    ///
    /// # Errors
    /// [`Error::NotARun`] when there is no run, [`Error::RecipeChanged`] and [`Error::InputChanged`] when it was started with
    /// another recipe, plugin or data file.
    pub fn resume(
        path: &Path,
        recipe: &Recipe,
        inputs: &Inputs,
        message: &mut dyn FnMut(String),
    ) -> Result<(Self, Option<Checkpoint>)> {
        let file = path.join(RECIPE);
        if !is_run(path) {
            return Err(Error::NotARun { path: path.to_owned(), missing: RECIPE });
        }
        let before = fs::read_to_string(&file).at("read", &file)?;
        let parse = |text: &str| text.parse::<toml::Table>().map(toml::Value::Table);
        let before = parse(&before).map_err(|e| Error::Malformed { path: file, reason: e.message().to_owned() })?;
        let now = parse(&recipe_text(recipe)).expect("our own TOML parses");
        if let Some(key) = first_difference(&before, &now) {
            return Err(Error::RecipeChanged { path: path.to_owned(), key });
        }
        inputs.check(path, &path.join(LEDGER))?;
        let found = checkpoint::newest(&path.join("checkpoints"), message)?;
        let run = match &found {
            Some(checkpoint) => Self::open_at(path, &checkpoint.progress)?,
            None => Self::start(path, recipe, inputs)?,
        };
        Ok((run, found))
    }

    fn start(path: &Path, recipe: &Recipe, inputs: &Inputs) -> Result<Self> {
        write_plugins_lock(path, &inputs.plugins)?;
        let mut run = Self::open_at(path, &Progress::default())?;
        run.record(&Record::RunStart {
            build: env!("CARGO_PKG_VERSION").into(),
            recipe_sha256: ledger::hash(recipe_text(recipe).as_bytes()),
            seed: recipe.seed,
            data: inputs.data.clone(),
        })?;
        Ok(run)
    }

    fn open_at(path: &Path, progress: &Progress) -> Result<Self> {
        let records = progress.records;
        let mut events = None;
        for item in fs::read_dir(path).at("read", path)? {
            let item = item.at("read", path)?;
            if item.file_name().to_string_lossy().starts_with(EVENTS_PREFIX) {
                if records.events > 0 {
                    events = Some(item.path());
                } else {
                    fs::remove_file(item.path()).at("remove", &item.path())?;
                }
            }
        }
        let completions = path.join("completions");
        fs::create_dir_all(&completions).at("create", &completions)?;
        for (step, file) in completion_files(path)? {
            if step > progress.step {
                fs::remove_file(&file).at("remove", &file)?;
            }
        }
        pairs::remove_after(path, progress.step)?;
        for folder in [poison::FOLDER, shadow::FOLDER].map(|folder| path.join(folder)).iter().filter(|folder| folder.exists()) {
            for item in fs::read_dir(folder).at("read", folder)? {
                append::cut_after_step(&item.at("read", folder)?.path(), progress.step)?;
            }
        }
        let (events, events_kept) = match events {
            Some(file) => (file, records.events),
            None => (path.join(tensorboard::new_file_name()), 0),
        };
        Ok(RunDir {
            path: path.to_owned(),
            metrics: AppendFile::open(&path.join(METRICS), records.metrics, append::line_end)?,
            events: EventWriter::open(&events, events_kept)?,
            ledger: LedgerWriter::open(&path.join(LEDGER), records.ledger)?,
            unsynced: Vec::new(),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a step's numbers to `metrics.jsonl` and to TensorBoard's file.
    pub fn log_metrics(&mut self, metrics: &MetricSet) -> Result<()> {
        self.metrics.append((metrics.to_json() + "\n").as_bytes())?;
        self.events.log(metrics)
    }

    /// Writes the completions of a step and returns the file's SHA-256, for the step's record.
    pub fn log_completions(&mut self, step: u64, table: &Table) -> Result<String> {
        let path = completions_file(&self.path, step);
        let sha256 = table.write(&path)?;
        self.unsynced.push(path);
        Ok(sha256)
    }

    /// Writes the preference pairs of a step.
    pub fn log_pairs(&mut self, step: u64, pairs: &[PairLine]) -> Result<()> {
        self.unsynced.extend(pairs::write(&self.path, step, pairs)?);
        Ok(())
    }

    /// Adds a record to the ledger.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.ledger.append(record)
    }

    /// Writes a checkpoint and removes older ones beyond `keep` (at least the new one stays).
    ///
    /// # Errors
    /// [`Error::Checkpoint`], with the checkpoint before it untouched.
    pub fn save_checkpoint(&mut self, parts: CheckpointParts<'_>, keep: usize) -> Result<PathBuf> {
        let step = parts.progress.step;
        self.sync_steps()?;
        checkpoint::write(&self.path.join("checkpoints"), parts, keep, |model_sha256| {
            self.ledger.append(&Record::Checkpoint { step, model_sha256: model_sha256.into() })?;
            Ok(Records { metrics: self.metrics.sync()?, events: self.events.file().sync()?, ledger: self.ledger.file().sync()? })
        })
    }

    /// Waits for the files of completions and pairs since the last checkpoint: it goes on from a ledger that has their digests. Once
    /// here rather than once a step, since a step may take less time than a disk.
    fn sync_steps(&mut self) -> Result<()> {
        // Who clears space may have removed some.
        self.unsynced.retain(|file| file.exists());
        self.unsynced.iter().try_for_each(|file| append::sync(file))?;
        let folders: BTreeSet<&Path> = self.unsynced.iter().filter_map(|file| file.parent()).collect();
        folders.into_iter().try_for_each(append::sync)?;
        self.unsynced.clear();
        append::sync(&self.path)
    }

    /// Puts the final policy into `model/`, which `write` fills under another name first.
    pub fn save_model(&self, write: impl FnOnce(&Path) -> checkpoint::Written) -> Result<PathBuf> {
        let (model, tmp) = (self.path.join(MODEL), self.path.join("model.tmp"));
        for old in [&tmp, &model] {
            if old.exists() {
                fs::remove_dir_all(old).at("remove", old)?;
            }
        }
        fs::create_dir_all(&tmp).at("create", &tmp)?;
        write(&tmp).map_err(|source| Error::Checkpoint { path: model.clone(), source })?;
        fs::rename(&tmp, &model).at("rename", &tmp)?;
        append::sync(&self.path)?;
        Ok(model)
    }
}

/// Reads a run's `metrics.jsonl`. A torn last line, as a killed run leaves it, is left out.
pub fn read_metrics(run_dir: &Path) -> Result<Vec<MetricSet>> {
    let path = run_dir.join(METRICS);
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::NotARun { path: run_dir.to_owned(), missing: METRICS },
        _ => Error::Io { action: "read", path: path.clone(), source },
    })?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line)| {
        let failed = |e: serde_json::Error| Error::BrokenLine { path: path.clone(), line: i + 1, reason: e.to_string() };
        MetricSet::from_json(line).map_err(failed)
    };
    whole.lines().enumerate().map(parse).collect()
}

/// Where the completions of a step are.
pub fn completions_file(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join("completions").join(format!("completions_{step:05}.parquet"))
}

/// The files of completions of a run, by step.
pub fn completion_files(run_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run_dir.join("completions");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for item in fs::read_dir(&folder).at("read", &folder)? {
        let path = item.at("read", &folder)?.path();
        let step =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix("completions_")?.strip_suffix(".parquet")?.parse().ok());
        files.extend(step.map(|step| (step, path)));
    }
    files.sort();
    Ok(files)
}

/// Whether a run lies in the folder.
pub fn is_run(path: &Path) -> bool {
    path.join(RECIPE).is_file()
}

/// Whether the run in the folder came to its end: its final policy is there.
pub fn is_over(path: &Path) -> bool {
    path.join(MODEL).is_dir()
}

/// The resolved recipe of a run.
#[derive(Clone, Debug)]
pub struct RunRecipe {
    /// The recipe.
    pub recipe: Recipe,
    /// What its paths are relative to.
    pub folder: PathBuf,
    /// SHA-256 of its text, which the ledger's first line has too.
    pub sha256: String,
}

/// Reads the recipe of a run.
///
/// # Errors
/// [`Error::NotARun`]; [`Error::Malformed`] when the file is no recipe of this build.
pub fn read_recipe(run_dir: &Path) -> Result<RunRecipe> {
    let path = run_dir.join(RECIPE);
    if !is_run(run_dir) {
        return Err(Error::NotARun { path: run_dir.to_owned(), missing: RECIPE });
    }
    let text = fs::read_to_string(&path).at("read", &path)?;
    let (note, recipe) = text.split_once("\n\n").unwrap_or(("", &text));
    let folder = note.strip_prefix(BASE_NOTE).and_then(|rest| rest.strip_suffix("`.")).map_or_else(PathBuf::new, PathBuf::from);
    let sha256 = ledger::hash(recipe.as_bytes());
    let recipe = toml::from_str(recipe).map_err(|e| Error::Malformed { path, reason: e.message().to_owned() })?;
    Ok(RunRecipe { recipe, folder, sha256 })
}

/// The resolved recipe as TOML.
pub fn recipe_text(recipe: &Recipe) -> String {
    toml::to_string(recipe).expect("a recipe comes from TOML, so it goes back")
}

/// A name in the run is the user's; as part of a file's name it keeps what every file system allows.
pub(crate) fn safe_name(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    name.chars().map(|c| if safe(c) { c.to_string() } else { format!("%{:x}", u32::from(c)) }).collect()
}

/// Path of the first key whose values differ.
fn first_difference(a: &toml::Value, b: &toml::Value) -> Option<String> {
    let join = |key: &str, rest: String| if rest.is_empty() { key.to_owned() } else { format!("{key}.{rest}") };
    match (a, b) {
        (toml::Value::Table(a), toml::Value::Table(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
                (Some(x), Some(y)) => first_difference(x, y).map(|rest| join(key, rest)),
                _ => Some(key.clone()),
            })
        }
        (toml::Value::Array(a), toml::Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            // By name where both have it, as on the command line.
            let name = |x: &toml::Value| x.get("name").and_then(toml::Value::as_str).map(ToOwned::to_owned);
            let place = |i: usize, x, y| name(x).filter(|_| name(x) == name(y)).unwrap_or_else(|| i.to_string());
            pairs.find_map(|(i, (x, y))| first_difference(x, y).map(|rest| join(&place(i, x, y), rest)))
        }
        (a, b) => (a != b).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(learning_rate: f64) -> Recipe {
        let text = format!(
            "name = 'test'\nmodel.path = 'model'\n[[stages]]\nname = 'rl'\nalgorithm = 'grpo'\nmax_steps = 3\n\
             data.train = ['a.jsonl']\noptimizer.learning_rate = {learning_rate}\nrewards = [{{ plugin = 'exact-match', on_fault = {{ value = 0.5 }} }}]\n"
        );
        toml::from_str(&text).unwrap()
    }

    fn metrics(step: u64) -> MetricSet {
        let mut set = MetricSet::new("rl", step);
        set.set("reward", 1.0 / step as f64);
        set
    }

    fn step(run: &mut RunDir, step: u64) {
        run.log_metrics(&metrics(step)).unwrap();
        run.record(&Record::Step(StepRecord { step, ..StepRecord::default() })).unwrap();
        let mut table = Table::new(1);
        table.int("step", [step]);
        run.log_completions(step, &table).unwrap();
    }

    fn save(run: &mut RunDir, step: u64) {
        let progress = Progress { step, ..Progress::default() };
        run.save_checkpoint(CheckpointParts { model: &|_| Ok(()), optimizer: &[], plugins: &[], progress }, 2).unwrap();
    }

    fn bytes(path: &Path, name: &str) -> Vec<u8> {
        fs::read(path.join(name)).unwrap()
    }

    #[test]
    fn resumed_run_equals_one_that_was_not_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
        let mut run = RunDir::create(&whole, &recipe(1e-3), folder.path(), &Inputs::default()).unwrap();
        (1..=2).for_each(|i| step(&mut run, i));
        save(&mut run, 2);
        step(&mut run, 3);

        let mut run = RunDir::create(&killed, &recipe(1e-3), folder.path(), &Inputs::default()).unwrap();
        (1..=2).for_each(|i| step(&mut run, i));
        save(&mut run, 2);
        (3..=5).for_each(|i| step(&mut run, i));
        drop(run);
        fs::OpenOptions::new()
            .append(true)
            .open(killed.join(METRICS))
            .and_then(|mut f| std::io::Write::write_all(&mut f, b"{\"st"))
            .unwrap();
        let (mut run, checkpoint) = RunDir::resume(&killed, &recipe(1e-3), &Inputs::default(), &mut |m| panic!("{m}")).unwrap();
        assert_eq!(checkpoint.unwrap().progress.step, 2);
        step(&mut run, 3);

        for name in [METRICS, LEDGER, RECIPE, "completions/completions_00003.parquet", "checkpoints/step-00000002/manifest.json"]
        {
            assert_eq!(bytes(&whole, name), bytes(&killed, name), "{name}");
        }
        assert_eq!(completion_files(&killed).unwrap().len(), 3);
        assert_eq!(read_metrics(&killed).unwrap(), (1..=3).map(metrics).collect::<Vec<_>>());
        let events: Vec<_> =
            fs::read_dir(&killed).unwrap().filter_map(|item| item.unwrap().file_name().into_string().ok()).collect();
        let events: Vec<_> = events.iter().filter(|name| name.starts_with(EVENTS_PREFIX)).collect();
        assert_eq!(events.len(), 1);
        let steps: Vec<i64> =
            tensorboard::read_events(&bytes(&killed, events[0])).unwrap().iter().map(|event| event.step).collect();
        assert_eq!(steps, [0, 1, 2, 3]);
    }

    #[test]
    fn run_killed_before_its_first_checkpoint_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let mut run = RunDir::create(&path, &recipe(1e-3), folder.path(), &Inputs::default()).unwrap();
        let fresh = bytes(&path, LEDGER);
        step(&mut run, 1);
        drop(run);
        let (_, checkpoint) = RunDir::resume(&path, &recipe(1e-3), &Inputs::default(), &mut |m| panic!("{m}")).unwrap();
        assert!(checkpoint.is_none());
        assert_eq!(bytes(&path, LEDGER), fresh);
        assert_eq!(bytes(&path, METRICS), b"");
        assert_eq!(completion_files(&path).unwrap(), []);
    }

    #[test]
    fn folder_in_use_another_recipe_and_no_run_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        RunDir::create(&path, &recipe(1e-3), folder.path(), &Inputs::default()).unwrap();
        let again = RunDir::create(&path, &recipe(1e-3), folder.path(), &Inputs::default()).unwrap_err();
        assert!(matches!(again, Error::NotEmpty { resumable: true, .. }), "{again:?}");
        let changed = RunDir::resume(&path, &recipe(2e-3), &Inputs::default(), &mut |_| ()).unwrap_err();
        assert!(
            matches!(&changed, Error::RecipeChanged { key, .. } if key == "stages.rl.optimizer.learning_rate"),
            "{changed:?}"
        );
        let none = RunDir::resume(folder.path(), &recipe(1e-3), &Inputs::default(), &mut |_| ()).unwrap_err();
        assert!(matches!(none, Error::NotARun { .. }), "{none:?}");
        fs::write(folder.path().join("other"), "x").unwrap();
        let other = RunDir::create(folder.path(), &recipe(1e-3), folder.path(), &Inputs::default()).unwrap_err();
        assert!(matches!(other, Error::NotEmpty { resumable: false, .. }), "{other:?}");
    }

    #[test]
    fn resolved_recipe_reads_back_the_same() {
        let original = recipe(3e-4);
        assert_eq!(toml::from_str::<Recipe>(&recipe_text(&original)).unwrap(), original);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        RunDir::create(&path, &original, Path::new("some/recipes"), &Inputs::default()).unwrap();
        let read = read_recipe(&path).unwrap();
        assert_eq!((read.recipe, read.folder), (original, PathBuf::from("some/recipes")));
        let Some(Record::RunStart { recipe_sha256, .. }) = ledger::first(&path.join(LEDGER)).unwrap() else { panic!() };
        assert_eq!(read.sha256, recipe_sha256);
    }
}
