//! Group-relative advantages (Shao et al. 2024, "DeepSeekMath", section 4.1).

use num_traits::Float;
use plumb_core::recipe::ScaleRewards;

/// TRL's conventions: sample deviation (`ddof` 1), and 1e-4 added to it before the division.
pub const TRL_DDOF: usize = 1;
/// See [`TRL_DDOF`].
pub const TRL_EPSILON: f64 = 1e-4;

/// What is taken off a reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baseline {
    /// The mean of its group (Shao et al. 2024).
    #[default]
    Group,
    /// The mean of the others of its group, which does not depend on the reward itself (RLOO, Kool et al. 2019; Ahmadian et al. 2024).
    LeaveOneOut,
    /// The mean of the step (Williams 1992).
    Batch,
}

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling<F> {
    /// What is taken off first.
    pub baseline: Baseline,
    /// The group's deviation, the step's, or 1.
    pub by: ScaleRewards,
    /// Delta degrees of freedom: a deviation divides by n - ddof.
    pub ddof: usize,
    /// Added to the deviation.
    pub epsilon: F,
}

/// Advantages of a step's rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages<F> {
    /// One per row; None where the row has no reward.
    pub values: Vec<Option<F>>,
    /// Deviation of each group's rewards; None for a group without any.
    pub group_std: Vec<Option<F>>,
}

/// `A_i = (r_i - baseline) / (std + epsilon)`, by `scaling`.
///
/// `group_ends` are end rows of adjacent groups, as in [`plumb_core::Batch`]. Rows without a reward get none and are not part
/// of any statistic. What is compared with equal rewards only, such as itself, has an advantage of exactly 0.
///
/// # Panics
/// When the groups do not cover the rewards.
pub fn group_relative<F: Float>(rewards: &[Option<F>], group_ends: &[u32], scaling: Scaling<F>) -> Advantages<F> {
    assert_eq!(group_ends.last().copied().unwrap_or(0) as usize, rewards.len(), "groups must cover the rewards");
    let step: Vec<F> = rewards.iter().copied().flatten().collect();
    let (step_mean, step_std) = (mean(&step), std_dev(&step, scaling.ddof));
    let mut advantages =
        Advantages { values: Vec::with_capacity(rewards.len()), group_std: Vec::with_capacity(group_ends.len()) };
    let mut start = 0;
    for &end in group_ends {
        let group = &rewards[start..end as usize];
        start = end as usize;
        let known: Vec<F> = group.iter().copied().flatten().collect();
        let std = std_dev(&known, scaling.ddof);
        let divisor = match scaling.by {
            ScaleRewards::Group => std + scaling.epsilon,
            ScaleRewards::Batch => step_std + scaling.epsilon,
            ScaleRewards::None => F::one(),
        };
        let (compared, center) = match scaling.baseline {
            Baseline::Group | Baseline::LeaveOneOut => (&known, mean(&known)),
            Baseline::Batch => (&step, step_mean),
        };
        // The mean of the others is further from a reward than the mean of all.
        let stretch = match scaling.baseline {
            Baseline::LeaveOneOut if known.len() > 1 => count::<F>(known.len()) / count(known.len() - 1),
            _ => F::one(),
        };
        // Equal rewards differ from their rounded mean by an ulp; divided by epsilon that would be noise with a sign.
        let equal = compared.windows(2).all(|pair| pair[0] == pair[1]);
        let advantage = |reward: F| if equal { F::zero() } else { stretch * (reward - center) / divisor };
        advantages.values.extend(group.iter().map(|reward| reward.map(advantage)));
        advantages.group_std.push((!known.is_empty()).then_some(std));
    }
    advantages
}

/// `(r - mean) / (std + epsilon)` of one group's rewards, by verl's convention: a single reward is divided by `1 + epsilon` and not centred, as there is
/// nothing to compare it with. Equal rewards have 0.
pub fn normalised_group<F: Float>(rewards: &[F], ddof: usize, epsilon: F) -> Vec<F> {
    if let &[reward] = rewards {
        return vec![reward / (F::one() + epsilon)];
    }
    if rewards.windows(2).all(|pair| pair[0] == pair[1]) {
        return vec![F::zero(); rewards.len()];
    }
    let (center, divisor) = (mean(rewards), std_dev(rewards, ddof) + epsilon);
    rewards.iter().map(|&reward| (reward - center) / divisor).collect()
}

/// Variance below which rewards count as equal in [`against_group`].
const EQUAL_VARIANCE: f64 = 1e-9;

/// Rewards of one group and what they are compared with, one entry a reward.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgainstGroup<F> {
    /// `(r - baseline) / std`, or `r - baseline` where the deviation is 0 or not asked for.
    pub advantages: Vec<F>,
    /// Mean of what a reward is compared with; a single reward with leave-one-out has itself.
    pub baselines: Vec<F>,
    /// Population deviation of the same; 0 where the variance is below 1e-9.
    pub deviations: Vec<F>,
}

/// Compares each reward with its whole group, or with the others of it, in mean and in deviation, and divides by the deviation if `normalise`.
///
/// No constant is added to the deviation. With `leave_one_out` the only reward that differs is compared with equal ones, so it stays unscaled.
///
/// Reference: Jiao et al. 2025, "Think Twice: Branch-and-Rethink Reasoning Reward Model", and NeMo-RL, which it builds on.
pub fn against_group<F: Float>(rewards: &[F], leave_one_out: bool, normalise: bool) -> AgainstGroup<F> {
    let least = F::from(EQUAL_VARIANCE).expect("every float type holds it approximately");
    let mut all = AgainstGroup { advantages: Vec::new(), baselines: Vec::new(), deviations: Vec::new() };
    for (i, &reward) in rewards.iter().enumerate() {
        let compared =
            if leave_one_out && rewards.len() > 1 { [&rewards[..i], &rewards[i + 1..]].concat() } else { rewards.to_vec() };
        let (baseline, variance) = (mean(&compared), variance(&compared, 0));
        let deviation = if variance < least { F::zero() } else { variance.sqrt() };
        let centred = reward - baseline;
        all.advantages.push(if normalise && deviation > F::zero() { centred / deviation } else { centred });
        all.baselines.push(baseline);
        all.deviations.push(deviation);
    }
    all
}

/// Arithmetic mean; 0 of nothing.
pub fn mean<F: Float>(values: &[F]) -> F {
    let sum = values.iter().fold(F::zero(), |sum, &x| sum + x);
    if values.is_empty() { sum } else { sum / count(values.len()) }
}

/// Standard deviation dividing by `n - ddof`; 0 where that is not positive.
pub fn std_dev<F: Float>(values: &[F], ddof: usize) -> F {
    variance(values, ddof).sqrt()
}

/// Variance dividing by `n - ddof`; 0 where that is not positive.
pub fn variance<F: Float>(values: &[F], ddof: usize) -> F {
    if values.len() <= ddof {
        return F::zero();
    }
    let center = mean(values);
    let squares = values.iter().fold(F::zero(), |sum, &x| sum + (x - center) * (x - center));
    squares / count(values.len() - ddof)
}

fn count<F: Float>(n: usize) -> F {
    F::from(n).expect("every float type holds a count approximately")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaling<F: Float>(by: ScaleRewards) -> Scaling<F> {
        Scaling { baseline: Baseline::Group, by, ddof: TRL_DDOF, epsilon: F::from(TRL_EPSILON).unwrap() }
    }

    fn close(got: &[Option<f64>], want: &[f64]) {
        for (got, want) in got.iter().zip(want) {
            assert!((got.unwrap() - want).abs() < 1e-12, "{got:?} is not {want}");
        }
    }

    #[test]
    fn group_advantages_match_the_formula_by_hand() {
        // Group 1: mean 0.5, sample deviation sqrt(1/3). Group 2: mean 2, sample deviation 2.
        let rewards = [0.0, 1.0, 1.0, 0.0, 0.0, 2.0, 4.0].map(Some);
        let a = group_relative(&rewards, &[4, 7], scaling(ScaleRewards::Group));
        let s = 0.5 / ((1.0f64 / 3.0).sqrt() + 1e-4);
        close(&a.values, &[-s, s, s, -s, -2.0 / 2.0001, 0.0, 2.0 / 2.0001]);
        assert!((a.group_std[1].unwrap() - 2.0).abs() < 1e-15);
    }

    #[test]
    fn batch_scaling_divides_by_the_deviation_of_all_rewards() {
        let rewards = [0.0, 2.0, 4.0, 6.0].map(Some);
        let a = group_relative(&rewards, &[2, 4], scaling(ScaleRewards::Batch));
        let d = (20.0f64 / 3.0).sqrt() + 1e-4;
        close(&a.values, &[-1.0 / d, 1.0 / d, -1.0 / d, 1.0 / d]);
    }

    #[test]
    fn baseline_without_a_reward_itself_is_the_mean_of_the_others() {
        let rewards = [1.0, 4.0, 7.0, 2.0].map(Some);
        let by = Scaling { baseline: Baseline::LeaveOneOut, ..scaling(ScaleRewards::None) };
        // 1 against 5.5, 4 against 4, 7 against 2.5; and nothing to compare the last one with.
        close(&group_relative(&rewards, &[3, 4], by).values, &[-4.5, 0.0, 4.5, 0.0]);
    }

    #[test]
    fn baseline_of_the_step_compares_groups_with_each_other() {
        let rewards = [1.0, 1.0, 3.0, 3.0].map(Some);
        let by = Scaling { baseline: Baseline::Batch, ..scaling(ScaleRewards::None) };
        close(&group_relative(&rewards, &[2, 4], by).values, &[-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(group_relative(&[Some(0.1); 3], &[1, 2, 3], Scaling { by: ScaleRewards::Batch, ..by }).values, [Some(0.0); 3]);
    }

    #[test]
    fn no_scaling_only_centres() {
        let a = group_relative(&[1.0, 4.0].map(Some), &[2], scaling(ScaleRewards::None));
        close(&a.values, &[-1.5, 1.5]);
    }

    #[test]
    fn advantages_are_exactly_zero_when_rewards_are_equal() {
        // The mean of three times 0.1 is not 0.1 in binary.
        let a = group_relative(&[0.1f64; 3].map(Some), &[3], scaling(ScaleRewards::Group));
        assert_eq!(a.values, [Some(0.0); 3]);
        let a = group_relative(&[0.1f32; 3].map(Some), &[3], scaling(ScaleRewards::Batch));
        assert_eq!(a.values, [Some(0.0); 3]);
    }

    #[test]
    fn a_single_completion_has_advantage_zero() {
        let a = group_relative(&[Some(3.0), Some(1.0), Some(2.0)], &[1, 3], scaling(ScaleRewards::Group));
        assert_eq!(a.values[0], Some(0.0));
        assert_eq!(a.group_std[0], Some(0.0));
    }

    #[test]
    fn rows_without_a_reward_change_nothing_for_the_others() {
        let holes = [Some(0.0), None, Some(1.0), None, None];
        let a = group_relative(&holes, &[3, 5], scaling::<f64>(ScaleRewards::Group));
        let b = group_relative(&[Some(0.0), Some(1.0)], &[2], scaling(ScaleRewards::Group));
        assert_eq!(a.values, [b.values[0], None, b.values[1], None, None]);
        assert_eq!(a.group_std, [b.group_std[0], None]);
    }

    #[test]
    fn single_reward_of_a_normalised_group_stands_for_itself() {
        assert_eq!(normalised_group(&[0.5], 1, 0.25), [0.4]);
        assert_eq!(normalised_group(&[0.1f64; 3], 1, 1e-6), [0.0; 3]);
        assert_eq!(normalised_group(&[1.0, 3.0], 0, 0.0), [-1.0, 1.0]);
        assert!(normalised_group::<f64>(&[], 1, 1e-6).is_empty());
    }

    #[test]
    fn ddof_is_a_parameter() {
        assert_eq!(std_dev(&[1.0, 3.0], 0), 1.0);
        assert_eq!(std_dev(&[1.0, 3.0], 1), 2.0f64.sqrt());
        assert_eq!(std_dev(&[1.0f32], 1), 0.0);
        assert_eq!(std_dev::<f64>(&[], 0), 0.0);
    }

    #[test]
    fn odd_reward_of_a_group_is_not_scaled_by_the_equal_others() {
        let got = against_group(&[0.0, -10.0, 0.0], true, true);
        assert_eq!(got.baselines, [-5.0, 0.0, -5.0]);
        assert_eq!(got.deviations, [5.0, 0.0, 5.0]);
        assert_eq!(got.advantages, [1.0, -10.0, 1.0]);
        assert_eq!(against_group(&[0.0, -10.0, 0.0], true, false).advantages, [5.0, -10.0, 5.0]);
        // Mean 2, population deviation 2.
        let whole = against_group(&[0.0, 4.0, 0.0, 4.0], false, true);
        assert_eq!((whole.advantages, whole.deviations), (vec![-1.0, 1.0, -1.0, 1.0], vec![2.0; 4]));
    }

    #[test]
    fn single_and_nearly_equal_rewards_have_no_deviation() {
        for leave_one_out in [true, false] {
            let single = against_group(&[3.0], leave_one_out, true);
            assert_eq!(single, AgainstGroup { advantages: vec![0.0], baselines: vec![3.0], deviations: vec![0.0] });
            assert_eq!(against_group::<f64>(&[], leave_one_out, true), AgainstGroup::default());
        }
        // Variance 1/4 · 1e-10.
        let near = against_group(&[0.0, 1e-5], false, true);
        assert_eq!((near.deviations, near.advantages), (vec![0.0; 2], vec![-5e-6, 5e-6]));
    }
}
