//! Sheet 15-tool-augmented-rm.

use anyhow::Result;
use anyhow::bail;
use plumb_methods::loss;
use plumb_methods::loss::reward::bradley_terry;
use plumb_methods::loss::trace::{Normalisation, Segment, SegmentWeights, trace_loss};
use serde_json::json;

use crate::groups::{flatten, regroup};
use crate::rewards::bradley_terry_loss;
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "15-tool-augmented-rm",
    operations: &[("bt_ranking_loss", bt_ranking_loss), ("tool_rm_total_loss", tool_rm_total_loss)],
};

fn bt_ranking_loss(case: &Case) -> Result<Answer> {
    bradley_terry_loss(case, "d_loss_d")
}

fn tool_rm_total_loss(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let (logprobs, segments): (Vec<Vec<f64>>, Vec<Vec<u8>>) = (case.input("policy_logps")?, case.input("segments")?);
    let segment = |code: &u8| match code {
        0 => Ok(Segment::Given),
        1 => Ok(Segment::Tool),
        2 => Ok(Segment::Observation),
        3 => Ok(Segment::Rationale),
        other => bail!("there is no segment {other}"),
    };
    let segments = segments.iter().flatten().map(segment).collect::<Result<Vec<_>>>()?;
    let weights = SegmentWeights { alpha: case.param("alpha")?, beta: case.param("beta")?, omega: case.param("omega")? };
    let normalisation = case.choice("normalisation", &[("sum", Normalisation::Sum), ("token_mean", Normalisation::TokenMean)])?;
    let (rm_weight, traces) = (case.param_or("rm_weight", 1.0)?, logprobs.len());
    let margins = vector(&vec![0.0; chosen.len()])?;
    let leaves = [vector(&chosen)?, vector(&rejected)?, vector(&flatten(&logprobs))?];
    let ranking = |x: &[candle_core::Tensor]| loss::mean(&bradley_terry(&x[0], &x[1], &margins, 0.0)?);
    let of_traces = |x: &[candle_core::Tensor]| trace_loss(&x[2], &segments, traces, weights, normalisation);
    let (loss, gradients) = gradients(&leaves, |x| (ranking(x)? * rm_weight)? + of_traces(x)?)?;
    let likelihood = |of: Segment| {
        let only = SegmentWeights {
            alpha: f64::from(u8::from(of != Segment::Rationale)),
            beta: f64::from(u8::from(of == Segment::Observation)),
            omega: f64::from(u8::from(of == Segment::Rationale)),
        };
        let counted: Vec<Segment> = segments.iter().map(|&s| if s == of { s } else { Segment::Given }).collect();
        trace_loss(&leaves[2], &counted, 1, only, Normalisation::Sum)?.to_scalar::<f64>()
    };
    Ok(json!({
        "loss": loss,
        "ranking_loss": ranking(&leaves)?.to_scalar::<f64>()?,
        "lm_loss": of_traces(&leaves)?.to_scalar::<f64>()?,
        "segment_nll": {
            "tool": likelihood(Segment::Tool)?,
            "observation": likelihood(Segment::Observation)?,
            "rationale": likelihood(Segment::Rationale)?,
        },
        "d_loss_d_chosen_rewards": flat(&gradients[0])?,
        "d_loss_d_rejected_rewards": flat(&gradients[1])?,
        "d_loss_d_policy_logps": regroup(&flat(&gradients[2])?, &logprobs),
    }))
}
