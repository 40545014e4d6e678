//! Rewards of several members made one: means, conservative objectives, and mixtures of the expected and the worst.
//!
//! Members are `[member][sample]`, all of one length; what is said of a batch is over all its samples, however they are grouped.

use crate::advantage::{mean, std_dev, variance};
use crate::stats::{dot, first_min, mean_opt};

/// A sample's rewards, one of each member.
fn column(members: &[Vec<f64>], sample: usize) -> Vec<f64> {
    members.iter().map(|rewards| rewards[sample]).collect()
}

fn by_sample<T>(members: &[Vec<f64>], f: impl Fn(&[f64]) -> T) -> Vec<T> {
    let samples = members.first().map_or(0, Vec::len);
    (0..samples).map(|sample| f(&column(members, sample))).collect()
}

/// What is made of a sample's rewards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Their mean.
    Mean,
    /// Worst-case optimization: the least.
    Worst,
    /// Uncertainty-weighted optimization: mean - coefficient · variance, the variance dividing by `k - ddof`.
    Uncertainty {
        /// Weight of the variance, by the inverse of the reward's unit.
        coefficient: f64,
        /// 0: population, 1: sample; one member has variance 0 either way.
        ddof: usize,
    },
}

/// One reward for each sample.
///
/// Reference: Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization", section 3.
pub fn combine(members: &[Vec<f64>], objective: Objective) -> Vec<f64> {
    by_sample(members, |rewards| match objective {
        Objective::Mean => mean(rewards),
        Objective::Worst => rewards.iter().copied().fold(f64::INFINITY, f64::min),
        Objective::Uncertainty { coefficient, ddof } => mean(rewards) - coefficient * variance(rewards, ddof),
    })
}

/// Variance of the members by sample, dividing by `k - ddof`; 0 with one member.
pub fn variances(members: &[Vec<f64>], ddof: usize) -> Vec<f64> {
    by_sample(members, |rewards| variance(rewards, ddof))
}

/// Strength of each preference: mean and standard deviation, dividing by `k - ddof`, of the margins `chosen - rejected` that the members
/// give it. Members with large scales count more; the deviation of one member is 0.
///
/// Reference: Wang et al. 2024, "Secrets of RLHF in Large Language Models Part II: Reward Modeling", section 2.1.
///
/// # Panics
/// When the members have not as many rejected as chosen rewards.
pub fn preference_strength(chosen: &[Vec<f64>], rejected: &[Vec<f64>], ddof: usize) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(chosen.len(), rejected.len(), "each member needs both rewards");
    let margins = |(chosen, rejected): (&Vec<f64>, &Vec<f64>)| {
        assert_eq!(chosen.len(), rejected.len(), "each pair needs both rewards");
        chosen.iter().zip(rejected).map(|(chosen, rejected)| chosen - rejected).collect()
    };
    let margins: Vec<Vec<f64>> = chosen.iter().zip(rejected).map(margins).collect();
    by_sample(&margins, |margins| (mean(margins), std_dev(margins, ddof))).into_iter().unzip()
}

/// `Σ_m w_m r_m` of each sample.
pub fn weighted(members: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    by_sample(members, |rewards| dot(weights, rewards))
}

/// `w / Σ w`; None where a weight is negative or they add up to 0, as there is no mean by such weights.
pub fn normalised(weights: &[f64]) -> Option<Vec<f64>> {
    let total: f64 = weights.iter().sum();
    (total > 0.0 && weights.iter().all(|w| *w >= 0.0)).then(|| weights.iter().map(|w| w / total).collect())
}

/// What members' weights are proportional to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weighting {
    /// Nothing: they are equal.
    #[default]
    Mean,
    /// The share of validation pairs whose chosen answer has the strictly greater reward.
    Accuracy,
    /// The mean margin on validation pairs.
    Confidence,
}

/// Weights of members from their rewards on validation pairs, `[member][pair]`; they add up to 1.
///
/// None where a member has a negative mean margin, or no member is right about any pair.
///
/// Reference: Zhang et al. 2025, "BaseReward".
pub fn validation_weights(chosen: &[Vec<f64>], rejected: &[Vec<f64>], weighting: Weighting) -> Option<Vec<f64>> {
    let worth = |(chosen, rejected): (&Vec<f64>, &Vec<f64>)| {
        let margins: Vec<f64> = chosen.iter().zip(rejected).map(|(c, r)| c - r).collect();
        match weighting {
            Weighting::Mean => 1.0,
            Weighting::Accuracy => margins.iter().filter(|margin| **margin > 0.0).count() as f64 / margins.len().max(1) as f64,
            Weighting::Confidence => mean(&margins),
        }
    };
    normalised(&chosen.iter().zip(rejected).map(worth).collect::<Vec<f64>>())
}

/// Least reward of each sample and whose it is, the first member on ties.
pub fn worst_by_sample(members: &[Vec<f64>]) -> Vec<(usize, f64)> {
    by_sample(members, |rewards| first_min(rewards).map_or((0, 0.0), |member| (member, rewards[member])))
}

/// Mean of each member over the batch, and the member with the least, the first one on ties; None without samples.
///
/// Reference: Chakraborty et al. 2024 ("MaxMin-RLHF"), algorithm 2: the utility of each group over the batch.
pub fn worst_by_batch(members: &[Vec<f64>]) -> (Vec<Option<f64>>, Option<usize>) {
    let utilities: Vec<Option<f64>> = members.iter().map(|rewards| mean_opt(rewards)).collect();
    let known: Option<Vec<f64>> = utilities.iter().copied().collect();
    (utilities, known.and_then(|known| first_min(&known)))
}

/// The surest head of each sample, the one of least deviation and the first on ties, and its reward.
pub fn surest_by_sample(members: &[Vec<f64>], stds: &[Vec<f64>]) -> Vec<(usize, f64)> {
    let samples = members.first().map_or(0, Vec::len);
    let surest = |sample: usize| {
        let head = first_min(&column(stds, sample)).unwrap_or(0);
        (head, members[head][sample])
    };
    (0..samples).map(surest).collect()
}

/// What is expected of a sample, in [`robust`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nominal<'a> {
    /// The surest head's mean, by deviations `[head][sample]`.
    MinStd(&'a [Vec<f64>]),
    /// The mean of all heads.
    Mean,
}

/// Over what the worst head is sought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each sample has its own worst head: a lower bound of the other.
    #[default]
    Sample,
    /// One head, that of the least mean over the batch, is the worst of all samples.
    Batch,
}

/// Rewards between the nominal and the worst.
#[derive(Clone, Debug, PartialEq)]
pub struct Robust {
    /// By sample.
    pub rewards: Vec<f64>,
    /// The batch's worst head, where the scope is the batch.
    pub worst_head: Option<usize>,
    /// Mean reward of the batch; 0 without samples.
    pub objective: f64,
    /// Population deviation of the nominal rewards: the mixture narrows it.
    pub spread_nominal: f64,
    /// Population deviation of the rewards.
    pub spread_robust: f64,
}

/// `w · nominal + (1 - w) · worst` of each sample; w = 1 is the nominal reward, 0 the worst case.
///
/// Reference: Yan et al. 2024, "Reward-Robust RLHF in LLMs", the objective.
pub fn robust(members: &[Vec<f64>], nominal: Nominal<'_>, nominal_weight: f64, scope: Scope) -> Robust {
    let nominal = match nominal {
        Nominal::MinStd(stds) => surest_by_sample(members, stds).into_iter().map(|(_, reward)| reward).collect(),
        Nominal::Mean => combine(members, Objective::Mean),
    };
    let worst_head = (scope == Scope::Batch).then(|| worst_by_batch(members).1).flatten();
    let worst = worst_head.map_or_else(|| combine(members, Objective::Worst), |head| members[head].clone());
    let mix = |(nominal, worst): (&f64, &f64)| nominal_weight * nominal + (1.0 - nominal_weight) * worst;
    let rewards: Vec<f64> = nominal.iter().zip(&worst).map(mix).collect();
    Robust {
        worst_head,
        objective: mean(&rewards),
        spread_nominal: std_dev(&nominal, 0),
        spread_robust: std_dev(&rewards, 0),
        rewards,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    fn members() -> Vec<Vec<f64>> {
        vec![vec![1.0, 4.0, -1.0], vec![3.0, 0.0, -1.0]]
    }

    #[test]
    fn objectives_match_values_by_hand() {
        assert_close(&combine(&members(), Objective::Mean), &[2.0, 2.0, -1.0]);
        assert_close(&combine(&members(), Objective::Worst), &[1.0, 0.0, -1.0]);
        let uncertain = |ddof| combine(&members(), Objective::Uncertainty { coefficient: 0.5, ddof });
        assert_close(&uncertain(0), &[1.5, 0.0, -1.0]);
        assert_close(&uncertain(1), &[1.0, -2.0, -1.0]);
    }

    #[test]
    fn one_member_has_no_variance_in_either_form() {
        let one = [vec![0.3, -2.0]];
        for ddof in [0, 1] {
            assert_eq!(variances(&one, ddof), [0.0, 0.0]);
            assert_eq!(combine(&one, Objective::Uncertainty { coefficient: 3.0, ddof }), one[0]);
        }
    }

    #[test]
    fn strength_is_over_the_margins_of_members() {
        let (chosen, rejected) = ([vec![1.0, 0.5], vec![2.0, 0.5]], [vec![0.0, 1.0], vec![-1.0, 1.0]]);
        assert_eq!(preference_strength(&chosen, &rejected, 0), (vec![2.0, -0.5], vec![1.0, 0.0]));
        assert_eq!(preference_strength(&chosen, &rejected, 1).1, [2.0f64.sqrt(), 0.0]);
        assert_eq!(preference_strength(&chosen[..1], &rejected[..1], 1).1, [0.0, 0.0]);
        assert_eq!(preference_strength(&[], &[], 0), (vec![], vec![]));
    }

    #[test]
    fn batches_without_samples_have_no_worst_member() {
        let empty = [Vec::new(), Vec::new()];
        assert_eq!(worst_by_batch(&empty), (vec![None, None], None));
        let robust = robust(&empty, Nominal::Mean, 0.5, Scope::Batch);
        assert_eq!((robust.rewards.len(), robust.worst_head, robust.objective), (0, None, 0.0));
    }

    #[test]
    fn least_of_means_is_not_the_mean_of_leasts() {
        let (utilities, worst) = worst_by_batch(&members());
        assert_eq!((utilities, worst), (vec![Some(4.0 / 3.0), Some(2.0 / 3.0)], Some(1)));
        assert_eq!(worst_by_sample(&members()), [(0, 1.0), (1, 0.0), (0, -1.0)], "the first member wins a tie");
        let of = |scope| robust(&members(), Nominal::Mean, 0.0, scope);
        assert_eq!(of(Scope::Batch).rewards, members()[1]);
        assert!(of(Scope::Sample).objective <= of(Scope::Batch).objective);
    }

    #[test]
    fn nominal_weight_of_one_is_the_surest_head() {
        let stds = [vec![0.1, 0.5, 0.3], vec![0.2, 0.4, 0.3]];
        let nominal = robust(&members(), Nominal::MinStd(&stds), 1.0, Scope::Sample);
        assert_eq!(nominal.rewards, [1.0, 0.0, -1.0]);
        assert_eq!((nominal.worst_head, nominal.spread_nominal), (None, nominal.spread_robust));
    }

    #[test]
    fn weights_come_from_validation_and_are_refused_where_there_is_no_mean_by_them() {
        let (chosen, rejected) = ([vec![1.0, 2.0], vec![3.0, 1.0]], [vec![0.0, 2.0], vec![1.0, 0.0]]);
        let weights = |weighting| validation_weights(&chosen, &rejected, weighting);
        assert_eq!(weights(Weighting::Mean).unwrap(), [0.5, 0.5]);
        assert_close(&weights(Weighting::Accuracy).unwrap(), &[1.0 / 3.0, 2.0 / 3.0]);
        assert_close(&weights(Weighting::Confidence).unwrap(), &[0.25, 0.75]);
        assert_eq!(validation_weights(&rejected, &chosen, Weighting::Confidence), None);
        assert_eq!(validation_weights(&rejected, &chosen, Weighting::Accuracy), None);
    }
}
