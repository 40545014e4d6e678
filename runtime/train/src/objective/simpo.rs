//! Simple preference optimization on the pairs of the data: no reference.

use candle_core::Tensor;
use plumb_core::recipe::{Simpo, Stage};
use plumb_methods::loss::simpo::{SimPo, simpo};

use super::Objective;
use super::pairs::{FromData, PairLoss, PairTerms, Pairs, mean_weights};
use super::registry::{Columns, Flaw, Length, Method, Needs, Start, non_negative, positive, require};

/// Simple preference optimization, as the registry has it.
pub struct SimpoMethod;

impl Method for SimpoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        require(positive(stage.simpo.beta), "simpo.beta", "must be a finite number above 0")?;
        require(non_negative(stage.simpo.gamma), "simpo.gamma", "must be a finite number, 0 or more")
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let length = Length { settings: "simpo", max: stage.simpo.max_length, truncate: stage.simpo.truncate };
        Needs { rows: stage.simpo.batch_size, columns: Columns::Pairs(length), reference: false, score_head: false }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Pairs { loss: &start.stage.simpo, source: FromData, start })
    }
}

impl PairLoss for &Simpo {
    fn token_weights(&self, chosen: usize, rejected: usize) -> [Vec<f64>; 2] {
        mean_weights(chosen, rejected)
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    fn losses(&self, terms: &PairTerms) -> candle_core::Result<Tensor> {
        simpo(&terms.policy, SimPo { beta: self.beta, gamma: self.gamma, label_smoothing: 0.0, alpha: 0.0 })
    }
}
