//! Checkpoints: written beside the last good one, checked, and only then put in its place.
//!
//! `checkpoints/step-00000060.tmp/` is filled, every file is synced, `manifest.json` gets the size and SHA-256 of each, and a
//! rename makes it `step-00000060`. A power cut, a full disk or a SIGKILL at any moment leaves the checkpoint before it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::append::sync;
use super::error::{Error, IoContext, Result};
use super::ledger::hex;

const MANIFEST: &str = "manifest.json";
const PROGRESS: &str = "progress.json";
const OPTIMIZER: &str = "optimizer.safetensors";

/// Where a run is, and how many records its growing files had then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Optimizer steps done in that stage.
    pub stage_step: u64,
    /// Optimizer steps done in the whole run; the checkpoint's name.
    pub step: u64,
    /// What else the trainer needs to go on.
    pub trainer: serde_json::Value,
    /// Records of each growing file. Filled in by [`super::RunDir`].
    pub records: Records,
}

/// How many records each growing file of a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Lines of `metrics.jsonl`.
    pub metrics: u64,
    /// Events of TensorBoard's file.
    pub events: u64,
    /// Lines of `ledger.jsonl`.
    pub ledger: u64,
}

/// What writing a model comes to. Its error is the model's own, which this module does not know.
pub type Written = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a checkpoint is made of.
pub struct CheckpointParts<'a> {
    /// Writes the policy into an empty folder.
    pub model: &'a dyn Fn(&Path) -> Written,
    /// The optimizer's vectors by name (`exp_avg`, `exp_avg_sq`).
    pub optimizer: &'a [(&'a str, &'a [f32])],
    /// State of each plugin that has one, by its name in the run.
    pub plugins: &'a [(String, Vec<u8>)],
    /// Where the run is.
    pub progress: Progress,
}

/// A checkpoint that was read and whose checksums are right.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run was.
    pub progress: Progress,
}

impl Checkpoint {
    /// Folder of the policy, for `plumb_model::load`.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// The optimizer's vectors by name.
    pub fn optimizer(&self) -> Result<BTreeMap<String, Vec<f32>>> {
        let path = self.path.join(OPTIMIZER);
        let bytes = fs::read(&path).at("read", &path)?;
        let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| malformed(e.to_string()))?;
        let vector = |view: &TensorView| {
            let words = view.data().as_chunks::<4>().0;
            words.iter().map(|word| f32::from_le_bytes(*word)).collect()
        };
        Ok(tensors.iter().map(|(name, view)| (name.to_owned(), vector(&view))).collect())
    }

    /// A plugin's state; None when it had none.
    pub fn plugin(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join("plugins").join(state_file_name(name));
        match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => read.at("read", &path).map(Some),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    files: BTreeMap<String, ManifestEntry>,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct ManifestEntry {
    bytes: u64,
    sha256: String,
}

/// Writes the checkpoint of `parts.progress.step` and removes older ones beyond `keep` (at least one stays).
///
/// `seal` is called when everything but the progress is on the disk, with the SHA-256 of the policy's weights; what it returns
/// becomes [`Progress::records`].
pub(crate) fn write(
    folder: &Path,
    mut parts: CheckpointParts<'_>,
    keep: usize,
    seal: impl FnOnce(&str) -> Result<Records>,
) -> Result<PathBuf> {
    fs::create_dir_all(folder).at("create", folder)?;
    let target = folder.join(format!("step-{:08}", parts.progress.step));
    let tmp = target.with_extension("tmp");
    remove_folder(&tmp)?;
    let filled = fill(&tmp, &mut parts, seal).and_then(|()| {
        // A run that was resumed from an earlier checkpoint comes by here again.
        remove_folder(&target)?;
        fs::rename(&tmp, &target).at("rename", &tmp)?;
        sync(folder)
    });
    if let Err(error) = filled {
        // The first error is the one to tell; a leftover is removed by the next checkpoint at the latest.
        let _ = fs::remove_dir_all(&tmp);
        return Err(match error {
            error @ Error::Checkpoint { .. } => error,
            error => Error::Checkpoint { path: target, source: Box::new(error) },
        });
    }
    let all = list(folder)?;
    for (_, old) in all.iter().rev().filter(|(step, _)| *step <= parts.progress.step).skip(keep.max(1)) {
        remove_folder(old)?;
    }
    Ok(target)
}

fn fill(tmp: &Path, parts: &mut CheckpointParts<'_>, seal: impl FnOnce(&str) -> Result<Records>) -> Result<()> {
    let model = tmp.join("model");
    fs::create_dir_all(&model).at("create", &model)?;
    (parts.model)(&model).map_err(|source| Error::Checkpoint { path: tmp.with_extension(""), source })?;
    write_optimizer(&tmp.join(OPTIMIZER), parts.optimizer)?;
    if !parts.plugins.is_empty() {
        let plugins = tmp.join("plugins");
        fs::create_dir_all(&plugins).at("create", &plugins)?;
        for (name, state) in parts.plugins {
            write_file(&plugins.join(state_file_name(name)), state)?;
        }
    }
    let mut files = BTreeMap::new();
    for path in files_below(tmp)? {
        sync(&path)?;
        files.insert(relative_name(tmp, &path), entry(&path)?);
    }
    let model_sha256 = files.get("model/model.safetensors").map_or("", |entry| entry.sha256.as_str());
    parts.progress.records = seal(model_sha256)?;
    let progress = tmp.join(PROGRESS);
    write_file(&progress, &serde_json::to_vec_pretty(&parts.progress).expect("progress has string keys only"))?;
    files.insert(PROGRESS.to_owned(), entry(&progress)?);
    let manifest = Manifest { version: 1, files };
    write_file(&tmp.join(MANIFEST), &serde_json::to_vec_pretty(&manifest).expect("a manifest has string keys only"))?;
    for subfolder in ["plugins", "model", "."].map(|name| tmp.join(name)) {
        if subfolder.exists() {
            sync(&subfolder)?;
        }
    }
    Ok(())
}

fn write_optimizer(path: &Path, vectors: &[(&str, &[f32])]) -> Result<()> {
    let shapes: Vec<[usize; 1]> = vectors.iter().map(|(_, values)| [values.len()]).collect();
    let views = vectors.iter().zip(&shapes).map(|((name, values), shape)| {
        TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(values)).map(|view| (*name, view))
    });
    let written =
        views.collect::<std::result::Result<Vec<_>, _>>().and_then(|views| safetensors::serialize_to_file(views, None, path));
    #[cfg(unix)]
    if written.is_ok() {
        use std::os::unix::fs::PermissionsExt;
        // The library makes it private; a checkpoint is as readable as the rest of the run.
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).at("write", path)?;
    }
    written.map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => Error::Io { action: "write", path: path.to_owned(), source },
        other => Error::Malformed { path: path.to_owned(), reason: other.to_string() },
    })
}

/// The newest checkpoint whose files are all there and whole. Each damaged one is passed over with a message that names the file.
pub fn newest(folder: &Path, message: &mut dyn FnMut(String)) -> Result<Option<Checkpoint>> {
    for (_, path) in list(folder)?.into_iter().rev() {
        match verify(&path) {
            Ok(progress) => return Ok(Some(Checkpoint { path, progress })),
            Err(reason) => message(format!("checkpoint `{}` is damaged and passed over: {reason}", path.display())),
        }
    }
    Ok(None)
}

fn verify(path: &Path) -> std::result::Result<Progress, String> {
    let read = |name: &str| fs::read(path.join(name)).map_err(|e| format!("cannot read `{name}`: {e}"));
    let manifest: Manifest = serde_json::from_slice(&read(MANIFEST)?).map_err(|e| format!("`{MANIFEST}`: {e}"))?;
    for (name, expected) in &manifest.files {
        // A folder from elsewhere may name anything, a device that never ends for one.
        if !Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(format!("its manifest names {name:?}, which is no file of a checkpoint"));
        }
        let found = entry(&path.join(name)).map_err(|e| match e {
            Error::Io { source, .. } => format!("cannot read `{name}`: {source}"),
            other => other.to_string(),
        })?;
        if found.bytes != expected.bytes {
            return Err(format!("`{name}` has {} bytes, its manifest says {}", found.bytes, expected.bytes));
        }
        if found.sha256 != expected.sha256 {
            return Err(format!("`{name}` has SHA-256 {}, its manifest says {}", found.sha256, expected.sha256));
        }
    }
    serde_json::from_slice(&read(PROGRESS)?).map_err(|e| format!("`{PROGRESS}`: {e}"))
}

/// Checkpoints by step, damaged ones included.
pub(crate) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for item in fs::read_dir(folder).at("read", folder)? {
        let path = item.at("read", folder)?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
        all.extend(step.map(|step| (step, path)));
    }
    all.sort();
    Ok(all)
}

fn entry(path: &Path) -> Result<ManifestEntry> {
    let mut file = File::open(path).at("read", path)?;
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).at("read", path)?;
        if read == 0 {
            return Ok(ManifestEntry { bytes, sha256: hex(&digest.finalize()) });
        }
        digest.update(&buffer[..read]);
        bytes += read as u64;
    }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).at("read", folder)? {
        let path = item.at("read", folder)?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn relative_name(root: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(root).expect("the file lies below the folder").components();
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn state_file_name(name: &str) -> String {
    super::safe_name(name) + ".bin"
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).at("write", path)
}

fn remove_folder(path: &Path) -> Result<()> {
    if path.exists() { fs::remove_dir_all(path).at("remove", path) } else { Ok(()) }
}

/// Makes names in a folder durable.
#[cfg(test)]
mod tests {
    use super::*;

    fn save(folder: &Path, step: u64, keep: usize) -> Result<PathBuf> {
        let parts = CheckpointParts {
            model: &|path| Ok(fs::write(path.join("model.safetensors"), vec![7; 1000])?),
            optimizer: &[("exp_avg", &[1.0, -0.0, f32::MIN_POSITIVE]), ("exp_avg_sq", &[0.1, 0.2, 0.3])],
            plugins: &[("a/b".into(), b"state".to_vec())],
            progress: Progress { step, ..Progress::default() },
        };
        write(folder, parts, keep, |_| Ok(Records { metrics: 10 * step, ..Records::default() }))
    }

    fn load(folder: &Path) -> (Option<Checkpoint>, Vec<String>) {
        let mut messages = Vec::new();
        let found = newest(folder, &mut |message| messages.push(message)).unwrap();
        (found, messages)
    }

    #[test]
    fn checkpoint_reads_back_with_every_bit() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), 60, 2).unwrap();
        let (found, messages) = load(folder.path());
        let found = found.unwrap();
        assert!(found.path.ends_with("step-00000060"));
        assert_eq!((found.progress.step, found.progress.records.metrics), (60, 600));
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found.optimizer().unwrap()["exp_avg"]), bits(&[1.0, -0.0, f32::MIN_POSITIVE]));
        assert_eq!(found.plugin("a/b").unwrap().as_deref(), Some(&b"state"[..]));
        assert_eq!(found.plugin("none").unwrap(), None);
        assert_eq!(messages, Vec::<String>::new());
    }

    #[test]
    fn old_checkpoints_go_and_the_last_stays_even_with_a_limit_of_zero() {
        let folder = tempfile::tempdir().unwrap();
        (1..=4).for_each(|i| drop(save(folder.path(), i, 2).unwrap()));
        let steps = || list(folder.path()).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        assert_eq!(steps(), [3, 4]);
        save(folder.path(), 5, 0).unwrap();
        assert_eq!(steps(), [5]);
    }

    #[test]
    fn damaged_checkpoint_is_passed_over_by_name() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), 1, 3).unwrap();
        let second = save(folder.path(), 2, 3).unwrap();
        let third = save(folder.path(), 3, 3).unwrap();
        fs::write(second.join("model/model.safetensors"), vec![8; 1000]).unwrap();
        fs::write(third.join(OPTIMIZER), b"short").unwrap();
        let (found, messages) = load(folder.path());
        assert_eq!(found.unwrap().progress.step, 1);
        assert!(
            messages[0].contains("step-00000003") && messages[0].contains("`optimizer.safetensors` has 5 bytes"),
            "{messages:?}"
        );
        assert!(messages[1].contains("`model/model.safetensors` has SHA-256"), "{messages:?}");
    }

    #[test]
    fn failed_write_leaves_the_checkpoint_before_and_no_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), 1, 1).unwrap();
        let disk_full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let parts = |progress| CheckpointParts { model: &|_| Ok(()), optimizer: &[], plugins: &[], progress };
        let failing_model: CheckpointParts = CheckpointParts {
            model: &|path| {
                fs::write(path.join("model.safetensors"), b"half")?;
                Err(disk_full().into())
            },
            ..parts(Progress { step: 2, ..Progress::default() })
        };
        let late = |_: &str| Err(Error::Io { action: "write", path: "ledger.jsonl".into(), source: disk_full() });
        let errors = [
            write(folder.path(), failing_model, 1, |_| Ok(Records::default())).unwrap_err(),
            write(folder.path(), parts(Progress { step: 2, ..Progress::default() }), 1, late).unwrap_err(),
        ];
        for error in errors {
            let Error::Checkpoint { path, .. } = error else { panic!("{error:?}") };
            assert!(path.ends_with("step-00000002"));
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
            assert_eq!(left, ["step-00000001"]);
            assert_eq!(load(folder.path()).0.unwrap().progress.step, 1);
        }
    }
}
