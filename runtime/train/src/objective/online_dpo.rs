//! Online and iterative DPO: pairs of the policy's own completions.

use std::collections::BTreeSet;

use plumb_core::recipe::{Pairing, Stage};
use plumb_methods::selection::pairs::{Rule, Strategy, select_pair};

use super::pairs::{PairSource, Pairs};
use super::registry::{Columns, Flaw, Method, Needs, Start, require};
use super::rollouts::{lesson, loss_rows};
use super::{Lesson, Objective, dpo};
use crate::error::Result;
use crate::models::Served;
use crate::pack;
use crate::pipeline::filtering::Pair;
use crate::pipeline::finite_mean;
use crate::pipeline::rows::StepRows;
use crate::plugins::StagePlugins;

/// Online direct preference optimization, as the registry has it.
pub struct OnlineDpoMethod;

impl Method for OnlineDpoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        dpo::check(&stage.dpo)?;
        let rule = "must be at least 2: a pair is the best and the worst completion of a prompt";
        require(stage.rollout.num_generations >= 2, "rollout.num_generations", rule)?;
        let rule = "means nothing without a reference; remove it, or `dpo.reference_free`";
        let rounds = stage.online_dpo.reference_update_steps > 0;
        require(!(rounds && stage.dpo.reference_free), "online_dpo.reference_update_steps", rule)
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let reference = !stage.dpo.reference_free;
        Needs { rows: stage.rollout.prompts_per_step, columns: Columns::Prompts, reference, score_head: false }
    }

    fn reasons(&self, stage: &Stage, rows: &StepRows, pairs: &[Pair]) -> Vec<Option<String>> {
        let paired: BTreeSet<usize> = preferences(rows, pairs, stage.online_dpo.pairing)
            .into_iter()
            .flat_map(|pair| [pair.chosen, pair.rejected])
            .collect();
        let others = |row: usize| (!paired.contains(&row)).then(|| "in no pair".to_owned());
        rows.dropped.iter().enumerate().map(|(row, dropped)| dropped.clone().or_else(|| others(row))).collect()
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        let source = Sampled { reference_update_steps: start.stage.online_dpo.reference_update_steps };
        Box::new(Pairs { loss: &start.stage.dpo, source, start })
    }
}

/// One completion of a prompt that is preferred to another.
struct Preference {
    chosen: usize,
    rejected: usize,
    margin: f64,
}

/// The pairs that filters made of one prompt's completions, where they made any in the step; else two of each group by
/// shaped reward.
fn preferences(rows: &StepRows, pairs: &[Pair], pairing: Pairing) -> Vec<Preference> {
    let refs = rows.rows();
    let differ = |pair: &Preference| refs[pair.chosen].completion.tokens != refs[pair.rejected].completion.tokens;
    if !pairs.is_empty() {
        let of_prompt = |pair: &&Pair| refs[pair.chosen].place == refs[pair.rejected].place;
        let preference = |pair: &Pair| Preference { chosen: pair.chosen, rejected: pair.rejected, margin: pair.margin };
        return pairs.iter().filter(of_prompt).map(preference).filter(differ).collect();
    }
    let strategy = match pairing {
        Pairing::MaxMin => Strategy::MaxMin,
        Pairing::MaxRandom => Strategy::MaxRandom,
        Pairing::MaxMax => Strategy::MaxMax,
        Pairing::Random => Strategy::Random,
    };
    let rule = Rule { strategy, ..Rule::default() };
    let mut start = 0;
    let of_groups = rows.group_ends().into_iter().filter_map(|end| {
        let group = std::mem::replace(&mut start, end as usize)..end as usize;
        let scored = group.filter(|&row| rows.dropped[row].is_none());
        let (places, rewards): (Vec<usize>, Vec<f64>) = scored.filter_map(|row| Some((row, rows.shaped[row]?))).unzip();
        let pair = select_pair(&rewards, None, rule)?;
        Some(Preference { chosen: places[pair.chosen], rejected: places[pair.rejected], margin: pair.margin })
    });
    of_groups.filter(differ).collect()
}

/// Pairs of completions that the policy samples for each step.
struct Sampled {
    /// Steps after which the reference is renewed; 0 never.
    reference_update_steps: u64,
}

impl PairSource for Sampled {
    fn lesson(
        &mut self,
        start: &Start<'_>,
        models: &mut Served<'_>,
        plugins: &StagePlugins,
        batch: u64,
        step: u64,
    ) -> Result<Lesson> {
        if self.reference_update_steps > 0 && batch.is_multiple_of(self.reference_update_steps) {
            models.store.renew_reference(models.policy);
        }
        let mut metrics = Vec::new();
        let (rows, assessed) = start.completions(models, plugins, batch, step, &mut metrics)?;
        let pairs = preferences(&rows, &assessed.pairs, start.stage.online_dpo.pairing);
        metrics.push(("pairs/count".into(), pairs.len() as f64));
        let margin = finite_mean(pairs.iter().map(|pair| pair.margin));
        metrics.extend(margin.map(|margin| ("pairs/margin".to_owned(), margin)));
        let order: Vec<usize> = pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]).collect();
        let mut learned = loss_rows(&rows, &order);
        for (pair, preference) in learned.chunks_mut(2).zip(&pairs) {
            // Of a pair whose answers filters weigh differently, the preference is as doubtful as the less certain of them.
            let weight = pair[0].token_weight.min(pair[1].token_weight) / pairs.len() as f64;
            for row in pair {
                (row.token_weight, row.margin) = (weight, preference.margin);
            }
        }
        let parts = pack::parts(pairs.len(), start.stage.optimizer.gradient_accumulation_steps);
        let parts = parts.into_iter().map(|part| 2 * part.start..2 * part.end).collect();
        Ok(lesson(start.stage, &rows, assessed, (learned, parts), metrics))
    }
}
