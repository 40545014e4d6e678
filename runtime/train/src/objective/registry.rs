//! The algorithms there are: what each asks of a recipe and of its data, and how its objective is made.
//!
//! A new one is a file with its [`Method`] and its [`Objective`], and a line in [`method`].

use plumb_core::recipe::{Algorithm, FilterScope, Rollout, ScaleRewards, Speculation, Stage};
use plumb_methods::advantage::{Baseline, Scaling, TRL_DDOF, TRL_EPSILON};

use super::{Objective, cpo, distill, dpo, grpo, kto, online_dpo, orpo, policy_gradient, raft, reward_model, sft, simpo};
use crate::data::Sampler;
use crate::pipeline::filtering::Pair;
use crate::pipeline::record;
use crate::pipeline::rows::StepRows;
use crate::stage::StageData;

// ANCHOR: method
/// The method of an algorithm.
pub fn method(algorithm: Algorithm) -> &'static dyn Method {
    match algorithm {
        Algorithm::Sft => &sft::SftMethod,
        Algorithm::Grpo => &grpo::GrpoMethod,
        Algorithm::Rloo => &policy_gradient::RLOO,
        Algorithm::Reinforce => &policy_gradient::REINFORCE,
        Algorithm::ReinforcePlusPlus => &policy_gradient::REINFORCE_PLUS_PLUS,
        Algorithm::Dpo => &dpo::DpoMethod,
        Algorithm::Raft => &raft::RaftMethod,
        Algorithm::OnlineDpo => &online_dpo::OnlineDpoMethod,
        Algorithm::Kto => &kto::KtoMethod,
        Algorithm::Orpo => &orpo::OrpoMethod,
        Algorithm::Cpo => &cpo::CpoMethod,
        Algorithm::Simpo => &simpo::SimpoMethod,
        Algorithm::Distill => &distill::DistillMethod,
        Algorithm::RewardModel => &reward_model::RewardModelMethod,
    }
}
// ANCHOR_END: method

/// An algorithm as the loop sees it before it runs.
pub trait Method: Sync {
    /// What is wrong with its settings, before any compute. What all algorithms of its kind ask for is in [`check`] already.
    fn check(&self, stage: &Stage) -> Result<(), Flaw>;

    /// What it needs.
    fn needs(&self, stage: &Stage) -> Needs;

    /// Whether samples need a reward or a judge.
    fn judged(&self) -> bool {
        true
    }

    /// The model of `[models]` that it learns from; its vocabulary must be the policy's.
    fn teacher<'s>(&self, _stage: &'s Stage) -> Option<&'s str> {
        None
    }

    /// Why each of a step's completions is not in the loss; None for those that are. A function of the rows and of the
    /// pairs that filters made alone, so that a replay finds the same.
    fn reasons(&self, _stage: &Stage, rows: &StepRows, _pairs: &[Pair]) -> Vec<Option<String>> {
        record::reasons(rows, false)
    }

    /// How rewards of samples become advantages.
    fn scaling(&self, stage: &Stage) -> Scaling<f64> {
        Scaling { by: stage.grpo.scale_rewards, ..trl_scaling() }
    }

    /// Its objective over a stage.
    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a>;
}

/// TRL's GRPO: against the group's mean, over the group's deviation.
pub(crate) fn trl_scaling() -> Scaling<f64> {
    Scaling { baseline: Baseline::Group, by: ScaleRewards::Group, ddof: TRL_DDOF, epsilon: TRL_EPSILON }
}

/// What an objective is made from.
pub struct Start<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// The stage in the recipe.
    pub stage: &'a Stage,
    /// Its rows.
    pub data: &'a StageData,
    /// Which rows a batch takes.
    pub sampler: Sampler,
}

/// What an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Rows of the data per batch.
    pub rows: usize,
    /// What those rows hold.
    pub columns: Columns,
    /// Whether the policy as the stage began is kept beside it.
    pub reference: bool,
    /// Whether the policy has a head that scores, and speaks no more.
    pub score_head: bool,
}

/// What rows of data hold besides their prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Nothing: completions are sampled, as `rollout` says.
    Prompts,
    /// `completion`.
    Completions(Length),
    /// `chosen` and `rejected`.
    Pairs(Length),
    /// `completion` and the truth value `label`; or `chosen` and `rejected`, which are two labelled completions.
    Labels(Length),
}

/// How long prompt and answer may be together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Settings of the algorithm, as recipes name them.
    pub settings: &'static str,
    /// Most tokens.
    pub max: usize,
    /// Whether longer answers are cut at the end; otherwise they are refused.
    pub truncate: bool,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Its key, below the stage's.
    pub key: String,
    /// What it must be, and why.
    pub rule: String,
}

/// A flaw where `holds` is false.
pub fn require(holds: bool, key: &str, rule: &str) -> Result<(), Flaw> {
    if holds { Ok(()) } else { Err(Flaw { key: key.into(), rule: rule.into() }) }
}

/// Finite, and 0 or more.
pub(crate) fn non_negative(value: f64) -> bool {
    value >= 0.0 && value.is_finite()
}

/// Finite, and more than 0.
pub(crate) fn positive(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

/// What is wrong with a stage, before any compute.
///
/// # Errors
/// The first setting that its algorithm cannot work with.
pub fn check(stage: &Stage) -> Result<(), Flaw> {
    require(stage.max_steps > 0, "max_steps", "must be at least 1")?;
    let method = method(stage.algorithm);
    method.check(stage)?;
    let needs = method.needs(stage);
    match needs.columns {
        Columns::Prompts => samples(stage, method.judged())?,
        Columns::Completions(length) | Columns::Pairs(length) | Columns::Labels(length) => {
            require(needs.rows > 0, &format!("{}.batch_size", length.settings), "must be at least 1")?;
            require(length.max > 1, &format!("{}.max_length", length.settings), "must be at least 2")?;
            learns_from_data(stage)?;
        }
    }
    let speaks = !needs.score_head || stage.eval.is_none();
    let name = stage.algorithm.name();
    require(speaks, "eval", &format!("has no meaning in a stage with `algorithm = \"{name}\"`, whose model writes nothing"))
}

/// Stages that sample nothing have nobody judge it.
fn learns_from_data(stage: &Stage) -> Result<(), Flaw> {
    let name = stage.algorithm.name();
    let lists =
        [("rewards", !stage.rewards.is_empty()), ("judges", !stage.judges.is_empty()), ("shapers", !stage.shapers.is_empty())];
    for (list, there) in lists {
        require(!there, list, &format!("has no meaning in a stage with `algorithm = \"{name}\"`, which samples nothing"))?;
    }
    let of_data = stage.filters.iter().all(|filter| filter.scope == FilterScope::Dataset);
    let rule = format!("must have `scope = \"dataset\"` in a stage with `algorithm = \"{name}\"`, which samples nothing");
    require(of_data, "filters", &rule)
}

fn samples(stage: &Stage, judged: bool) -> Result<(), Flaw> {
    let nobody = stage.rewards.is_empty() && stage.judges.is_empty();
    let rule = format!("`algorithm = \"{}\"` needs at least one reward or judge", stage.algorithm.name());
    require(!(judged && nobody), "rewards", &rule)?;
    let Rollout { num_generations, temperature, top_p, min_p, ref stop, speculation, .. } = stage.rollout;
    for (name, value) in [
        ("prompts_per_step", stage.rollout.prompts_per_step),
        ("max_completion_length", stage.rollout.max_completion_length),
        ("max_prompt_length", stage.rollout.max_prompt_length),
        ("max_batch", stage.rollout.max_batch),
    ] {
        require(value > 0, &format!("rollout.{name}"), "must be at least 1")?;
    }
    require((1..=4096).contains(&num_generations), "rollout.num_generations", "must be between 1 and 4096")?;
    if let Some(Speculation { max_draft, ngram }) = speculation {
        let rule = "must be at least 1; to guess nothing, leave `speculation` out";
        require(max_draft > 0, "rollout.speculation.max_draft", rule)?;
        require(ngram > 0, "rollout.speculation.ngram", "must be at least 1")?;
    }
    let rule = "must be above 0: greedy completions of a prompt are all the same";
    require(temperature > 0.0 && temperature.is_finite(), "rollout.temperature", rule)?;
    require(top_p > 0.0 && top_p <= 1.0, "rollout.top_p", "must be above 0 and at most 1")?;
    require((0.0..=1.0).contains(&min_p), "rollout.min_p", "must be between 0 and 1")?;
    require(stop.iter().all(|stop| !stop.is_empty()), "rollout.stop", "an empty text would stop at once")
}
