//! A training run with plugins that attack: it goes on, and learns what it would have learned from honest ones.

use std::path::Path;

use serde_json::Value;

use crate::support::{Done, Folder, metrics};

fn guest(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/guests/{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask guests`", path.display());
    format!("\"{}\"", path.display())
}

/// Trains with a second reward that attacks whenever a completion holds a 7.
fn train(folder: &Folder, run: &str, attack: &str) -> Done {
    let recipe = folder.recipe();
    let limits = "limits = { fuel = 5000000, fuel_per_row = 100000 }";
    let hostile = format!(
        "{{ plugin = {}, name = \"hostile\", on_fault = \"drop-row\", weight = 0.1, {limits}, config = {{ poison = \"7\", attack = \"{attack}\" }} }}",
        guest("reward-hostile")
    );
    let rewards = format!("stages.grpo.rewards=[{{ plugin = \"reward-exact-match\", name = \"exact\" }}, {hostile}]");
    folder.plumb(&["train", &recipe, "--set", &rewards, "--run-dir", run]).ok()
}

fn sum(lines: &[Value], name: &str) -> f64 {
    lines.iter().filter_map(|line| line[name].as_f64()).sum()
}

#[test]
fn training_with_a_hostile_reward_learns_what_it_learns_when_those_rows_have_no_score() {
    let folder = Folder::new();
    train(&folder, "honest", "honest");
    let policy = |run: &str| std::fs::read(folder.path(run).join("model/model.safetensors")).unwrap();
    let honest = metrics(&folder.path("honest"));
    let poisoned = sum(&honest, "plugin/hostile/faults/unparseable");
    assert!(poisoned > 5.0, "the tiny model writes some sevens: {poisoned}");
    for (attack, code) in
        [("spin", "out_of_fuel"), ("nan", "non_finite"), ("broken-message", "bad_output"), ("long-panic", "trap")]
    {
        train(&folder, attack, attack);
        let lines = metrics(&folder.path(attack));
        assert_eq!(sum(&lines, &format!("plugin/hostile/faults/{code}")), poisoned, "{attack}");
        assert_eq!(sum(&lines, "reward"), sum(&honest, "reward"), "{attack}");
        assert!(policy(attack) == policy("honest"), "{attack}: the policy differs");
        let report = std::fs::read_to_string(folder.path(attack).join("report.html")).unwrap();
        assert!(report.contains("hostile"), "{attack}: the report does not name the plugin");
    }
}

#[test]
fn training_with_a_hostile_shaper_and_filter_goes_on_as_if_they_were_not_there_or_without_the_step() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let train = |run: &str, sets: &[String]| {
        let sets = sets.iter().flat_map(|set| ["--set", set.as_str()]);
        folder.plumb(&["train", &recipe, "--run-dir", run].into_iter().chain(sets).collect::<Vec<_>>()).ok();
        std::fs::read(folder.path(run).join("model/model.safetensors")).unwrap()
    };
    let hostile = |attack: &str, mode: &str, policy: &str| {
        let shaper = format!(
            "{{ plugin = {}, on_failure = \"{policy}\", config = {{ attack = \"{attack}\" }} }}",
            guest("shaper-hostile")
        );
        let filter =
            format!("{{ plugin = {}, on_failure = \"{policy}\", config = {{ mode = \"{mode}\" }} }}", guest("filter-misbehaves"));
        // Every step fails, which the circuit would not have for long.
        [
            format!("stages.grpo.shapers=[{shaper}]"),
            format!("stages.grpo.filters=[{filter}]"),
            "circuit.failed_steps=0".to_owned(),
        ]
    };
    let alone = train("alone", &[]);
    for (attack, mode) in [("trap-later", "trap"), ("nan", "negative-weight"), ("trap-in-save", "pair-flood")] {
        let through = train(&format!("through-{attack}"), &hostile(attack, mode, "pass-through"));
        assert!(through == alone, "{attack} and {mode} change what is learned");
    }
    let skipped = train("skipped", &hostile("trap-later", "trap", "skip-step"));
    let dropped = train("dropped", &hostile("none", "drop-all", "skip-step"));
    assert!(skipped == dropped && skipped != alone, "nothing is learned from skipped steps, nor from dropped rows");
}

/// A judge under attack beside the recipe's own reward, which its failures do not touch.
fn judge(attack: &str, policy: &str) -> String {
    format!(
        "plugin = {}, on_fault = {policy}, weight = 0.5, grants = {{ models = [\"policy\"] }}, \
         limits = {{ fuel = 20000000, fuel_per_row = 100000 }}, config = {{ attack = \"{attack}\", model = \"policy\" }}",
        guest("judge-hostile")
    )
}

#[test]
fn training_with_a_hostile_judge_learns_what_it_learns_from_its_reward_alone() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let train = |run: &str, sets: &[String]| {
        let sets = sets.iter().flat_map(|set| ["--set", set.as_str()]);
        folder.plumb(&["train", &recipe, "--run-dir", run].into_iter().chain(sets).collect::<Vec<_>>()).ok();
        (std::fs::read(folder.path(run).join("model/model.safetensors")).unwrap(), metrics(&folder.path(run)))
    };
    let (alone, _) = train("alone", &[]);
    for (attack, code) in
        [("endless", "too-many-turns"), ("trap-later", "trap"), ("many-tokens", "budget"), ("nan", "non_finite")]
    {
        let judges = format!("stages.grpo.judges=[{{ name = \"hostile\", {} }}]", judge(attack, "{ value = 0.0 }"));
        let (policy, lines) = train(attack, &[judges, "circuit.failed_steps=0".into()]);
        let steps = lines.iter().filter(|line| line["judge/hostile/turns"].is_number()).count();
        assert_eq!(
            sum(&lines, &format!("plugin/hostile/faults/{code}")),
            (16 * steps) as f64,
            "{attack}: every row of {steps} steps"
        );
        assert_eq!(steps, 7, "{attack}");
        assert!(policy == alone, "{attack}: the policy differs");
    }
}

#[test]
fn judge_that_turns_hostile_is_replaced_by_the_generation_before_it() {
    let folder = Folder::new();
    let recipe = folder.recipe();
    let own = |attack: &str| judge(attack, "\"drop-group\"");
    let sets = [
        format!("stages.grpo.judges=[{{ name = \"graded\", {} }}]", own("honest")),
        format!(
            "stages.grpo.swaps=[{{ step = 3, replace = \"graded\", plugin = {}, grants = {{ models = [\"policy\"] }}, \
             config = {{ attack = \"spin-later\", model = \"policy\" }}, limits = {{ fuel = 20000000, fuel_per_row = 100000 }} }}]",
            guest("judge-hostile")
        ),
        "circuit.failed_steps=2".to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    folder.plumb(&[&["train", &recipe, "--run-dir", "run"], &sets[..]].concat()).ok();
    let lines = metrics(&folder.path("run"));
    let faults: Vec<f64> = lines
        .iter()
        .filter(|line| line["judge/graded/turns"].is_number())
        .map(|line| line["plugin/graded/faults/out_of_fuel"].as_f64().unwrap_or(0.0))
        .collect();
    assert_eq!(faults, [0.0, 0.0, 16.0, 16.0, 0.0, 0.0, 0.0], "two steps without verdicts, then the honest judge again");
}
