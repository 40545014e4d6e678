//! Rewards: completions to numbers.

use serde::de::DeserializeOwned;

pub use crate::batch::{Batch, Row};
pub use crate::descriptor::{Descriptor, Part};
pub use crate::fault::{Fault, RowFault};
pub use crate::state::State;

/// A reward that looks at one row at a time.
///
/// Rows with a fault have no value; the others keep theirs. A fault about the whole batch, such as a missing column, ends the
/// call. Whoever works faster on many rows at once implements [`BatchReward`] instead.
pub trait Reward: Sized {
    /// The configuration, read from the recipe's JSON. `#[serde(default, deny_unknown_fields)]` makes a typo an error.
    type Config: DeserializeOwned;
    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// Takes a configuration and checks it.
    ///
    /// # Errors
    /// [`Fault::bad_config`] for values that make no sense; the run does not start then.
    fn new(config: Self::Config) -> Result<Self, Fault>;

    /// The row's reward.
    ///
    /// # Errors
    /// Whatever keeps the row from having one; [`Fault::abstain`] where it is not this reward's case.
    fn score_row(&self, row: &Row) -> Result<Score, Fault>;
}

/// A reward that looks at the whole batch.
///
/// For the sake of speed only: the runtime may split a batch anywhere, also within a group, and calls again with parts of it after
/// a fault. So a row's value may depend on that row alone; what compares the rows of a group belongs into a
/// [`Shaper`](crate::shaper::Shaper). Every [`Reward`] is one of these.
pub trait BatchReward: Sized {
    /// The configuration; see [`Reward::Config`].
    type Config: DeserializeOwned;
    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// Takes a configuration and checks it.
    ///
    /// # Errors
    /// As [`Reward::new`].
    fn new(config: Self::Config) -> Result<Self, Fault>;

    /// One value per row.
    ///
    /// # Errors
    /// What concerns the whole batch; faults of single rows stand in [`Rewards::faults`].
    fn score(&self, batch: &Batch) -> Result<Rewards, Fault>;
}

impl<T: Reward> BatchReward for T {
    type Config = T::Config;
    const DESCRIPTOR: Descriptor = T::DESCRIPTOR;

    fn new(config: T::Config) -> Result<Self, Fault> {
        <T as Reward>::new(config)
    }

    fn score(&self, batch: &Batch) -> Result<Rewards, Fault> {
        let mut rewards = Rewards::with_capacity(batch.rows());
        for row in batch.iter() {
            match self.score_row(&row) {
                Err(fault) if fault.concerns_batch() => return Err(fault),
                score => rewards.push(score),
            }
        }
        Ok(rewards)
    }
}

/// A reward that learns from what it scored, such as one that counts which answers it has seen in the run.
///
/// Calls of a step are made side by side, on parts of its batches: each begins with the state as it was when the step began, scores,
/// then observes its own rows, and saves. When the step ends, the states of its calls become one. So a row's value still depends on that
/// row alone, besides what the steps before left, and the state at the end is the same whatever ran first.
pub trait StatefulReward: BatchReward + State {
    /// Takes note of rows that `score` just answered. Rows with a fault have no value.
    ///
    /// # Errors
    /// Fails the call, as if `score` had failed.
    fn observe(&mut self, batch: &Batch, rewards: &Rewards) -> Result<(), Fault>;

    /// Adds up what the calls of a step learnt: `states` are what [`State::save`] gave after each, in the order of their rows, `self` is
    /// the state that they all began with.
    ///
    /// # Errors
    /// Whatever keeps them from being one; the step's are lost then, and the state stays that of the step before.
    fn merge(&mut self, states: &[Vec<u8>]) -> Result<(), Fault>;
}

/// One row's reward, with named components if there are any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// The reward. Must be finite: the runtime refuses NaN and infinities.
    pub value: f64,
    /// Named components, each at most once.
    pub parts: Vec<(&'static str, f64)>,
}

impl Score {
    /// A reward without components.
    pub fn new(value: f64) -> Self {
        Score { value, parts: Vec::new() }
    }

    /// Adds a component.
    #[must_use]
    pub fn part(mut self, name: &'static str, value: f64) -> Self {
        self.parts.push((name, value));
        self
    }
}

impl From<f64> for Score {
    fn from(value: f64) -> Self {
        Score::new(value)
    }
}

/// A batch's rewards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewards {
    /// One value per row; that of a row with a fault is ignored.
    pub values: Vec<f64>,
    /// Named components.
    pub parts: Vec<Part>,
    /// Rewards of stretches of the completions, besides `values`.
    pub spans: Vec<Spans>,
    /// Rows without a value.
    pub faults: Vec<RowFault>,
}

impl Rewards {
    /// No rows yet, with room for `rows`.
    pub fn with_capacity(rows: usize) -> Self {
        Rewards { values: Vec::with_capacity(rows), ..Rewards::default() }
    }

    /// Adds the next row. Rows that a part leaves out have NaN there, "no value".
    pub fn push(&mut self, score: Result<Score, Fault>) {
        let row = self.values.len();
        match score {
            Ok(score) => {
                self.values.push(score.value);
                for (name, value) in score.parts {
                    let index = self.parts.iter().position(|part| part.name == name).unwrap_or_else(|| {
                        self.parts.push(Part::new(name, vec![f64::NAN; row]));
                        self.parts.len() - 1
                    });
                    // Of a name given twice in a row the first counts.
                    if self.parts[index].values.len() == row {
                        self.parts[index].values.push(value);
                    }
                }
            }
            Err(fault) => {
                self.values.push(0.0);
                self.faults.push(RowFault { row: row as u32, fault });
            }
        }
        for part in &mut self.parts {
            part.values.resize(row + 1, f64::NAN);
        }
    }
}

impl From<Vec<f64>> for Rewards {
    fn from(values: Vec<f64>) -> Self {
        Rewards { values, ..Rewards::default() }
    }
}

/// What [`Spans`] count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Unicode scalar values of the completion.
    Char,
    /// Generated tokens.
    Token,
}

/// Rewards of stretches: stretch `i` is `[starts[i], stops[i])` of row `rows[i]`. All lists are equally long.
#[derive(Clone, Debug, PartialEq)]
pub struct Spans {
    /// Name of the component.
    pub name: String,
    /// What the bounds count.
    pub unit: Unit,
    /// Row of each stretch.
    pub rows: Vec<u32>,
    /// First unit of each stretch.
    pub starts: Vec<u32>,
    /// One past its last unit.
    pub stops: Vec<u32>,
    /// Its reward.
    pub values: Vec<f64>,
}

/// Exports a [`StatefulReward`] as this crate's plugin.
#[macro_export]
macro_rules! export_stateful_reward {
    ($plugin:ty) => {
        $crate::__export!(stateful_reward, $plugin);
    };
}

/// Exports a [`Reward`] or [`BatchReward`] as this crate's plugin.
///
/// Stands once in a crate of type `cdylib`; compiled natively it does nothing.
#[macro_export]
macro_rules! export_reward {
    ($plugin:ty) => {
        $crate::__export!(reward, $plugin);
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushed_scores_keep_parts_as_long_as_the_rows() {
        let mut rewards = Rewards::default();
        rewards.push(Ok(Score::new(1.0)));
        rewards.push(Ok(Score::new(2.0).part("a", 0.5).part("b", 0.25)));
        rewards.push(Err(Fault::abstain("not mine")));
        rewards.push(Ok(Score::new(3.0).part("b", 0.75)));
        assert_eq!(rewards.values, [1.0, 2.0, 0.0, 3.0]);
        assert_eq!(rewards.faults.iter().map(|fault| fault.row).collect::<Vec<_>>(), [2]);
        let bits = |name: &str| {
            let part = rewards.parts.iter().find(|part| part.name == name).unwrap();
            part.values.iter().map(|v| (!v.is_nan()).then_some(*v)).collect::<Vec<_>>()
        };
        assert_eq!(bits("a"), [None, Some(0.5), None, None]);
        assert_eq!(bits("b"), [None, Some(0.25), None, Some(0.75)]);
    }
}
