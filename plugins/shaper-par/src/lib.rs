//! Shaper plugin: bounded and centred rewards.

pub mod logic;
pub mod running;
pub mod transform;

use logic::Par;

plumb_sdk::export_stateful_shaper!(Par);
