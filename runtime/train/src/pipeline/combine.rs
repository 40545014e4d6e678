//! From what each reward plugin and judge said to one raw reward a row.

use plumb_core::Outcome;
use plumb_core::recipe::FaultPolicy;

use super::rows::StepRows;
use crate::error::{Error, Result};
use crate::plugins::StagePlugins;

/// Sets `raw` to the weighted sum of the scores, and takes rows without one out of the step as each reward's rule says.
///
/// A row that lacks a score has no raw reward, whatever the other plugins said; only `on_fault = { value = ... }` makes a number
/// of it. A reward or judge whose weight is 0 in the whole stage only informs: what it does not score takes no row out. `shaped` begins
/// as `raw`.
///
/// # Errors
/// [`Error::FaultAborts`] for the first missing score of a reward whose rule is `abort`.
pub fn combine(rows: &mut StepRows, plugins: &StagePlugins) -> Result<()> {
    let rewards = plugins.rewards.iter().map(|reward| (&reward.name, reward.weight, &reward.weights, reward.on_fault));
    let judges = plugins.judges.iter().map(|judge| (&judge.name, judge.weight, &judge.weights, judge.on_fault));
    let sources: Vec<_> = rewards.chain(judges).collect();
    let mut group_faults: Vec<Option<String>> = vec![None; rows.groups.len()];
    let places: Vec<usize> = rows.rows().iter().map(|row| row.place).collect();
    for row in 0..rows.len() {
        let (mut sum, mut complete) = (0.0, true);
        for (k, &(name, weight, weights, on_fault)) in sources.iter().enumerate() {
            let fault = match &rows.scores[k].outcomes[row] {
                Outcome::Scored(value) => {
                    sum += weight * value;
                    continue;
                }
                Outcome::Abstained(fault) | Outcome::Failed(fault) => fault.clone(),
            };
            let reason = || format!("{name}: {}", fault.code);
            match on_fault {
                FaultPolicy::Value(value) => sum += weight * value,
                FaultPolicy::DropRow | FaultPolicy::DropGroup if weights.informs_only() => {}
                FaultPolicy::DropRow => {
                    complete = false;
                    rows.drop_row(row, reason);
                }
                FaultPolicy::DropGroup => {
                    complete = false;
                    rows.drop_row(row, reason);
                    group_faults[places[row]].get_or_insert_with(reason);
                }
                FaultPolicy::Abort => {
                    return Err(Error::FaultAborts {
                        step: rows.step,
                        row_id: rows.rows()[row].id,
                        plugin: name.clone(),
                        code: fault.code,
                        message: fault.message,
                    });
                }
            }
        }
        rows.raw[row] = complete.then_some(sum);
    }
    for row in 0..rows.len() {
        if let Some(reason) = &group_faults[places[row]] {
            rows.drop_row(row, || format!("its group has a row without a score ({reason})"));
        }
    }
    rows.shaped = rows.raw.clone();
    Ok(())
}
