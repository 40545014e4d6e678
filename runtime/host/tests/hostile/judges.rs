//! `judge-hostile`: attacks of a first turn, of later turns and of verdicts.

use std::sync::Arc;

use plumb_core::feedback::Ask;
use plumb_core::recipe::Grants;
use plumb_core::services::Generated;
use plumb_core::{Judge, PluginError, PluginKind, Turn};
use plumb_host::limits;
use serde_json::json;

use crate::support::{Neighbour, Process, ROWS, alone, batch, request, roomy};

/// How a judge ends: the turns that it took to its verdicts, or the export and the code that it failed with.
type End = Result<usize, (&'static str, &'static str)>;

/// Attacks and their ends. `docs/src/security.md` lists them.
const JUDGES: [(&str, End); 48] = [
    ("honest", Ok(4)),
    ("spin", Err(("begin", "out_of_fuel"))),
    ("trap", Err(("begin", "trap"))),
    ("grow-big", Err(("begin", "out_of_memory"))),
    ("many-questions", Err(("begin", "bad_output"))),
    ("many-prompts", Err(("begin", "bad_output"))),
    ("no-question", Err(("begin", "bad_output"))),
    ("long-memo", Err(("begin", "bad_output"))),
    ("long-prompt", Err(("begin", "budget"))),
    ("broken-prompt", Err(("begin", "bad_output"))),
    ("ends-beyond", Err(("begin", "bad_output"))),
    ("other-model", Err(("begin", "denied"))),
    ("long-model", Err(("begin", "denied"))),
    ("many-tokens", Err(("begin", "budget"))),
    ("many-completions", Err(("begin", "invalid-question"))),
    ("nan-temperature", Err(("begin", "invalid-question"))),
    ("long-stop", Err(("begin", "invalid-question"))),
    ("long-setting", Err(("begin", "invalid-question"))),
    ("log-flood", Ok(4)),
    ("metric-names", Err(("begin", "bad_output"))),
    ("kv-flood", Err(("begin", "out_of_fuel"))),
    ("endless", Err(ON_AND_ON)),
    ("spin-later", Err(("resume", "out_of_fuel"))),
    ("trap-later", Err(("resume", "trap"))),
    ("growing-memo", Err(("resume", "bad_output"))),
    ("grow-every-turn", Ok(4)),
    ("ask-again", Err(("resume", "again"))),
    ("ask-afterwards", Ok(1)),
    ("too-few", Err(("resume", "wrong_count"))),
    ("too-many", Err(("resume", "wrong_count"))),
    ("nan", Err(("resume", "non_finite"))),
    ("huge-number", Err(("resume", "bad_output"))),
    ("no-verdict", Err(("resume", "bad_output"))),
    ("row-of-others", Err(("resume", "bad_output"))),
    ("two-faults", Err(("resume", "bad_output"))),
    ("long-code", Err(("resume", "bad_output"))),
    ("pair-of-others", Err(("resume", "bad_output"))),
    ("pair-itself", Err(("resume", "bad_output"))),
    ("pair-probability", Err(("resume", "bad_output"))),
    ("pair-nan", Err(("resume", "bad_output"))),
    ("pair-flood", Err(("resume", "bad_output"))),
    ("pair-lengths", Err(("resume", "wrong_count"))),
    ("matrix-both-win", Err(("resume", "bad_output"))),
    ("matrix-huge", Err(("resume", "bad_output"))),
    ("matrix-short", Err(("resume", "wrong_count"))),
    ("broken-rationale", Err(("resume", "bad_output"))),
    ("long-rationales", Ok(4)),
    ("many-parts", Err(("resume", "bad_output"))),
];

/// The host takes every turn for itself; how many there may be is for whoever puts the questions.
const ON_AND_ON: (&str, &str) = ("resume", "asks on");
const MOST_TURNS: usize = 20;

/// A judge that may ask one model.
pub fn judge(neighbour: &Neighbour, attack: &str) -> Arc<dyn Judge> {
    let mut request = request(PluginKind::Judge, "judge-hostile", json!({ "attack": attack }));
    request.grants = Grants { models: vec!["grader".into()], ..Grants::default() };
    if ["many-questions", "long-prompt", "long-rationales"].contains(&attack) {
        request.limits = roomy();
    }
    neighbour.host.load(request).unwrap().into_judge().unwrap()
}

/// Lets a judge decide over the rows of [`batch`]; each of its questions is answered with `yes`.
pub fn sit(judge: &dyn Judge, name: &str) -> Result<usize, PluginError> {
    let batch = Arc::new(batch(false));
    let mut turn = judge.begin(&batch)?;
    for turns in 1..=MOST_TURNS {
        match turn {
            Turn::Ask(Ask { questions, memo }) => {
                assert!(memo.len() <= limits::MEMO_BYTES, "{name}");
                let answers = questions.iter().map(|question| {
                    let mut answer = Generated::default();
                    for _ in 0..question.prompts.len() {
                        answer.text.push("yes");
                        answer.tokens.push(&[1]);
                        answer.logprobs.push(&[-0.5]);
                        answer.finish.push("stop".to_owned());
                    }
                    answer
                });
                turn = judge.resume(&batch, &memo, &answers.collect::<Vec<_>>())?;
            }
            Turn::Done(verdicts) => {
                let lengths: Vec<f64> = (0..ROWS).map(|row| row as f64).collect();
                assert_eq!(verdicts.scores.unwrap(), lengths, "{name}");
                let rationales = verdicts.rationales.map_or(0, |rationales| rationales.bytes.len());
                assert!(rationales <= ROWS * (limits::RATIONALE_BYTES + '…'.len_utf8()), "{name}: {rationales} bytes");
                return Ok(turns);
            }
        }
    }
    Ok(MOST_TURNS + 1)
}

/// Runs one attack and checks all that must hold after any.
fn attack(neighbour: &Neighbour, name: &str) -> Result<usize, (&'static str, String)> {
    let judge = judge(neighbour, name);
    let end = sit(&*judge, name);
    if let Err(error) = &end {
        assert!(error.fault.to_string().len() <= limits::MESSAGE_BYTES + 100, "{name}: {}", error.fault.to_string().len());
    }
    judge.end_step();
    assert!(judge.take_metrics().len() <= limits::STEP_METRIC_NAMES + 8, "{name}");
    assert!(judge.save_state().unwrap().is_none_or(|state| state.len() <= 2 * limits::KV_BYTES), "{name}");
    let calls = neighbour.host.stats().last().unwrap().1.counts.calls as usize;
    let bytes: usize = neighbour.lines.take_lines().iter().map(|line| line.message.len()).sum();
    assert!(bytes <= calls * limits::LOG_BYTES + 1000, "{name}: {bytes} bytes of log lines in {calls} calls");
    neighbour.is_well(name);
    match end {
        Ok(turns) if turns > MOST_TURNS => Err((ON_AND_ON.0, ON_AND_ON.1.to_owned())),
        Ok(turns) => Ok(turns),
        Err(error) => Err((error.export, error.fault.code().to_owned())),
    }
}

#[test]
fn attacks_of_a_judge_end_in_their_turn_and_cost_nobody_else() {
    let _alone = alone();
    let neighbour = Neighbour::new(2);
    let round = || {
        let mut others = Vec::new();
        for (name, expected) in JUDGES {
            let found = attack(&neighbour, name);
            let same = found.as_ref().map_err(|(export, code)| (*export, code.as_str())) == expected.as_ref().map_err(|end| *end);
            others.extend((!same).then_some((name, found)));
        }
        assert!(others.is_empty(), "{others:?}");
    };
    // Instances live in slots that keep up to 2 MiB each, and the first rounds come by all of them.
    round();
    round();
    let warm = Process::now();
    round();
    Process::now().has_not_grown_since(warm, 32 << 10);
}

#[test]
fn judge_resumed_after_its_verdicts_asks_in_vain_and_decides_the_same() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let (judge, batch) = (judge(&neighbour, "ask-afterwards"), Arc::new(batch(false)));
    let first = judge.begin(&batch).unwrap();
    assert!(matches!(first, Turn::Done(_)));
    let answer = Generated::default();
    assert!(matches!(judge.resume(&batch, &1u32.to_le_bytes(), &[answer]), Ok(Turn::Ask(_)) | Err(_)));
    assert_eq!(judge.begin(&batch).unwrap(), first);
}
