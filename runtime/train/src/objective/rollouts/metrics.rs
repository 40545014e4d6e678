//! The numbers of a step.

use plumb_core::Outcome;
use plumb_core::rollout::FinishReason;
use plumb_methods::advantage::{TRL_DDOF, mean, std_dev};

use crate::objective::length_metrics;
use crate::pipeline::rows::StepRows;
use crate::pipeline::{Assessed, fault_counts, finite_mean};

/// TRL's names where it has them. `reward` is raw; shaped rewards and advantages stand beside it under their own names.
pub(super) fn step_metrics(rows: &StepRows, assessed: &Assessed, metrics: &mut Vec<(String, f64)>) {
    let mut add = |name: &str, value: Option<f64>| metrics.extend(value.map(|value| (name.to_owned(), value)));
    let some_mean = |values: &[Option<f64>]| finite_mean(values.iter().copied().flatten());
    let ends = rows.group_ends();
    let raw_stds = ends.iter().scan(0, |start, &end| {
        let group: Vec<f64> = rows.raw[std::mem::replace(start, end as usize)..end as usize].iter().copied().flatten().collect();
        Some((!group.is_empty()).then(|| std_dev(&group, TRL_DDOF)))
    });
    add("reward", some_mean(&rows.raw));
    add("reward_std", some_mean(&raw_stds.collect::<Vec<_>>()));
    let stds: Vec<f64> = assessed.group_std.iter().copied().flatten().collect();
    let zero = stds.iter().filter(|&&std| std < 1e-8).count() as f64;
    add("frac_reward_zero_std", (!stds.is_empty()).then(|| zero / stds.len() as f64));
    add("shaped_reward", some_mean(&rows.shaped));
    add("advantage", some_mean(&rows.advantages));
    for scores in &rows.scores {
        let values: Vec<f64> = scores.outcomes.iter().filter_map(Outcome::value).collect();
        let name = &scores.name;
        add(&format!("rewards/{name}/mean"), (!values.is_empty()).then(|| mean(&values)));
        add(&format!("rewards/{name}/std"), (!values.is_empty()).then(|| std_dev(&values, TRL_DDOF)));
        for (part, values) in &scores.parts {
            add(&format!("rewards/{name}/{part}/mean"), finite_mean(values.iter().copied()));
        }
        let count = |is: fn(&Outcome) -> bool| Some(scores.outcomes.iter().filter(|outcome| is(outcome)).count() as f64);
        add(&format!("plugin/{name}/abstained"), count(|outcome| matches!(outcome, Outcome::Abstained(_))));
        add(&format!("plugin/{name}/failed"), count(|outcome| matches!(outcome, Outcome::Failed(_))));
        let codes = scores.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Scored(_) => None,
            Outcome::Abstained(fault) | Outcome::Failed(fault) => Some(fault.code.as_str()),
        });
        for (name, rows) in fault_counts(name, codes) {
            add(&name, Some(rows));
        }
    }
    let refs = rows.rows();
    let clipped = refs.iter().filter(|row| row.completion.finish == FinishReason::Length).count();
    add("completions/clipped_ratio", Some(clipped as f64 / refs.len() as f64));
    add("completions/kept_ratio", Some(rows.live().len() as f64 / refs.len() as f64));
    length_metrics(&refs.iter().map(|row| row.completion.tokens.len()).collect::<Vec<_>>(), metrics);
    metrics.extend(assessed.metrics.iter().cloned());
}
