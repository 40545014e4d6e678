//! Which completions, pairs and tokens go on.

pub mod pairs;
pub mod prefix;
pub mod ranked;
pub mod top_k;
pub mod truncation;
