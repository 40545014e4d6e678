//! The models of a run while a step's feedback is made.

use plumb_core::rollout::{Completion, Prompt};
use plumb_core::services::Models;

use super::server::{ModelServer, ModelSet};
use super::store::ModelStore;
use crate::error::Result;
use crate::pack::LossRow;
use crate::pipeline::StepModels;
use crate::policy::Policy;

/// A run's models, and the desk where plugins ask for them.
pub struct Served<'a> {
    /// Where plugins ask.
    pub server: &'a ModelServer,
    /// The policy.
    pub policy: &'a mut Policy,
    /// All other models.
    pub store: &'a mut ModelStore,
    /// What the policy's logits are divided by when completions are sampled.
    pub temperature: f32,
}

impl StepModels for Served<'_> {
    fn while_served<T: Send>(&mut self, work: impl FnOnce(&dyn Models) -> T + Send) -> T {
        let server = self.server;
        server.serve(&mut ModelSet { policy: Some(self.policy), store: self.store }, || work(server))
    }

    fn rewrite(&mut self, prompt: &Prompt, sampled: &Completion, text: String) -> Result<Completion> {
        let policy = &mut *self.policy;
        let ends = &policy.params.config.eos_token_ids;
        let mut tokens = policy.tokenizer.encode(&text)?;
        tokens.extend(sampled.tokens.last().filter(|last| ends.contains(last)));
        if tokens.is_empty() {
            tokens.extend(ends.first());
        }
        if tokens.is_empty() {
            return Err(plumb_model::Error::Request("a completion without text needs an end-of-text token".into()).into());
        }
        let row = LossRow::new(prompt.tokens.as_slice().into(), tokens.clone(), 1.0);
        let logprobs = policy.logprobs(&[row], 1, self.temperature)?.concat();
        Ok(Completion { tokens, logprobs, text, finish: sampled.finish })
    }
}
