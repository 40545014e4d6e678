//! Judge plugin: a model compares two completions at a time.

pub mod logic;

use logic::Pairwise;

plumb_sdk::export_judge!(Pairwise);
