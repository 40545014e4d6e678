//! Preferences between two pairs: the gap of an augmented pair should be greater than that of the pair it was made of (multi-level aware
//! preference learning; the form is reconstructed from the description of its paper).

use candle_core::Tensor;

use super::dpo::PairLogps;
use super::reward::bradley_terry;

/// `-ln σ(gap of augmented - gap of original - margin)` of each, `[P]`: Bradley-Terry over gaps.
///
/// # Shapes
/// - `augmented`, `original`: `[P]` each, rewards (or beta times log-ratios) of the answers; gradient flows to all four.
pub fn inter_sample(augmented: &PairLogps, original: &PairLogps, margin: f64) -> candle_core::Result<Tensor> {
    let gap = |pair: &PairLogps| &pair.chosen - &pair.rejected;
    let augmented = gap(augmented)?;
    let margins = (augmented.zeros_like()? + margin)?;
    bradley_terry(&augmented, &gap(original)?, &margins, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::log_sigmoid;
    use crate::testing::{assert_close, assert_finite, check_gradients, numbers, vector};

    fn loss(leaves: &[Tensor]) -> candle_core::Result<Tensor> {
        let pair = |i: usize| PairLogps { chosen: leaves[i].clone(), rejected: leaves[i + 1].clone() };
        inter_sample(&pair(0), &pair(2), 0.5)
    }

    #[test]
    fn gradients_to_the_original_pair_are_the_negatives_of_those_to_the_augmented() {
        let leaves = [2.0, -1.0, 0.5, 0.1].map(|reward| vector(&[reward]));
        assert_close(&numbers(&loss(&leaves).unwrap()), &[-log_sigmoid(3.0 - 0.4 - 0.5)]);
        let gradients = check_gradients(&leaves, 1e-8, |leaves| loss(leaves)?.sum_all()).concat();
        assert!(gradients[0] < 0.0);
        assert_close(&gradients[1..], &[-gradients[0], -gradients[0], gradients[0]]);
        assert_finite(&[-1e5, 1e5, 1e5, -1e5].map(|reward| vector(&[reward])), |leaves| loss(leaves)?.sum_all());
    }
}
