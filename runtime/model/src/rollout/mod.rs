//! Rollouts: sampling completions from a policy.
//!
//! Reading order: [`RolloutEngine`] (the interface), `batch` (which completion is decoded when), `decoder` (the transformer over
//! rows of tokens), `kv_cache`, `sampler` (logits to a token), `text` (stop strings).
//!
//! **Invariant.** A completion depends on the weights, its prompt, the sampling parameters and its own random stream, and on
//! nothing else: `max_batch`, threads, and the other prompts of a call change no bit of it.

mod batch;
mod decoder;
mod kv_cache;
mod sampler;
mod text;

use plumb_core::rollout::{Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;

pub use plumb_kernels::cpu::packed_matmul::WeightFormat;

use crate::params::Params;
use crate::{Error, Result, Tokenizer};
use batch::{Batch, Request};
use decoder::{Caches, Decoder};
use kv_cache::{KvPool, KvShape};

/// What a call of [`RolloutEngine::generate`] did and how long it took. Time in `on_group` counts as neither.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RolloutStats {
    /// Tokens of prompts, each prompt once however many completions it has.
    pub prefill_tokens: u64,
    /// Tokens of completions that were run one after the other: all but the first of each, which its prompt yields.
    pub decode_tokens: u64,
    /// Seconds running prompts and drawing first tokens.
    pub prefill_s: f64,
    /// Seconds running completions and drawing their tokens.
    pub decode_s: f64,
}

/// How a [`RolloutEngine`] decodes. A number is that `max_batch` with float32 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutOptions {
    /// Most completions decoded at a time. Results do not depend on it.
    pub max_batch: usize,
    /// How the packed weights are stored. In a narrower format than float32 completions come from a rounded policy, and their
    /// log-probabilities are the rounded policy's: exactly those of what sampled them, not of what is trained.
    pub weights: WeightFormat,
}

impl From<usize> for RolloutOptions {
    fn from(max_batch: usize) -> Self {
        RolloutOptions { max_batch, weights: WeightFormat::F32 }
    }
}

/// Samples completions in batches from a copy of a policy's weights that is packed for decoding.
///
/// Memory: the weights once more in the format of the options (a tied embedding is not held twice), and caches of
/// `2 · layers · key_value_size · 4` bytes a token for the completions being decoded and the prompts they share.
#[derive(Debug)]
pub struct RolloutEngine {
    decoder: Decoder,
    caches: Caches,
    max_batch: usize,
}

impl RolloutEngine {
    /// Packs a policy's weights.
    ///
    /// # Errors
    /// [`Error::Request`] when `max_batch` is 0 or the heads are wider than 256.
    pub fn new(params: &Params, options: impl Into<RolloutOptions>) -> Result<Self> {
        let RolloutOptions { max_batch, weights } = options.into();
        if max_batch == 0 {
            return Err(Error::Request("max_batch is 0, so nothing can be decoded".into()));
        }
        if params.config.head_dim > 256 {
            return Err(Error::Request(format!("heads of {} are wider than 256", params.config.head_dim)));
        }
        let shape = KvShape::new(&params.config);
        let caches = Caches { prompts: KvPool::new(shape), completions: KvPool::new(shape) };
        Ok(RolloutEngine { decoder: Decoder::new(params, weights), caches, max_batch })
    }

    /// Takes over new weights of the same model.
    ///
    /// # Errors
    /// [`Error::Request`] when it is another model.
    pub fn update(&mut self, params: &Params) -> Result<()> {
        if params.config != *self.decoder.config() {
            return Err(Error::Request("the new weights belong to a model of another configuration".into()));
        }
        self.decoder.update(params);
        Ok(())
    }

    /// Samples `num_generations` completions for each prompt.
    ///
    /// - `stream(prompt id, completion index)` is the random stream of a completion; its t-th number draws token t.
    /// - `on_group(index into prompts, group)` is called as soon as a prompt's completions are done, while others are still
    ///   being decoded; the order of the calls depends on lengths and on `max_batch`, the groups do not.
    ///
    /// # Errors
    /// Before any work: [`Error::Request`] for parameters out of range, no generations, an empty prompt or an id outside the
    /// vocabulary; [`Error::TooLong`] when a prompt with `max_completion_length` tokens after it exceeds the model's context.
    /// Later: [`Error::NonFinite`] when the model's logits are NaN or infinite.
    #[allow(clippy::too_many_arguments)]
    pub fn generate(
        &mut self,
        tokenizer: &Tokenizer,
        prompts: &[Prompt],
        num_generations: usize,
        sampling: &SamplingParams,
        stream: &dyn Fn(u64, u64) -> Stream,
        on_group: &mut dyn FnMut(usize, Group),
    ) -> Result<RolloutStats> {
        let decode = |ids: &[u32]| tokenizer.decode(ids);
        self.run(&Request { decode: &decode, prompts, num_generations, sampling, stream }, on_group)
    }

    fn run(&mut self, request: &Request, on_group: &mut dyn FnMut(usize, Group)) -> Result<RolloutStats> {
        check(request, self.decoder.config())?;
        Batch::new(self.max_batch, &mut self.decoder, &mut self.caches, request).run(on_group)
    }
}

fn check(request: &Request, config: &crate::config::ModelConfig) -> Result<()> {
    if let Some(problem) = sampler::problem(request.sampling) {
        return Err(Error::Request(problem));
    }
    if request.num_generations == 0 {
        return Err(Error::Request("num_generations is 0, so there is nothing to generate".into()));
    }
    for prompt in request.prompts {
        if prompt.tokens.is_empty() {
            return Err(Error::Request(format!("prompt {} has no tokens", prompt.id)));
        }
        if let Some(token) = prompt.tokens.iter().find(|token| **token as usize >= config.vocab_size) {
            let (id, size) = (prompt.id, config.vocab_size);
            return Err(Error::Request(format!("prompt {id} has token {token}, but the vocabulary has {size} tokens")));
        }
        let length = prompt.tokens.len().saturating_add(request.sampling.max_completion_length);
        if length > config.max_position_embeddings {
            return Err(Error::TooLong { length, limit: config.max_position_embeddings });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
