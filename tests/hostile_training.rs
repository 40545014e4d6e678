//! A training run with plugins that attack: it goes on, and learns what it would have learned from honest ones.

use std::path::Path;

use serde_json::Value;

use crate::support::{Done, Folder, metrics};

fn guest(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/guests/{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask guests`", path.display());
    format!("{path:?}")
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
