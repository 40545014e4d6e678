//! Training as a whole, with closures as plugins.
//!
//! - `support`: plugins made of closures, runs in temporary folders
//! - `feedback`: from scores to advantages and weights
//! - `judges`: judges and the models they ask, in a run and in its replay
//! - `filters`: pairs, new texts, groups sampled again, the data before the first step
//! - `learning`: small models that measurably learn
//! - `plugin_metrics`: what plugins and their faults leave in the metrics
//! - `inputs`: data and plugins of a run, and what a failed step leaves
//! - `repeat`: resumed runs and other thread counts leave the same bytes
//! - `sampled`: stages that learn from the policy's own completions without a policy gradient
//! - `swap`: plugins that change while a run goes on
//! - `preferences`: stages that learn from pairs of answers
//! - `direct`: stages that learn from pairs and labels in other ways than DPO
//! - `recipes`: shipped recipes that need no plugin
//! - `distill`: a student learns the distributions of a teacher
//! - `golden`: losses against numbers made elsewhere
//! - `curves`: ten steps of a real model against an independent implementation
#![allow(missing_docs)]

mod curves;
mod direct;
mod distill;
mod feedback;
mod filters;
mod inputs;
mod judges;
mod learning;
mod plugin_metrics;
mod preferences;
mod recipes;
mod repeat;
mod sampled;
mod support;
mod swap;
