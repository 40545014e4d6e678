//! Answers of a run that is over, for replay.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use plumb_core::services::ServiceFault;
use plumb_core::{Ragged, Texts};

use super::question::{AnswersRows, NOT_RECORDED, RowAnswer, RowQuestion, models_by_row};
use crate::run::AnswerRecord;

/// Answers from a step's records. What is not there is a fault `not-recorded`: a plugin that asks something else than it did in the
/// run is told so, and no model is asked.
#[derive(Debug, Default)]
pub struct RecordedModels {
    answers: RwLock<BTreeMap<String, RowAnswer>>,
}

impl RecordedModels {
    /// The answers of these records.
    ///
    /// # Errors
    /// The key of a record that holds no answer.
    pub fn new<'a>(records: impl IntoIterator<Item = &'a AnswerRecord>) -> Result<Self, String> {
        let read = |record: &AnswerRecord| -> Result<(String, RowAnswer), String> {
            let answer = serde_json::from_value(record.answer.clone()).map_err(|_| record.key.clone())?;
            Ok((record.key.clone(), answer))
        };
        Ok(RecordedModels { answers: RwLock::new(records.into_iter().map(read).collect::<Result<_, _>>()?) })
    }

    /// From now on the answers of `other`: the next step's, for plugins that were loaded with this.
    pub fn replace(&self, other: RecordedModels) {
        let answers = other.answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.answers.write().unwrap_or_else(PoisonError::into_inner) = answers;
    }
}

impl AnswersRows for RecordedModels {
    fn answer_rows(&self, questions: Vec<RowQuestion>) -> Vec<RowAnswer> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        let answer = |question: RowQuestion| {
            answers.get(&question.key()).cloned().unwrap_or_else(|| {
                let message = format!("model `{}` was not asked this in the recorded step", question.model);
                RowAnswer::Fault(ServiceFault::new(NOT_RECORDED, message))
            })
        };
        questions.into_iter().map(answer).collect()
    }
}

models_by_row!(RecordedModels);
