//! Held-out evaluation: how many completions succeed.

use std::time::Instant;

use plumb_core::recipe::{Eval, Stage};
use plumb_core::rollout::{Group, SamplingParams};
use plumb_core::seed::Stream;
use plumb_core::{Outcome, Pending};

use crate::error::Result;
use crate::models::Served;
use crate::pipeline::StepModels;
use crate::pipeline::rows::{RowRef, batch, row_id};
use crate::pipeline::scoring::checked_rewards;
use crate::plugins::StagePlugins;
use crate::run::{MetricSet, OutcomeRecord, Record};
use crate::stage::StageData;

/// Result of one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// Rows whose reward reached `success_at`.
    pub successes: usize,
    /// What the plugin said about each row. A row without a score is no success.
    pub outcomes: Vec<Outcome>,
    /// Mean length of the completions, tokens.
    pub mean_length: f64,
    /// Wall clock, seconds.
    pub wall_s: f64,
}

impl Evaluated {
    /// Rows that succeeded, of all.
    pub fn accuracy(&self) -> f64 {
        self.successes as f64 / self.outcomes.len() as f64
    }

    /// Sets the metrics of an evaluation.
    pub fn report(&self, metrics: &mut MetricSet) {
        let missing = self.outcomes.iter().filter(|outcome| outcome.value().is_none()).count();
        metrics.set("eval/accuracy", self.accuracy());
        metrics.set("eval/successes", self.successes as f64);
        metrics.set("eval/n", self.outcomes.len() as f64);
        metrics.set("eval/missing", missing as f64);
        metrics.set("eval/mean_length", self.mean_length);
        metrics.set("time/eval_s", self.wall_s);
    }

    /// What the ledger says of it.
    pub fn record(&self, stage: &str, step: u64) -> Record {
        Record::Eval {
            stage: stage.into(),
            step,
            correct: self.successes as u64,
            rows: self.outcomes.len() as u64,
            outcomes: self.outcomes.iter().map(OutcomeRecord::from).collect(),
        }
    }
}

/// Completes each evaluation prompt once and scores it. The random streams depend on the row alone, not on the step, so that
/// two evaluations differ by the policy only.
///
/// # Errors
/// Those of sampling, and [`crate::Error::Plugin`] when the plugin's host failed.
///
/// # Panics
/// When the stage's evaluation plugin was not loaded.
pub fn evaluate(
    models: &mut Served<'_>,
    stage: &Stage,
    eval: &Eval,
    data: &StageData,
    plugins: &StagePlugins,
    seed: u64,
    step: u64,
) -> Result<Evaluated> {
    let start = Instant::now();
    let reward = plugins.eval.as_ref().expect("an evaluation has its plugin");
    let max_completion_length = eval.max_completion_length.unwrap_or(stage.rollout.max_completion_length);
    let sampling = SamplingParams {
        temperature: eval.temperature,
        stop: stage.rollout.stop.clone(),
        ..SamplingParams::neutral(max_completion_length)
    };
    let prompts: Vec<_> = data.eval.iter().map(|example| example.prompt.clone()).collect();
    let (mut answers, mut tokens) = ((0..prompts.len()).map(|_| None).collect::<Vec<_>>(), 0);
    let mut on_group = |place: usize, group: Group| {
        let completion = &group.completions[0];
        tokens += completion.tokens.len();
        let row = RowRef { id: row_id(step, place, 0, true), place, example: &data.eval[place], completion };
        let batch = batch(step, &stage.name, &data.columns, &[row]);
        // Models are busy with the other completions until all are there.
        answers[place] = Some(if reward.asks_models() { Err(batch) } else { Ok(reward.submit(batch)) });
    };
    let stream = |prompt, completion| Stream::new(seed, "eval", &[prompt, completion]);
    // In float32, whatever rollouts are in: what is evaluated is the policy that the run will save.
    models.policy.generate(&prompts, 1, &sampling, stage.rollout.max_batch.into(), &stream, &mut on_group)?;
    let wait = || {
        let submitted: Vec<_> =
            answers.into_iter().flatten().map(|answer| answer.unwrap_or_else(|batch| reward.submit(batch))).collect();
        submitted.into_iter().map(Pending::wait).collect::<Vec<_>>()
    };
    let answers = if reward.asks_models() { models.while_served(|_| wait()) } else { wait() };
    let mut outcomes = Vec::with_capacity(prompts.len());
    for answer in answers {
        outcomes.extend(checked_rewards(answer, 1, &**reward, step)?.outcomes);
    }
    let successes = outcomes.iter().filter(|outcome| outcome.value().is_some_and(|value| value >= eval.success_at)).count();
    Ok(Evaluated {
        successes,
        mean_length: tokens as f64 / prompts.len() as f64,
        outcomes,
        wall_s: start.elapsed().as_secs_f64(),
    })
}
