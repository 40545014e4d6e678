//! Reward models beyond one linear head, and how several of their outputs become one number.

pub mod anchored;
pub mod attributes;
pub mod combine;
pub mod confident;
pub mod ensemble;
pub mod expectation_maximization;
pub mod features;
pub mod feedback;
pub mod gating;
pub mod gaussian;
pub mod goal;
pub mod hierarchy;
pub mod implicit;
pub mod judged;
pub mod latent;
pub mod length;
pub mod mixture;
pub mod mlp;
pub mod outcome;
pub mod ridge;
pub mod scaling;
pub mod segments;
pub mod steps;
pub mod terminal;
