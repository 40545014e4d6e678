//! Odds-ratio preference optimization on the pairs of the data: no reference.

use candle_core::Tensor;
use plumb_core::recipe::{Orpo, Stage};
use plumb_methods::loss::grpo::TokenStats;
use plumb_methods::loss::orpo::odds_ratio;
use plumb_methods::stats::log_sigmoid;

use super::Objective;
use super::pairs::{FromData, PairLoss, PairTerms, Pairs, mean_weights};
use super::registry::{Columns, Flaw, Length, Method, Needs, Start, positive, require};

/// Odds-ratio preference optimization, as the registry has it.
pub struct OrpoMethod;

impl Method for OrpoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        require(positive(stage.orpo.beta), "orpo.beta", "must be a finite number above 0")
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let length = Length { settings: "orpo", max: stage.orpo.max_length, truncate: stage.orpo.truncate };
        Needs { rows: stage.orpo.batch_size, columns: Columns::Pairs(length), reference: false, score_head: false }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Pairs { loss: &start.stage.orpo, source: FromData, start })
    }
}

impl PairLoss for &Orpo {
    fn token_weights(&self, chosen: usize, rejected: usize) -> [Vec<f64>; 2] {
        mean_weights(chosen, rejected)
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    fn losses(&self, terms: &PairTerms) -> candle_core::Result<Tensor> {
        odds_ratio(&terms.policy, self.beta)? + &terms.nll
    }

    fn count(&self, stats: &mut TokenStats, policy: [f64; 2], nll: f64) {
        let log_odds = |mean: f64| mean - (-mean.min(-f64::EPSILON).exp_m1()).ln();
        let ratio = log_odds(policy[0]) - log_odds(policy[1]);
        stats.means.add("nll_loss", nll);
        stats.means.add("log_odds_chosen", ratio);
        stats.means.add("log_odds_ratio", log_sigmoid(ratio));
    }
}
