//! Reward plugin: one value for completions that give the reference answer, another for those that do not.

pub mod logic;

use logic::ExactMatch;

plumb_sdk::export_reward!(ExactMatch);
