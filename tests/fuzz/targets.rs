//! What is fuzzed: everything that reads what somebody else wrote. A target takes any bytes and must return; what it accepts must
//! hold what the reader promises. `fuzz_targets/` gives them to libFuzzer, `replay.rs` runs them over the committed corpora.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use plumb_cli::{recipe_file, validate};
use plumb_host::{Error, Manifest, fuzzing, inspect};
use plumb_train::run::checkpoint::{self, Checkpoint, Progress};
use plumb_train::run::ledger;

/// A target's name, which is that of its corpus, and the target.
pub const ALL: [(&str, fn(&[u8])); 7] = [
    ("manifest", manifest),
    ("recipe", recipe),
    ("answer", fuzzing::answers),
    ("inspect", inspection),
    ("ledger", ledger_file),
    ("checkpoint", checkpoint_folder),
    ("snapshot", fuzzing::snapshot),
];

/// A folder for the targets that read files.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

/// `plugin.toml`: what is accepted can be written and means the same again.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse("fuzz", bytes) {
        let text = toml::to_string(&manifest).expect("a manifest is TOML");
        assert_eq!(Manifest::parse("fuzz", text.as_bytes()).expect("what was accepted"), manifest);
    }
}

/// A recipe, its schema and the rules beyond it.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(recipe) = recipe_file::parse(text, &[]) {
        // Most paths are not there; the rules before that are the point.
        let _ = validate::recipe(&recipe, FOLDER.path());
        let text = toml::to_string(&recipe).expect("a recipe is TOML");
        assert_eq!(recipe_file::parse(&text, &[]).map_err(|e| e.message).expect("what was accepted"), recipe);
    }
}

/// The outline of a component. Nothing is compiled.
pub fn inspection(bytes: &[u8]) {
    match inspect("fuzz", bytes) {
        Ok(inspection) => assert_eq!(inspection.size, bytes.len() as u64),
        Err(Error::Malformed { offset, size, .. }) => assert!(offset <= size && size == bytes.len() as u64),
        Err(_) => {}
    }
}

/// `ledger.jsonl`.
pub fn ledger_file(bytes: &[u8]) {
    let path = FOLDER.path().join(format!("{:?}.jsonl", std::thread::current().id()));
    fs::write(&path, bytes).expect("the temporary folder can be written");
    if let Ok(records) = ledger::read(&path) {
        assert_eq!(records.len(), bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count());
    }
}

/// The first byte says which file of a checkpoint the rest is.
pub fn checkpoint_folder(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let folder = FOLDER.path().join(format!("checkpoints-{:?}", std::thread::current().id()));
    let path = folder.join("step-00000001");
    let write = |name: &str| {
        fs::create_dir_all(&path).expect("the temporary folder can be written");
        fs::write(path.join(name), bytes).expect("the temporary folder can be written");
    };
    match which % 3 {
        0 => {
            write("manifest.json");
            let mut damaged = 0;
            let found = checkpoint::newest(&folder, &mut |_| damaged += 1).expect("the folder can be listed");
            assert!(found.is_none() && damaged == 1, "there is no progress file");
        }
        1 => {
            if let Ok(progress) = serde_json::from_slice::<Progress>(bytes) {
                let text = serde_json::to_vec(&progress).expect("progress is JSON");
                assert_eq!(serde_json::from_slice::<Progress>(&text).expect("what was accepted"), progress);
            }
        }
        _ => {
            write("optimizer.safetensors");
            let checkpoint = Checkpoint { path: path.clone(), progress: Progress::default() };
            let values = checkpoint.optimizer().map_or(0, |vectors| vectors.values().map(Vec::len).sum());
            assert!(4 * values <= bytes.len());
        }
    }
}

/// Runs a target over every file of its corpus.
#[allow(dead_code, reason = "the fuzz targets name one function each")]
pub fn replay(corpora: &Path, name: &str, target: fn(&[u8])) -> usize {
    let folder = corpora.join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", folder.display()));
    files.map(|file| target(&fs::read(file.expect("a listed file").path()).expect("a readable file"))).count()
}
