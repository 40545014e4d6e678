//! Models that plugins may ask: the policy, the stage's frozen reference, and those of the recipe's `[models]`.
//!
//! Reading order: [`server`] (who may ask when), `question` (the unit that is answered, cached and recorded), `answer` (how a
//! model answers it), [`store`] (the models besides the policy), [`recorded`] (answers of a run that is over).
//!
//! **Invariant.** An answer is a function of the weights, the question and the run's seed. Questions are answered row by row: each
//! completion has its own random stream, and a row that is read goes through the engine by itself. So it does not matter which
//! questions are asked together, in which order, or whether the answer was there already.
//!
//! **Texts and tokens.** A prompt is encoded as raw prompts are in training: special tokens in the text are recognized, and the
//! begin-of-text token comes first where the model's tokenizer puts one. A continuation is encoded by itself and joined in token
//! space: `encode_prompt(prompt) ++ encode(continuation)`. No token reaches over the seam, so the prompt's tokens do not depend on
//! what follows, and log-probabilities of a continuation are those of its own tokens.

mod answer;
mod cache;
mod question;
pub mod recorded;
mod served;
pub mod server;
pub mod store;

#[cfg(test)]
mod tests;

pub use recorded::RecordedModels;
pub use served::Served;
pub use server::{ModelServer, ModelSet};
pub use store::ModelStore;
