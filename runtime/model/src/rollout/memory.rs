//! What a call of [`super::RolloutEngine::generate`] needs at most, known before it begins.

use plumb_core::rollout::{Prompt, SamplingParams};

use super::RolloutOptions;
use super::batch::{LOGIT_ROWS, PREFILL_ROWS};
use super::decoder;
use super::kv_cache::{KvShape, pages_for};
use super::prefix::PrefixTree;
use super::speculation::SPECULATIVE_ROWS;
use crate::config::ModelConfig;
use crate::{Error, Result};

/// Memory of a rollout engine in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The packed copy of the weights.
    pub weights: u64,
    /// Pages of keys and values.
    pub kv_cache: u64,
    /// What a pass computes in, logits among it, and what sampling does.
    pub buffers: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.kv_cache + self.buffers
    }
}

/// The most memory that an engine with these options holds while it samples `num_generations` completions of each prompt.
///
/// It is reached, but for the buffers of the last few rows, when all completions are as long as they may be. Then each of the
/// completions decoded at a time has `ceil((max_completion_length - 1) / 16)` pages, the last token being never run, and the
/// prompts have theirs: pages that prompts have in common are counted once, the others for as many prompts as there can be
/// completions at a time. Not in it: the policy's own weights, and the completions themselves (8 bytes a token).
pub fn memory_estimate(
    config: &ModelConfig,
    options: &RolloutOptions,
    prompts: &[Prompt],
    num_generations: usize,
    sampling: &SamplingParams,
) -> Memory {
    let extent = Extent::new(options, prompts, num_generations, sampling.max_completion_length);
    let of_completions = extent.slots * pages_for(extent.max_completion_length.saturating_sub(1));
    let tree = PrefixTree::new(prompts);
    let (shared, mut own) = tree.shared_and_own();
    for (i, (own, prompt)) in own.iter_mut().zip(prompts).enumerate() {
        *own += pages_for(prompt.tokens.len()) - tree.path(i).len();
    }
    own.sort_unstable_by(|a, b| b.cmp(a));
    let of_prompts = shared + own.iter().take(extent.groups).sum::<usize>();
    // Weights where something is cut, and their ids by rank; logits of the first token that later completions of a prompt draw.
    let cut = sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0;
    let of_sampling = 4 + rayon::current_num_threads() * if cut { 4 + 8 } else { 0 };
    Memory {
        weights: decoder::weight_bytes(config, options.weights, options.precision) as u64,
        kv_cache: ((of_completions + of_prompts) * KvShape::new(config).page_bytes()) as u64,
        buffers: (decoder::buffer_bytes(config, extent.positions(), extent.rows(), extent.lines())
            + of_sampling * config.vocab_size) as u64,
    }
}

/// Whether what is estimated beyond what is held can be had. Where the system does not say what is available, it can.
pub(super) fn check(estimate: &Memory, held: &Memory, available: Option<u64>) -> Result<()> {
    let needed = estimate.kv_cache.saturating_sub(held.kv_cache) + estimate.buffers.saturating_sub(held.buffers);
    match available {
        Some(available) if needed > available => Err(Error::Memory { estimate: *estimate, needed, available }),
        _ => Ok(()),
    }
}

/// How much a call may do at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Completions at a time.
    pub slots: usize,
    /// Prompts at a time: in the worst case each completion is the last of its group.
    pub groups: usize,
    longest_prompt: usize,
    prompt_tokens: usize,
    max_completion_length: usize,
    speculative_rows: usize,
}

impl Extent {
    /// Of a request.
    pub fn new(options: &RolloutOptions, prompts: &[Prompt], num_generations: usize, max_completion_length: usize) -> Self {
        let slots = options.max_batch.min(prompts.len().saturating_mul(num_generations));
        let lengths = prompts.iter().map(|prompt| prompt.tokens.len());
        Extent {
            slots,
            groups: slots.min(prompts.len()),
            longest_prompt: lengths.clone().max().unwrap_or(0),
            prompt_tokens: lengths.sum(),
            max_completion_length,
            speculative_rows: options.speculation.map_or(0, |_| SPECULATIVE_ROWS),
        }
    }

    /// Tables of pages: one per prompt and per completion.
    pub fn tables(&self) -> usize {
        self.slots + self.groups
    }

    /// Pages of the longest table.
    pub fn pages_of_table(&self) -> usize {
        pages_for(self.longest_prompt.max(self.max_completion_length))
    }

    /// Positions of the longest sequence.
    pub fn positions(&self) -> usize {
        self.longest_prompt + self.max_completion_length
    }

    /// Rows of a pass.
    pub fn rows(&self) -> usize {
        self.slots.max(self.speculative_rows) + self.prompt_tokens.min(PREFILL_ROWS)
    }

    /// Rows whose logits are held at a time.
    pub fn lines(&self) -> usize {
        self.rows().min(LOGIT_ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_refused_when_what_it_lacks_is_more_than_there_is() {
        let mib = |n: u64| n << 20;
        let estimate = Memory { weights: mib(500), kv_cache: mib(3000), buffers: mib(100) };
        let held = Memory { weights: mib(500), kv_cache: mib(1000), buffers: mib(150) };
        assert!(check(&estimate, &held, Some(mib(2000))).is_ok());
        assert!(check(&estimate, &held, None).is_ok());
        let error = check(&estimate, &held, Some(mib(1999))).expect_err("a MiB too little").to_string();
        assert_eq!(
            error,
            "rollouts may take 3600 MiB of memory (weights 500 MiB, keys and values 3000 MiB, buffers 100 MiB), 2000 MiB more than \
             they hold, but 1999 MiB are available"
        );
    }
}
