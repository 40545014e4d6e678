//! Swapping, shadowing and rolling back the plugins of a run under way, from another process.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Done, Folder, guest};

/// A run that goes on until it is stopped.
struct Training(Child);

impl Training {
    fn start(folder: &Folder) -> Self {
        let recipe = folder.recipe();
        let sets = ["stages.sft.max_steps=1", "stages.grpo.max_steps=100000", "checkpoints.save_steps=0"];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let args: Vec<&str> = ["train", &recipe, "--quiet"].into_iter().chain(sets).collect();
        let child = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut this = Training(child);
        let metrics = folder.path("runs/tiny/metrics.jsonl");
        while steps(&metrics) < 4 {
            assert!(this.0.try_wait().unwrap().is_none(), "training ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        this
    }

    fn stop(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn steps(metrics: &Path) -> usize {
    std::fs::read_to_string(metrics).map_or(0, |text| text.lines().count())
}

fn data(done: Done) -> Value {
    done.ok().lines()[0]["data"].clone()
}

#[test]
fn plugins_of_a_run_under_way_are_swapped_shadowed_and_rolled_back_and_replay_proves_it() {
    let folder = Folder::new();
    let training = Training::start(&folder);
    let lengths = format!("exact={}", guest("reward-misbehaves"));
    let config = ["--config", r#"{"mode": "good"}"#, "--json"];
    let run = |args: &[&str]| folder.plumb(&[&["run"], args].concat());

    let shadow = data(run(&[&["shadow", "runs/tiny", "--with", &lengths], &config[..]].concat()));
    assert_eq!((&shadow["status"], &shadow["request"]), (&"done".into(), &"shadow".into()));
    let swap = data(run(&[&["swap", "runs/tiny", "--replace", &lengths], &config[..]].concat()));
    assert_eq!(swap["status"], "done", "{swap}");
    assert!(swap["step"].as_u64() >= shadow["step"].as_u64());
    assert_eq!(shadow["sha256"], swap["sha256"], "a shadow's own digest, not that of the plugin in use");
    // Lengths against matches: all rows of the last batches have both.
    assert_eq!(swap["comparison"]["rows"], swap["comparison"]["both"]);
    assert!(swap["comparison"]["drift"].as_f64().unwrap() > 0.0, "{swap}");
    let text = run(&["shadow", "runs/tiny", "--stop", "exact"]).ok().stdout;
    assert!(text.contains("the shadow has ended"), "{text}");

    // Another plugin knows nothing of `mode`; after the rollback a version of the first is again what a swap takes over from.
    let other = data(run(&["swap", "runs/tiny", "--replace", "exact=reward-math-answer", "--json"]));
    assert_eq!(other["status"], "done", "{other}");
    let back = data(run(&["rollback", "runs/tiny", "exact", "--json"]));
    assert_eq!(back["sha256"], swap["sha256"]);
    let again = data(run(&["swap", "runs/tiny", "--replace", &lengths, "--json"]));
    assert_eq!(again["status"], "done", "{again}");
    let listed = run(&["list"]).ok().stdout;
    assert!(listed.contains("in training"), "{listed}");

    let refused = run(&["swap", "runs/tiny", "--replace", &format!("exact={}", guest("shaper-counts")), "--json"]);
    assert_eq!((refused.code, &refused.error()["code"]), (Some(2), &"run.wrong-kind".into()));
    let refused = run(&["swap", "runs/tiny", "--replace", "exakt=reward-format", "--json"]);
    assert_eq!(refused.error()["hint"], "did you mean `exact`?");
    let refused = run(&["swap", "runs/tiny", "--replace", &lengths, "--config", r#"{"mode": "trap"}"#, "--json"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.error()["message"].as_str().unwrap().contains("refused the swap of `exact`"), "{refused:?}");
    training.stop();

    let shown = run(&["show", "runs/tiny"]).ok().stdout;
    assert!(shown.contains("(command)") && shown.contains("(rollback)"), "{shown}");
    assert!(shown.contains("refused: request") && shown.contains(" of 100001, stopped"), "{shown}");
    let late = run(&["rollback", "runs/tiny", "exact", "--json"]);
    assert_eq!((late.code, &late.error()["code"]), (Some(2), &"run.not_training".into()));
    let left = data(run(&["swap", "runs/tiny", "--replace", "exact=reward-exact-match", "--json"]));
    assert_eq!(left["status"], "waits-for-resume", "{left}");
    let replayed = data(run(&["replay", "runs/tiny", "--json"]));
    assert_eq!(replayed["difference"], Value::Null);
    assert!(replayed["values"].as_u64() > Some(0));
}
