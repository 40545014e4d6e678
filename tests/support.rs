//! What the tests share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use plumb_core::recipe::RandomModel;
use serde_json::Value;

/// What a command left.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The JSON objects on stdout.
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// The `data` of the error that `--json` printed.
    pub fn error(&self) -> Value {
        let line = self.stderr.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON error: {self:?}"));
        let error: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&error["type"], &error["v"]), (&"error".into(), &1.into()));
        error["data"].clone()
    }

    /// This, when the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }
}

/// The file of a test guest, as an argument.
pub fn guest(name: &str) -> String {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/guests/{name}.wasm"));
    assert!(guest.is_file(), "`{}` is missing, run `cargo xtask guests`", guest.display());
    guest.to_str().unwrap().to_owned()
}

/// A folder of its own for a test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path as an argument.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The binary, to be run in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plumb"));
        command
            .args(args)
            .current_dir(self.0.path())
            .env_remove("PLUMB_PLUGIN_PATH")
            .env_remove("PLUMB_THREADS")
            .env_remove("PLUMB_TOKEN");
        command
    }

    /// Runs the binary in this folder.
    pub fn plumb(&self, args: &[&str]) -> Done {
        done(&mut self.command(args))
    }

    /// A model of random weights over digits, saved as a Hugging Face folder.
    pub fn model(&self) -> String {
        let spec = RandomModel {
            alphabet: "0123456789+=".into(),
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: Some(1),
            max_position_embeddings: 32,
            initializer_range: 0.3,
        };
        let model = plumb_model::random(&spec, 7).unwrap();
        let path = self.path("model");
        std::fs::create_dir_all(&path).unwrap();
        plumb_model::save(&path, &model.params, &model.tokenizer).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A recipe with both stages, a stateless reward and small everything; a run takes about a second.
    pub fn recipe(&self) -> String {
        let rows = |from: u32, to: u32| -> String {
            (from..to)
                .map(|i| format!("{{\"prompt\": \"{}+{}=\", \"completion\": \"{1}\", \"answer\": \"{1}\"}}\n", i / 9, i % 9))
                .collect::<Vec<_>>()
                .concat()
        };
        self.file("data/train.jsonl", &rows(0, 60));
        self.file("data/test.jsonl", &rows(60, 80));
        self.file("tiny.toml", RECIPE)
    }
}

const RECIPE: &str = r#"
name = "tiny"
seed = 3
checkpoints = { save_steps = 2, save_total_limit = 2 }

[model.random]
alphabet = "0123456789+="
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 16

[[stages]]
name = "sft"
algorithm = "sft"
max_steps = 5
data = { train = ["data/train.jsonl"], prompt = { chat = false } }
sft.batch_size = 48
optimizer.learning_rate = 2e-2

[[stages]]
name = "grpo"
algorithm = "grpo"
max_steps = 7
data = { train = ["data/train.jsonl"], prompt = { chat = false } }
rollout = { prompts_per_step = 4, num_generations = 4, max_completion_length = 3 }
grpo.beta = 0.01
optimizer.learning_rate = 1e-3
rewards = [{ plugin = "reward-exact-match", name = "exact" }]

[stages.eval]
files = ["data/test.jsonl"]
every_steps = 3
reward = { plugin = "reward-exact-match", name = "exact" }
"#;

/// Runs a command to its end.
pub fn done(command: &mut Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The lines of a run's metrics, without clock times.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        line.as_object_mut().unwrap().retain(|name, _| !name.starts_with("time/"));
    }
    lines
}

/// Every file of a run that must not depend on the clock, with its bytes.
pub fn files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    fn gather(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                gather(root, &path, files);
            } else if !(name.starts_with("events.") || name == "metrics.jsonl" || name == "report.html" || name == "plugins.log")
            {
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    gather(run, run, &mut all);
    all
}

/// Fails with the names of the files that differ.
#[track_caller]
pub fn assert_same_run(a: &Path, b: &Path) {
    assert_eq!(metrics(a), metrics(b));
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let differ: Vec<&String> = a.iter().filter(|(name, bytes)| b[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "these files differ: {differ:?}");
}
