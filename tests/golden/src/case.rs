//! A case, and how operations read it.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What an operation gives: an object of numbers, texts and lists, as the cases expect it. It may hold more than a case expects.
pub type Answer = Value;

/// One case of a method.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Name of the operation; means something together with the method only.
    pub operation: String,
    /// Its constants.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// What it is applied to.
    #[serde(default)]
    pub inputs: Map<String, Value>,
    /// What must come out.
    pub expected: Value,
    /// Greatest difference of a number, absolute below 1 and relative above.
    pub tolerance: f64,
}

impl Case {
    /// A constant by name.
    pub fn param<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        get(&self.params, name)?.ok_or_else(|| anyhow!("the case has no parameter `{name}`"))
    }

    /// A constant that may be absent or null.
    pub fn param_or<T: DeserializeOwned>(&self, name: &str, default: T) -> Result<T> {
        Ok(get(&self.params, name)?.unwrap_or(default))
    }

    /// A constant that is one of some words; the first of them where it is absent or null.
    pub fn choice<T: Copy>(&self, name: &str, options: &[(&str, T)]) -> Result<T> {
        let Some(word) = get::<String>(&self.params, name)? else { return Ok(options[0].1) };
        let found = options.iter().find(|(option, _)| *option == word);
        found.map(|(_, value)| *value).ok_or_else(|| anyhow!("`{name}` cannot be `{word}`"))
    }

    /// An input by name.
    pub fn input<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        get(&self.inputs, name)?.ok_or_else(|| anyhow!("the case has no input `{name}`"))
    }

    /// An input that may be absent or null.
    pub fn input_opt<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        get(&self.inputs, name)
    }
}

/// A truth: a boolean, or 0 and what is not 0.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "WrittenTruth")]
pub struct Truth(pub bool);

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenTruth {
    Bool(bool),
    Number(f64),
}

impl From<WrittenTruth> for Truth {
    fn from(written: WrittenTruth) -> Self {
        match written {
            WrittenTruth::Bool(truth) => Truth(truth),
            WrittenTruth::Number(number) => Truth(number != 0.0),
        }
    }
}

impl Case {
    /// An input of truths.
    pub fn truths(&self, name: &str) -> Result<Vec<bool>> {
        Ok(self.input::<Vec<Truth>>(name)?.iter().map(|truth| truth.0).collect())
    }

    /// An input of rows of truths, such as a mask.
    pub fn truth_rows(&self, name: &str) -> Result<Vec<Vec<bool>>> {
        Ok(self.input::<Vec<Vec<Truth>>>(name)?.iter().map(|row| row.iter().map(|truth| truth.0).collect()).collect())
    }
}

/// None where the entry is absent or null.
fn get<T: DeserializeOwned>(entries: &Map<String, Value>, name: &str) -> Result<Option<T>> {
    match entries.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).with_context(|| format!("`{name}` is of another kind: {value}")),
    }
}

/// An operation: from a case to its answer, by the function that training calls.
pub type Operation = fn(&Case) -> Result<Answer>;

/// The operations of one method.
pub struct Sheet {
    /// Number and name, such as `27-dpo`.
    pub method: &'static str,
    /// Operations by name.
    pub operations: &'static [(&'static str, Operation)],
}
