//! Reward models that also learn to write what leads to their reward: tool calls, observations, rationales.
//!
//! Reference: Li et al. 2023, "Tool-Augmented Reward Modeling" (Themis), equation 4.

use candle_core::Tensor;

use super::sft::sft;

/// What a token of a trace belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The question and the answer, which are given.
    Given,
    /// A tool call.
    Tool,
    /// What the tool said.
    Observation,
    /// The reasoning before the reward.
    Rationale,
}

/// Weights of the segments' losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentWeights {
    /// Of tool calls.
    pub alpha: f64,
    /// Of observations, times alpha.
    pub beta: f64,
    /// Of rationales.
    pub omega: f64,
}

impl SegmentWeights {
    /// Weight of a token.
    pub fn of(self, segment: Segment) -> f64 {
        match segment {
            Segment::Given => 0.0,
            Segment::Tool => self.alpha,
            Segment::Observation => self.alpha * self.beta,
            Segment::Rationale => self.omega,
        }
    }
}

/// What the weighted sum over tokens is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalisation {
    /// The number of traces.
    #[default]
    Sum,
    /// The sum of the weights; the loss is 0 where that is.
    TokenMean,
}

/// Weighted negative log-likelihood of traces, `[]`.
///
/// # Shapes
/// - `logprobs`: `[M]` over the tokens of all traces, one after the other, nats; gradient flows to it.
/// - `segments`: one per token.
pub fn trace_loss(
    logprobs: &Tensor,
    segments: &[Segment],
    traces: usize,
    weights: SegmentWeights,
    normalisation: Normalisation,
) -> candle_core::Result<Tensor> {
    let weights: Vec<f64> = segments.iter().map(|&segment| weights.of(segment)).collect();
    let divisor = match normalisation {
        Normalisation::Sum => traces.max(1) as f64,
        Normalisation::TokenMean => Some(weights.iter().sum()).filter(|sum| *sum > 0.0).unwrap_or(1.0),
    };
    let weights = Tensor::from_iter(weights.into_iter().map(|weight| weight / divisor), logprobs.device())?;
    sft(logprobs, &weights.to_dtype(logprobs.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, gradients, vector};

    const SEGMENTS: [Segment; 4] = [Segment::Given, Segment::Tool, Segment::Observation, Segment::Rationale];
    const WEIGHTS: SegmentWeights = SegmentWeights { alpha: 2.0, beta: 0.5, omega: 1.0 };

    #[test]
    fn segments_have_their_weights_and_what_is_given_has_none() {
        let leaf = [vector(&[-9.0, -1.0, -2.0, -3.0])];
        let of = |normalisation| gradients(&leaf, |x| trace_loss(&x[0], &SEGMENTS, 2, WEIGHTS, normalisation)).unwrap();
        let (sum, gradient) = of(Normalisation::Sum);
        assert_close(&[sum, of(Normalisation::TokenMean).0], &[3.5, 1.75]);
        assert_close(&gradient[0], &[0.0, -1.0, -0.5, -0.5]);
        check_gradients(&leaf, 1e-8, |x| trace_loss(&x[0], &SEGMENTS, 2, WEIGHTS, Normalisation::Sum));
    }

    #[test]
    fn traces_without_weight_have_no_loss() {
        let none = SegmentWeights { alpha: 0.0, beta: 1.0, omega: 0.0 };
        let got = gradients(&[vector(&[-1.0; 4])], |x| trace_loss(&x[0], &SEGMENTS, 1, none, Normalisation::TokenMean)).unwrap();
        assert_eq!(got, (0.0, vec![vec![0.0; 4]]));
    }
}
