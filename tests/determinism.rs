//! Same recipe, seed, plugins and build: same bytes. Threads, SIGKILL and a full disk change nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Folder, assert_same_run, done};

fn train(folder: &Folder, recipe: &str, run: &str, more: &[&str]) {
    folder.plumb(&[&["train", recipe, "--run-dir", run, "--quiet"], more].concat()).ok();
}

/// Starts a run and kills it with SIGKILL as soon as its metrics have `lines` lines. A run that is faster is not killed.
fn train_and_kill(folder: &Folder, recipe: &str, run: &str, lines: usize, more: &[&str]) {
    let args = [&["train", recipe, "--run-dir", run, "--quiet"], more].concat();
    let mut child = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = folder.path(run).join("metrics.jsonl");
    while child.try_wait().unwrap().is_none() {
        if std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() >= lines) {
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

#[test]
fn threads_change_no_byte_of_a_run() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    train(&folder, &recipe, "one", &["--threads", "1"]);
    train(&folder, &recipe, "two", &["--threads", "2"]);
    assert_same_run(&folder.path("one"), &folder.path("two"));
}

#[test]
fn killed_and_resumed_run_equals_one_that_was_not() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    train(&folder, &recipe, "whole", &[]);
    // In the first stage, at the seam of the stages, in the second; before, on and after checkpoints.
    train_and_kill(&folder, &recipe, "killed", 1, &[]);
    for lines in [3, 6, 7, 10, 12] {
        train_and_kill(&folder, &recipe, "killed", lines, &["--resume"]);
    }
    train(&folder, &recipe, "killed", &["--resume"]);
    assert_same_run(&folder.path("whole"), &folder.path("killed"));
    // A finished run has nothing left to do, and stays as it is.
    train(&folder, &recipe, "killed", &["--resume"]);
    assert_same_run(&folder.path("whole"), &folder.path("killed"));
}

#[test]
fn damaged_checkpoint_is_passed_over_and_the_run_still_ends_the_same() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    train(&folder, &recipe, "whole", &[]);
    train(&folder, &recipe, "damaged", &[]);
    let newest = folder.path("damaged/checkpoints/step-00000012/model/model.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let resumed = folder.plumb(&["train", &recipe, "--run-dir", "damaged", "--resume"]).ok();
    assert!(
        resumed.stderr.contains("step-00000012` is damaged and passed over: `model/model.safetensors` has SHA-256"),
        "{}",
        resumed.stderr
    );
    assert_same_run(&folder.path("whole"), &folder.path("damaged"));
}

/// A limit on the size of files, its signal ignored, fails writes as a full disk does.
#[cfg(unix)]
#[test]
fn full_disk_during_a_checkpoint_leaves_the_one_before() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    train(&folder, &recipe, "whole", &[]);
    train_and_kill(&folder, &recipe, "full", 4, &[]);
    let checkpoints = folder.path("full/checkpoints");
    let names = |path: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| Path::new(name).extension().is_none_or(|extension| extension != "tmp"));
        names.sort();
        names
    };
    let before = names(&checkpoints);
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(folder.path("")).args([
        "-c",
        "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_plumb"),
    ]);
    let failed = done(shell.args(["train", &recipe, "--run-dir", "full", "--resume", "--json"]));
    assert_eq!((failed.code, failed.error()["code"].as_str()), (Some(4), Some("run.checkpoint")), "{failed:?}");
    assert!(failed.error()["hint"].as_str().unwrap().contains("--resume"));
    assert_eq!(names(&checkpoints), before);
    assert!(!std::fs::read_dir(&checkpoints).unwrap().any(|item| item.unwrap().file_name().to_string_lossy().ends_with(".tmp")));
    train(&folder, &recipe, "full", &["--resume"]);
    assert_same_run(&folder.path("whole"), &folder.path("full"));
}
