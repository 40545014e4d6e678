//! The desk between whoever asks, on any thread, and the trainer's thread, which owns the models.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded, select, unbounded};
use plumb_core::services::ServiceFault;
use plumb_core::{Ragged, Texts};

use super::question::{AnswersRows, RowAnswer, RowQuestion, models_by_row};
use super::store::ModelStore;
use crate::policy::Policy;
use crate::run::AnswerRecord;

/// The models of this moment: the policy, and the others.
pub struct ModelSet<'a> {
    /// The policy, with its current weights; None where nothing is trained.
    pub policy: Option<&'a mut Policy>,
    /// All other models.
    pub store: &'a mut ModelStore,
}

#[derive(Debug)]
struct Request {
    questions: Vec<RowQuestion>,
    reply: Sender<Vec<RowAnswer>>,
}

/// Takes questions from any thread while the trainer serves. Shared by the plugin host, which hands it to guests, and the trainer.
///
/// Nobody waits for ever: when no one serves, or serving ends before a question is answered, the answer is a fault `unavailable`.
#[derive(Debug, Default)]
pub struct ModelServer {
    /// Where requests go while somebody serves.
    desk: Mutex<Option<Sender<Request>>>,
    /// All that was answered since the last [`ModelServer::take_answers`].
    answers: Mutex<BTreeMap<String, RowAnswer>>,
}

impl ModelServer {
    /// Runs `work` on a thread of its own and answers questions from here until it is done. Questions that wait together are answered
    /// together.
    ///
    /// # Panics
    /// With the panic of `work`.
    pub fn serve<T: Send>(&self, models: &mut ModelSet<'_>, work: impl FnOnce() -> T + Send) -> T {
        let (desk, requests) = unbounded();
        *lock(&self.desk) = Some(desk);
        std::thread::scope(|scope| {
            // Both end before the scope waits for its thread, even in a panic, so the thread cannot wait for an answer then.
            let requests = requests;
            let closed = CloseDesk(self);
            let (done, is_done) = bounded::<()>(0);
            let worker = scope.spawn(move || {
                let result = work();
                drop(done);
                result
            });
            self.answer_until(&is_done, &requests, models);
            drop(closed);
            drop(requests);
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn answer_until(&self, is_done: &Receiver<()>, requests: &Receiver<Request>, models: &mut ModelSet<'_>) {
        loop {
            select! {
                recv(requests) -> first => {
                    let waiting: Vec<Request> = first.into_iter().chain(requests.try_iter()).collect();
                    let questions: Vec<RowQuestion> = waiting.iter().flat_map(|request| request.questions.iter().cloned()).collect();
                    let mut answers = models.answer(&questions).into_iter();
                    for Request { questions, reply } in waiting {
                        let own: Vec<RowAnswer> = answers.by_ref().take(questions.len()).collect();
                        let mut on_record = lock(&self.answers);
                        questions.iter().zip(&own).for_each(|(question, answer)| drop(on_record.insert(question.key(), answer.clone())));
                        drop(on_record);
                        // Whoever asked may be gone: a plugin that ran out of time.
                        let _ = reply.send(own);
                    }
                }
                recv(is_done) -> _ => return,
            }
        }
    }

    /// What was answered since the last call, for the ledger: in the order of the keys, each once.
    pub fn take_answers(&self) -> Vec<AnswerRecord> {
        let answers = std::mem::take(&mut *lock(&self.answers)).into_iter();
        let record = |(key, answer)| {
            let answer = serde_json::to_value(answer).expect("answers have string keys only");
            AnswerRecord { key, answer }
        };
        answers.map(record).collect()
    }
}

/// Ends serving, also when it ends in a panic.
struct CloseDesk<'a>(&'a ModelServer);

impl Drop for CloseDesk<'_> {
    fn drop(&mut self) {
        *lock(&self.0.desk) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AnswersRows for ModelServer {
    fn answer_rows(&self, questions: Vec<RowQuestion>) -> Vec<RowAnswer> {
        if questions.is_empty() {
            return Vec::new();
        }
        let count = questions.len();
        let (reply, answers) = bounded(1);
        let desk = lock(&self.desk).clone();
        let sent = desk.is_some_and(|desk| desk.send(Request { questions, reply }).is_ok());
        match answers.recv() {
            Ok(answers) if sent => answers,
            _ => {
                let mut fault =
                    ServiceFault::new("unavailable", "models are asked in the feedback phase of a step, after its rollouts");
                fault.retryable = true;
                vec![RowAnswer::Fault(fault); count]
            }
        }
    }
}

models_by_row!(ModelServer);
