//! Rewards of pairs: the Bradley-Terry loss and what is reported of it.

use candle_core::{DType, Tensor};

use super::log_sigmoid;
use super::soft_preference::label_cross_entropy;

/// `-ln σ(chosen - rejected - margin) + centre · (chosen + rejected)²` of each pair, `[P]`; a step's loss is the mean over its pairs.
///
/// # Shapes
/// - `chosen`, `rejected`, `margins`: `[P]`, one dtype; rewards without unit. Gradient flows to the rewards.
///
/// Reference: Ouyang et al. 2022, equation 1; margins as in Touvron et al. 2023, equation 2; centring as in Eisenstein et al. 2023.
pub fn bradley_terry(chosen: &Tensor, rejected: &Tensor, margins: &Tensor, centre: f64) -> candle_core::Result<Tensor> {
    let loss = log_sigmoid(&((chosen - rejected)? - margins)?)?.neg()?;
    if centre == 0.0 { Ok(loss) } else { loss + ((chosen + rejected)?.sqr()? * centre)? }
}

/// Loss of pairs within one list of rewards, and how many of them it has right.
#[derive(Clone, Debug)]
pub struct PairwiseLoss {
    /// `Σ -ln σ(chosen - rejected) / (P + epsilon)`, `[]`; 0 without pairs.
    pub loss: Tensor,
    /// `wins / (P + epsilon)`, ties counting as losses; 0 without pairs.
    pub accuracy: f64,
}

/// The Bradley-Terry loss of pairs of answers that are scored once, however many pairs they are in.
///
/// # Shapes
/// - `rewards`: `[N]`; gradient flows to them. `pairs`: (chosen, rejected), indices into the rewards.
///
/// `epsilon` is added to the number of pairs; 0 makes the loss their mean.
///
/// # Errors
/// Those of candle, when an index is out of range.
///
/// Reference: Bukharin et al. 2023, "Deep Reinforcement Learning from Hierarchical Preference Design" (HERON).
pub fn pairwise_bradley_terry(rewards: &Tensor, pairs: &[(u32, u32)], epsilon: f64) -> candle_core::Result<PairwiseLoss> {
    if pairs.is_empty() {
        return Ok(PairwiseLoss { loss: rewards.zeros_like()?.sum_all()?, accuracy: 0.0 });
    }
    let (chosen, rejected): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
    let of = |answers: Vec<u32>| rewards.index_select(&Tensor::new(answers, rewards.device())?, 0);
    let (chosen, rejected) = (of(chosen)?, of(rejected)?);
    let divisor = pairs.len() as f64 + epsilon;
    let wins = chosen.gt(&rejected)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
    let losses = bradley_terry(&chosen, &rejected, &chosen.zeros_like()?, 0.0)?;
    Ok(PairwiseLoss { loss: (losses.sum_all()? / divisor)?, accuracy: wins / divisor })
}

/// `-(1 - a) ln σ(Δ) - a ln σ(-Δ)` of each pair, `[P]`, with `Δ = chosen - rejected - margin`: labels that are wrong with probability a.
///
/// # Shapes
/// - `chosen`, `rejected`: rewards, `[P]` each; gradient flows to both. `smoothing`: a, in 0..=1; `margins`: `[P]` each, of the same dtype.
///
/// Reference: Wang et al. 2024, "Secrets of RLHF in Large Language Models Part II: Reward Modeling", whose printed margin stands outside the
/// logarithm, where it would have no gradient.
pub fn smoothed_bradley_terry(
    chosen: &Tensor,
    rejected: &Tensor,
    smoothing: &Tensor,
    margins: &Tensor,
) -> candle_core::Result<Tensor> {
    label_cross_entropy(&((chosen - rejected)? - margins)?, &(1.0 - smoothing)?)
}

/// What the strength of a preference does to its loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strength {
    /// Nothing.
    #[default]
    Ignored,
    /// It is the margin: `-ln σ(Δ - |s|)`.
    Margin,
    /// It is the weight: `-|s| ln σ(Δ)`.
    Scale,
}

/// The Bradley-Terry loss of pairs with signed strengths, `[P]`: the first answer is the better one where the strength is below 0, else the second.
///
/// # Shapes
/// - `first`, `second`: rewards, `[P]` each; gradient flows to both.
///
/// Reference: Wang et al. 2024, "HelpSteer2-Preference", equations 1 to 3.
pub fn graded_bradley_terry(first: &Tensor, second: &Tensor, strengths: &[f64], used: Strength) -> candle_core::Result<Tensor> {
    let per_pair =
        |value: fn(f64) -> f64| Tensor::from_iter(strengths.iter().map(|&s| value(s)), first.device())?.to_dtype(first.dtype());
    let ahead = ((second - first)? * per_pair(|s| if s < 0.0 { -1.0 } else { 1.0 })?)?;
    match used {
        Strength::Ignored => log_sigmoid(&ahead)?.neg(),
        Strength::Margin => log_sigmoid(&(ahead - per_pair(f64::abs)?)?)?.neg(),
        Strength::Scale => log_sigmoid(&ahead)? * per_pair(|s| -s.abs())?,
    }
}

/// Sums behind the metrics of a reward model; micro-batches add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RewardStats {
    /// Pairs.
    pub pairs: f64,
    /// Pairs whose chosen answer has the strictly greater reward.
    pub accurate: f64,
    /// Sum of chosen - rejected.
    pub margin: f64,
    /// Sum of all rewards.
    pub sum: f64,
    /// Least and greatest reward; None before the first.
    pub range: Option<(f64, f64)>,
}

impl RewardStats {
    /// Counts one pair.
    pub fn add(&mut self, chosen: f64, rejected: f64) {
        self.pairs += 1.0;
        self.accurate += f64::from(u8::from(chosen > rejected));
        self.margin += chosen - rejected;
        self.sum += chosen + rejected;
        for reward in [chosen, rejected] {
            let (min, max) = self.range.unwrap_or((reward, reward));
            self.range = Some((min.min(reward), max.max(reward)));
        }
    }

    /// What is reported, by TRL's names; nothing without pairs.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let Some((min, max)) = self.range else { return Vec::new() };
        vec![
            ("accuracy", self.accurate / self.pairs),
            ("margin", self.margin / self.pairs),
            ("mean_reward", self.sum / (2.0 * self.pairs)),
            ("min_reward", min),
            ("max_reward", max),
        ]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::differentiate;
    use super::*;

    const REWARDS: [f64; 6] = [1.5, -0.5, 0.25, 0.5, -0.5, 3.0];

    fn loss(rewards: &[f64], margins: &[f64], centre: f64) -> (f64, Vec<f64>) {
        let (pairs, margins) = (margins.len(), Tensor::new(margins, &Device::Cpu).unwrap());
        let graph =
            |r: &Tensor| bradley_terry(&r.narrow(0, 0, pairs)?, &r.narrow(0, pairs, pairs)?, &margins, centre)?.mean_all();
        differentiate(rewards, graph).unwrap()
    }

    #[test]
    fn bradley_terry_loss_matches_the_formula_by_hand() {
        let ln_sigmoid = |x: f64| -(1.0 + (-x).exp()).ln();
        let (got, _) = loss(&REWARDS, &[0.0, 0.5, 1.0], 0.1);
        let want = -(ln_sigmoid(1.0) + ln_sigmoid(-0.5) + ln_sigmoid(-3.75)) / 3.0 + 0.1 * (4.0 + 1.0 + 10.5625) / 3.0;
        assert!((got - want).abs() < 1e-14, "{got} is not {want}");
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let (margins, step) = ([0.0, 0.5, 1.0], 1e-6);
        let (_, gradient) = loss(&REWARDS, &margins, 0.1);
        for i in 0..REWARDS.len() {
            let at = |step: f64| {
                let mut moved = REWARDS;
                moved[i] += step;
                loss(&moved, &margins, 0.1).0
            };
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            assert!((gradient[i] - numeric).abs() < 1e-8, "{i}: {} is not {numeric}", gradient[i]);
        }
    }

    #[test]
    fn strength_turns_the_pair_and_widens_or_weighs_it() {
        let strengths = [-2.0, 0.0, 1.0];
        for used in [Strength::Ignored, Strength::Margin, Strength::Scale] {
            let graph = |r: &[Tensor]| graded_bradley_terry(&r[0], &r[1], &strengths, used)?.mean_all();
            crate::testing::check_gradients(
                &[crate::testing::vector(&REWARDS[..3]), crate::testing::vector(&REWARDS[3..])],
                1e-8,
                graph,
            );
        }
        let rewards = crate::testing::vector(&[0.0, 0.0, 0.0]);
        let of = |used| graded_bradley_terry(&rewards, &rewards, &strengths, used).unwrap().to_vec1::<f64>().unwrap();
        let (ln_2, softplus) = (2f64.ln(), |x: f64| (1.0 + x.exp()).ln());
        crate::testing::assert_close(&of(Strength::Margin), &[softplus(2.0), ln_2, softplus(1.0)]);
        crate::testing::assert_close(&of(Strength::Scale), &[2.0 * ln_2, 0.0, ln_2]);
    }

    #[test]
    fn answers_of_several_pairs_gather_their_gradients() {
        let (rewards, pairs) = (crate::testing::vector(&REWARDS), [(0, 1), (2, 0), (0, 5), (3, 4), (1, 4)]);
        let graph = |r: &[Tensor]| Ok(pairwise_bradley_terry(&r[0], &pairs, 0.5)?.loss);
        let gradient = crate::testing::check_gradients(std::slice::from_ref(&rewards), 1e-8, graph);
        assert!((gradient[0].iter().sum::<f64>()).abs() < 1e-15, "{gradient:?}");
        let softplus = |x: f64| x.exp().ln_1p();
        let want = (softplus(-2.0) + softplus(1.25) + softplus(1.5) + softplus(-1.0) + softplus(0.0)) / 5.5;
        let got = pairwise_bradley_terry(&rewards, &pairs, 0.5).unwrap();
        crate::testing::assert_close(&[got.loss.to_scalar::<f64>().unwrap(), got.accuracy], &[want, 2.0 / 5.5]);
    }

    #[test]
    fn without_pairs_there_is_neither_loss_nor_gradient() {
        for rewards in [&REWARDS[..], &[]] {
            let graph = |r: &[Tensor]| Ok(pairwise_bradley_terry(&r[0], &[], 0.0)?.loss);
            let got = crate::testing::gradients(&[crate::testing::vector(rewards)], graph).unwrap();
            assert_eq!(got, (0.0, vec![vec![0.0; rewards.len()]]));
        }
    }

    #[test]
    fn smoothed_labels_weigh_both_outcomes_beyond_the_margin() {
        use crate::testing::{assert_close, assert_finite, check_gradients, numbers, vector};
        let rewards = [vector(&REWARDS[..3]), vector(&REWARDS[3..])];
        let (smoothing, margins) = (vector(&[0.0, 0.5, 0.1]), vector(&[-0.5, 0.0, 1.0]));
        let ln_sigmoid = crate::stats::log_sigmoid;
        let want = [-ln_sigmoid(1.5), 2f64.ln(), -0.9 * ln_sigmoid(-3.75) - 0.1 * ln_sigmoid(3.75)];
        assert_close(&numbers(&smoothed_bradley_terry(&rewards[0], &rewards[1], &smoothing, &margins).unwrap()), &want);
        check_gradients(&rewards, 1e-8, |r| smoothed_bradley_terry(&r[0], &r[1], &smoothing, &margins)?.mean_all());
        let far = [vector(&[1e4]), vector(&[-1e4])];
        assert_finite(&far, |r| smoothed_bradley_terry(&r[0], &r[1], &vector(&[0.1]), &vector(&[0.0]))?.mean_all());
    }

    #[test]
    fn rewards_far_apart_have_finite_losses_and_gradients() {
        for far in [-1e4, 1e4] {
            let (value, gradient) = loss(&[far, -far], &[0.0], 0.01);
            assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()), "{value}, {gradient:?}");
        }
    }

    #[test]
    fn stats_have_the_range_and_count_ties_as_errors() {
        let mut stats = RewardStats::default();
        assert!(stats.metrics().is_empty());
        stats.add(1.0, 1.0);
        stats.add(2.0, -3.0);
        let want = [("accuracy", 0.5), ("margin", 2.5), ("mean_reward", 0.25), ("min_reward", -3.0), ("max_reward", 2.0)];
        assert_eq!(stats.metrics(), want);
    }
}
