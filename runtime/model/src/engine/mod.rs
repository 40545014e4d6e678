//! The seam between losses and the transformer.
//!
//! A loss is a small graph over per-token log-probabilities and entropies, and hidden states for heads (the leaves). An [`Engine`] computes those for packed
//! tokens and takes their gradients back. Above the seam nobody knows how the transformer is evaluated; below it nobody knows
//! losses. No engine materializes `[tokens, vocab]` for a whole batch.

pub mod candle;
pub mod native;

pub use plumb_kernels::cpu::matmul::Precision;

use crate::params::Params;

/// A run of tokens that attends to itself (causally) and to all tokens of the segments it continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First token, an index into [`Packed::tokens`].
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// Index of an earlier segment this one continues: a completion names its prompt. Positions go on from its end.
    /// The prefix itself has no prefix.
    pub prefix: Option<usize>,
}

/// Sequences without padding. A prompt that several completions share is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// All segments' tokens, one after the other, `[N]`.
    pub tokens: Vec<u32>,
    /// In order and without gaps.
    pub segments: Vec<Segment>,
}

impl Packed {
    /// Adds a segment and returns its index.
    ///
    /// # Panics
    /// When it is empty, or its prefix is not an earlier segment without a prefix of its own.
    pub fn push(&mut self, tokens: &[u32], prefix: Option<usize>) -> usize {
        assert!(!tokens.is_empty(), "a segment has at least one token");
        if let Some(prefix) = prefix {
            assert!(self.segments[prefix].prefix.is_none(), "prefixes are one level deep");
        }
        self.segments.push(Segment { start: self.tokens.len(), len: tokens.len(), prefix });
        self.tokens.extend_from_slice(tokens);
        self.segments.len() - 1
    }

    /// Position of each segment's first token in its sequence.
    pub fn offset(&self, segment: usize) -> usize {
        self.segments[segment].prefix.map_or(0, |prefix| self.segments[prefix].len)
    }
}

/// A question to the model: how likely is `token` after the token at `row` and all it attends to?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index into [`Packed::tokens`]. Several targets may share a row, as first tokens of completions share their prompt's last.
    pub row: u32,
    /// The token asked for.
    pub token: u32,
}

/// The model's answers, one per target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leaves {
    /// Natural log-probability of each target, `[M]`, after dividing logits by the temperature.
    pub logprobs: Vec<f32>,
    /// Entropy of the distribution each target is drawn from, `[M]`, nats.
    pub entropies: Vec<f32>,
    /// Last hidden states after the final norm of the rows that were asked for, `[H, d]`.
    pub hidden: Vec<f32>,
}

/// Gradients of a loss by the leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeafGrads {
    /// d loss / d log-probability, `[M]`.
    pub logprobs: Vec<f32>,
    /// d loss / d entropy, `[M]`; None when the loss does not use entropies.
    pub entropies: Option<Vec<f32>>,
    /// d loss / d hidden state, `[H, d]`; empty where no hidden states were asked for.
    pub hidden: Vec<f32>,
}

/// Evaluates a transformer and its gradient.
pub trait Engine: Send {
    /// Log-probabilities and entropies of the targets; nothing is kept.
    fn evaluate(&mut self, params: &Params, packed: &Packed, targets: &[Target], temperature: f32) -> crate::Result<Leaves>;

    /// Last hidden states of all tokens, after the final norm, `[N, d]` in the order of [`Packed::tokens`]; nothing is kept.
    fn hidden(&mut self, params: &Params, packed: &Packed) -> crate::Result<Vec<f32>>;

    /// The same numbers as [`Engine::evaluate`], and the hidden states at `rows`, indices into [`Packed::tokens`] in any order. Keeps
    /// what [`Engine::backward`] needs.
    fn forward_with(
        &mut self,
        params: &Params,
        packed: &Packed,
        targets: &[Target],
        rows: &[u32],
        temperature: f32,
    ) -> crate::Result<Leaves>;

    /// [`Engine::forward_with`] without hidden states.
    fn forward(&mut self, params: &Params, packed: &Packed, targets: &[Target], temperature: f32) -> crate::Result<Leaves> {
        self.forward_with(params, packed, targets, &[], temperature)
    }

    /// Adds the gradient by all weights to `grads`, `[params.layout.len()]`, for the last forward pass.
    fn backward(&mut self, params: &Params, leaf_grads: &LeafGrads, grads: &mut [f32]) -> crate::Result<()>;
}
