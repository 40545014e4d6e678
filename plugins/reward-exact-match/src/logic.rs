//! What counts as giving the answer.

use std::borrow::Cow;

use plumb_sdk::reward::{Descriptor, Fault, Reward, Row, Score};
use serde::Deserialize;

/// What a recipe may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Text column with the reference answer.
    pub column: String,
    /// What is compared with it.
    pub mode: Mode,
    /// For [`Mode::AfterMarker`].
    pub marker: String,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Which white space counts.
    pub whitespace: Whitespace,
    /// Reward of a match.
    pub match_value: f64,
    /// Reward of anything else.
    pub mismatch_value: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            column: "answer".to_owned(),
            mode: Mode::Whole,
            marker: "####".to_owned(),
            ignore_case: false,
            whitespace: Whitespace::Collapse,
            match_value: 1.0,
            mismatch_value: 0.0,
        }
    }
}

/// What is compared with the answer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The completion.
    Whole,
    /// Any part of it that is not inside a longer word or number.
    Contains,
    /// Its last number, with the answer's last number.
    LastNumber,
    /// The rest of the line after the last marker.
    AfterMarker,
}

/// Which white space counts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Whitespace {
    /// None at the ends, and any run of it is one space.
    Collapse,
    /// None at the ends.
    Trim,
    /// All.
    Exact,
}

/// The reward.
pub struct ExactMatch {
    config: Config,
}

impl Reward for ExactMatch {
    type Config = Config;
    const DESCRIPTOR: Descriptor =
        plumb_sdk::descriptor!().needs_columns(&["completion"]).config_schema(include_str!("../config.schema.json"));

    fn new(config: Config) -> Result<Self, Fault> {
        if config.mode == Mode::AfterMarker && config.marker.is_empty() {
            return Err(Fault::bad_config("`marker` is empty, but mode `after-marker` needs one"));
        }
        if !(config.match_value.is_finite() && config.mismatch_value.is_finite()) {
            return Err(Fault::bad_config("`match_value` and `mismatch_value` must be finite"));
        }
        Ok(ExactMatch { config })
    }

    fn score_row(&self, row: &Row) -> Result<Score, Fault> {
        let answer = row.text(&self.config.column)?;
        if answer.trim().is_empty() {
            return Err(Fault::abstain(format!("the row's `{}` is empty", self.config.column)));
        }
        let matches = self.matches(row.text("completion")?, answer)?;
        Ok(Score::new(if matches { self.config.match_value } else { self.config.mismatch_value }))
    }
}

impl ExactMatch {
    fn matches(&self, completion: &str, answer: &str) -> Result<bool, Fault> {
        Ok(match self.config.mode {
            Mode::Whole => self.plain(completion) == self.plain(answer),
            Mode::Contains => contains(&self.plain(completion), &self.plain(answer)),
            Mode::LastNumber => {
                let expected = last_number(answer).ok_or_else(|| {
                    Fault::unparseable(format!("`{}` of the row has no number: {answer:?}", self.config.column))
                })?;
                last_number(completion).is_some_and(|found| found == expected)
            }
            Mode::AfterMarker => completion
                .rsplit_once(&self.config.marker)
                .and_then(|(_, after)| after.lines().next())
                .is_some_and(|line| self.plain(line.trim()) == self.plain(answer)),
        })
    }

    /// The text with what does not count taken out.
    fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = match self.config.whitespace {
            Whitespace::Exact => Cow::Borrowed(text),
            Whitespace::Trim => Cow::Borrowed(text.trim()),
            Whitespace::Collapse => {
                let words: Vec<&str> = text.split_whitespace().collect();
                match words.as_slice() {
                    [] => Cow::Borrowed(""),
                    [word] => Cow::Borrowed(*word),
                    _ => Cow::Owned(words.join(" ")),
                }
            }
        };
        if self.config.ignore_case { Cow::Owned(text.to_lowercase()) } else { text }
    }
}

/// Whether `answer` stands in `text`, not as part of a longer word or number: 4 is not in 42, 4.2, -4 or 1,400.
fn contains(text: &str, answer: &str) -> bool {
    let starts_number = answer.starts_with(|c: char| c.is_ascii_digit());
    let ends_number = answer.ends_with(|c: char| c.is_ascii_digit());
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || changes_its_neighbour(c));
    let in_number =
        |mark: Option<char>, digit: Option<char>| matches!(mark, Some('.' | ',')) && digit.is_some_and(|c| c.is_ascii_digit());
    text.match_indices(answer).any(|(start, _)| {
        let (mut before, mut after) = (text[..start].chars().rev(), text[start + answer.len()..].chars());
        let (b, bb, a, aa) = (before.next(), before.next(), after.next(), after.next());
        let joined_before = (in_word(answer.chars().next()) && in_word(b))
            || (starts_number && (in_number(b, bb) || (b == Some('-') && !in_word(bb))));
        let joined_after = (in_word(answer.chars().next_back()) && in_word(a)) || (ends_number && in_number(a, aa));
        !joined_before && !joined_after
    })
}

/// Characters without a place of their own: marks that are drawn over the character before them, and invisible ones. Beside the
/// answer they make another text of it: `4` and U+0338 is a 4 that is struck out.
fn changes_its_neighbour(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The last number of a text in its shortest decimal form: without thousands separators, `+`, or zeros that say nothing.
fn last_number(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let stop = (0..bytes.len()).rev().find(|&at| digit(at))? + 1;
    // Backwards over digits and the points and commas between them.
    let mut start = stop - 1;
    let mut point = None;
    loop {
        if start > 0 && digit(start - 1) {
            start -= 1;
        } else if start > 1 && bytes[start - 1] == b'.' && point.is_none() && digit(start - 2) && !text[start..stop].contains(',')
        {
            point = Some(start - 1);
            start -= 2;
        } else if start > 1
            && bytes[start - 1] == b','
            && digit(start - 2)
            && groups_of_three(&text[start..point.unwrap_or(stop)])
        {
            start -= 2;
        } else {
            break;
        }
    }
    // `.5` has no digit before its point.
    if point.is_none() && start > 0 && bytes[start - 1] == b'.' && (start == 1 || !bytes[start - 2].is_ascii_alphanumeric()) {
        point = Some(start - 1);
        start -= 1;
    }
    // A minus after a digit or a letter is an operator or a hyphen: `5-3`, `item-3`.
    let negative = start > 0 && bytes[start - 1] == b'-' && (start == 1 || !bytes[start - 2].is_ascii_alphanumeric());
    let whole: String = text[start..point.unwrap_or(stop)].chars().filter(|&c| c != ',').collect();
    let fraction = point.map_or("", |point| text[point + 1..stop].trim_end_matches('0'));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let zero = whole == "0" && fraction.is_empty();
    let sign = if negative && !zero { "-" } else { "" };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// Whether a comma may stand before these digits as a thousands separator.
fn groups_of_three(digits: &str) -> bool {
    digits.split(',').all(|group| group.len() == 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_sdk::reward::BatchReward;
    use plumb_sdk::testing::{self, BatchBuilder};

    /// Rewards under a configuration; None where there is none.
    fn score(config: &str, rows: &[(&str, &str)]) -> Vec<Option<f64>> {
        let reward: ExactMatch = testing::reward(config).unwrap();
        let (completions, answers): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        let data = BatchBuilder::new().text("completion", completions).text("answer", answers).build();
        let rewards = reward.score(&data.batch()).unwrap();
        let faulty = |row: usize| rewards.faults.iter().any(|fault| fault.row as usize == row);
        rewards.values.iter().enumerate().map(|(row, &value)| (!faulty(row)).then_some(value)).collect()
    }

    #[test]
    fn whole_ignores_outer_and_repeated_whitespace_only() {
        let rows = [(" 42\n", "42"), ("a  b", "a b"), ("42.", "42"), ("", "42"), ("A", "a")];
        assert_eq!(score("{}", &rows), [1.0, 1.0, 0.0, 0.0, 0.0].map(Some));
        assert_eq!(score(r#"{"ignore_case": true}"#, &[("ÄB", "äb")]), [Some(1.0)]);
        assert_eq!(score(r#"{"whitespace": "exact"}"#, &[(" 42", "42"), ("42", "42")]), [0.0, 1.0].map(Some));
        assert_eq!(score(r#"{"whitespace": "trim"}"#, &[(" 42", "42"), ("a  b", "a b")]), [1.0, 0.0].map(Some));
    }

    #[test]
    fn contains_is_not_fooled_by_longer_words_and_numbers() {
        let no = ["42", "14", "4.2", "3.4", "1,400", "-4", "x4", "4th", "4\u{338}", "4\u{200b}2", "\u{202e}4\u{202c}"];
        let yes = ["it is 4.", "4", "(4)", "2+2=4, so", "7-4", "4: yes"];
        let config = r#"{"mode": "contains"}"#;
        for text in no {
            assert_eq!(score(config, &[(text, "4")]), [Some(0.0)], "{text}");
        }
        for text in yes {
            assert_eq!(score(config, &[(text, "4")]), [Some(1.0)], "{text}");
        }
        assert_eq!(
            score(config, &[("the cat sat", "cat"), ("concatenate", "cat"), ("cats and a cat", "cat")]),
            [1.0, 0.0, 1.0].map(Some)
        );
    }

    #[test]
    fn last_number_is_read_in_its_shortest_form() {
        let cases = [
            ("5 + 7 = 12", "12"),
            ("1,234,567.50 dollars", "1234567.5"),
            ("007", "7"),
            ("-0.0", "0"),
            ("x = -3.10.", "-3.1"),
            ("5-3", "3"),
            ("1, 2,3", "3"),
            ("12,34", "34"),
            ("= .5", "0.5"),
            ("v1.2.3", "2.3"),
            ("0.10", "0.1"),
            ("100", "100"),
        ];
        for (text, expected) in cases {
            assert_eq!(last_number(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(last_number("none"), None);
    }

    #[test]
    fn last_number_compares_numbers_and_not_spellings() {
        let rows = [("so 1,200.0", "1200"), ("12 or 13", "12"), ("no idea", "3"), ("3", "three")];
        assert_eq!(score(r#"{"mode": "last-number"}"#, &rows), [Some(1.0), Some(0.0), Some(0.0), None]);
    }

    #[test]
    fn after_marker_reads_one_line_after_the_last_marker() {
        let rows = [("so\n#### 42\nbye", "42"), ("#### 1 #### 2", "2"), ("42", "42"), ("####", "42")];
        assert_eq!(score(r#"{"mode": "after-marker"}"#, &rows), [1.0, 1.0, 0.0, 0.0].map(Some));
    }

    #[test]
    fn values_are_configurable_and_rows_without_answer_are_abstained_from() {
        let config = r#"{"match_value": 2.0, "mismatch_value": -1.0}"#;
        assert_eq!(score(config, &[("a", "a"), ("b", "a"), ("a", " ")]), [Some(2.0), Some(-1.0), None]);
    }

    #[test]
    fn missing_answer_column_fails_the_batch_and_names_the_columns() {
        let reward: ExactMatch = testing::reward(r#"{"column": "label"}"#).unwrap();
        let data = BatchBuilder::new().text("completion", ["a"]).build();
        let fault = reward.score(&data.batch()).unwrap_err();
        assert_eq!(
            (fault.code.as_str(), fault.message.as_str()),
            ("missing-column", "no text column `label`; the batch has `completion`")
        );
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        assert_eq!(testing::reward::<ExactMatch>(r#"{"colunm": "x"}"#).err().unwrap().code, Fault::BAD_CONFIG);
        assert_eq!(
            testing::reward::<ExactMatch>(r#"{"mode": "after-marker", "marker": ""}"#).err().unwrap().code,
            Fault::BAD_CONFIG
        );
    }
}
