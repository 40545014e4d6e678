//! What a recipe configures, and the reward of a row.

use crate::compare::answers_match;
use crate::extract::{Extraction, extract, extract_latex};
use plumb_sdk::reward::{Batch, BatchReward, Descriptor, Fault, Rewards, Score};
use serde::Deserialize;

/// What a recipe may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Text column with the reference answer.
    pub answer: String,
    /// How the reference is written.
    pub answer_format: AnswerFormat,
    /// Reward of a completion whose answer is the reference answer.
    pub correct: f64,
    /// Reward of any other completion, one without an answer included.
    pub incorrect: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config { answer: "answer".to_owned(), answer_format: AnswerFormat::Text, correct: 1.0, incorrect: 0.0 }
    }
}

/// How a reference answer is written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerFormat {
    /// As completions are: a number, or LaTeX between delimiters, maybe with words around it.
    Text,
    /// LaTeX without delimiters, nothing else.
    Latex,
}

/// The reward.
pub struct MathAnswer {
    config: Config,
}

/// What became of one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// An answer was found in it.
    pub extracted: bool,
    /// That answer is the reference answer.
    pub correct: bool,
}

/// Compares a completion's answer with a reference that was read before.
pub fn grade(reference: &Extraction, completion: &str) -> Verdict {
    let found = extract(completion);
    let same_answer = match (&reference.answer, &found.answer) {
        (Some(reference), Some(candidate)) => answers_match(reference, candidate),
        _ => false,
    };
    // Answers that cannot be read can still be written alike.
    let same_text = || reference.text.is_some() && reference.text == found.text;
    Verdict { extracted: !found.is_empty(), correct: same_answer || same_text() }
}

impl MathAnswer {
    fn read_reference(&self, text: &str) -> Extraction {
        match self.config.answer_format {
            AnswerFormat::Text => extract(text),
            AnswerFormat::Latex => extract_latex(text),
        }
    }
}

impl BatchReward for MathAnswer {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .needs_columns(&["completion"])
        .outputs(&["extracted"])
        .config_schema(include_str!("../config.schema.json"));

    fn new(config: Config) -> Result<Self, Fault> {
        if !(config.correct.is_finite() && config.incorrect.is_finite()) {
            return Err(Fault::bad_config("`correct` and `incorrect` must be finite"));
        }
        Ok(MathAnswer { config })
    }

    fn score(&self, batch: &Batch) -> Result<Rewards, Fault> {
        let completions = batch.text("completion")?;
        let answers = batch.text(&self.config.answer)?;
        let mut rewards = Rewards::with_capacity(batch.rows());
        // The completions of a group share their reference: it is read once.
        let mut reference: Option<(&str, Extraction)> = None;
        for (answer, completion) in answers.iter().zip(completions.iter()) {
            let (_, extraction) = match &mut reference {
                Some(known) if known.0 == answer => known,
                other => other.insert((answer, self.read_reference(answer))),
            };
            rewards.push(if extraction.is_empty() {
                let shown: String = answer.chars().take(80).collect();
                Err(Fault::new("unparseable-reference", format!("no answer in the reference `{shown}`")))
            } else {
                let verdict = grade(extraction, completion);
                let value = if verdict.correct { self.config.correct } else { self.config.incorrect };
                Ok(Score::new(value).part("extracted", f64::from(u8::from(verdict.extracted))))
            });
        }
        Ok(rewards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_sdk::testing::{self, BatchBuilder};

    fn score(config: &str, answers: &[&str], completions: &[&str]) -> Rewards {
        let plugin: MathAnswer = testing::reward(config).unwrap();
        let data = BatchBuilder::new().text("answer", answers).text("completion", completions).build();
        plugin.score(&data.batch()).unwrap()
    }

    #[test]
    fn completions_are_rewarded_by_value_not_by_spelling() {
        let answers = ["$\\frac{1}{2}$"; 3];
        let rewards = score("{}", &answers, &["The answer is 0.5.", "\\boxed{\\frac{2}{4}}", "It is 2."]);
        assert_eq!(rewards.values, [1.0, 1.0, 0.0]);
        assert_eq!(rewards.parts[0].values, [1.0, 1.0, 1.0]);
    }

    #[test]
    fn completion_without_answer_is_incorrect_and_not_extracted() {
        let rewards = score(r#"{"correct": 2.0, "incorrect": -1.0}"#, &["5", "5"], &["I give up.", "5"]);
        assert_eq!(rewards.values, [-1.0, 2.0]);
        assert_eq!(rewards.parts[0].values, [0.0, 1.0]);
        assert!(rewards.faults.is_empty());
    }

    #[test]
    fn unparseable_reference_faults_its_row_and_spares_the_next() {
        let rewards = score("{}", &["no idea", "7"], &["7", "7"]);
        assert_eq!(rewards.faults.len(), 1);
        assert_eq!((rewards.faults[0].row, rewards.faults[0].fault.code.as_str()), (0, "unparseable-reference"));
        assert_eq!(rewards.values[1], 1.0);
    }

    #[test]
    fn latex_references_need_no_delimiters() {
        let config = r#"{"answer_format": "latex"}"#;
        assert_eq!(score(config, &["x^2+1"], &["$1+x^2$"]).values, [1.0]);
    }

    #[test]
    fn infinite_reward_is_refused() {
        assert!(MathAnswer::new(Config { correct: f64::INFINITY, ..Config::default() }).is_err());
    }
}
