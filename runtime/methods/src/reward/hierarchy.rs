//! Rewards of answers whose factors are ranked by importance: the gaps between levels, and the weighted sum they are compared with.
//!
//! Reference: Bukharin et al. 2023, "Deep Reinforcement Learning from Hierarchical Preference Design" (HERON).

use super::ensemble;
use crate::constraint::normalised;

/// Added to the deviation that a factor is divided by.
const EPSILON: f64 = 1e-3;

/// `reward · alpha^level`, with how far down the hierarchy an answer got: alpha above 1 widens the gaps between levels, below 1 narrows them.
///
/// Of negative rewards the reverse is true; shift them first.
pub fn level_shaped(reward: f64, level: u32, alpha: f64) -> f64 {
    reward * alpha.powf(f64::from(level))
}

/// `Σ_l beta^l · sign_l · z_l` of each answer, l from 0, with z a factor less its mean over its population deviation plus 1e-3.
///
/// `factors`: `[levels][answers]`, the most important first; a factor that is constant counts nothing.
///
/// # Panics
/// When there are not as many signs as factors.
pub fn linear_baseline(factors: &[Vec<f64>], signs: &[f64], beta: f64) -> Vec<f64> {
    assert_eq!(factors.len(), signs.len(), "each factor needs its sign");
    let scores: Vec<Vec<f64>> = factors.iter().map(|factor| normalised(factor, 0, EPSILON)).collect();
    let weights: Vec<f64> = signs.iter().enumerate().map(|(level, sign)| sign * beta.powf(level as f64)).collect();
    ensemble::weighted(&scores, &weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn levels_multiply_the_reward() {
        assert_close(&[0, 1, 3].map(|level| level_shaped(-1.5, level, 2.0)), &[-1.5, -3.0, -12.0]);
        assert_close(&[level_shaped(3.0, 0, 0.0), level_shaped(3.0, 2, 0.0)], &[3.0, 0.0]);
    }

    #[test]
    fn less_important_factors_count_less_and_constant_ones_nothing() {
        let factors = [vec![0.0, 2.0], vec![3.0, 1.0], vec![4.0, 4.0]];
        let z = 1.0 / 1.001;
        assert_close(&linear_baseline(&factors, &[1.0, 1.0, 1.0], 0.5), &[-0.5 * z, 0.5 * z]);
        assert_close(&linear_baseline(&factors, &[1.0, -1.0, 1.0], 0.5), &[-1.5 * z, 1.5 * z]);
        // With beta 0 the first factor is all that counts.
        assert_close(&linear_baseline(&factors, &[1.0, 1.0, 1.0], 0.0), &[-z, z]);
        assert!(linear_baseline(&[vec![]], &[1.0], 0.5).is_empty());
    }
}
