//! Preferences over whole chains of decisions, such as the denoising steps of an image: every step of the preferred chain is.
//! Yang et al. 2023, "Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model" (D3PO).

use candle_core::Tensor;

use super::log_sigmoid;
use crate::rectify::clamp;

/// `-ln σ(preference · beta (ratio_0 - ratio_1))` of each step of each pair, `[P, T]`; a step's loss is the mean over all.
///
/// # Shapes
/// - `policy`, `reference`: `[P, T]` each, log-densities of the steps of the first and of the second chain, nats. Gradient flows to the
///   policy's.
/// - `preference`: `[P]`, 1 where the first chain is preferred, -1 where the second is, 0 on a tie: loss ln 2 without gradient.
///
/// `ratio_clip` keeps ratios within `1 ± ratio_clip`; what is beyond has no gradient. Taken in logarithms, it cannot overflow.
pub fn d3po(
    policy: [&Tensor; 2],
    reference: [&Tensor; 2],
    preference: &Tensor,
    beta: f64,
    ratio_clip: Option<f64>,
) -> candle_core::Result<Tensor> {
    let ratio = |chain: usize| {
        let ratio = (policy[chain] - reference[chain])?;
        match ratio_clip {
            // A width of 1 or more has no lower bound.
            Some(width) => clamp(&ratio, (1.0 - width).max(0.0).ln(), width.ln_1p()),
            None => Ok(ratio),
        }
    };
    let difference = ((ratio(0)? - ratio(1)?)? * beta)?;
    log_sigmoid(&difference.broadcast_mul(&preference.unsqueeze(1)?)?)?.neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, matrix, numbers, vector};

    fn losses(leaves: &[Tensor], preference: &[f64], clip: Option<f64>) -> candle_core::Result<Tensor> {
        let reference = [matrix([[-1.0, -2.0], [-0.5, -1.5]]), matrix([[-1.5, -1.0], [-2.0, -0.7]])];
        d3po([&leaves[0], &leaves[1]], [&reference[0], &reference[1]], &vector(preference), 0.5, clip)
    }

    fn chains() -> [Tensor; 2] {
        [matrix([[-1.05, -1.0], [-0.52, -1.5]]), matrix([[-1.5, -1.03], [-2.05, -0.7]])]
    }

    #[test]
    fn ratios_are_cut_and_ties_have_loss_ln_2() {
        let got = numbers(&losses(&chains(), &[1.0, 0.0], Some(0.1)).unwrap());
        let want = [-stats::log_sigmoid(-0.025), -stats::log_sigmoid(0.5 * (1.1f64.ln() + 0.03))];
        assert_close(&got[..2], &want);
        assert_close(&got[2..], &[std::f64::consts::LN_2; 2]);
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_vanish_beyond_the_cut_and_on_ties() {
        for clip in [None, Some(0.1), Some(2.0)] {
            let graph = |leaves: &[Tensor]| losses(leaves, &[1.0, -1.0], clip)?.mean_all();
            check_gradients(&chains(), 1e-8, graph);
        }
        let (_, cut) = gradients(&chains(), |leaves| losses(leaves, &[1.0, 0.0], Some(0.1))?.sum_all()).unwrap();
        assert!(cut[0][0] < 0.0 && cut[0][1] == 0.0 && cut[0][2..] == [0.0, 0.0], "{cut:?}");
    }

    #[test]
    fn densities_of_wrong_scale_have_finite_losses() {
        let far = [matrix([[1e5, -1e5], [0.0, 0.0]]), matrix([[-1e5, 1e5], [0.0, 0.0]])];
        for clip in [None, Some(0.1), Some(1.0)] {
            assert_finite(&far, |leaves| losses(leaves, &[1.0, -1.0], clip)?.sum_all());
        }
    }
}
