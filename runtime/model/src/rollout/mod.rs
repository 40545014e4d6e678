//! Rollouts: sampling completions from a policy.
//!
//! Reading order: [`RolloutEngine`] (the interface), `batch` (what is run in which pass), `decoder` (the transformer over rows of
//! tokens), `kv_cache` (pages), `prefix` (pages that prompts share), `speculation` (guesses), `sampler` (logits to a token), `text`
//! (stop strings), `memory` (what a call needs).
//!
//! **Invariant.** A completion depends on the weights, its prompt, the sampling parameters and its own random stream, and on
//! nothing else: `max_batch`, speculation, threads, and the other prompts of a call change no bit of it.

mod batch;
mod decoder;
mod kv_cache;
mod memory;
mod prefix;
mod sampler;
mod speculation;
mod text;

use plumb_core::rollout::{Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;

pub use memory::{Memory, memory_estimate};
pub use plumb_kernels::cpu::matmul::Precision;
pub use plumb_kernels::cpu::packed_matmul::WeightFormat;
pub use speculation::Speculation;

use crate::params::Params;
use crate::{Error, Result, Tokenizer, available_memory};
use batch::{Batch, Request};
use decoder::Decoder;
use kv_cache::{KvPool, KvShape};

/// What a call of [`RolloutEngine::generate`] did and how long it took. Time in `on_group` counts as neither.
///
/// A pass that runs rows of prompts beside rows of completions is shared out by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RolloutStats {
    /// Tokens of prompts that were run, each prompt once however many completions it has.
    pub prefill_tokens: u64,
    /// Tokens of prompts that were not run, since an earlier prompt of the call begins with the same ones.
    pub reused_tokens: u64,
    /// Times that the rows at hand were run through the model, which reads all weights.
    pub passes: u64,
    /// Tokens of completions but for the first of each, which its prompt yields.
    pub decode_tokens: u64,
    /// Tokens that were guessed: see [`Speculation`].
    pub drafted_tokens: u64,
    /// Guesses that were what was drawn. Each saved its completion a pass.
    pub accepted_tokens: u64,
    /// Seconds running prompts and drawing first tokens.
    pub prefill_s: f64,
    /// Seconds running completions and drawing their tokens.
    pub decode_s: f64,
    /// Most pages of keys and values in use at a time.
    pub kv_pages_peak: u64,
    /// Memory of a page in bytes.
    pub kv_page_bytes: u64,
}

impl std::ops::AddAssign for RolloutStats {
    /// Sums, and the larger peak.
    fn add_assign(&mut self, other: Self) {
        self.prefill_tokens += other.prefill_tokens;
        self.reused_tokens += other.reused_tokens;
        self.passes += other.passes;
        self.decode_tokens += other.decode_tokens;
        self.drafted_tokens += other.drafted_tokens;
        self.accepted_tokens += other.accepted_tokens;
        self.prefill_s += other.prefill_s;
        self.decode_s += other.decode_s;
        self.kv_pages_peak = self.kv_pages_peak.max(other.kv_pages_peak);
        self.kv_page_bytes = self.kv_page_bytes.max(other.kv_page_bytes);
    }
}

/// How a [`RolloutEngine`] decodes. A number is that `max_batch` with float32 weights, the default precision and without guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutOptions {
    /// Most completions decoded at a time. Results do not depend on it.
    pub max_batch: usize,
    /// How the packed weights are stored. In a narrower format than float32 completions come from a rounded policy, and their
    /// log-probabilities are the rounded policy's: exactly those of what sampled them, not of what is trained.
    pub weights: WeightFormat,
    /// Whether next tokens are guessed while few completions are decoded. Results do not depend on it.
    pub speculation: Option<Speculation>,
    /// Of the matrix products.
    pub precision: Precision,
}

impl From<usize> for RolloutOptions {
    fn from(max_batch: usize) -> Self {
        RolloutOptions { max_batch, weights: WeightFormat::F32, speculation: None, precision: Precision::default() }
    }
}

/// Samples completions in batches from a copy of a policy's weights that is packed for decoding.
///
/// Memory: the weights once more in the format of the options (a tied embedding is not held twice), and pages of keys and values,
/// `2 · layers · key_value_size · 4` bytes a token, for the completions being decoded and the prompts they share. The pages stay
/// for the next call. See [`memory_estimate`].
#[derive(Debug)]
pub struct RolloutEngine {
    options: RolloutOptions,
    decoder: Decoder,
    kv_pool: KvPool,
}

impl RolloutEngine {
    /// Packs a policy's weights.
    ///
    /// # Errors
    /// [`Error::Request`] when `max_batch` is 0, what is to be guessed or matched has no tokens, or the heads are wider than 256.
    pub fn new(params: &Params, options: impl Into<RolloutOptions>) -> Result<Self> {
        let options = options.into();
        check_options(&options)?;
        if params.config.head_dim > 256 {
            return Err(Error::Request(format!("heads of {} are wider than 256", params.config.head_dim)));
        }
        let kv_pool = KvPool::new(KvShape::new(&params.config));
        Ok(RolloutEngine { options, decoder: Decoder::new(params, options.weights, options.precision), kv_pool })
    }

    /// How it decodes.
    pub fn options(&self) -> RolloutOptions {
        self.options
    }

    /// Takes other options for the same packed weights.
    ///
    /// # Errors
    /// [`Error::Request`] as for [`RolloutEngine::new`], or when the weights are to be stored otherwise.
    pub fn set_options(&mut self, options: RolloutOptions) -> Result<()> {
        check_options(&options)?;
        let packed_for = |options: &RolloutOptions| (options.weights, options.precision);
        if packed_for(&options) != packed_for(&self.options) {
            let (old, new) = (packed_for(&self.options), packed_for(&options));
            return Err(Error::Request(format!("the weights are packed as {old:?}, not as {new:?}")));
        }
        self.options = options;
        Ok(())
    }

    /// The memory that it holds now. The buffers of sampling live as long as a call and are not in it.
    pub fn memory(&mut self) -> Memory {
        Memory {
            weights: self.decoder.weight_bytes() as u64,
            kv_cache: self.kv_pool.bytes() as u64,
            buffers: self.decoder.buffer_bytes() as u64,
        }
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
    /// vocabulary; [`Error::TooLong`] when a prompt with `max_completion_length` tokens after it exceeds the model's context;
    /// [`Error::Memory`] when [`memory_estimate`] says that it may need more than [`available_memory`].
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
        let Request { prompts, num_generations, sampling, .. } = *request;
        let estimate = memory_estimate(self.decoder.config(), &self.options, prompts, num_generations, sampling);
        memory::check(&estimate, &self.memory(), available_memory())?;
        Batch::new(&self.options, &mut self.decoder, &mut self.kv_pool, request).run(on_group)
    }
}

fn check_options(options: &RolloutOptions) -> Result<()> {
    if options.max_batch == 0 {
        return Err(Error::Request("max_batch is 0, so nothing can be decoded".into()));
    }
    match options.speculation {
        Some(Speculation { max_draft: 0, .. }) => Err(Error::Request("max_draft is 0, so nothing would be guessed".into())),
        Some(Speculation { ngram: 0, .. }) => Err(Error::Request("ngram is 0, so that anything would match".into())),
        _ => Ok(()),
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
mod mixture_tests;
#[cfg(test)]
mod tests;
