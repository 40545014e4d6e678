//! NeMo-Gym's resources server, `POST /verify`.
//!
//! The request has `responses_create_params` (what the policy was asked), `response` (an OpenAI `Response` object) and the fields
//! of the data set, such as `expected_answer` or `verifier_metadata`. The answer is the request with `reward` added; since 2026
//! also `mask_sample`, which takes a sample out of all statistics, and `failure_reason`
//! (`BaseVerifyRequest`, `BaseVerifyResponse` in `nemo_gym/base_resources_server.py`).

use serde_json::{Map, Value, json};

use super::super::scoring::{Scored, Scorer};
use super::{Reading, Rows, faults, malformed};

const HINT: &str =
    r#"NeMo-Gym sends {"responses_create_params": {"input": ...}, "response": {"output": [...]}, "expected_answer": "..."}"#;

/// The one row of a request: `completion` is all text that the policy's messages put out, `prompt` the last message of the input,
/// `expected_answer` also goes to the label column, and the data set's other fields are columns by their own names.
pub fn rows(request: &Map<String, Value>, reading: &Reading) -> Rows {
    let output = request.get("response").and_then(|response| response.get("output")).and_then(Value::as_array);
    let output = output.ok_or_else(|| malformed("`response.output` is missing or not a list", HINT))?;
    let mut row = Map::new();
    row.insert("completion".into(), output.iter().filter_map(message).collect::<String>().into());
    if let Some(prompt) = request.get("responses_create_params").and_then(|params| prompt(params.get("input")?)) {
        row.insert("prompt".into(), prompt.into());
    }
    for (name, value) in request {
        if !matches!(name.as_str(), "response" | "responses_create_params" | "verifier_metadata") {
            row.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let metadata = request.get("verifier_metadata");
    reading.label(&mut row, metadata.filter(|metadata| metadata.is_object()));
    if !row.contains_key(&reading.label_column) {
        let expected = row.get("expected_answer").cloned();
        reading.label(&mut row, expected.as_ref());
    }
    Ok(vec![row])
}

/// Text of an output item; reasoning and tool calls are no answer.
fn message(item: &Value) -> Option<String> {
    if item.get("type").is_some_and(|kind| kind != "message") {
        return None;
    }
    text(item.get("content")?)
}

/// Text that is text, or a list of parts with `text`.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part.get("text")?.as_str()).collect()),
        _ => None,
    }
}

fn prompt(input: &Value) -> Option<String> {
    match input {
        Value::Array(messages) => text(messages.last()?.get("content")?),
        other => text(other),
    }
}

/// The request with its reward. A value that the user put in place of a missing score is marked the protocol's own way.
pub fn answer(mut request: Map<String, Value>, scorer: &Scorer, scored: &[Scored]) -> Option<Value> {
    let row = scored.first()?;
    request.insert("reward".into(), row.value?.into());
    for (plugin, name) in scorer.names().into_iter().enumerate() {
        for (part, value) in &row.answers[plugin].parts {
            // Numbers at the top level are what NeMo-Gym averages; a field of the request keeps its name.
            request.entry(format!("{name}/{part}")).or_insert_with(|| json!(value));
        }
    }
    if row.faults().next().is_some() {
        request.insert("mask_sample".into(), true.into());
        request.insert("failure_reason".into(), Value::from(faults(scorer, scored)).to_string().into());
    }
    Some(Value::Object(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_is_the_text_of_messages_without_reasoning() {
        let request = json!({
            "responses_create_params": {"input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]},
            "response": {"output": [
                {"type": "reasoning", "summary": [{"text": "hm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "It is "}, {"type": "output_text", "text": "4"}]},
                {"type": "function_call", "arguments": "{}"},
            ]},
            "expected_answer": "4", "verifier_metadata": {"level": 3},
        });
        let reading = Reading { label_column: "answer".into(), end_of_text: Vec::new() };
        let rows = rows(request.as_object().unwrap(), &reading).unwrap();
        let row = json!({"completion": "It is 4", "prompt": "2+2?", "expected_answer": "4", "level": 3, "answer": "4"});
        assert_eq!(Value::from(rows[0].clone()), row);
        assert!(super::rows(json!({"response": {}}).as_object().unwrap(), &reading).is_err());
    }
}
