//! What a step's plugins asked of models, as the run recorded it.

use plumb_core::rollout::{Completion, Prompt};
use plumb_core::services::Models;

use crate::error::Result;
use crate::models::RecordedModels;
use crate::pipeline::StepModels;
use crate::pipeline::record::RecordedStep;
use crate::run::CompletionRecord;

/// The models of a recorded step: nobody is asked, and new texts have the tokens that they had.
pub(super) struct StepAnswers<'a> {
    pub answers: &'a RecordedModels,
    pub step: &'a RecordedStep,
}

impl StepModels for StepAnswers<'_> {
    fn while_served<T: Send>(&mut self, work: impl FnOnce(&dyn Models) -> T + Send) -> T {
        work(self.answers)
    }

    fn rewrite(&mut self, prompt: &Prompt, sampled: &Completion, text: String) -> Result<Completion> {
        let texts = self.step.table.texts("completion").unwrap_or_default();
        let asked =
            |record: &CompletionRecord| self.step.record.prompt_tokens.get(record.prompt as usize) == Some(&prompt.tokens);
        let all = self.step.record.completions.iter().zip(texts);
        let of_text = all.filter(|(record, recorded)| *recorded == text && asked(record));
        let found = of_text.map(|(record, _)| record).find(|record| {
            let before = record.relabelled.as_ref().and_then(|relabelled| relabelled.sampled.as_ref());
            before.is_some_and(|before| before.text == sampled.text && before.tokens == sampled.tokens)
        });
        // Without such a record the filter answers otherwise than it did: the sampled ids stand in, and the texts differ.
        let (tokens, logprobs) = found.map_or((&sampled.tokens, &sampled.logprobs), |found| (&found.tokens, &found.logprobs));
        Ok(Completion { tokens: tokens.clone(), logprobs: logprobs.clone(), text, finish: sampled.finish })
    }
}
