//! Which completions, pairs and tokens go on.

pub mod best;
pub mod budget;
pub mod constrained;
pub mod curation;
pub mod filtration;
pub mod hierarchy;
pub mod hull;
pub mod instructions;
pub mod pairs;
pub mod prefix;
pub mod principles;
pub mod ranked;
pub mod strength;
pub mod top_k;
pub mod tree;
pub mod truncation;
