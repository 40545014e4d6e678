//! Rewards of a judge that is trained: whether its written choice between two answers, 1 or 2, is the preferred one.
//!
//! Reference: Jiao et al. 2025, "Think Twice: Branch-and-Rethink Reasoning Reward Model" (BR-RM), whose judge writes in two turns: what to look at
//! first, and the choice in the second.

/// The choice in a text: its integer, or its first run of digits where it is none. None without a digit.
pub fn written_choice(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number(text.strip_prefix(['+', '-']).unwrap_or(text)) {
        text
    } else {
        text.split(|c: char| !c.is_ascii_digit()).find(|run| !run.is_empty())?
    };
    number.parse().ok()
}

/// Rewards by the distance of the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Cost of each 1 that the choice is away from the preferred answer.
    pub unit: f64,
    /// Reward of a turn that cannot be read.
    pub malformed: f64,
}

impl Distance {
    /// Sum over both turns: the first has `malformed` where it could not be read, else 0; the second `-unit · |choice - preferred|`, or `malformed`.
    pub fn reward(self, first_turn_read: bool, choice: Option<f64>, preferred: u8) -> f64 {
        let first = if first_turn_read { 0.0 } else { self.malformed };
        first + choice.map_or(self.malformed, |choice| -self.unit * (choice - f64::from(preferred)).abs())
    }
}

/// Rewards by what became of the judgement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binary {
    /// Of the preferred answer.
    pub correct: f64,
    /// Of the other one.
    pub wrong: f64,
    /// Where a turn cannot be read, and of a choice that is neither 1 nor 2.
    pub malformed: f64,
}

impl Binary {
    /// One reward for both turns.
    pub fn reward(self, first_turn_read: bool, choice: Option<f64>, preferred: u8) -> f64 {
        match choice.filter(|choice| first_turn_read && [1.0, 2.0].contains(choice)) {
            None => self.malformed,
            Some(choice) if choice == f64::from(preferred) => self.correct,
            Some(_) => self.wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_integers_or_first_runs_of_digits() {
        let choices = ["2", " 1\n", "-1", "+2", "answer 2, not 1", "1.5", "", "-", "first", "one2"];
        let want = [Some(2.0), Some(1.0), Some(-1.0), Some(2.0), Some(2.0), Some(1.0), None, None, None, Some(2.0)];
        assert_eq!(choices.map(written_choice), want);
    }

    #[test]
    fn failed_first_turn_keeps_the_reward_of_the_second() {
        let rule = Distance { unit: 10.0, malformed: -100.0 };
        let choices = [Some(1.0), Some(2.0), Some(7.0), None];
        assert_eq!(choices.map(|choice| rule.reward(true, choice, 1)), [0.0, -10.0, -60.0, -100.0]);
        assert_eq!(choices.map(|choice| rule.reward(false, choice, 1)), [-100.0, -110.0, -160.0, -200.0]);
    }

    #[test]
    fn choice_out_of_range_is_malformed_in_the_binary_rule() {
        let rule = Binary { correct: 1.0, wrong: 0.0, malformed: -1.0 };
        let choices = [Some(1.0), Some(2.0), Some(7.0), Some(0.0), None];
        assert_eq!(choices.map(|choice| rule.reward(true, choice, 2)), [0.0, 1.0, -1.0, -1.0, -1.0]);
        assert_eq!(choices.map(|choice| rule.reward(false, choice, 2)), [-1.0; 5]);
    }
}
