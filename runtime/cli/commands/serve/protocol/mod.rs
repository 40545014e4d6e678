//! Requests to rows, outcomes to answers: one file per protocol, nothing of HTTP.

pub mod native;
pub mod nemo_gym;
pub mod openrlhf;
pub mod slime;

use serde_json::{Map, Value, json};

use super::scoring::{Scored, Scorer};

/// How requests are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Column that labels go to.
    pub label_column: String,
    /// Texts cut off the end of queries.
    pub end_of_text: Vec<String>,
}

/// A request that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which field and why.
    pub message: String,
    /// What the protocol has there.
    pub hint: &'static str,
}

/// The rows of a request.
pub type Rows = Result<Vec<Map<String, Value>>, Malformed>;

impl Reading {
    /// Puts a label into a row: an object's keys become columns, anything else goes to the label column; null is nothing.
    fn label(&self, row: &mut Map<String, Value>, label: Option<&Value>) {
        match label {
            None | Some(Value::Null) => {}
            Some(Value::Object(columns)) => {
                for (name, value) in columns {
                    row.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            Some(label) => {
                row.insert(self.label_column.clone(), label.clone());
            }
        }
    }
}

/// Every plugin without a score, row by row.
pub fn faults(scorer: &Scorer, scored: &[Scored]) -> Vec<Value> {
    let names = scorer.names();
    let of_row = |(row, scored): (usize, &Scored)| -> Vec<Value> {
        let fault = |(plugin, status, fault): (usize, &'static str, &plumb_core::feedback::RowFault)| json!({"row": row, "plugin": names[plugin], "status": status, "code": fault.code, "message": fault.message});
        scored.faults().map(fault).collect()
    };
    scored.iter().enumerate().flat_map(of_row).collect()
}

fn malformed(message: impl Into<String>, hint: &'static str) -> Malformed {
    Malformed { message: message.into(), hint }
}
