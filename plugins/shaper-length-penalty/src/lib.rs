//! Shaper plugin: soft punishment of overlong completions.

pub mod logic;

use logic::LengthPenalty;

plumb_sdk::export_shaper!(LengthPenalty);
