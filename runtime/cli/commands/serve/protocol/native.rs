//! `POST /v1/score`: rows and outcomes, nothing lost.
//!
//! Request `{"rows": [{"completion": "4", "answer": "4"}]}`. The answer has one object per row: `value` (null without a score),
//! `status` (`scored`, `abstained`, `failed`), `substituted` where the value is the user's `--on-fault value=X` for some plugin, and
//! `plugins` with each plugin's `status`, `value`, `parts`, `code` and `message`.

use serde_json::{Map, Value, json};

use super::super::scoring::{Scored, Scorer};
use super::{Rows, malformed};

const HINT: &str = r#"send {"rows": [{"completion": "4", "answer": "4"}]}"#;

/// The rows of a request, as they are.
pub fn rows(request: &Map<String, Value>) -> Rows {
    let Some(Value::Array(rows)) = request.get("rows") else {
        return Err(malformed("`rows` is missing or not a list", HINT));
    };
    let object = |(i, row): (usize, &Value)| {
        row.as_object().cloned().ok_or_else(|| malformed(format!("`rows[{i}]` is not an object"), HINT))
    };
    rows.iter().enumerate().map(object).collect()
}

/// The answer, which rows without a score are part of.
pub fn answer(scorer: &Scorer, scored: &[Scored]) -> Value {
    let names = scorer.names();
    let row = |row: &Scored| {
        let mut plugins = Map::new();
        for (name, answer) in names.iter().zip(&row.answers) {
            let parts: Map<String, Value> = answer.parts.iter().map(|(part, value)| (part.clone(), json!(value))).collect();
            plugins.insert((*name).to_owned(), json!({"status": "scored", "value": answer.outcome.value(), "parts": parts}));
        }
        let mut status = "scored";
        for (plugin, its, fault) in row.faults() {
            let answer = &mut plugins[names[plugin]];
            (answer["status"], answer["code"], answer["message"]) = (its.into(), json!(fault.code), json!(fault.message));
            status = if its == "failed" { its } else { ["abstained", status][usize::from(status == "failed")] };
        }
        let substituted = status != "scored" && row.value.is_some();
        json!({"value": row.value, "status": status, "substituted": substituted, "plugins": plugins})
    };
    json!({ "rows": scored.iter().map(row).collect::<Vec<_>>() })
}
