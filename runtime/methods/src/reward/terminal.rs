//! Rewards of whole completions: a model's score with the rules on how completions end and how long they are.
//!
//! Reference: Sun et al. 2023, "SALMON", and Sun et al. 2023, "Aligning Large Multimodal Models with Factually Augmented RLHF", with the code released
//! with both.

/// What a completion without the stop token is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unfinished {
    /// Its score and this, below 0.
    Add(f64),
    /// This, whatever its score.
    Replace(f64),
}

/// A term by length: `coefficient · min(multiplier · length / longest, cap)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthTerm {
    /// Its weight; below 0 it is a penalty.
    pub coefficient: f64,
    /// Greatest length, tokens, at least 1.
    pub longest: usize,
    /// Most that the scaled ratio counts; infinity for no bound.
    pub cap: f64,
}

impl LengthTerm {
    /// Of a completion of `length` tokens; a `multiplier` of 0 switches the term off for its prompt.
    pub fn value(self, length: usize, multiplier: f64) -> f64 {
        let ratio = length as f64 / self.longest.max(1) as f64;
        self.coefficient * (ratio * multiplier).min(self.cap)
    }
}

/// Score, then the rule for completions without an end, then the term by length.
pub fn terminal_reward(
    score: f64,
    stopped: bool,
    unfinished: Unfinished,
    length: LengthTerm,
    tokens: usize,
    multiplier: f64,
) -> f64 {
    let ended = match unfinished {
        _ if stopped => score,
        Unfinished::Add(penalty) => score + penalty,
        Unfinished::Replace(value) => value,
    };
    ended + length.value(tokens, multiplier)
}

/// The correct answer of a question, as far as a rule can check it in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The option with this letter.
    Option(char),
    /// No.
    No,
    /// Yes: nothing is checked, or the policy learns to say yes to everything.
    Yes,
    /// Anything else: nothing is checked.
    General,
}

impl Truth {
    /// 1 for the right option, named at the start or as "correct option is"; where the truth is No, one half for it and minus one half for Yes; else 0.
    /// Upper and lower case differ.
    pub fn bonus(self, text: &str) -> f64 {
        let text = text.trim();
        match self {
            Truth::Option(letter) => {
                let named = text.starts_with(&format!("{letter}.")) || text.contains(&format!("correct option is {letter}."));
                f64::from(u8::from(named))
            }
            Truth::No if text.starts_with("No") => 0.5,
            Truth::No if text.starts_with("Yes") => -0.5,
            Truth::No | Truth::Yes | Truth::General => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn penalty_comes_before_the_term_by_length() {
        let length = LengthTerm { coefficient: 5.0, longest: 10, cap: 0.8 };
        let of = |stopped, unfinished, multiplier| terminal_reward(2.0, stopped, unfinished, length, 4, multiplier);
        let rewards = [
            of(true, Unfinished::Replace(-6.0), 1.0),
            of(false, Unfinished::Replace(-6.0), 1.0),
            of(false, Unfinished::Add(-6.0), 1.0),
            of(true, Unfinished::Add(-6.0), 3.0),
            of(true, Unfinished::Add(-6.0), 0.0),
        ];
        assert_close(&rewards, &[4.0, -4.0, -2.0, 6.0, 2.0]);
    }

    #[test]
    fn length_without_a_cap_or_a_maximum_is_finite() {
        let penalty = LengthTerm { coefficient: -10.0, longest: 4, cap: f64::INFINITY };
        assert_eq!([penalty.value(8, 1.0), penalty.value(0, 1.0), penalty.value(8, 0.0)], [-20.0, 0.0, 0.0]);
        assert_eq!(LengthTerm { longest: 0, ..penalty }.value(0, 1.0), 0.0);
    }

    #[test]
    fn symbolic_rules_read_the_start_and_keep_upper_case() {
        let option = |text| Truth::Option('B').bonus(text);
        assert_eq!(
            ["  B. A cat", "The correct option is B.", "b. A cat", "B", "Not B.", ""].map(option),
            [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
        );
        assert_eq!([" No.", "Yes, two", "no", "Maybe"].map(|text| Truth::No.bonus(text)), [0.5, -0.5, 0.0, 0.0]);
        assert_eq!((Truth::Yes.bonus("Yes"), Truth::General.bonus("B.")), (0.0, 0.0));
    }
}
