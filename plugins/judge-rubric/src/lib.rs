//! Judge plugin: a model grades each completion against a rubric.

pub mod logic;

use logic::Rubric;

plumb_sdk::export_judge!(Rubric);
