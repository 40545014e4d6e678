//! slime's `remote_rm`: `POST {"prompt", "response", "label"}`, answered by a number
//! (`remote_rm` in `slime/rollout/rm_hub/__init__.py`).

use serde_json::{Map, Value};

use super::super::scoring::Scored;
use super::{Reading, Rows, malformed};

const HINT: &str = r#"slime sends {"prompt": "...", "response": "...", "label": "..."}"#;

/// The one row of a request. A prompt may be a list of messages, which reaches plugins as JSON; a label may be an object, whose keys
/// become columns.
pub fn rows(request: &Map<String, Value>, reading: &Reading) -> Rows {
    let Some(Value::String(response)) = request.get("response") else {
        return Err(malformed("`response` is missing or not text", HINT));
    };
    let mut row = Map::new();
    row.insert("completion".into(), response.clone().into());
    if let Some(prompt) = request.get("prompt").filter(|prompt| !prompt.is_null()) {
        row.insert("prompt".into(), prompt.clone());
    }
    reading.label(&mut row, request.get("label"));
    Ok(vec![row])
}

/// The row's value: a bare number.
pub fn answer(scored: &[Scored]) -> Option<Value> {
    scored.first()?.value.map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn request_becomes_a_row() {
        let reading = Reading { label_column: "truth".into(), end_of_text: Vec::new() };
        let request = json!({"prompt": [{"role": "user", "content": "2+2"}], "response": "4", "label": "4"});
        let rows = rows(request.as_object().unwrap(), &reading).unwrap();
        assert_eq!(
            Value::from(rows[0].clone()),
            json!({"completion": "4", "prompt": [{"role": "user", "content": "2+2"}], "truth": "4"})
        );
        assert!(super::rows(json!({"prompt": "x"}).as_object().unwrap(), &reading).is_err());
    }
}
