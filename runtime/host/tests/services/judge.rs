//! Turns of a judge: their order, their checks and their bounds.

use std::sync::Arc;

use plumb_core::feedback::Ask;
use plumb_core::recipe::Grants;
use plumb_core::services::Models;
use plumb_core::{Judge, PluginFault, PluginKind, Turn, Verdicts};
use plumb_host::Error;
use serde_json::json;

use crate::{Counting, batch, host, names, request};

fn grants() -> Grants {
    Grants { models: names(&["grader"]), ..Grants::default() }
}

fn judge(mode: &str) -> Arc<dyn Judge> {
    let loaded =
        host(Arc::new(Counting::default())).load(request(PluginKind::Judge, "judge-probe", json!({ "mode": mode }), grants()));
    loaded.unwrap().into_judge().unwrap()
}

fn ask(turn: Turn) -> Ask {
    match turn {
        Turn::Ask(ask) => ask,
        Turn::Done(verdicts) => panic!("expected questions, got {verdicts:?}"),
    }
}

fn done(turn: Turn) -> Verdicts {
    match turn {
        Turn::Done(verdicts) => verdicts,
        Turn::Ask(ask) => panic!("expected verdicts, got {ask:?}"),
    }
}

#[test]
fn judge_asks_turn_by_turn_and_remembers_in_its_memo() {
    let (judge, models, batch) = (judge("turns"), Counting::default(), Arc::new(batch(4)));
    let answered = |turn| {
        let Ask { questions, memo } = ask(turn);
        let answers: Vec<_> = models.generate(&questions).into_iter().map(Result::unwrap).collect();
        judge.resume(&batch, &memo, &answers).unwrap()
    };
    let first = judge.begin(&batch).unwrap();
    assert_eq!(ask(first.clone()).questions[0].prompts.get(3), Some("first xxx"));
    assert_eq!(judge.begin(&batch).unwrap(), first, "a turn can be asked again");
    let second = answered(first);
    assert_eq!(ask(second.clone()).questions[0].prompts.get(3), Some("second 9"));
    let verdicts = done(answered(second));
    assert_eq!(verdicts.rationales.unwrap().get(3), Some("8"));
    assert_eq!(verdicts.scores.unwrap(), [0.0; 4]);
    let stats = judge.take_metrics();
    assert!(stats.is_empty(), "metrics wait for the end of the step");
    judge.end_step();
    let metrics: std::collections::BTreeMap<_, _> = judge.take_metrics().into_iter().collect();
    assert_eq!((metrics["calls"], metrics["rows"]), (4.0, 4.0), "rows count once, with the verdicts");
}

#[test]
fn verdicts_cross_in_all_their_forms() {
    let verdicts = done(judge("all-forms").begin(&Arc::new(batch(3))).unwrap());
    let scores = verdicts.scores.unwrap();
    assert!(scores[0] == 0.0 && scores[1].is_nan() && scores[2] == 2.0);
    let pairs = verdicts.pairs.unwrap();
    assert_eq!((pairs.first, pairs.second, pairs.probability), (vec![0], vec![1], vec![0.25]));
    let matrices = verdicts.matrices.unwrap();
    assert_eq!((&matrices.values[..4], matrices.readable.len()), (&[0.0, -1.0, -2.0, 1.0][..], 9));
    assert_eq!(verdicts.rationales.unwrap().get(2), Some("xx"));
    assert_eq!((verdicts.parts[0].0.as_str(), verdicts.parts[0].1[2]), ("length", 2.0));
    assert_eq!((verdicts.faults[0].0, verdicts.faults[0].1.code.as_str()), (1, "unparseable"));
}

#[test]
fn turns_that_break_a_rule_are_typed_faults() {
    for (mode, code) in [
        ("nan", "non_finite"),
        ("no-form", "bad_output"),
        ("ungranted", "denied"),
        ("greedy", "budget"),
        ("memo-flood", "bad_output"),
        ("trap", "trap"),
        ("passing-fault", "later"),
    ] {
        let error = judge(mode).begin(&Arc::new(batch(2))).unwrap_err();
        assert_eq!((error.export, error.fault.code()), ("begin", code), "{mode}");
    }
    let error = judge("turns").resume(&Arc::new(batch(2)), b"7", &[]).unwrap_err();
    assert_eq!((error.export, error.fault.code()), ("resume", "answers"));
}

#[test]
fn turns_are_asked_again_only_after_faults_that_may_pass() {
    for (mode, calls) in [("trap", 2), ("passing-fault", 2), ("no-mode", 1), ("ungranted", 1)] {
        let host = host(Arc::new(Counting::default()));
        let judge = host.load(request(PluginKind::Judge, "judge-probe", json!({ "mode": mode }), grants())).unwrap();
        judge.into_judge().unwrap().begin(&Arc::new(batch(2))).unwrap_err();
        assert_eq!(host.stats()[0].1.counts.calls, calls, "{mode}");
    }
}

#[test]
fn missing_column_fails_before_the_guest_runs() {
    let empty = plumb_core::Batch::new(0, vec![1], vec![1]);
    let error = judge("turns").begin(&Arc::new(empty)).unwrap_err();
    assert!(matches!(error.fault, PluginFault::Fault { code, .. } if code == "missing-column"));
}

#[test]
fn judge_is_no_other_kind() {
    let host = host(Arc::new(Counting::default()));
    let load = |kind| host.load(request(kind, "judge-probe", json!({ "mode": "turns" }), grants()));
    assert!(matches!(load(PluginKind::Reward), Err(Error::WrongKind { found: PluginKind::Judge, .. })));
    assert!(load(PluginKind::Judge).unwrap().into_reward().is_err());
}
