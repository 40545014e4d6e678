//! Chosen and rejected answers of a case, by sums or by tokens.

use anyhow::{Result, ensure};
use candle_core::Tensor;
use plumb_methods::loss::dpo::{PairLogps, sequence_logps};
use serde_json::{Value, json};

use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case};

/// Names of the sides in cases.
pub const SIDES: [&str; 2] = ["chosen", "rejected"];

/// Log-probabilities of pairs under policy and reference.
pub struct Pairs {
    /// Of the policy, flat: `[P]` sums or `[M]` tokens of each side.
    pub policy: [Tensor; 2],
    /// Of the reference; zeros where a case has none.
    pub reference: [Tensor; 2],
    /// Masks of tokens, by row; None for sums.
    pub masks: Option<[Vec<Vec<f64>>; 2]>,
}

fn each<T>(f: impl Fn(&str) -> Result<T>) -> Result<[T; 2]> {
    Ok([f(SIDES[0])?, f(SIDES[1])?])
}

impl Pairs {
    /// Of a case with sums over tokens: `chosen_policy_logps_sum` and so on.
    pub fn sums(case: &Case) -> Result<Self> {
        let of = |model: &str| each(|side| vector(&case.input::<Vec<f64>>(&format!("{side}_{model}_logps_sum"))?));
        Ok(Pairs { policy: of("policy")?, reference: of("ref")?, masks: None })
    }

    /// Of a case with tokens and masks: `chosen_policy_logps`, `chosen_mask` and so on; one `mask` may hold for both sides.
    pub fn tokens(case: &Case) -> Result<Self> {
        let rows = |name: &str| case.input::<Vec<Vec<f64>>>(name);
        let policy = each(|side| vector(&rows(&format!("{side}_policy_logps"))?.concat()))?;
        let reference = |side: &str, like: &Tensor| match case.input_opt::<Vec<Vec<f64>>>(&format!("{side}_ref_logps"))? {
            Some(rows) => vector(&rows.concat()),
            None => Ok(like.zeros_like()?),
        };
        let reference = [reference(SIDES[0], &policy[0])?, reference(SIDES[1], &policy[1])?];
        let shared = case.input_opt::<Vec<Vec<f64>>>("mask")?;
        let masks = each(|side| shared.clone().map_or_else(|| rows(&format!("{side}_mask")), Ok))?;
        for (mask, policy) in masks.iter().zip(&policy) {
            ensure!(mask.concat().len() == policy.elem_count(), "each token needs a mask");
        }
        Ok(Pairs { policy, reference, masks: Some(masks) })
    }

    /// Of a case of either kind.
    pub fn read(case: &Case) -> Result<Self> {
        if case.inputs.contains_key("chosen_policy_logps_sum") { Pairs::sums(case) } else { Pairs::tokens(case) }
    }

    /// One side's sequence log-probabilities, `[P]`.
    fn sequences(&self, tokens: &Tensor, side: usize) -> candle_core::Result<Tensor> {
        let Some(masks) = &self.masks else { return Ok(tokens.clone()) };
        let lengths: Vec<usize> = masks[side].iter().map(Vec::len).collect();
        let weights = Tensor::from_vec(masks[side].concat(), tokens.elem_count(), tokens.device())?;
        sequence_logps(tokens, &weights, &lengths)
    }

    /// Sequence log-probabilities of flat ones, chosen before rejected.
    pub fn logps(&self, flat: &[Tensor]) -> candle_core::Result<PairLogps> {
        Ok(PairLogps { chosen: self.sequences(&flat[0], 0)?, rejected: self.sequences(&flat[1], 1)? })
    }

    /// Of the policy, without gradient.
    pub fn policy_logps(&self) -> Result<PairLogps> {
        Ok(self.logps(&self.policy)?)
    }

    /// Of the reference.
    pub fn reference_logps(&self) -> Result<PairLogps> {
        Ok(self.logps(&self.reference)?)
    }

    /// `beta (policy - reference)` of the chosen and of the rejected answers.
    pub fn rewards(&self, beta: f64) -> Result<[Vec<f64>; 2]> {
        let (policy, reference) = (self.policy_logps()?, self.reference_logps()?);
        let of = |policy: &Tensor, reference: &Tensor| {
            Ok::<_, anyhow::Error>(plumb_methods::reward::implicit::rewards(&flat(policy)?, &flat(reference)?, beta))
        };
        Ok([of(&policy.chosen, &reference.chosen)?, of(&policy.rejected, &reference.rejected)?])
    }

    /// Flat numbers in the form that the case has them in.
    pub fn shaped(&self, numbers: &Tensor, side: usize) -> Result<Value> {
        let numbers = flat(numbers)?;
        Ok(match &self.masks {
            Some(masks) => json!(crate::groups::regroup(&numbers, &masks[side])),
            None => json!(numbers),
        })
    }

    /// Value of a scalar graph over the policy's sequence log-probabilities, and its gradients added to `answer`, named by `prefix`.
    pub fn differentiate(
        &self,
        prefix: &str,
        answer: &mut Answer,
        graph: impl FnOnce(&PairLogps) -> candle_core::Result<Tensor>,
    ) -> Result<f64> {
        let (value, gradients) = gradients(&self.policy, |leaves| graph(&self.logps(leaves)?))?;
        self.name_gradients(prefix, answer, &gradients)?;
        Ok(value)
    }

    /// Adds gradients by the policy's flat log-probabilities to `answer`.
    pub fn name_gradients(&self, prefix: &str, answer: &mut Answer, gradients: &[Tensor]) -> Result<()> {
        let suffix = if self.masks.is_none() { "_sum" } else { "" };
        for (i, side) in SIDES.iter().enumerate() {
            answer[format!("{prefix}_{side}_policy_logps{suffix}")] = self.shaped(&gradients[i], i)?;
        }
        Ok(())
    }
}
