//! Judges and tools on cases: answers of models come from the case, arguments of tools from its rows.

use std::sync::Arc;

use plumb_core::services::{Generated, Question};
use plumb_core::{Batch, Judge, PluginFault, Texts, Turn, Verdicts};
use plumb_host::PluginTool;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Turns of a judge that has no end.
const TURNS: usize = 64;

/// What a model says to the prompts that hold `prompt`; to all without it. The first that fits counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scripted {
    #[serde(default)]
    prompt: String,
    text: String,
}

/// Runs a judge to its verdicts: one entry per row if it gives scores alone, else an object of what it gives.
pub fn judge(judge: &dyn Judge, batch: Batch, script: &[Scripted]) -> Result<Value, PluginFault> {
    let batch = Arc::new(batch);
    let mut turn = judge.begin(&batch).map_err(|error| error.fault)?;
    for _ in 0..TURNS {
        match turn {
            Turn::Done(verdicts) => return Ok(value(&batch, &verdicts)),
            Turn::Ask(ask) => {
                let answers: Vec<Generated> =
                    ask.questions.iter().map(|question| answer(question, script)).collect::<Result<_, _>>()?;
                turn = judge.resume(&batch, &ask.memo, &answers).map_err(|error| error.fault)?;
            }
        }
    }
    Err(PluginFault::Fault { code: "turns".into(), message: format!("no verdict after {TURNS} turns") })
}

/// Every sample of a prompt is the same text, and a token is a byte.
fn answer(question: &Question, script: &[Scripted]) -> Result<Generated, PluginFault> {
    let mut answer = Generated::default();
    for row in 0..question.prompts.len() {
        let prompt = question.prompts.get(row).unwrap_or_default();
        let Some(scripted) = script.iter().find(|scripted| prompt.contains(&scripted.prompt)) else {
            let message = format!("the case's `models` have no text for this prompt of model `{}`: {prompt}", question.model);
            return Err(PluginFault::Fault { code: "no-script".into(), message });
        };
        for _ in 0..question.sampling.count {
            let tokens: Vec<u32> = scripted.text.bytes().map(u32::from).collect();
            answer.logprobs.push(&vec![0.0; tokens.len()]);
            answer.tokens.push(&tokens);
            answer.text.push(&scripted.text);
            answer.finish.push("stop".into());
        }
    }
    Ok(answer)
}

fn value(batch: &Batch, verdicts: &Verdicts) -> Value {
    let row = |row: usize| {
        let mut out = Map::new();
        match verdicts.faults.iter().find(|(at, _)| *at as usize == row) {
            Some((_, fault)) => {
                out.insert("status".into(), if fault.code == "abstain" { "abstained" } else { "failed" }.into());
                out.insert("code".into(), fault.code.clone().into());
                out.insert("message".into(), fault.message.clone().into());
            }
            None => {
                out.insert("status".into(), "scored".into());
                if let Some(scores) = &verdicts.scores {
                    out.insert("value".into(), scores[row].into());
                }
            }
        }
        let parts = verdicts.parts.iter().filter(|(_, values)| !values[row].is_nan());
        out.insert(
            "parts".into(),
            parts.map(|(name, values)| (name.clone(), Value::from(values[row]))).collect::<Map<_, _>>().into(),
        );
        if let Some(text) = verdicts.rationales.as_ref().and_then(|texts| texts.get(row)) {
            out.insert("rationale".into(), text.into());
        }
        Value::Object(out)
    };
    let rows: Vec<Value> = (0..batch.rows()).map(row).collect();
    if verdicts.pairs.is_none() && verdicts.matrices.is_none() {
        return rows.into();
    }
    let mut out = Map::from_iter([("rows".to_owned(), Value::from(rows))]);
    if let Some(pairs) = &verdicts.pairs {
        let pair = |at: usize| json!([pairs.first[at], pairs.second[at], pairs.probability[at]]);
        out.insert("pairs".into(), (0..pairs.first.len()).map(pair).collect());
    }
    if let Some(matrices) = &verdicts.matrices {
        let entries = matrices.values.iter().zip(&matrices.readable);
        out.insert(
            "matrices".into(),
            entries.map(|(value, readable)| if *readable { json!(value) } else { Value::Null }).collect(),
        );
    }
    Value::Object(out)
}

/// Calls a tool with each row of a case.
pub fn tool(tool: &PluginTool, rows: &[Map<String, Value>]) -> Value {
    let arguments: Texts = rows.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
    let row = |output| match output {
        Ok(text) => Value::String(text),
        Err(plumb_core::services::ServiceFault { code, message, .. }) => {
            json!({"status": "failed", "code": code, "message": message})
        }
    };
    tool.answer(&arguments).into_iter().map(row).collect()
}
