//! Why there is no answer.

use std::fmt;

/// Why there is no answer, for one row or for the whole batch.
///
/// Codes are open strings. [`Fault::ABSTAIN`] says "not my case"; every other code is a failure. Neither becomes a number
/// unless the recipe has a rule for it, so a plugin never has to invent a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For programs: kebab-case, stable.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}

impl Fault {
    /// The row is not this plugin's case.
    pub const ABSTAIN: &'static str = "abstain";
    /// The configuration is not valid.
    pub const BAD_CONFIG: &'static str = "bad-config";
    /// A tool was called with arguments that it does not take.
    pub const BAD_ARGUMENTS: &'static str = "bad-arguments";
    /// The batch lacks a column.
    pub const MISSING_COLUMN: &'static str = "missing-column";
    /// A text could not be read as what it should be.
    pub const UNPARSEABLE: &'static str = "unparseable";

    /// A fault with a code of the plugin's own.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { code: code.into(), message: message.into(), retryable: false }
    }

    /// "Not my case": the row gets no value, and that is no failure.
    pub fn abstain(message: impl Into<String>) -> Self {
        Fault::new(Self::ABSTAIN, message)
    }

    /// The configuration is not valid; `message` should name the key.
    pub fn bad_config(message: impl Into<String>) -> Self {
        Fault::new(Self::BAD_CONFIG, message)
    }

    /// A text could not be read as what it should be.
    pub fn unparseable(message: impl Into<String>) -> Self {
        Fault::new(Self::UNPARSEABLE, message)
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Whether it concerns the batch although a single row met it: one column is missing for all rows.
    pub(crate) fn concerns_batch(&self) -> bool {
        self.code == Self::MISSING_COLUMN || self.code == Self::BAD_CONFIG
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}

/// A fault of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// Row of the batch.
    pub row: u32,
    /// Why it has no value.
    pub fault: Fault,
}

/// Reads a configuration; the error names the place in the JSON and the reason.
pub(crate) fn parse_config<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Fault> {
    serde_json::from_str(json).map_err(|error| Fault::bad_config(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(rename = "bonus")]
        _bonus: f64,
    }

    #[test]
    fn parse_config_names_the_unknown_key() {
        let fault = parse_config::<Config>(r#"{"bonos": 1}"#).unwrap_err();
        assert_eq!(fault.code, Fault::BAD_CONFIG);
        assert!(fault.message.contains("unknown field `bonos`, expected `bonus`"), "{fault}");
    }
}
