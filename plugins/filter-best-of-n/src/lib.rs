//! Filter plugin: keeps the best completions of each group, or of the batch.

pub mod logic;

use logic::BestOfN;

plumb_sdk::export_filter!(BestOfN);
