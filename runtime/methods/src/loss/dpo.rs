//! Direct preference optimization (Rafailov et al. 2023) and its variants: losses over pairs of sequence log-probabilities.
//! Formulas as in TRL 1.16.

use candle_core::{Tensor, bail};
use plumb_core::recipe::{Dpo, DpoLoss};

use super::log_sigmoid;
use crate::rectify::positive_part;

/// Log-probabilities of pairs' answers given their prompts, nats, `[P]` each.
#[derive(Clone, Debug)]
pub struct PairLogps {
    /// Of the answers that were preferred.
    pub chosen: Tensor,
    /// Of the others.
    pub rejected: Tensor,
}

/// Weights of tokens in their sequences' log-probabilities, of a chosen and a rejected answer of so many tokens.
///
/// 1; beyond the length of the shorter answer `ld_alpha`; all divided by the answer's tokens where they are averaged.
pub fn sequence_weights(chosen: usize, rejected: usize, settings: &Dpo) -> [Vec<f64>; 2] {
    let shared = chosen.min(rejected);
    [chosen, rejected].map(|tokens| {
        let divisor = if settings.averages() { tokens.max(1) as f64 } else { 1.0 };
        let tail = settings.ld_alpha.unwrap_or(1.0);
        (0..tokens).map(|t| if t < shared { 1.0 } else { tail } / divisor).collect()
    })
}

/// Weights of one sequence's tokens by a mask of 0 and 1: the mask or, where log-probabilities are averaged, its share of the unmasked.
pub fn mask_weights(mask: &[f64], averages: bool) -> Vec<f64> {
    let divisor = if averages { mask.iter().sum::<f64>().max(1.0) } else { 1.0 };
    mask.iter().map(|mask| mask / divisor).collect()
}

/// `Σ_t weight_t · logprob_t` of each sequence, `[S]`: the sum or, with weights of 1 / tokens, the mean.
///
/// # Shapes
/// - `logprobs`, `weights`: `[M]`, one dtype; the tokens of all sequences, one after the other. A weight of 0 masks a token.
/// - `lengths`: tokens of each sequence, `[S]`; they add up to M. A sequence without tokens has 0.
pub fn sequence_logps(logprobs: &Tensor, weights: &Tensor, lengths: &[usize]) -> candle_core::Result<Tensor> {
    let owners = lengths.iter().enumerate().flat_map(|(sequence, &tokens)| std::iter::repeat_n(sequence as u32, tokens));
    let owners = Tensor::from_iter(owners, logprobs.device())?;
    // Chosen and not multiplied: a masked token may be impossible, and 0 times minus infinity is no number.
    let logprobs = weights.ne(0.0)?.where_cond(logprobs, &logprobs.zeros_like()?)?;
    Tensor::zeros(lengths.len(), logprobs.dtype(), logprobs.device())?.index_add(&owners, &(logprobs * weights)?, 0)
}

/// Loss of each pair, `[P]`; a step's loss is the mean over its pairs. For the formulas see [`DpoLoss`].
///
/// The losses that sort take the pairs as one sample: their values belong to ranks and not to pairs.
///
/// # Shapes
/// - `policy`: `[P]` each, the only inputs with a gradient.
/// - `reference`: `[P]` each, without gradient; None takes them as 0.
///
/// # Errors
/// Those of candle; `exo_pair` without label smoothing, whose loss is infinite.
pub fn dpo(policy: &PairLogps, reference: Option<&PairLogps>, settings: &Dpo) -> candle_core::Result<Tensor> {
    let reference = reference.filter(|_| !settings.reference_free);
    let ratio = |policy: &Tensor, reference: Option<&Tensor>| reference.map_or_else(|| Ok(policy.clone()), |by| policy - by);
    let c = ratio(&policy.chosen, reference.map(|pairs| &pairs.chosen))?;
    let r = ratio(&policy.rejected, reference.map(|pairs| &pairs.rejected))?;
    let Dpo { beta, label_smoothing: e, .. } = *settings;
    let scaled = |x: &Tensor| x * beta;
    let sigmoid = |x: &Tensor| log_sigmoid(x)?.exp();
    let smoothed = |x: &Tensor| (log_sigmoid(x)? * (e - 1.0))? - (log_sigmoid(&x.neg()?)? * e)?;
    let h = (&c - &r)?;
    let x = scaled(&h)?;
    match settings.loss_type {
        DpoLoss::Sigmoid => smoothed(&x),
        DpoLoss::Hinge => positive_part(&(1.0 - x)?),
        DpoLoss::Ipo => (h - 0.5 / beta)?.sqr(),
        DpoLoss::ExoPair if e <= 0.0 => bail!("exo_pair needs a label smoothing above 0"),
        DpoLoss::ExoPair => {
            let (ln_win, ln_lose) = (log_sigmoid(&x)?, log_sigmoid(&x.neg()?)?);
            (ln_win.exp()? * (ln_win - (-e).ln_1p())?)? + (ln_lose.exp()? * (ln_lose - e.ln())?)?
        }
        DpoLoss::NcaPair => {
            let (c, r) = (scaled(&c)?, scaled(&r)?);
            let away = (log_sigmoid(&c.neg()?)? + log_sigmoid(&r.neg()?)?)?;
            (away * -0.5)? - log_sigmoid(&c)?
        }
        DpoLoss::Robust => ((log_sigmoid(&x)? * (e - 1.0))? + (log_sigmoid(&x.neg()?)? * e)?)? / (1.0 - 2.0 * e),
        DpoLoss::BcoPair => log_sigmoid(&scaled(&c)?)?.neg()? - log_sigmoid(&scaled(&r)?.neg()?)?,
        DpoLoss::SppoHard => (c - 0.5 / beta)?.sqr()? + (r + 0.5 / beta)?.sqr()?,
        DpoLoss::Aot => {
            let difference = |pairs: &PairLogps| &pairs.chosen - &pairs.rejected;
            let of_reference = reference.map_or_else(|| h.zeros_like(), difference)?;
            smoothed(&scaled(&(sorted(&difference(policy)?)? - sorted(&of_reference)?)?)?)
        }
        DpoLoss::AotUnpaired => smoothed(&scaled(&(sorted(&c)? - sorted(&r)?)?)?),
        DpoLoss::ApoZero => sigmoid(&scaled(&c)?.neg()?)? + sigmoid(&scaled(&r)?)?,
        DpoLoss::ApoDown => sigmoid(&scaled(&c)?)? + sigmoid(&x.neg()?)?,
        DpoLoss::Discopop => {
            let by = (&x / settings.discopop_tau)?;
            // e^-x · σ(x / tau) as one power: apart, they are infinity times 0 for pairs that are far off.
            (log_sigmoid(&x)?.neg()? * sigmoid(&by.neg()?)?)? + (log_sigmoid(&by)? - x)?.exp()?
        }
    }
}

/// `[P]` in ascending order; gradient flows to where values came from. Equal ones keep their order.
fn sorted(values: &Tensor) -> candle_core::Result<Tensor> {
    let numbers = values.detach().to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
    let mut order: Vec<u32> = (0..numbers.len() as u32).collect();
    order.sort_by(|&a, &b| numbers[a as usize].total_cmp(&numbers[b as usize]));
    values.index_select(&Tensor::new(order, values.device())?, 0)
}

/// Sums behind the metrics `rewards/*` and `logps/*`; micro-batches add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairStats {
    /// Pairs.
    pub pairs: f64,
    /// Of the chosen answers' rewards, beta · (policy - reference).
    pub chosen_rewards: f64,
    /// Of the rejected answers'.
    pub rejected_rewards: f64,
    /// Pairs whose chosen answer has the strictly greater reward: 0 before the first update, where all are equal.
    pub accurate: f64,
    /// Of the chosen answers' log-probabilities under the policy, nats.
    pub chosen_logps: f64,
    /// Of the rejected answers'.
    pub rejected_logps: f64,
}

impl PairStats {
    /// Counts one pair, of log-probabilities under policy and reference, chosen before rejected.
    pub fn add(&mut self, beta: f64, policy: [f64; 2], reference: [f64; 2]) {
        let rewards = [0, 1].map(|i| beta * (policy[i] - reference[i]));
        self.pairs += 1.0;
        self.chosen_rewards += rewards[0];
        self.rejected_rewards += rewards[1];
        self.accurate += f64::from(u8::from(rewards[0] > rewards[1]));
        self.chosen_logps += policy[0];
        self.rejected_logps += policy[1];
    }

    /// The means, by TRL's names.
    pub fn means(&self) -> [(&'static str, f64); 6] {
        [
            ("rewards/chosen", self.chosen_rewards),
            ("rewards/rejected", self.rejected_rewards),
            ("rewards/margins", self.chosen_rewards - self.rejected_rewards),
            ("rewards/accuracies", self.accurate),
            ("logps/chosen", self.chosen_logps),
            ("logps/rejected", self.rejected_logps),
        ]
        .map(|(name, sum)| (name, sum / self.pairs.max(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::differentiate;
    use super::*;

    const ALL: [DpoLoss; 13] = [
        DpoLoss::Sigmoid,
        DpoLoss::Hinge,
        DpoLoss::Ipo,
        DpoLoss::ExoPair,
        DpoLoss::NcaPair,
        DpoLoss::Robust,
        DpoLoss::BcoPair,
        DpoLoss::SppoHard,
        DpoLoss::Aot,
        DpoLoss::AotUnpaired,
        DpoLoss::ApoZero,
        DpoLoss::ApoDown,
        DpoLoss::Discopop,
    ];

    /// Chosen and rejected of three pairs, under policy and reference.
    const POLICY: [f64; 6] = [-12.0, -20.0, -7.5, -14.0, -16.0, -8.0];
    const REFERENCE: [f64; 6] = [-13.5, -19.0, -8.9, -11.0, -17.5, -8.25];

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn halves(all: &Tensor) -> PairLogps {
        let pairs = all.dim(0).unwrap() / 2;
        PairLogps { chosen: all.narrow(0, 0, pairs).unwrap(), rejected: all.narrow(0, pairs, pairs).unwrap() }
    }

    fn settings(loss_type: DpoLoss) -> Dpo {
        Dpo { loss_type, beta: 0.3, label_smoothing: 0.1, ..Dpo::default() }
    }

    fn value_and_gradient(policy: &[f64], reference: &[f64], settings: &Dpo) -> (f64, Vec<f64>) {
        let reference = halves(&tensor(reference));
        differentiate(policy, |l| dpo(&halves(l), Some(&reference), settings)?.mean_all()).unwrap()
    }

    #[test]
    fn each_loss_matches_its_formula_by_hand() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (beta, e, tau) = (0.3, 0.1, 0.05);
        let (c, r) = (1.5f64, -2.25f64);
        let (h, x) = (c - r, 0.3 * (c - r));
        let (win, lose) = (sigmoid(x), sigmoid(-x));
        for loss_type in ALL {
            let want = match loss_type {
                DpoLoss::Sigmoid | DpoLoss::Aot | DpoLoss::AotUnpaired => -(1.0 - e) * win.ln() - e * lose.ln(),
                DpoLoss::Hinge => (1.0 - x).max(0.0),
                DpoLoss::Ipo => (h - 1.0 / (2.0 * beta)).powi(2),
                DpoLoss::ExoPair => win * (win / (1.0 - e)).ln() + lose * (lose / e).ln(),
                DpoLoss::NcaPair => -sigmoid(beta * c).ln() - 0.5 * sigmoid(-beta * c).ln() - 0.5 * sigmoid(-beta * r).ln(),
                DpoLoss::Robust => (-(1.0 - e) * win.ln() + e * lose.ln()) / (1.0 - 2.0 * e),
                DpoLoss::BcoPair => -sigmoid(beta * c).ln() - sigmoid(-beta * r).ln(),
                DpoLoss::SppoHard => (c - 1.0 / (2.0 * beta)).powi(2) + (r + 1.0 / (2.0 * beta)).powi(2),
                DpoLoss::ApoZero => 1.0 - sigmoid(beta * c) + sigmoid(beta * r),
                DpoLoss::ApoDown => sigmoid(beta * c) + 1.0 - win,
                DpoLoss::Discopop => -win.ln() * (1.0 - sigmoid(x / tau)) + (-x).exp() * sigmoid(x / tau),
            };
            let (got, _) = value_and_gradient(&[c - 10.0, r - 10.0], &[-10.0; 2], &settings(loss_type));
            assert!((got - want).abs() < 1e-12, "{loss_type:?}: {got} is not {want}");
        }
    }

    #[test]
    fn gradient_of_each_loss_agrees_with_finite_differences() {
        for loss_type in ALL {
            let (settings, step) = (settings(loss_type), 1e-6);
            let (_, gradient) = value_and_gradient(&POLICY, &REFERENCE, &settings);
            assert!(gradient.iter().any(|g| g.abs() > 1e-3), "{loss_type:?} has a gradient: {gradient:?}");
            for i in 0..POLICY.len() {
                let at = |step: f64| {
                    let mut moved = POLICY;
                    moved[i] += step;
                    value_and_gradient(&moved, &REFERENCE, &settings).0
                };
                let numeric = (at(step) - at(-step)) / (2.0 * step);
                assert!((gradient[i] - numeric).abs() < 1e-7, "{loss_type:?}, {i}: {} is not {numeric}", gradient[i]);
            }
        }
    }

    #[test]
    fn policy_equal_to_its_reference_has_loss_ln_2_and_half_the_weight_as_gradient() {
        let settings = Dpo { beta: 0.1, ..Dpo::default() };
        let (loss, gradient) = value_and_gradient(&POLICY, &POLICY, &settings);
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-15);
        for (got, sign) in gradient.iter().zip([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]) {
            assert!((got - sign * 0.05 / 3.0).abs() < 1e-16, "{gradient:?}");
        }
    }

    #[test]
    fn pairs_that_are_hopeless_or_settled_have_finite_losses_and_gradients() {
        for loss_type in ALL {
            for margin in [-1e4, -800.0, 800.0, 1e4] {
                let (loss, gradient) = value_and_gradient(&[margin, -margin], &[0.0; 2], &settings(loss_type));
                assert!(loss.is_finite() && gradient.iter().all(|g| g.is_finite()), "{loss_type:?}, {margin}: {gradient:?}");
            }
        }
    }

    #[test]
    fn sorted_losses_do_not_depend_on_which_answer_stands_where() {
        for (loss_type, moved) in [(DpoLoss::Aot, [-7.5, -12.0, -20.0, -8.0, -14.0, -16.0]), (DpoLoss::AotUnpaired, POLICY)] {
            let mut reference = REFERENCE;
            if loss_type == DpoLoss::AotUnpaired {
                // Log-ratios of the rejected answers change places.
                for (i, ratio) in [0.25, -3.0, 1.5].into_iter().enumerate() {
                    reference[3 + i] = POLICY[3 + i] - ratio;
                }
            }
            let (a, _) = value_and_gradient(&POLICY, &REFERENCE, &settings(loss_type));
            let (b, _) = value_and_gradient(&moved, &reference, &settings(loss_type));
            assert!((a - b).abs() < 1e-14, "{loss_type:?}: {a} and {b}");
        }
    }

    #[test]
    fn reference_free_loss_ignores_the_reference() {
        let settings = Dpo { reference_free: true, ..settings(DpoLoss::Sigmoid) };
        let (a, _) = value_and_gradient(&POLICY, &REFERENCE, &settings);
        let (b, _) = value_and_gradient(&POLICY, &[0.0; 6], &settings);
        assert_eq!(a, b);
    }

    #[test]
    fn masked_tokens_and_empty_sequences_count_nothing() {
        let (logprobs, weights) = ([-1.0, f64::NEG_INFINITY, -4.0, -8.0], tensor(&[1.0, 0.0, 1.0, 1.0]));
        let sums = |l: &Tensor| sequence_logps(l, &weights, &[2, 0, 2]);
        assert_eq!(sums(&tensor(&logprobs)).unwrap().to_vec1::<f64>().unwrap(), [-1.0, 0.0, -12.0]);
        let (_, gradient) = differentiate(&logprobs, |l| sums(l)?.sum_all()).unwrap();
        assert_eq!(gradient, [1.0, 0.0, 1.0, 1.0], "the masked token is impossible");
    }

    #[test]
    fn weights_average_and_cut_down_what_is_longer_than_the_other_answer() {
        let plain = Dpo::default();
        assert_eq!(sequence_weights(2, 3, &plain), [vec![1.0; 2], vec![1.0; 3]]);
        let cut = Dpo { ld_alpha: Some(0.5), ..plain.clone() };
        assert_eq!(sequence_weights(2, 4, &cut), [vec![1.0; 2], vec![1.0, 1.0, 0.5, 0.5]]);
        let averaged = Dpo { loss_type: DpoLoss::Ipo, ..plain };
        assert_eq!(sequence_weights(2, 4, &averaged), [vec![0.5; 2], vec![0.25; 4]]);
    }

    #[test]
    fn weights_of_a_mask_leave_out_what_is_masked() {
        assert_eq!(mask_weights(&[1.0, 0.0, 1.0], true), [0.5, 0.0, 0.5]);
        assert_eq!(mask_weights(&[0.0; 2], true), [0.0; 2]);
        assert_eq!(mask_weights(&[1.0, 0.0], false), [1.0, 0.0]);
    }

    #[test]
    fn ties_count_as_errors() {
        let mut stats = PairStats::default();
        stats.add(0.1, [-5.0, -7.0], [-5.0, -7.0]);
        stats.add(0.1, [-4.0, -7.0], [-5.0, -7.0]);
        let means = stats.means();
        assert_eq!(means[3], ("rewards/accuracies", 0.5));
        assert!((means[2].1 - 0.05).abs() < 1e-15 && means[4].1 == -4.5, "{means:?}");
    }
}
