//! The checks of a completion's form, and how they make a reward.

use plumb_sdk::reward::{Descriptor, Fault, Reward, Row, Score};
use regex_lite::Regex;
use serde::Deserialize;

use crate::constraint::{Constraint, Limits};

/// What a recipe may set: at least one check.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The completion matches a pattern.
    pub regex: Option<RegexCheck>,
    /// The completion consists of sections in tags.
    pub tags: Option<TagsCheck>,
    /// The completion is JSON.
    pub json: Option<JsonCheck>,
    /// The completion keeps the constraint in a column of its row.
    pub constraint: Option<ConstraintCheck>,
    /// How several checks make one reward.
    pub combine: Combine,
    /// Reward when the checks hold.
    pub match_value: f64,
    /// Reward when none does.
    pub mismatch_value: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            regex: None,
            tags: None,
            json: None,
            constraint: None,
            combine: Combine::All,
            match_value: 1.0,
            mismatch_value: 0.0,
        }
    }
}

/// How several checks make one reward.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// All must hold.
    All,
    /// Each counts the same, so a part of them gives a part of the reward.
    Mean,
}

/// The completion matches a pattern.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexCheck {
    /// Its syntax is that of the `regex` crate, with ASCII classes.
    pub pattern: String,
    /// Whether all of the completion (trimmed) must match, not only a part.
    #[serde(default)]
    pub full: bool,
}

/// The completion consists of sections in tags.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagsCheck {
    /// Tags in their order: `think` stands for `<think>...</think>`.
    pub names: Vec<String>,
    /// Whether there may be nothing but white space outside them.
    #[serde(default = "yes")]
    pub only: bool,
}

/// The completion is JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonCheck {
    /// Keys that the top-level object must have, with a value other than null. Any JSON will do when there are none.
    pub required: Vec<String>,
    /// Whether the JSON may stand in a Markdown code fence, with nothing around that.
    pub fenced: bool,
}

/// The completion keeps the constraint in a column of its row.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConstraintCheck {
    /// Text column with a JSON object `{"kind": ..., "value": ...}`.
    pub column: String,
    /// Fewest words for a completion to count as one.
    pub min_words: usize,
    /// Smallest share of different words among all, in [0, 1].
    pub min_distinct: f64,
}

impl Default for ConstraintCheck {
    fn default() -> Self {
        ConstraintCheck { column: "constraint".to_owned(), min_words: 3, min_distinct: 0.3 }
    }
}

fn yes() -> bool {
    true
}

/// The reward.
pub struct Format {
    config: Config,
    regex: Option<Regex>,
}

impl Reward for Format {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .needs_columns(&["completion"])
        .outputs(&["regex", "tags", "json", "constraint"])
        .config_schema(include_str!("../config.schema.json"));

    fn new(config: Config) -> Result<Self, Fault> {
        let bad = |message: &str| Err(Fault::bad_config(message));
        if config.regex.is_none() && config.tags.is_none() && config.json.is_none() && config.constraint.is_none() {
            return bad("no check: set at least one of `regex`, `tags`, `json`, `constraint`");
        }
        if config.tags.as_ref().is_some_and(|tags| tags.names.is_empty() || tags.names.iter().any(String::is_empty)) {
            return bad("`tags.names` must name at least one tag, and none may be empty");
        }
        if config.constraint.as_ref().is_some_and(|check| !(0.0..=1.0).contains(&check.min_distinct)) {
            return bad("`constraint.min_distinct` must be in [0, 1]");
        }
        if !(config.match_value.is_finite() && config.mismatch_value.is_finite()) {
            return bad("`match_value` and `mismatch_value` must be finite");
        }
        let regex = config.regex.as_ref().map(RegexCheck::compile).transpose()?;
        Ok(Format { config, regex })
    }

    fn score_row(&self, row: &Row) -> Result<Score, Fault> {
        let completion = row.text("completion")?;
        let mut held = Vec::new();
        if let Some(regex) = &self.regex {
            held.push(("regex", regex.is_match(completion.trim())));
        }
        if let Some(tags) = &self.config.tags {
            held.push(("tags", tags.holds(completion)));
        }
        if let Some(json) = &self.config.json {
            held.push(("json", json.holds(completion)));
        }
        if let Some(check) = &self.config.constraint {
            let constraint = Constraint::parse(row.text(&check.column)?)?;
            let limits = Limits { min_words: check.min_words, min_distinct: check.min_distinct };
            held.push(("constraint", constraint.holds(completion, limits)));
        }
        Ok(self.reward(&held))
    }
}

impl Format {
    fn reward(&self, held: &[(&'static str, bool)]) -> Score {
        let count = held.iter().filter(|(_, holds)| *holds).count();
        let share = match self.config.combine {
            Combine::All => f64::from(count == held.len()),
            Combine::Mean => count as f64 / held.len() as f64,
        };
        let Config { match_value, mismatch_value, .. } = self.config;
        let score = Score::new(mismatch_value + share * (match_value - mismatch_value));
        held.iter().fold(score, |score, &(name, holds)| score.part(name, f64::from(holds)))
    }
}

impl RegexCheck {
    fn compile(&self) -> Result<Regex, Fault> {
        let pattern = if self.full { format!("^(?:{})$", self.pattern) } else { self.pattern.clone() };
        Regex::new(&pattern).map_err(|error| Fault::bad_config(format!("`regex.pattern`: {error}")))
    }
}

impl TagsCheck {
    /// Each tag once, in order, closed before the next opens, with something inside.
    fn holds(&self, completion: &str) -> bool {
        let blank = |text: &str| text.trim().is_empty();
        let mut rest = completion;
        for name in &self.names {
            let (open, close) = (format!("<{name}>"), format!("</{name}>"));
            if completion.matches(&open).count() != 1 || completion.matches(&close).count() != 1 {
                return false;
            }
            let Some((before, after)) = rest.split_once(&open) else { return false };
            let Some((inside, after)) = after.split_once(&close) else { return false };
            if blank(inside) || (self.only && !blank(before)) {
                return false;
            }
            rest = after;
        }
        !self.only || blank(rest)
    }
}

impl JsonCheck {
    fn holds(&self, completion: &str) -> bool {
        let text = completion.trim();
        let text = if self.fenced { unfenced(text).unwrap_or(text) } else { text };
        let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return false };
        self.required.iter().all(|key| value.get(key).is_some_and(|found| !found.is_null()))
    }
}

/// What stands between the fence's lines, if the text is one fence.
fn unfenced(text: &str) -> Option<&str> {
    let (language, inside) = text.strip_prefix("```")?.strip_suffix("```")?.split_once('\n')?;
    matches!(language.trim(), "" | "json").then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_sdk::reward::{BatchReward, Rewards};
    use plumb_sdk::testing::{self, BatchBuilder};

    fn score(config: &str, completions: &[&str]) -> Rewards {
        let reward: Format = testing::reward(config).unwrap();
        reward.score(&BatchBuilder::new().text("completion", completions).build().batch()).unwrap()
    }

    #[test]
    fn regex_searches_or_must_match_everything() {
        assert_eq!(score(r#"{"regex": {"pattern": "[0-9]+"}}"#, &["a 12 b", "none"]).values, [1.0, 0.0]);
        assert_eq!(
            score(r#"{"regex": {"pattern": "[0-9]+|x", "full": true}}"#, &[" 12\n", "x", "12 b", "xx"]).values,
            [1.0, 1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn tags_stand_once_in_order_and_filled() {
        let config = r#"{"tags": {"names": ["think", "answer"]}}"#;
        let good = ["<think>a</think><answer>4</answer>", " <think>a</think>\n<answer>4</answer>\n"];
        let bad = [
            "",
            "<answer>4</answer><think>a</think>",
            "<think>a</think><answer> </answer>",
            "<think>a</think><answer>4</answer> extra",
            "<think>a<answer>4</answer></think>",
            "<think>a</think><answer>4</answer><answer>5</answer>",
            "<think>a</think>",
        ];
        assert_eq!(score(config, &good).values, [1.0; 2]);
        assert_eq!(score(config, &bad).values, [0.0; 7]);
        let loose = r#"{"tags": {"names": ["answer"], "only": false}}"#;
        assert_eq!(score(loose, &["so <answer>4</answer>."]).values, [1.0]);
    }

    #[test]
    fn json_needs_its_keys_with_values() {
        let config = r#"{"json": {"required": ["name", "age"]}}"#;
        let texts = [
            r#"{"name": "a", "age": 3}"#,
            r#"{"name": "a", "age": null}"#,
            r#"["name", "age"]"#,
            "{name: a}",
            "```json\n{}\n```",
        ];
        assert_eq!(score(config, &texts).values, [1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(score(r#"{"json": {"fenced": true}}"#, &["```json\n{}\n```", "{}", "```\n{\n```"]).values, [1.0, 1.0, 0.0]);
    }

    #[test]
    fn combined_checks_give_all_or_a_share_and_a_part_each() {
        let texts = [r#"{"a": 1}"#, "1", "x"];
        let checks = r#""json": {"required": ["a"]}, "regex": {"pattern": "1"}"#;
        let all = score(&format!("{{{checks}}}"), &texts);
        assert_eq!(all.values, [1.0, 0.0, 0.0]);
        let parts: Vec<_> = all.parts.iter().map(|part| (part.name.as_str(), part.values.clone())).collect();
        assert_eq!(parts, [("regex", vec![1.0, 1.0, 0.0]), ("json", vec![1.0, 0.0, 0.0])]);
        let mean = score(&format!(r#"{{{checks}, "combine": "mean", "match_value": 2.0, "mismatch_value": -1.0}}"#), &texts);
        assert_eq!(mean.values, [2.0, 0.5, -1.0]);
    }

    #[test]
    fn constraint_column_decides_row_by_row() {
        let reward: Format = testing::reward(r#"{"constraint": {}}"#).unwrap();
        let data = BatchBuilder::new()
            .text(
                "completion",
                ["all of it small", "One, two, three", "One two three", "whatever it says", "four words are here"],
            )
            .text(
                "constraint",
                [r#"{"kind": "lower"}"#, r#"{"kind": "no_comma"}"#, r#"{"kind": "no_comma"}"#, "", r#"{"kind": "rhyme"}"#],
            )
            .build();
        let rewards = reward.score(&data.batch()).unwrap();
        assert_eq!(rewards.values[..3], [1.0, 0.0, 1.0]);
        let codes: Vec<_> = rewards.faults.iter().map(|fault| (fault.row, fault.fault.code.as_str())).collect();
        assert_eq!(codes, [(3, Fault::ABSTAIN), (4, Fault::UNPARSEABLE)]);
    }

    #[test]
    fn configurations_without_sense_are_refused_with_their_key() {
        for (config, key) in [
            ("{}", "no check"),
            (r#"{"regex": {"pattern": "("}}"#, "regex.pattern"),
            (r#"{"tags": {"names": []}}"#, "tags.names"),
            (r#"{"constraint": {"min_distinct": 2}}"#, "min_distinct"),
            (r#"{"jsn": {}}"#, "jsn"),
        ] {
            let fault = testing::reward::<Format>(config).err().unwrap();
            assert_eq!(fault.code, Fault::BAD_CONFIG);
            assert!(fault.message.contains(key), "{config}: {fault}");
        }
    }
}
