//! Sheet 48-t-reg.

use anyhow::{Context, Result};
use candle_core::Tensor;
use plumb_methods::loss;
use plumb_methods::loss::dpo::{PairLogps, mask_weights, sequence_logps};
use plumb_methods::loss::token_regularized::{TReg, Weighting, rewarded_weights, t_reg};
use plumb_methods::reward::implicit;
use serde_json::json;

use crate::pairs::{Pairs, SIDES};
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "48-t-reg",
    operations: &[("contrastive_token_rewards", contrastive_token_rewards), ("t_reg_loss", t_reg_loss)],
};

fn contrastive_token_rewards(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (better, worse, mask) = (read("better_prompt_logps")?, read("worse_prompt_logps")?, read("mask")?);
    let rewards: Vec<Vec<f64>> =
        (0..mask.len()).map(|i| implicit::contrastive_token_rewards(&better[i], &worse[i], &mask[i])).collect();
    Ok(json!({ "token_rewards": rewards }))
}

/// Weights of one side's tokens in its log-probability and in what is rewarded, and tokens by row.
struct Side {
    weights: Tensor,
    rewarded: Tensor,
    lengths: Vec<usize>,
}

fn side(case: &Case, name: &str, mask: &[Vec<f64>], averages: bool) -> Result<Side> {
    let rewards: Vec<Vec<f64>> = case.input(&format!("{name}_token_rewards"))?;
    let weights: Vec<f64> = mask.iter().flat_map(|mask| mask_weights(mask, averages)).collect();
    let rewarded: Vec<f64> =
        mask.iter().zip(&rewards).flat_map(|(mask, rewards)| rewarded_weights(mask, rewards, averages)).collect();
    Ok(Side { weights: vector(&weights)?, rewarded: vector(&rewarded)?, lengths: mask.iter().map(Vec::len).collect() })
}

fn t_reg_loss(case: &Case) -> Result<Answer> {
    let simpo = case.choice("base", &[("dpo", false), ("simpo", true)])?;
    let settings = TReg {
        beta: case.param("beta")?,
        gamma: if simpo { case.param_or("gamma", 0.0)? } else { 0.0 },
        alpha: case.param("alpha")?,
        weighting: case.choice("weighting", &[("sequence", Weighting::Sequence), ("static", Weighting::Static)])?,
    };
    let pairs = Pairs::tokens(case)?;
    let masks = pairs.masks.as_ref().context("the loss is over tokens")?;
    let sides = [side(case, SIDES[0], &masks[0], simpo)?, side(case, SIDES[1], &masks[1], simpo)?];
    let both = |tokens: &[Tensor], rewarded: bool| -> candle_core::Result<PairLogps> {
        let of = |i: usize| {
            let weights = if rewarded { &sides[i].rewarded } else { &sides[i].weights };
            sequence_logps(&tokens[i], weights, &sides[i].lengths)
        };
        Ok(PairLogps { chosen: of(0)?, rejected: of(1)? })
    };
    let reference = if simpo { None } else { Some(pairs.reference_logps()?) };
    let parts = |policy: &[Tensor]| t_reg(&both(policy, false)?, reference.as_ref(), &both(policy, true)?, settings);
    let (loss, gradients) = gradients(&pairs.policy, |policy| loss::mean(&parts(policy)?.losses))?;
    let parts = parts(&pairs.policy)?;
    let mut answer = json!({
        "loss": loss,
        "per_pair_loss": flat(&parts.losses)?,
        "margin": flat(&parts.margins)?,
        "sequence_weight": flat(&parts.weights)?,
        "reg_chosen": flat(&parts.regularizers.chosen)?,
        "reg_rejected": flat(&parts.regularizers.rejected)?,
    });
    pairs.name_gradients("d", &mut answer, &gradients)?;
    Ok(answer)
}
