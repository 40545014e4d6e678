//! Direct preference optimization on the pairs of the data.

use candle_core::Tensor;
use plumb_core::recipe::{Dpo, DpoLoss, FDivergence, Stage};
use plumb_methods::loss::divergence::{Divergence, f_dpo};
use plumb_methods::loss::dpo::{PairLogps, sequence_weights};
use plumb_methods::loss::grpo::TokenStats;

use super::pairs::{FromData, PairLoss, PairTerms, Pairs};
use super::registry::{Columns, Flaw, Length, Method, Needs, Start, non_negative, positive, require};
use super::{Grain, Objective};

/// Direct preference optimization, as the registry has it.
pub struct DpoMethod;

impl Method for DpoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let sorts = stage.dpo.loss_type.sorts();
        let enough = !sorts || stage.dpo.batch_size >= 2 * stage.optimizer.gradient_accumulation_steps;
        let rule = "must give each of the `optimizer.gradient_accumulation_steps` at least two pairs: this loss compares them with each other";
        check(&stage.dpo)?;
        require(enough, "dpo.batch_size", rule)
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let length = Length { settings: "dpo", max: stage.dpo.max_length, truncate: stage.dpo.truncate };
        let reference = !stage.dpo.reference_free;
        Needs { rows: stage.dpo.batch_size, columns: Columns::Pairs(length), reference, score_head: false }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Pairs { loss: &start.stage.dpo, source: FromData, start })
    }
}

/// What is wrong with the loss's settings.
pub(crate) fn check(settings: &Dpo) -> Result<(), Flaw> {
    let Dpo { loss_type, label_smoothing, beta, ld_alpha, discopop_tau, .. } = *settings;
    require(positive(beta), "dpo.beta", "must be a finite number above 0")?;
    require((0.0..0.5).contains(&label_smoothing), "dpo.label_smoothing", "must be at least 0 and below 0.5")?;
    let finite = label_smoothing > 0.0 || loss_type != DpoLoss::ExoPair;
    let rule = "must be above 0 with `loss_type = \"exo_pair\"`, whose loss is infinite without; 0.001 is usual";
    require(finite, "dpo.label_smoothing", rule)?;
    let rule = "must be between 0 and 1: 0 ignores what is longer than the other answer, 1 counts it like the rest";
    require(ld_alpha.is_none_or(|alpha| (0.0..=1.0).contains(&alpha)), "dpo.ld_alpha", rule)?;
    let between = discopop_tau > 0.0 && discopop_tau < 1.0;
    require(between, "dpo.discopop_tau", "must be above 0 and below 1")?;
    let rule = "must be a finite number, 0 or more";
    require(settings.rpo_alpha.is_none_or(non_negative), "dpo.rpo_alpha", rule)?;
    require(settings.f_alpha_divergence_coef.is_finite(), "dpo.f_alpha_divergence_coef", "must be a finite number")?;
    let plain = settings.f_divergence_type == FDivergence::ReverseKl;
    let rule = "must be `reverse_kl` with this `loss_type`, which is no function of the difference of the two answers' rewards";
    require(plain || loss_type.is_of_differences(), "dpo.f_divergence_type", rule)?;
    let margins = matches!(loss_type, DpoLoss::Sigmoid | DpoLoss::Robust | DpoLoss::Hinge) && plain;
    let rule = "has a meaning only with `loss_type` `sigmoid`, `robust` or `hinge` and the divergence `reverse_kl`";
    require(!settings.margins || margins, "dpo.margins", rule)
}

impl PairLoss for &Dpo {
    fn with_reference(&self) -> bool {
        !self.reference_free
    }

    /// Losses that sort compare all pairs of a part with each other.
    fn grain(&self) -> Grain {
        if self.loss_type.sorts() { Grain::Part } else { Grain::Rows(2) }
    }

    fn token_weights(&self, chosen: usize, rejected: usize) -> [Vec<f64>; 2] {
        sequence_weights(chosen, rejected, self)
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    fn losses(&self, terms: &PairTerms) -> candle_core::Result<Tensor> {
        let mut policy = terms.policy.clone();
        if self.margins {
            // beta h - margin is beta times an h whose chosen answer is less likely by margin / beta.
            policy = PairLogps { chosen: (policy.chosen - (&terms.margins / self.beta)?)?, ..policy };
        }
        let divergence = match self.f_divergence_type {
            FDivergence::ReverseKl => Divergence::ReverseKl,
            FDivergence::ForwardKl => Divergence::ForwardKl,
            FDivergence::JsDivergence => Divergence::JensenShannon,
            FDivergence::AlphaDivergence => Divergence::Alpha(self.f_alpha_divergence_coef),
        };
        let losses = f_dpo(&policy, terms.reference.as_ref(), divergence, self)?;
        match self.rpo_alpha {
            Some(alpha) => losses + (&terms.nll * alpha)?,
            None => Ok(losses),
        }
    }

    fn count(&self, stats: &mut TokenStats, _policy: [f64; 2], nll: f64) {
        if self.rpo_alpha.is_some() {
            stats.means.add("nll_loss", nll);
        }
    }
}
