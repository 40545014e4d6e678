//! Stages that learn from judged answers without rewards: KTO, ORPO, CPO, SimPO, and what DPO's loss can have besides.

use plumb_core::recipe::{EngineKind, FDivergence, Recipe, Stage};
use plumb_train::run::{MetricSet, read_metrics};
use plumb_train::{Error, train};

use crate::preferences::{DPO, metrics_of, pairs};
use crate::support::{Closures, request, run, timeless_metrics};

/// A stage of 20 steps over pairs, with the settings of its algorithm.
fn stage(algorithm: &str, settings: &str) -> String {
    format!(
        "[[stages]]\nname = 'direct'\nalgorithm = '{algorithm}'\nmax_steps = 20\n\
         data = {{ train = ['pairs.jsonl'], prompt = {{ chat = false }} }}\n{algorithm} = {{ {settings} }}\n\
         optimizer = {{ learning_rate = 3e-3, lr_scheduler_type = 'constant' }}\n"
    )
}

fn of(steps: &[MetricSet], step: usize, name: &str) -> f64 {
    steps[step].get(name).unwrap_or_else(|| panic!("`{name}` of step {step}"))
}

const ALL: [(&str, &str); 6] = [
    ("kto", "batch_size = 16, beta = 0.5"),
    ("kto", "batch_size = 16, beta = 0.5, loss_type = 'apo_zero_unpaired'"),
    ("orpo", "beta = 1.0"),
    ("cpo", "beta = 0.5"),
    ("cpo", "loss_type = 'ipo', beta = 0.5, alpha = 0.1"),
    ("simpo", "gamma = 0.5"),
];

#[test]
fn each_algorithm_learns_to_tell_the_answers_apart_with_either_engine() {
    for (algorithm, settings) in ALL {
        for engine in [EngineKind::Native, EngineKind::Candle] {
            let folder = tempfile::tempdir().unwrap();
            let recipe = Recipe { engine, ..pairs(folder.path(), &stage(algorithm, settings)) };
            let steps = metrics_of(&recipe, folder.path(), "run");
            let (first, last) = (of(&steps, 0, "loss"), of(&steps, 19, "loss"));
            assert!(last < 0.9 * first, "{algorithm}, {settings}, {engine:?}: {first} to {last}");
            let (before, after) = (of(&steps, 0, "rewards/margins"), of(&steps, 19, "rewards/margins"));
            assert!(after > before + 0.2, "{algorithm}, {settings}, {engine:?}: margin {before} to {after}");
            assert!(of(&steps, 19, "logps/chosen") > of(&steps, 19, "logps/rejected"), "{algorithm}");
        }
    }
}

#[test]
fn metrics_have_trl_s_names() {
    for (algorithm, settings, names) in [
        ("kto", "", &["kl", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"][..]),
        ("orpo", "", &["nll_loss", "log_odds_ratio", "log_odds_chosen", "rewards/accuracies"]),
        ("cpo", "", &["nll_loss", "rewards/accuracies", "logps/chosen"]),
        ("dpo", "rpo_alpha = 0.5", &["nll_loss", "rewards/accuracies"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut recipe = pairs(folder.path(), &stage(algorithm, settings));
        recipe.stages[0].max_steps = 1;
        let steps = metrics_of(&recipe, folder.path(), "run");
        names.iter().for_each(|name| assert!(of(&steps, 0, name).is_finite(), "{algorithm}: {name}"));
    }
}

#[test]
fn kto_begins_at_half_of_each_answer_s_weight() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = pairs(folder.path(), &stage("kto", "batch_size = 32, desirable_weight = 1.5, undesirable_weight = 0.5"));
    let steps = metrics_of(&recipe, folder.path(), "run");
    // All 16 pairs in one step: the policy is its reference, so 1 - σ(0) of each answer, and no KL.
    assert!((of(&steps, 0, "loss") - 0.5 * (1.5 + 0.5) / 2.0).abs() < 1e-7, "{}", of(&steps, 0, "loss"));
    assert_eq!((of(&steps, 0, "kl"), of(&steps, 0, "rewards/margins")), (0.0, 0.0));
}

#[test]
fn labelled_rows_and_the_pairs_that_they_come_from_give_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = pairs(folder.path(), &stage("kto", "batch_size = 32"));
    recipe.stages[0].max_steps = 1;
    let of_pairs = metrics_of(&recipe, folder.path(), "pairs");
    let rows = std::fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
    let labelled = rows.lines().flat_map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        [("chosen", true), ("rejected", false)].map(|(answer, label)| {
            format!("{{\"prompt\": {}, \"completion\": {}, \"label\": {label}}}\n", row["prompt"], row[answer])
        })
    });
    std::fs::write(folder.path().join("pairs.jsonl"), labelled.collect::<String>()).unwrap();
    let of_labels = metrics_of(&recipe, folder.path(), "labels");
    for name in ["loss", "grad_norm", "logps/chosen", "logps/rejected"] {
        let (a, b) = (of(&of_pairs, 0, name), of(&of_labels, 0, name));
        assert!((a - b).abs() < 1e-5 * a.abs(), "{name}: {a} and {b}");
    }
}

#[test]
fn each_divergence_and_extra_of_dpo_learns() {
    for settings in [
        "f_divergence_type = 'forward_kl'",
        "f_divergence_type = 'js_divergence'",
        "f_divergence_type = 'alpha_divergence', loss_type = 'hinge'",
        "rpo_alpha = 0.5",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let recipe = pairs(folder.path(), &stage("dpo", &format!("beta = 0.5, {settings}")));
        let steps = metrics_of(&recipe, folder.path(), "run");
        assert!(of(&steps, 19, "loss") < 0.9 * of(&steps, 0, "loss"), "{settings}: {}", of(&steps, 19, "loss"));
        assert!(of(&steps, 19, "rewards/margins") > 0.2, "{settings}");
    }
}

#[test]
fn likelihood_term_keeps_chosen_answers_likely() {
    let chosen = |settings: &str| {
        let folder = tempfile::tempdir().unwrap();
        let recipe = pairs(folder.path(), &stage("dpo", settings));
        of(&metrics_of(&recipe, folder.path(), "run"), 19, "logps/chosen")
    };
    let (without, with) = (chosen("beta = 0.5"), chosen("beta = 0.5, rpo_alpha = 1.0"));
    assert!(with > without, "{with} and {without}");
}

#[test]
fn margins_of_dpo_ask_for_wider_wins() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = pairs(folder.path(), DPO);
    let path = folder.path().join("pairs.jsonl");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"chosen\"", "\"margin\": 2, \"chosen\"");
    std::fs::write(&path, text).unwrap();
    let without = metrics_of(&recipe, folder.path(), "without");
    recipe.stages[0].dpo.margins = true;
    let with = metrics_of(&recipe, folder.path(), "with");
    // -ln σ(0 - 2) before the first update.
    assert!((of(&with, 0, "loss") - (1.0 + 2.0f64.exp()).ln()).abs() < 1e-6, "{}", of(&with, 0, "loss"));
    assert!(of(&with, 19, "rewards/margins") > of(&without, 19, "rewards/margins"));
}

#[test]
fn resumed_kto_runs_go_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = pairs(folder.path(), &stage("kto", "batch_size = 8"));
    recipe.stages[0].max_steps = 6;
    recipe.checkpoints.save_steps = 3;
    for name in ["whole", "part"] {
        run(&recipe, folder.path(), name, &Closures::default(), &mut ());
    }
    std::fs::remove_dir_all(folder.path().join("part/checkpoints/step-00000006")).unwrap();
    train(&request(&recipe, folder.path(), "part", true), &Closures::default(), &mut ()).unwrap();
    assert_eq!(timeless_metrics(&folder.path().join("whole")), timeless_metrics(&folder.path().join("part")));
    assert_eq!(read_metrics(&folder.path().join("part")).unwrap().len(), 6);
}

#[test]
fn settings_and_labels_that_cannot_be_are_refused_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |algorithm: &str, change: &dyn Fn(&mut Stage)| {
        let mut recipe = pairs(folder.path(), &stage(algorithm, ""));
        change(&mut recipe.stages[0]);
        let error = train(&request(&recipe, folder.path(), "run", false), &Closures::default(), &mut ()).unwrap_err();
        assert!(!folder.path().join("run").exists());
        error
    };
    let key = |algorithm: &str, change: &dyn Fn(&mut Stage)| match refused(algorithm, change) {
        Error::Recipe { key, .. } => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(key("kto", &|s| s.kto.batch_size = 1), "stages.direct.kto.batch_size");
    assert_eq!(key("kto", &|s| s.kto.beta = 0.0), "stages.direct.kto.beta");
    assert_eq!(key("kto", &|s| s.kto.desirable_weight = f64::NAN), "stages.direct.kto.desirable_weight");
    assert_eq!(key("orpo", &|s| s.orpo.beta = -1.0), "stages.direct.orpo.beta");
    assert_eq!(key("cpo", &|s| s.cpo.alpha = -1.0), "stages.direct.cpo.alpha");
    assert_eq!(key("cpo", &|s| s.cpo.max_length = 1), "stages.direct.cpo.max_length");
    assert_eq!(key("simpo", &|s| s.simpo.gamma = f64::INFINITY), "stages.direct.simpo.gamma");
    assert_eq!(key("simpo", &|s| s.rewards = vec![toml::from_str("plugin = 'share-of-c'").unwrap()]), "stages.direct.rewards");
    let of_apo = |stage: &mut Stage| {
        stage.dpo.loss_type = plumb_core::recipe::DpoLoss::ApoZero;
        stage.dpo.f_divergence_type = FDivergence::JsDivergence;
    };
    assert_eq!(key("dpo", &of_apo), "stages.direct.dpo.f_divergence_type");
    assert_eq!(
        key("dpo", &|s| (s.dpo.margins, s.dpo.loss_type) = (true, plumb_core::recipe::DpoLoss::Ipo)),
        "stages.direct.dpo.margins"
    );

    let with_rows = |lines: &str| {
        let recipe = pairs(folder.path(), &stage("kto", "batch_size = 2"));
        std::fs::write(folder.path().join("pairs.jsonl"), lines).unwrap();
        train(&request(&recipe, folder.path(), "run", false), &Closures::default(), &mut ()).unwrap_err()
    };
    for (line, reason) in [
        (r#"{"prompt": "ab", "completion": "a"}"#, "stage `direct`: column `label` is missing: true for a good completion"),
        (r#"{"prompt": "ab", "completion": "a", "label": 1}"#, "stage `direct`: column `label` is 1, not true or false"),
        (r#"{"prompt": "ab", "label": true}"#, "stage `direct`: column `completion` is missing"),
        (
            r#"{"prompt": "ab", "completion": "aaaaaaaaaaaaaaa", "label": true}"#,
            "18 tokens, more than the 16 allowed; raise `stages.direct.kto.max_length`",
        ),
    ] {
        let error = with_rows(line);
        let Error::Row { number: 1, reason: found, .. } = &error else { panic!("{line}: {error:?}") };
        assert!(found.contains(reason), "{found}");
    }
    let alike = with_rows(&"{\"prompt\": \"ab\", \"completion\": \"a\", \"label\": true}\n".repeat(4));
    assert!(
        matches!(&alike, Error::Recipe { key, reason } if key == "stages.direct.data.train" && reason.contains("every `label` is true"))
    );
}
