//! Sheet 13-daa-overoptimisation.

use anyhow::Result;
use candle_core::Tensor;
use plumb_core::recipe::KlEstimator;
use plumb_methods::advantage::mean;
use plumb_methods::evaluation::overoptimization::{fit, length_trend};
use plumb_methods::evaluation::preference::{Ties, agreement};
use plumb_methods::evaluation::sequence_kl::sequence_estimate;
use plumb_methods::loss;
use plumb_methods::loss::daa::{Convex, daa};
use plumb_methods::loss::dpo::PairLogps;
use serde_json::json;

use crate::pairs::Pairs;
use crate::tensor::{flat, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "13-daa-overoptimisation",
    operations: &[
        ("daa_loss", daa_loss),
        ("overoptimisation_fit", overoptimisation_fit),
        ("sequence_kl", sequence_kl),
        ("length_regression", length_regression),
    ],
};

fn daa_loss(case: &Case) -> Result<Answer> {
    let ipo = case.choice("ipo_form", &[("gpo", Convex::Squared), ("azar", Convex::Ipo)])?;
    let g = case.choice("loss", &[("dpo", Convex::Logistic), ("ipo", ipo), ("slic", Convex::Hinge)])?;
    let (beta, alpha) = (case.param("beta")?, case.param_or("length_alpha", 0.0)?);
    let pairs = Pairs::read(case)?;
    let reference = pairs.reference_logps()?;
    let lengths = |side: &str, like: &Tensor| -> Result<Tensor> {
        let given: Option<Vec<f64>> = case.input_opt(&format!("{side}_lengths"))?;
        given.map_or_else(|| Ok(like.zeros_like()?), |given| vector(&given))
    };
    let lengths =
        PairLogps { chosen: lengths("chosen", &reference.chosen)?, rejected: lengths("rejected", &reference.rejected)? };
    let [chosen, rejected] = pairs.rewards(beta)?;
    let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    let mut answer = json!({
        "per_pair": flat(&daa(&pairs.policy_logps()?, &reference, &lengths, g, beta, alpha)?)?,
        "implicit_margin": margins,
        "implicit_accuracy": agreement(&chosen, &rejected, Ties::Strict).accuracy,
    });
    let loss =
        pairs.differentiate("grad", &mut answer, |policy| loss::mean(&daa(policy, &reference, &lengths, g, beta, alpha)?))?;
    answer["loss"] = json!(loss);
    Ok(answer)
}

fn overoptimisation_fit(case: &Case) -> Result<Answer> {
    let (kl, scores): (Vec<f64>, Vec<f64>) = (case.input("kl")?, case.input("score")?);
    let fit = fit(&kl, &scores, case.param_or("offset", 0.0)?);
    let (peak_d, peak_score) = fit.and_then(|fit| fit.peak).unzip();
    Ok(json!({
        "alpha": fit.map(|fit| fit.alpha),
        "beta": fit.map(|fit| fit.beta),
        "rmse": fit.map(|fit| fit.rmse),
        "quadratic": fit.map(|fit| fit.quadratic),
        "quadratic_rmse": fit.map(|fit| fit.quadratic_rmse),
        "peak_d": peak_d,
        "peak_score": peak_score,
    }))
}

fn sequence_kl(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (policy, reference, mask) = (read("policy_logps")?, read("ref_logps")?, read("mask")?);
    let sums = |estimator| -> Vec<f64> {
        (0..policy.len()).map(|i| sequence_estimate(estimator, &policy[i], &reference[i], &mask[i])).collect()
    };
    let plain = sums(KlEstimator::K1);
    let kl = mean(&plain);
    Ok(json!({ "kl": kl, "kl_k3": mean(&sums(KlEstimator::K3)), "sqrt_kl": kl.max(0.0).sqrt(), "per_sequence": plain }))
}

fn length_regression(case: &Case) -> Result<Answer> {
    let trend = length_trend(&case.input::<Vec<f64>>("lengths")?, &case.input::<Vec<f64>>("rewards")?);
    Ok(json!({ "slope": trend.slope, "intercept": trend.intercept, "r2": trend.r_squared }))
}
