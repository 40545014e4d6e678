//! Which completions, pairs and tokens go on.

pub mod budget;
pub mod instructions;
pub mod pairs;
pub mod prefix;
pub mod ranked;
pub mod top_k;
pub mod truncation;
