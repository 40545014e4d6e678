//! A judge's turns, with the case's texts in the place of models.

use std::sync::Arc;

use plumb_core::feedback::Ask;
use plumb_core::services::Generated;
use plumb_core::{Batch, Judge, PluginError, Turn};

use crate::answer;

/// Runs a judge to its verdicts: all that it asks, and what it concludes.
pub fn judge(judge: &dyn Judge, batch: Batch, answers: &[Vec<String>]) -> Result<Vec<String>, PluginError> {
    let (batch, mut answers, mut lines) = (Arc::new(batch), answers.iter(), Vec::new());
    let mut turn = judge.begin(&batch)?;
    loop {
        let ask = match turn {
            Turn::Ask(ask) => ask,
            Turn::Done(verdicts) => {
                assert_eq!(answers.next(), None, "answers that nobody asked for");
                lines.extend(answer::verdicts(&verdicts));
                return Ok(lines);
            }
        };
        lines.extend(answer::ask(&ask));
        let texts = answers.next().unwrap_or_else(|| panic!("no answer to {lines:#?}"));
        turn = judge.resume(&batch, &ask.memo, &generated(&ask, texts))?;
    }
}

/// An answer per question. A token is a byte; an empty text was cut off.
fn generated(ask: &Ask, texts: &[String]) -> Vec<Generated> {
    let asked: usize = ask.questions.iter().map(|question| question.prompts.len() * question.sampling.count as usize).sum();
    assert_eq!(asked, texts.len(), "{:#?}", answer::ask(ask));
    let mut texts = texts.iter();
    let answer = |question: &plumb_core::services::Question| {
        let mut answer = Generated::default();
        for text in texts.by_ref().take(question.prompts.len() * question.sampling.count as usize) {
            let tokens: Vec<u32> = text.bytes().map(|byte| u32::from(byte) << 24).collect();
            answer.logprobs.push(&(0..tokens.len()).map(|place| -0.1 * (place as f32 + 1.0)).collect::<Vec<_>>());
            answer.tokens.push(&tokens);
            answer.text.push(text);
            answer.finish.push(if text.is_empty() { "length" } else { "stop" }.to_owned());
        }
        answer
    };
    ask.questions.iter().map(answer).collect()
}
