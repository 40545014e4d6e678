//! Reward plugin: whether a completion has the form it should have.

pub mod constraint;
pub mod logic;

use logic::Format;

plumb_sdk::export_reward!(Format);
