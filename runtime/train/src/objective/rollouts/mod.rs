//! A step's completions: sampled, scored, and sampled again where a filter does not want a group. What algorithms that learn from their own
//! samples share: [`Start::completions`] makes the rows, [`lesson`] what a step keeps of them.

mod metrics;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use plumb_core::recipe::{self, Rollout, RolloutWeights, Stage};
use plumb_core::rollout::{Group, SamplingParams};
use plumb_core::seed::Stream;
use plumb_model::rollout::{RolloutOptions, RolloutStats, Speculation, WeightFormat};

use super::Lesson;
use super::registry::{self, Start};
use crate::error::Result;
use crate::generations::observed::of_rewards;
use crate::models::Served;
use crate::pack::LossRow;
use crate::pipeline::record::{pair_lines, record, table};
use crate::pipeline::rows::{Example, RowRef, Scores, StepRows, batch, row_id};
use crate::pipeline::{Assessed, Scoring, assess, drop_unwanted, in_order, spans};
use crate::plugins::StagePlugins;
use metrics::step_metrics;

const MIB: f64 = 1024.0 * 1024.0;

/// Groups with what rewards and judges said about them.
struct Sampled<'a> {
    examples: Vec<&'a Example>,
    groups: Vec<Group>,
    scores: Vec<Scores>,
}

/// Where groups belong: which step, which time of sampling in it, and the place of the first.
#[derive(Clone, Copy)]
struct Round {
    step: u64,
    number: u64,
    first_place: usize,
}

/// What a step's completions took.
#[derive(Default)]
struct Effort {
    rollout_s: f64,
    reward_s: f64,
    stats: RolloutStats,
    /// Whether tokens were guessed.
    speculates: bool,
    /// What judges did, summed over rounds.
    judges: BTreeMap<String, f64>,
}

/// What a step learns from completions: the rows of the loss, and all that is written down about the others too. `metrics` are those of making
/// the completions.
pub(crate) fn lesson(
    stage: &Stage,
    rows: &StepRows,
    assessed: Assessed,
    (loss_rows, parts): (Vec<LossRow>, Vec<Range<usize>>),
    mut metrics: Vec<(String, f64)>,
) -> Lesson {
    step_metrics(rows, &assessed, &mut metrics);
    let reasons = registry::method(stage.algorithm).reasons(stage, rows, &assessed.pairs);
    Lesson {
        rows: loss_rows,
        parts,
        tokens: rows.rows().iter().map(|row| (row.example.prompt.tokens.len() + row.completion.tokens.len()) as u64).sum(),
        metrics,
        record: record(rows, &reasons, &assessed.pairs),
        pairs: pair_lines(rows, &assessed.pairs),
        table: Some(table(rows, reasons)),
        observed: of_rewards(rows).into_iter().chain(assessed.observed).collect(),
        messages: assessed.notes,
    }
}

/// Rows of the loss over some of a step's completions, in the order given; each counts what filters said it weighs. Completions of a group share
/// their prompt.
pub(crate) fn loss_rows(rows: &StepRows, chosen: &[usize]) -> Vec<LossRow> {
    let refs = rows.rows();
    let prompts: Vec<Arc<[u32]>> = rows.groups.iter().map(|group| group.prompt.tokens.as_slice().into()).collect();
    let row =
        |&row: &usize| LossRow::new(prompts[refs[row].place].clone(), refs[row].completion.tokens.clone(), rows.weights[row]);
    chosen.iter().map(row).collect()
}

impl<'a> Start<'a> {
    fn sampling(&self) -> SamplingParams {
        let r = &self.stage.rollout;
        SamplingParams {
            temperature: r.temperature,
            top_k: r.top_k,
            top_p: r.top_p,
            min_p: r.min_p,
            max_completion_length: r.max_completion_length,
            stop: r.stop.clone(),
            ignore_eos: r.ignore_eos,
        }
    }

    /// A step's rows with all that rewards, judges, shapers and filters say about them.
    ///
    /// Groups that a filter wants to regenerate are replaced by groups of further prompts, at most `max_refills` times; then shapers and
    /// filters take their answers back and decide again over the whole step. What is still unwanted after the last time leaves the step.
    pub(crate) fn completions(
        &self,
        models: &mut Served<'_>,
        plugins: &StagePlugins,
        batch_index: u64,
        step: u64,
        metrics: &mut Vec<(String, f64)>,
    ) -> Result<(StepRows<'a>, Assessed)> {
        let mut effort = Effort { speculates: self.stage.rollout.speculation.is_some(), ..Effort::default() };
        let busy_before = plugins.reward_busy_s();
        let first = Round { step, number: 0, first_place: 0 };
        let Sampled { examples, groups, scores } =
            self.sample(models, plugins, self.sampler.batch(batch_index), first, &mut effort)?;
        let prompts = groups.len();
        let mut rows = StepRows::new(step, &self.stage.name, &self.data.columns, examples, groups);
        rows.scores = scores;
        let (mut refills, mut regenerated) = (0, 0);
        let scaling = registry::method(self.stage.algorithm).scaling(self.stage);
        let assessed = loop {
            spans::align(&mut rows, &models.policy.tokenizer);
            let assessed = assess(&mut rows, plugins, scaling, models)?;
            let wanted = if refills < u64::from(self.stage.rollout.max_refills) { assessed.unwanted.len() } else { 0 };
            let further = self.sampler.further(batch_index, regenerated, wanted);
            if further.is_empty() {
                drop_unwanted(&mut rows, &assessed.unwanted);
                break assessed;
            }
            refills += 1;
            let round = Round { step, number: refills, first_place: prompts + regenerated };
            let fresh = self.sample(models, plugins, further, round, &mut effort)?;
            regenerated += fresh.groups.len();
            plugins.shapers.iter().for_each(|shaper| shaper.plugin.retract());
            plugins.filters.iter().for_each(|filter| filter.plugin.retract());
            let places = assessed.unwanted.into_keys().zip(round.first_place..).take(fresh.groups.len()).collect::<Vec<_>>();
            rows = rows.refilled(&places, fresh.examples, fresh.groups, fresh.scores);
        };
        if self.stage.rollout.max_refills > 0 {
            metrics.push(("rollout/refills".into(), refills as f64));
            metrics.push(("rollout/regenerated_groups".into(), regenerated as f64));
        }
        effort.report(metrics);
        if let (Some(before), Some(after)) = (busy_before, plugins.reward_busy_s()) {
            metrics.push(("time/reward_busy_s".into(), after - before));
        }
        Ok((rows, assessed))
    }

    /// Samples a group for each of these data rows; each group is submitted to the rewards as soon as it is finished, and all are
    /// collected at the end.
    fn sample(
        &self,
        models: &mut Served<'_>,
        plugins: &StagePlugins,
        chosen: Vec<usize>,
        round: Round,
        effort: &mut Effort,
    ) -> Result<Sampled<'a>> {
        let (data, rollout, step) = (self.data, &self.stage.rollout, round.step);
        let examples: Vec<&Example> = chosen.into_iter().map(|i| &data.examples[i]).collect();
        let prompts: Vec<_> = examples.iter().map(|example| example.prompt.clone()).collect();
        let of_groups = |groups: &mut dyn Iterator<Item = (usize, &Group)>| {
            let mut rows = Vec::new();
            let example = |place: usize| examples[place];
            for (place, group) in groups {
                let id = |i| row_id(step, round.first_place + place, i, false);
                let completions = group.completions.iter().enumerate();
                rows.extend(completions.map(|(i, completion)| RowRef { id: id(i), place, example: example(place), completion }));
            }
            batch(step, &self.stage.name, &data.columns, &rows)
        };
        let mut scoring = Scoring::new(plugins, prompts.len());
        let mut groups: Vec<Option<Group>> = vec![None; prompts.len()];
        let mut on_group = |place: usize, group: Group| {
            scoring.submit(place, of_groups(&mut std::iter::once((place, &group))));
            groups[place] = Some(group);
        };
        // A refill's streams are others than the first round's, even for a prompt that comes again.
        let stream = |prompt, completion| match round.number {
            0 => Stream::new(self.seed, "rollout", &[step, prompt, completion]),
            _ => Stream::new(self.seed, "rollout", &[step, prompt, completion, round.number]),
        };
        let start = Instant::now();
        let options = options(rollout);
        let count = rollout.num_generations;
        let stats = models.policy.generate(&prompts, count, &self.sampling(), options, &stream, &mut on_group)?;
        effort.rollout_s += start.elapsed().as_secs_f64();
        effort.stats += stats;
        let groups = in_order(groups);
        let collected = scoring.collect(step, || of_groups(&mut groups.iter().enumerate()), models)?;
        effort.reward_s += collected.waited_s;
        collected.metrics.into_iter().for_each(|(name, value)| *effort.judges.entry(name).or_default() += value);
        Ok(Sampled { examples, groups, scores: collected.scores })
    }
}

fn options(rollout: &Rollout) -> RolloutOptions {
    let speculation = rollout.speculation.map(|recipe::Speculation { max_draft, ngram }| Speculation { max_draft, ngram });
    RolloutOptions { weights: weight_format(rollout.weights), speculation, ..RolloutOptions::from(rollout.max_batch) }
}

fn weight_format(weights: RolloutWeights) -> WeightFormat {
    match weights {
        RolloutWeights::F32 => WeightFormat::F32,
        RolloutWeights::Bf16 => WeightFormat::Bf16,
        RolloutWeights::Int8 => WeightFormat::Int8,
    }
}

impl Effort {
    fn report(self, metrics: &mut Vec<(String, f64)>) {
        metrics.push(("time/rollout_s".into(), self.rollout_s));
        metrics.push(("time/reward_s".into(), self.reward_s));
        metrics.push(("time/prefill_tokens_per_s".into(), self.stats.prefill_tokens as f64 / self.stats.prefill_s));
        metrics.push(("time/decode_tokens_per_s".into(), self.stats.decode_tokens as f64 / self.stats.decode_s));
        let RolloutStats { prefill_tokens, reused_tokens, passes, kv_pages_peak, kv_page_bytes, .. } = self.stats;
        metrics.push(("rollout/prefill_tokens".into(), prefill_tokens as f64));
        metrics.push(("rollout/reused_prompt_tokens".into(), reused_tokens as f64));
        metrics.push(("rollout/passes".into(), passes as f64));
        metrics.push(("rollout/kv_peak_mib".into(), (kv_pages_peak * kv_page_bytes) as f64 / MIB));
        if self.speculates {
            metrics.push(("rollout/drafted_tokens".into(), self.stats.drafted_tokens as f64));
            metrics.push(("rollout/accepted_tokens".into(), self.stats.accepted_tokens as f64));
        }
        metrics.extend(self.judges);
    }
}
