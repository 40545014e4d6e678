//! The training engine: forward and backward of the whole transformer by hand, in float32, llm.c's way. Its matrix products have a
//! [`Precision`].
//!
//! `plan` turns packed segments into positions, attention spans and distinct target rows; `weights` knows where each matrix
//! lies in the flat buffer; `activations` holds what a pass writes; `forward` and `backward` are one block of the model each, as
//! sequences of `plumb_kernels` operations. The names of activations, shapes beside them, are the same in both.
//!
//! - Prompts that several completions share are computed once, and their gradients are added up in the order of the segments.
//! - Kept for the backward pass, a token and layer: both residual streams, queries, keys and values, attention's output and
//!   log-sum-exps, gate and up. Norms' and SwiGLU's outputs, probabilities and logits are computed again, which costs little.
//! - The output layer runs on rows that targets ask for, each once; hidden states that are asked for themselves stand behind them.
//! - Results have the same bits for any number of threads: the kernels' invariant, and nothing here adds an order of its own.
//!
//! Held to the reference engine ([`super::candle`]) by tests, to PyTorch by the log-probabilities and loss curves of a real model.

mod activations;
mod backward;
mod forward;
mod plan;
#[cfg(test)]
mod tests;
mod weights;

use plumb_kernels::cpu::awake::awake;
use plumb_kernels::cpu::logprob::Logprobs;
use plumb_kernels::cpu::matmul::Precision;
use plumb_kernels::cpu::rope::RopeTable;

use self::activations::{Activations, Scratch};
use self::plan::Plan;
use self::weights::Weights;
use super::{Engine, LeafGrads, Leaves, Packed, Target};
use crate::config::ModelConfig;
use crate::params::{Layout, Params};
use crate::{Error, Result};

/// The hand-written engine for CPUs. See the module's documentation.
///
/// Buffers grow to the largest batch seen and stay.
pub struct NativeEngine {
    model: Model,
    /// What [`Engine::forward`] writes and [`Engine::backward`] reads, every layer's.
    kept: Activations,
    /// What [`Engine::evaluate`] writes, one layer's over and over. Apart from `kept`, so that a reference model may be asked between
    /// forward and backward.
    passing: Activations,
    scratch: Scratch,
    last: Option<(Plan, Logprobs)>,
}

/// What does not change between calls, except that the table of angles grows.
struct Model {
    config: ModelConfig,
    weights: Weights,
    rope: RopeTable,
    precision: Precision,
}

impl NativeEngine {
    /// An engine for models of this configuration, of the default precision. Allocates when it is first used.
    pub fn new(config: &ModelConfig) -> Self {
        NativeEngine::with_precision(config, Precision::default())
    }

    /// An engine whose matrix products have this precision.
    pub fn with_precision(config: &ModelConfig, precision: Precision) -> Self {
        let model = Model {
            config: config.clone(),
            weights: Weights::new(config, &Layout::new(config)),
            rope: RopeTable::new(config.rope_frequencies()),
            precision,
        };
        NativeEngine {
            model,
            kept: Activations::new(config.num_hidden_layers),
            passing: Activations::new(1),
            scratch: Scratch::default(),
            last: None,
        }
    }

    fn prepare(&mut self, params: &Params, packed: &Packed, targets: &[Target], rows: &[u32], temperature: f32) -> Result<Plan> {
        assert_eq!(params.data.len(), self.model.weights.len(), "the engine was made for a model of another shape");
        let plan = Plan::new(&self.model.config, packed, targets, rows, temperature)?;
        self.model.rope.grow(plan.positions_end());
        Ok(plan)
    }
}

impl Engine for NativeEngine {
    fn evaluate(&mut self, params: &Params, packed: &Packed, targets: &[Target], temperature: f32) -> Result<Leaves> {
        let plan = self.prepare(params, packed, targets, &[], temperature)?;
        let answer = awake(|| forward::forward(&self.model, params, &plan, &mut self.passing, &mut self.scratch));
        leaves(&plan, &answer, Vec::new())
    }

    fn hidden(&mut self, params: &Params, packed: &Packed) -> Result<Vec<f32>> {
        let plan = self.prepare(params, packed, &[], &[], 1.0)?;
        Ok(awake(|| forward::hidden(&self.model, params, &plan, &mut self.passing, &mut self.scratch)))
    }

    fn forward_with(
        &mut self,
        params: &Params,
        packed: &Packed,
        targets: &[Target],
        rows: &[u32],
        temperature: f32,
    ) -> Result<Leaves> {
        self.last = None;
        let plan = self.prepare(params, packed, targets, rows, temperature)?;
        let answer = awake(|| forward::forward(&self.model, params, &plan, &mut self.kept, &mut self.scratch));
        let d = self.model.config.hidden_size;
        let hidden = self.kept.hidden.read((plan.rows.len() + rows.len()) * d)[plan.rows.len() * d..].to_vec();
        let leaves = leaves(&plan, &answer, hidden)?;
        self.last = Some((plan, answer));
        Ok(leaves)
    }

    /// # Panics
    /// When no forward pass came before, `leaf_grads` has another number of targets, or `grads` another length than the weights.
    fn backward(&mut self, params: &Params, leaf_grads: &LeafGrads, grads: &mut [f32]) -> Result<()> {
        let (plan, answer) = self.last.as_ref().expect("a forward pass comes before a backward pass");
        assert_eq!(grads.len(), self.model.weights.len(), "gradients have the shape of the weights");
        let (dlogprobs, dentropies) = plan.sort_gradients(leaf_grads);
        let all = dlogprobs.iter().chain(dentropies.iter().flatten()).chain(&leaf_grads.hidden);
        if let Some(gradient) = all.copied().find(|gradient| !gradient.is_finite()) {
            return Err(Error::NonFinite {
                what: format!("a gradient of the loss by a log-probability, entropy or hidden state ({gradient})"),
            });
        }
        let incoming = plumb_kernels::cpu::logprob::LogprobGrads { logprobs: &dlogprobs, entropies: dentropies.as_deref() };
        let dhidden = &leaf_grads.hidden;
        awake(|| backward::backward(&self.model, params, plan, answer, incoming, dhidden, &self.kept, &mut self.scratch, grads));
        Ok(())
    }
}

/// The kernel's answer in the order of the caller's targets, with hidden states.
fn leaves(plan: &Plan, answer: &Logprobs, hidden: Vec<f32>) -> Result<Leaves> {
    if let Some(value) = hidden.iter().find(|value| !value.is_finite()) {
        return Err(Error::NonFinite { what: format!("a hidden state ({value})") });
    }
    let leaves = Leaves { hidden, ..plan.unsort(answer) };
    let bad = leaves.logprobs.iter().zip(&leaves.entropies).position(|(l, h)| !(l.is_finite() && h.is_finite()));
    match bad {
        None => Ok(leaves),
        Some(target) => Err(Error::NonFinite {
            what: format!("target {target} (log-probability {}, entropy {})", leaves.logprobs[target], leaves.entropies[target]),
        }),
    }
}
