//! Writing constraints that come with the row: `{"kind": "max_words", "value": 16}`.
//!
//! Each is trivially kept by a completion that says nothing (an empty one is lower-case and has no comma), so a completion must
//! first be one: a few words, and not the same ones over and over.

use std::collections::BTreeSet;

use plumb_sdk::Fault;
use serde::Deserialize;

/// A constraint on a completion's text.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Constraint {
    /// No upper-case letter.
    Lower,
    /// At most so many words.
    MaxWords(usize),
    /// The word stands in it, in either case, and not inside a longer word.
    Keyword(String),
    /// No comma.
    NoComma,
    /// The trimmed text ends with this, after something else.
    EndsWith(String),
}

/// When a text counts as a completion at all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Fewest words.
    pub min_words: usize,
    /// Smallest share of different words among all, in [0, 1].
    pub min_distinct: f64,
}

impl Constraint {
    /// Reads a row's constraint.
    ///
    /// # Errors
    /// `abstain` for a row without one, `unparseable` for one that this plugin does not know.
    pub fn parse(json: &str) -> Result<Self, Fault> {
        if matches!(json.trim(), "" | "null") {
            return Err(Fault::abstain("the row has no constraint"));
        }
        serde_json::from_str(json).map_err(|error| Fault::unparseable(format!("constraint {json}: {error}")))
    }

    /// Whether a text is a completion and keeps the constraint.
    pub fn holds(&self, text: &str, limits: Limits) -> bool {
        let text = text.trim();
        let says_something = |text: &str| enough_words(text, limits);
        says_something(text)
            && match self {
                Constraint::Lower => !text.chars().any(char::is_uppercase),
                Constraint::MaxWords(count) => text.split_whitespace().count() <= *count,
                Constraint::Keyword(word) => {
                    let word = word.to_lowercase();
                    words(text).any(|found| found == word)
                }
                Constraint::NoComma => !text.contains([',', '\u{ff0c}', '\u{3001}', '\u{60c}']),
                Constraint::EndsWith(ending) => text.strip_suffix(ending.trim()).is_some_and(says_something),
            }
    }
}

/// Words in lower case, without the punctuation around them; what has no letter is none.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|word| word.chars().any(char::is_alphabetic))
}

fn enough_words(text: &str, limits: Limits) -> bool {
    let (mut count, mut distinct) = (0_usize, BTreeSet::new());
    for word in words(text) {
        count += 1;
        distinct.insert(word);
    }
    count >= limits.min_words.max(1) && distinct.len() as f64 >= limits.min_distinct * count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { min_words: 3, min_distinct: 0.3 };

    fn holds(constraint: &str, text: &str) -> bool {
        Constraint::parse(constraint).unwrap().holds(text, LIMITS)
    }

    #[test]
    fn each_kind_is_kept_by_texts_that_keep_it() {
        for (constraint, kept, broken) in [
            (r#"{"kind": "lower"}"#, "the train is late", "The train is late"),
            (r#"{"kind": "max_words", "value": 4}"#, "a market at dawn", "a busy market at dawn"),
            (r#"{"kind": "keyword", "value": "bright"}"#, "The sea was Bright.", "The sea was brighter still."),
            (r#"{"kind": "no_comma"}"#, "Books everywhere. And silence.", "Books, books and silence"),
            (r#"{"kind": "ends_with", "value": "The end."}"#, "They walked home. The end.\n", "The end. They walked home."),
        ] {
            assert!(holds(constraint, kept), "{constraint}");
            assert!(!holds(constraint, broken), "{constraint}");
        }
    }

    #[test]
    fn texts_that_say_nothing_keep_no_constraint() {
        let constraints = [r#"{"kind": "lower"}"#, r#"{"kind": "no_comma"}"#, r#"{"kind": "max_words", "value": 16}"#];
        for constraint in constraints {
            for text in ["", "  \n", "...", "ok", "1 2 3 4", "no no no no no no no no"] {
                assert!(!holds(constraint, text), "{constraint} by {text:?}");
            }
        }
        assert!(!holds(r#"{"kind": "keyword", "value": "bright"}"#, "bright"));
        assert!(!holds(r#"{"kind": "ends_with", "value": "That is all."}"#, "That is all."));
    }

    #[test]
    fn parse_tells_no_constraint_from_an_unknown_one() {
        assert_eq!(Constraint::parse(" ").unwrap_err().code, Fault::ABSTAIN);
        assert_eq!(Constraint::parse(r#"{"kind": "rhyme"}"#).unwrap_err().code, Fault::UNPARSEABLE);
        assert_eq!(Constraint::parse(r#"{"kind": "max_words", "value": "few"}"#).unwrap_err().code, Fault::UNPARSEABLE);
    }
}
