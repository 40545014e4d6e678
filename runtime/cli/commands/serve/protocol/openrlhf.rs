//! OpenRLHF's remote reward model, `POST /get_reward`.
//!
//! Request `{"query": [prompt and response], "prompts": [...], "labels": [...]}` as `openrlhf/utils/agent.py` sends it (0.8 and
//! later); before that `query` alone (`openrlhf/utils/remote_rm_utils.py`). Answer `{"rewards": [...], "scores": [...],
//! "extra_logs": {name: [...]}}`: rewards train, scores filter groups, extra_logs are logged.

use serde_json::{Map, Value, json};

use super::super::scoring::{Scored, Scorer};
use super::{Reading, Rows, malformed};

const HINT: &str = r#"OpenRLHF sends {"query": ["prompt and response"], "prompts": ["prompt"], "labels": ["answer"]}"#;

/// The rows of a request.
///
/// A query is prompt and response in one text, and plugins want the response: the prompt and any end-of-text marker are cut off.
/// A query that does not begin with its prompt is refused, since scoring the prompt's own numbers as an answer would go unseen.
pub fn rows(request: &Map<String, Value>, reading: &Reading) -> Rows {
    let list = |name: &str| match request.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(malformed(format!("`{name}` is not a list"), HINT)),
    };
    let queries = list("query")?.ok_or_else(|| malformed("`query` is missing", HINT))?;
    let (prompts, labels) = (list("prompts")?, list("labels")?);
    for (name, other) in [("prompts", prompts), ("labels", labels)] {
        if other.is_some_and(|other| other.len() != queries.len()) {
            return Err(malformed(format!("`{name}` and `query` are not equally long"), HINT));
        }
    }
    let row = |(i, query): (usize, &Value)| {
        let mut completion = query.as_str().ok_or_else(|| malformed(format!("`query[{i}]` is not text"), HINT))?;
        let mut row = Map::new();
        match prompts.map(|prompts| &prompts[i]) {
            None | Some(Value::Null) => {}
            Some(Value::String(prompt)) => {
                completion = completion.strip_prefix(prompt.as_str()).ok_or_else(|| {
                    malformed(
                        format!("`query[{i}]` does not begin with `prompts[{i}]`"),
                        "send the prompt as it stands in the query, chat template included, or leave `prompts` out",
                    )
                })?;
                row.insert("prompt".into(), prompt.clone().into());
            }
            Some(_) => return Err(malformed(format!("`prompts[{i}]` is not text"), HINT)),
        }
        while let Some(cut) = reading.end_of_text.iter().find_map(|end| completion.strip_suffix(end.as_str())) {
            completion = cut;
        }
        row.insert("completion".into(), completion.into());
        reading.label(&mut row, labels.map(|labels| &labels[i]));
        Ok(row)
    };
    queries.iter().enumerate().map(row).collect()
}

/// The answer, if every row has a value. Components that only some rows have are left out: a missing number has no place in a list.
pub fn answer(scorer: &Scorer, scored: &[Scored]) -> Option<Value> {
    let rewards: Vec<f64> = scored.iter().map(|row| row.value).collect::<Option<_>>()?;
    let mut logs = Map::new();
    for (plugin, name) in scorer.names().into_iter().enumerate() {
        let of_all = |number: &dyn Fn(&Scored) -> Option<f64>| scored.iter().map(number).collect::<Option<Vec<f64>>>();
        if let Some(values) = of_all(&|row| row.answers[plugin].outcome.value()) {
            logs.insert(format!("reward/{name}"), values.into());
        }
        for (part, _) in scored.first().map_or(&[][..], |row| &row.answers[plugin].parts) {
            let of_row = |row: &Scored| row.answers[plugin].parts.iter().find(|(name, _)| name == part).map(|(_, value)| *value);
            if let Some(values) = of_all(&of_row) {
                logs.insert(format!("{name}/{part}"), values.into());
            }
        }
    }
    if scorer.substitutes().is_some() {
        let counts: Vec<usize> = scored.iter().map(|row| row.faults().count()).collect();
        logs.insert("faults".into(), counts.into());
    }
    Some(json!({ "rewards": rewards, "scores": rewards, "extra_logs": logs }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: Value) -> Rows {
        let reading = Reading { label_column: "answer".into(), end_of_text: vec!["</s>".into()] };
        let Value::Object(request) = request else { panic!("an object") };
        rows(&request, &reading)
    }

    #[test]
    fn completion_is_the_query_without_prompt_and_end_of_text() {
        let rows = read(
            json!({"query": ["2+2=4</s></s>", "1+1=2"], "prompts": ["2+2=", "1+1="], "labels": ["4", {"answer": 2, "k": 1}]}),
        );
        let rows = rows.unwrap();
        assert_eq!(Value::from(rows[0].clone()), json!({"prompt": "2+2=", "completion": "4", "answer": "4"}));
        assert_eq!(Value::from(rows[1].clone()), json!({"prompt": "1+1=", "completion": "2", "answer": 2, "k": 1}));
        let old = read(json!({"query": ["2+2=4"]})).unwrap();
        assert_eq!(Value::from(old[0].clone()), json!({"completion": "2+2=4"}));
    }

    #[test]
    fn requests_of_another_form_are_refused_by_field() {
        let message = |request| read(request).unwrap_err().message;
        assert_eq!(message(json!({})), "`query` is missing");
        assert_eq!(message(json!({"query": "x"})), "`query` is not a list");
        assert_eq!(message(json!({"query": [1]})), "`query[0]` is not text");
        assert_eq!(message(json!({"query": ["a"], "labels": []})), "`labels` and `query` are not equally long");
        assert_eq!(message(json!({"query": ["ab"], "prompts": ["b"]})), "`query[0]` does not begin with `prompts[0]`");
    }
}
