//! Policy gradients without a critic beside GRPO: its rollouts and its loss, with another baseline.

use plumb_core::recipe::{Grpo, ScaleRewards, Stage};
use plumb_methods::advantage::{Baseline, Scaling};

use super::Objective;
use super::grpo::GrpoMethod;
use super::registry::{Flaw, Method, Needs, Start, require, trl_scaling};
use crate::pipeline::filtering::Pair;
use crate::pipeline::rows::StepRows;

/// REINFORCE with the mean of a prompt's other completions as the baseline (Ahmadian et al. 2024).
pub const RLOO: PolicyGradient = PolicyGradient { baseline: Baseline::LeaveOneOut, by: ScaleRewards::None, least_generations: 2 };

/// REINFORCE with the step's mean as the baseline (Williams 1992).
pub const REINFORCE: PolicyGradient = PolicyGradient { baseline: Baseline::Batch, by: ScaleRewards::None, least_generations: 1 };

/// REINFORCE with rewards normalized over the step (Hu et al. 2025, REINFORCE++).
pub const REINFORCE_PLUS_PLUS: PolicyGradient =
    PolicyGradient { baseline: Baseline::Batch, by: ScaleRewards::Batch, least_generations: 1 };

/// GRPO with another way from rewards to advantages; settings are those of `grpo`.
pub struct PolicyGradient {
    baseline: Baseline,
    by: ScaleRewards,
    /// Fewest completions of a prompt that the baseline can do with.
    least_generations: usize,
}

impl Method for PolicyGradient {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let rule = "must be at least 2: a completion's baseline is the mean of the others of its prompt";
        require(stage.rollout.num_generations >= self.least_generations, "rollout.num_generations", rule)?;
        let name = stage.algorithm.name();
        let own = stage.grpo.scale_rewards == Grpo::default().scale_rewards;
        let rule = format!("has no meaning with `algorithm = \"{name}\"`, which has a way of its own; leave it out");
        require(own, "grpo.scale_rewards", &rule)?;
        GrpoMethod::check_loss(stage)
    }

    fn needs(&self, stage: &Stage) -> Needs {
        GrpoMethod.needs(stage)
    }

    fn reasons(&self, stage: &Stage, rows: &StepRows, pairs: &[Pair]) -> Vec<Option<String>> {
        GrpoMethod.reasons(stage, rows, pairs)
    }

    fn scaling(&self, _stage: &Stage) -> Scaling<f64> {
        Scaling { baseline: self.baseline, by: self.by, ..trl_scaling() }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        GrpoMethod.objective(start)
    }
}
