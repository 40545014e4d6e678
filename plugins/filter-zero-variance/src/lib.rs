//! Filter plugin: drops groups whose completions all have the same value.

pub mod logic;

use logic::ZeroVariance;

plumb_sdk::export_filter!(ZeroVariance);
