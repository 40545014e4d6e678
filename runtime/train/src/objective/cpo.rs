//! Contrastive preference optimization on the pairs of the data: no reference.

use candle_core::Tensor;
use plumb_core::recipe::{Cpo, CpoLoss, Dpo, DpoLoss, Stage};
use plumb_methods::loss::dpo::dpo;
use plumb_methods::loss::grpo::TokenStats;

use super::Objective;
use super::pairs::{FromData, PairLoss, PairTerms, Pairs, mean_weights, sum_weights};
use super::registry::{Columns, Flaw, Length, Method, Needs, Start, non_negative, positive, require};

/// Contrastive preference optimization, as the registry has it.
pub struct CpoMethod;

impl Method for CpoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let Cpo { beta, label_smoothing, alpha, .. } = stage.cpo;
        require(positive(beta), "cpo.beta", "must be a finite number above 0")?;
        require((0.0..0.5).contains(&label_smoothing), "cpo.label_smoothing", "must be at least 0 and below 0.5")?;
        require(non_negative(alpha), "cpo.alpha", "must be a finite number, 0 or more")
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let length = Length { settings: "cpo", max: stage.cpo.max_length, truncate: stage.cpo.truncate };
        Needs { rows: stage.cpo.batch_size, columns: Columns::Pairs(length), reference: false, score_head: false }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Pairs { loss: &start.stage.cpo, source: FromData, start })
    }
}

impl PairLoss for &Cpo {
    fn token_weights(&self, chosen: usize, rejected: usize) -> [Vec<f64>; 2] {
        if self.loss_type == CpoLoss::Ipo { mean_weights(chosen, rejected) } else { sum_weights(chosen, rejected) }
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    /// DPO's losses with a reference that finds all answers equally likely, and the likelihood of the chosen ones (equation 6).
    fn losses(&self, terms: &PairTerms) -> candle_core::Result<Tensor> {
        let loss_type = match self.loss_type {
            CpoLoss::Sigmoid => DpoLoss::Sigmoid,
            CpoLoss::Hinge => DpoLoss::Hinge,
            CpoLoss::Ipo => DpoLoss::Ipo,
        };
        let settings = Dpo { loss_type, beta: self.beta, label_smoothing: self.label_smoothing, ..Dpo::default() };
        dpo(&terms.policy, None, &settings)? + (&terms.nll * self.alpha)?
    }

    fn count(&self, stats: &mut TokenStats, _policy: [f64; 2], nll: f64) {
        stats.means.add("nll_loss", nll);
    }
}
