//! Sheet 49-mapl. Whether a text follows its instructions is a plugin's to say.

use anyhow::Result;
use plumb_core::recipe::Dpo;
use plumb_methods::loss;
use plumb_methods::loss::dpo::{PairLogps, dpo};
use plumb_methods::loss::inter_sample::inter_sample;
use plumb_methods::loss::reward::bradley_terry;
use plumb_methods::loss::with_auxiliary;
use plumb_methods::selection::instructions;
use serde_json::json;

use crate::pairs::Pairs;
use crate::tensor::{flat, gradients, scalar, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "49-mapl",
    operations: &[
        ("prompt_relation", prompt_relation),
        ("response_conditioned_bt_loss", response_conditioned_bt_loss),
        ("response_conditioned_dpo_loss", response_conditioned_dpo_loss),
        ("inter_sample_loss", inter_sample_loss),
        ("mapl_total", mapl_total),
    ],
};

fn prompt_relation(case: &Case) -> Result<Answer> {
    let (preferred, other): (Vec<bool>, Vec<bool>) = (case.input("preferred_flags")?, case.input("other_flags")?);
    let relation = instructions::prompt_relation(&preferred, &other);
    Ok(json!({
        "all_vs_not_all": relation.all_vs_not_all,
        "some_vs_none": relation.some_vs_none,
        "valid": relation.is_valid(),
    }))
}

fn response_conditioned_bt_loss(case: &Case) -> Result<Answer> {
    let read = |name: &str| vector(&case.input::<Vec<f64>>(name)?);
    let leaves = [read("chosen_prompt_rewards")?, read("rejected_prompt_rewards")?];
    let margins = leaves[0].zeros_like()?;
    let (loss, gradients) = gradients(&leaves, |both| loss::mean(&bradley_terry(&both[0], &both[1], &margins, 0.0)?))?;
    Ok(json!({
        "loss": loss,
        "d_chosen_prompt_rewards": flat(&gradients[0])?,
        "d_rejected_prompt_rewards": flat(&gradients[1])?,
    }))
}

fn response_conditioned_dpo_loss(case: &Case) -> Result<Answer> {
    let settings = Dpo { beta: case.param("beta")?, ..Dpo::default() };
    let pairs = Pairs::tokens(case)?;
    let reference = pairs.reference_logps()?;
    let [chosen, rejected] = pairs.rewards(settings.beta)?;
    let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    let mut answer = json!({ "margin": margins });
    let loss = pairs.differentiate("d", &mut answer, |policy| loss::mean(&dpo(policy, Some(&reference), &settings)?))?;
    answer["loss"] = json!(loss);
    Ok(answer)
}

fn inter_sample_loss(case: &Case) -> Result<Answer> {
    let names = ["augmented_chosen", "augmented_rejected", "original_chosen", "original_rejected"];
    let margin = case.param_or("margin", 0.0)?;
    let leaves =
        names.iter().map(|name| vector(&case.input::<Vec<f64>>(&format!("{name}_rewards"))?)).collect::<Result<Vec<_>>>()?;
    let (loss, gradients) = gradients(&leaves, |leaves| {
        let pair = |i: usize| PairLogps { chosen: leaves[i].clone(), rejected: leaves[i + 1].clone() };
        loss::mean(&inter_sample(&pair(0), &pair(2), margin)?)
    })?;
    let mut answer = json!({ "loss": loss });
    for (name, gradient) in names.iter().zip(&gradients) {
        answer[format!("d_{name}_rewards")] = json!(flat(gradient)?);
    }
    Ok(answer)
}

fn mapl_total(case: &Case) -> Result<Answer> {
    let read = |name: &str| scalar(case.input(name)?);
    let (intra, inter) = (read("intra_loss")?, read("inter_loss")?);
    let weights = [case.param_or("lambda_intra", 1.0)?, case.param_or("lambda_inter", 1.0)?];
    let total = with_auxiliary(&read("base_loss")?, &[(weights[0], &intra), (weights[1], &inter)])?;
    Ok(json!({ "loss": total.to_scalar::<f64>()? }))
}
