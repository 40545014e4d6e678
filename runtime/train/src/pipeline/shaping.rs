//! Shapers: rewards or advantages of a step to shaped ones.

use plumb_core::Shaped;
use plumb_core::recipe::{FilterStage, ShapedValue};

use super::rows::StepRows;
use super::{Assessed, answer_error, call, expect_len, fault_counts, finite_mean};
use crate::error::Result;
use crate::generations::observed::shaped_outcomes;
use crate::plugins::ShaperSlot;

/// Lets a shaper work on the live rows.
///
/// # Errors
/// As [`call`].
pub fn shape(rows: &mut StepRows, slot: &ShaperSlot, models: &mut impl super::StepModels, assessed: &mut Assessed) -> Result<()> {
    let (step, live) = (rows.step, rows.live());
    if live.is_empty() {
        return Ok(());
    }
    let (reads, name) = match slot.shapes {
        ShapedValue::Reward => (FilterStage::Shaped, "reward"),
        ShapedValue::Advantage => (FilterStage::Advantage, "advantage"),
    };
    let mut batch = rows.batch(&live, reads);
    batch.attrs.insert("stage".into(), name.into());
    let tokens: Vec<usize> = rows.rows().iter().map(|row| row.completion.tokens.len()).collect();
    let shape = || slot.plugin.shape(&batch);
    let accept = |shaped: &Shaped| check(slot, shaped, &live, &tokens, step);
    let answer = call(&*slot.plugin, slot.on_failure, models, shape, accept, rows, &live, assessed)?;
    assessed.observe(&*slot.plugin, batch, answer.as_ref().map(|shaped| shaped_outcomes(shaped, live.len())));
    let Ok(shaped) = answer else { return Ok(()) };

    let name = &slot.name;
    assessed.parts(name, &shaped.parts);
    assessed.metrics.push((format!("plugin/{name}/failed"), shaped.faults.len() as f64));
    assessed.metrics.extend(fault_counts(name, shaped.faults.iter().map(|(_, fault)| fault.code.as_str())));
    for (row, fault) in &shaped.faults {
        rows.drop_row(live[*row as usize], || format!("{name}: {}", fault.code));
    }
    if let Some(values) = &shaped.token_values {
        let whole = |(&n, advantage): (&usize, &Option<f64>)| vec![advantage.unwrap_or(0.0) as f32; n];
        let mut all: Vec<Vec<f32>> = tokens.iter().zip(&rows.advantages).map(whole).collect();
        for (i, &row) in live.iter().enumerate() {
            all[row] = values.row(i).to_vec();
            rows.advantages[row] = finite_mean(all[row].iter().map(|&value| f64::from(value)));
        }
        rows.token_advantages = Some(all);
    }
    for (i, &row) in live.iter().enumerate().filter(|(_, row)| rows.dropped[**row].is_none()) {
        if let Some(values) = &shaped.values {
            match slot.shapes {
                ShapedValue::Reward => rows.shaped[row] = Some(values[i]),
                ShapedValue::Advantage => rows.advantages[row] = Some(values[i]),
            }
        }
    }
    if slot.shapes == ShapedValue::Advantage && shaped.token_values.is_none() {
        // One advantage per completion replaces what an earlier shaper said about its tokens.
        rows.token_advantages = None;
    }
    Ok(())
}

/// Whether an answer means something for these rows.
fn check(slot: &ShaperSlot, shaped: &Shaped, live: &[usize], tokens: &[usize], step: u64) -> Result<()> {
    let shaper = &*slot.plugin;
    let wrong = |reason: String| Err(answer_error(shaper, step, reason));
    if let Some((row, _)) = shaped.faults.iter().find(|(row, _)| *row as usize >= live.len()) {
        return wrong(format!("named row {row} of {}", live.len()));
    }
    if let Some(values) = &shaped.token_values {
        if slot.shapes == ShapedValue::Reward {
            return wrong("returned rewards per token; GRPO has one reward per completion (shape the advantage instead)".into());
        }
        expect_len(values.len(), live.len(), "rows of token values", shaper, step)?;
        for (i, &row) in live.iter().enumerate() {
            expect_len(values.row(i).len(), tokens[row], "token values in a row", shaper, step)?;
        }
    }
    let Some(values) = &shaped.values else {
        return if shaped.token_values.is_some() { Ok(()) } else { wrong("returned neither values nor token values".into()) };
    };
    expect_len(values.len(), live.len(), "values", shaper, step)?;
    let faulty = |i: usize| shaped.faults.iter().any(|(row, _)| *row as usize == i);
    match values.iter().enumerate().find(|(i, value)| !value.is_finite() && !faulty(*i)) {
        Some((i, value)) => wrong(format!("returned {value} for row {}", live[i])),
        None => Ok(()),
    }
}
