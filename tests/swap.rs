//! Plugins of a running run are replaced, by requests of another process.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use plumb_train::control::{self, Answer, Refusal, Request, RequestId};
use plumb_train::run::{Record, ledger};
use serde_json::{Value, json};

use crate::support::{Folder, assert_same_run, metrics};

const STAGES: [&str; 6] =
    ["--set", "stages.sft.max_steps=1", "--set", "stages.grpo.max_steps=400", "--set", "stages.grpo.eval.every_steps=0"];

fn built(folder: &str, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(folder).join(format!("{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask guests`", path.display());
    path
}

fn swap(plugin: &Path, config: &Value) -> Request {
    Request::Swap {
        replace: "exact".into(),
        plugin: serde_json::from_value(json!({ "plugin": plugin, "config": config })).unwrap(),
    }
}

fn start(folder: &Folder, recipe: &str, run: &str, more: &[&str]) -> Child {
    let args = [&["train", recipe, "--run-dir", run, "--quiet"], &STAGES[..], more].concat();
    let mut child = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The first stage has no plugins, and a plugin is tried on batches that there must have been.
    let stepped = || {
        let text = std::fs::read_to_string(folder.path(run).join("metrics.jsonl")).unwrap_or_default();
        text.lines().filter(|line| line.contains("rewards/exact/mean")).count() > 0
    };
    while !stepped() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it began: {:?}", child.wait_with_output());
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn answer(run: &Path, id: RequestId) -> Answer {
    control::wait(run, id, Duration::from_mins(1)).unwrap().expect("an answer")
}

#[test]
fn run_that_is_killed_amid_swaps_and_resumed_leaves_the_same_bytes() {
    let folder = Folder::new();
    let (recipe, run) = (folder.recipe(), folder.path("run"));
    let (exact, lengths) = (built("plugins", "reward-exact-match"), built("guests", "reward-misbehaves"));
    let mut child = start(&folder, &recipe, "run", &[]);
    for i in 0..6 {
        let request = if i % 2 == 0 { swap(&lengths, &json!({ "mode": "metrics" })) } else { swap(&exact, &json!({})) };
        let done = answer(&run, control::submit(&run, request).unwrap());
        assert!(matches!(&done, Answer::Done { comparison: Some(_), .. }), "{done:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    folder.plumb(&[&["train", &recipe, "--run-dir", "run", "--quiet", "--resume"], &STAGES[..]].concat()).ok();
    let records = ledger::read(&run.join("ledger.jsonl")).unwrap();
    assert_eq!(records.iter().filter(|record| matches!(record, Record::Change(_))).count(), 6);
    assert_eq!(records.iter().filter(|record| matches!(record, Record::Step(_))).count(), 401);
    assert_eq!(std::fs::read_dir(run.join("plugins")).unwrap().count(), 2, "the bytes of each plugin that was used, once");

    // The same run again from its very beginning, with nothing but what it left.
    let again = folder.path("again");
    copy(&run, &again);
    for part in ["checkpoints", "model"] {
        std::fs::remove_dir_all(again.join(part)).unwrap();
    }
    folder.plumb(&[&["train", &recipe, "--run-dir", "again", "--quiet", "--resume"], &STAGES[..]].concat()).ok();
    assert_same_run(&run, &again);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn broken_plugins_and_those_of_another_kind_are_refused_and_the_run_goes_on() {
    let folder = Folder::new();
    let (recipe, run) = (folder.recipe(), folder.path("run"));
    let broken = folder.file("broken.wasm", "no component");
    let mut child = start(&folder, &recipe, "run", &[]);
    let refused = |request: Request| match answer(&run, control::submit(&run, request).unwrap()) {
        Answer::Refused(refusal) => refusal,
        done @ Answer::Done { .. } => panic!("{done:?}"),
    };
    let Refusal { code, hint, .. } = refused(swap(&built("plugins", "shaper-par"), &json!({})));
    assert!(code.contains("kind") && hint.is_some(), "{code} {hint:?}");
    let Refusal { message, causes, .. } = refused(swap(Path::new(&broken), &json!({})));
    assert!(!message.is_empty(), "{causes:?}");
    let traps = refused(swap(&built("guests", "reward-misbehaves"), &json!({ "mode": "trap" })));
    assert_eq!(traps.code, "fails", "{traps:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(control::submit(&run, Request::Rollback { name: "exact".into() }).is_err(), "nobody is there to ask");
    assert!(!metrics(&run).is_empty());
    assert!(!run.join("changes.jsonl").metadata().is_ok_and(|file| file.len() > 0), "nothing was changed");
}

#[test]
fn run_is_resumed_without_the_files_that_its_plugins_came_from() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let own = folder.path("own.wasm");
    std::fs::copy(built("plugins", "reward-exact-match"), &own).unwrap();
    let rewards = format!("stages.grpo.rewards=[{{ plugin = {own:?}, name = \"exact\" }}]");
    let train =
        |more: &[&str]| folder.plumb(&[&["train", &recipe, "--run-dir", "run", "--quiet", "--set", &rewards], more].concat());
    train(&[]).ok();
    let first = std::fs::read(folder.path("run/ledger.jsonl")).unwrap();
    std::fs::remove_file(&own).unwrap();
    std::fs::remove_dir_all(folder.path("run/checkpoints/step-00000012")).unwrap();
    train(&["--resume"]).ok();
    assert!(std::fs::read(folder.path("run/ledger.jsonl")).unwrap() == first);
}

#[test]
fn run_has_one_trainer() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let mut child = start(&folder, &recipe, "run", &[]);
    let second = [&["train", &recipe, "--run-dir", "run", "--resume", "--json"], &STAGES[..]].concat();
    let error = folder.plumb(&second).error();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(error["code"], "run.in_use");
}
