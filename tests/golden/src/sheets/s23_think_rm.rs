//! Sheet 23-think-rm.

use anyhow::Result;
use plumb_methods::returns::{Divisor, whiten};
use plumb_methods::selection::ranked::best;
use serde_json::json;

use super::s25_rm_r1::grpo_loss;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "23-think-rm",
    operations: &[
        ("pairwise_from_pointwise_advantage", pairwise_from_pointwise_advantage),
        ("warmup_trace_select", warmup_trace_select),
        ("grpo_loss", grpo_loss),
    ],
};

fn pairwise_from_pointwise_advantage(case: &Case) -> Result<Answer> {
    let rewards: Vec<f64> = case.input("rewards")?;
    let divisor = Divisor::Deviation(case.param_or("epsilon", 1e-6)?);
    Ok(json!({ "advantages": whiten(&rewards, &vec![true; rewards.len()], true, divisor, 1) }))
}

fn warmup_trace_select(case: &Case) -> Result<Answer> {
    let sign = case.choice("rule", &[("longest", 1.0), ("shortest", -1.0)])?;
    let lengths: Vec<Vec<f64>> = case.input("lengths")?;
    // A wrong trace has no value, and is never chosen.
    let value = |(right, length): (&bool, &f64)| if *right { sign * length } else { f64::NAN };
    let selected = case
        .truth_rows("correct")?
        .iter()
        .zip(&lengths)
        .map(|(correct, lengths)| best(&correct.iter().zip(lengths).map(value).collect::<Vec<_>>(), 1).first().copied())
        .collect::<Vec<_>>();
    Ok(json!({ "selected": selected }))
}
