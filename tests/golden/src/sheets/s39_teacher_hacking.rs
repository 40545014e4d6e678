//! Sheet 39-teacher-hacking.

use anyhow::Result;
use candle_core::{Device, Tensor};
use plumb_core::recipe::KlEstimator;
use plumb_methods::evaluation::hacking::{Tolerances, departure, report};
use plumb_methods::evaluation::sequence_kl::{jensen_shannon, mean_with_error, sequence_estimate};
use plumb_methods::loss::distillation::{TokenDivergence, label_logprobs, token_divergence};
use plumb_methods::loss::sequence::{Reduction, negative_log_likelihood, reduce};
use plumb_methods::selection::budget::{Dataset, Source, source};
use serde_json::json;

use crate::groups::regroup;
use crate::tensor::{gradients, matrix, rows};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "39-teacher-hacking",
    operations: &[
        ("distill_loss", distill_loss),
        ("sft_nll", sft_nll),
        ("sequence_kl", sequence_kl),
        ("sequence_js", sequence_js),
        ("hacking_report", hacking_report),
        ("power_law_fit", power_law_fit),
        ("offline_budget", offline_budget),
        ("data_mixture", data_mixture),
    ],
};

/// `[B · T, V]` of nested rows.
fn logits(case: &Case, name: &str) -> Result<Tensor> {
    matrix(&case.input::<Vec<Vec<Vec<f64>>>>(name)?.concat())
}

fn distill_loss(case: &Case) -> Result<Answer> {
    let kinds = [
        ("forward_kl", TokenDivergence::ForwardKl),
        ("reverse_kl", TokenDivergence::ReverseKl),
        ("generalized_js", TokenDivergence::GeneralizedJs(case.param_or("beta", 0.5)?)),
    ];
    let kind = case.choice("divergence", &kinds)?;
    let reduction =
        case.choice("reduction", &[("token_mean", Reduction::TokenMean), ("sequence_sum", Reduction::SequenceMean)])?;
    let mask_rows: Vec<Vec<f64>> = case.input("mask")?;
    let (mask, teacher, student) = (matrix(&mask_rows)?, logits(case, "teacher_logits")?, logits(case, "student_logits")?);
    let divergences = |student: &Tensor| token_divergence(&teacher, student, kind)?.reshape(mask.shape());
    let token_divergence = rows(&divergences(&student)?)?;
    let (loss, gradients) = gradients(&[student], |student| reduce(&divergences(&student[0])?, &mask, reduction))?;
    let gradient = regroup(&rows(&gradients[0])?, &mask_rows);
    Ok(json!({ "token_divergence": token_divergence, "loss": loss, "d_student_logits": gradient }))
}

fn sft_nll(case: &Case) -> Result<Answer> {
    let (mask_rows, labels): (Vec<Vec<f64>>, Vec<Vec<u32>>) = (case.input("mask")?, case.input("labels")?);
    let mask = matrix(&mask_rows)?;
    let labels = Tensor::new(labels.concat(), &Device::Cpu)?;
    let logprobs = label_logprobs(&logits(case, "student_logits")?, &labels)?.reshape(mask.shape())?;
    let nll = negative_log_likelihood(&logprobs, &mask, Reduction::TokenMean)?;
    Ok(json!({ "nll": nll.to_scalar::<f64>()?, "logps": rows(&(logprobs * mask)?)? }))
}

fn sequence_kl(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (p, q, mask) = (read("p_logps")?, read("q_logps")?, read("mask")?);
    let sums: Vec<f64> = (0..p.len()).map(|i| sequence_estimate(KlEstimator::K1, &p[i], &q[i], &mask[i])).collect();
    let (kl, standard_error) = mean_with_error(&sums);
    Ok(json!({ "kl": kl, "standard_error": standard_error }))
}

fn sequence_js(case: &Case) -> Result<Answer> {
    let samples = |of: &str| -> Result<Vec<(f64, f64)>> {
        let p: Vec<f64> = case.input(&format!("{of}_samples_p_logps_sum"))?;
        let q: Vec<f64> = case.input(&format!("{of}_samples_q_logps_sum"))?;
        Ok(p.into_iter().zip(q).collect())
    };
    Ok(json!({ "js": jensen_shannon(&samples("p")?, &samples("q")?) }))
}

fn hacking_report(case: &Case) -> Result<Answer> {
    let tolerances =
        Tolerances { golden: case.param_or("golden_tolerance", 0.0)?, proxy: case.param_or("proxy_tolerance", 0.0)? };
    let report = report(&case.input::<Vec<f64>>("proxy")?, &case.input::<Vec<f64>>("golden")?, tolerances);
    Ok(json!({
        "golden_argmin": report.map(|report| report.golden_argmin),
        "golden_rise": report.map_or(0.0, |report| report.golden_rise),
        "proxy_fall_after": report.map_or(0.0, |report| report.proxy_fall_after),
        "hacking": report.is_some_and(|report| report.hacking),
        "onset": report.filter(|report| report.hacking).map(|report| report.golden_argmin),
    }))
}

fn power_law_fit(case: &Case) -> Result<Answer> {
    let (steps, values): (Vec<f64>, Vec<f64>) = (case.input("steps")?, case.input("values")?);
    let fit = departure(&steps, &values, case.param_or("fit_points", steps.len())?);
    Ok(json!({
        "log_prefactor": fit.as_ref().map(|fit| fit.log_prefactor),
        "exponent": fit.as_ref().map(|fit| fit.exponent),
        "log_residuals": fit.as_ref().map(|fit| &fit.log_residuals),
        "max_abs_residual_after_fit": fit.as_ref().map(|fit| fit.max_after_fit),
    }))
}

fn offline_budget(case: &Case) -> Result<Answer> {
    let all = Dataset { prompts: case.input("num_prompts")?, generations_per_prompt: case.input("generations_per_prompt")? };
    let row = |fraction: &f64| {
        let set = all.narrowed(*fraction);
        json!({ "prompts": set.prompts, "generations_per_prompt": set.generations_per_prompt, "size": set.size() })
    };
    Ok(json!({ "datasets": case.param::<Vec<f64>>("fractions")?.iter().map(row).collect::<Vec<_>>() }))
}

fn data_mixture(case: &Case) -> Result<Answer> {
    let (student, teacher) = (case.param_or("online_student", 0.0)?, case.param_or("online_teacher", 0.0)?);
    let name = |uniform: &f64| match source(*uniform, student, teacher) {
        Source::Student => "student",
        Source::Teacher => "teacher",
        Source::Offline => "offline",
    };
    Ok(json!({ "source": case.input::<Vec<f64>>("uniforms")?.iter().map(name).collect::<Vec<_>>() }))
}
