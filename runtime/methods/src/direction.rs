//! Preferences as directions in the space of objectives: rewards by direction, and directions as words of a prompt.
//!
//! Reference: Wang et al. 2024, "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment".

use crate::stats::dot;

/// A direction of length 1; one without length stays as it is.
pub fn unit(direction: &[f64]) -> Vec<f64> {
    let norm = dot(direction, direction).sqrt();
    direction.iter().map(|x| if norm > 0.0 { x / norm } else { *x }).collect()
}

/// `v · r` of each completion, from its rewards by objective. `components`: `[objectives][completions]`.
pub fn rewards(components: &[Vec<f64>], direction: &[f64]) -> Vec<f64> {
    let completions = components.first().map_or(0, Vec::len);
    (0..completions).map(|i| components.iter().zip(direction).map(|(component, v)| v * component[i]).sum()).collect()
}

/// `(reward - mean) / std`, by the mean and deviation of a data set's rewards.
pub fn standardised(rewards: &[f64], mean: f64, std: f64) -> Vec<f64> {
    rewards.iter().map(|reward| (reward - mean) / std).collect()
}

/// The direction `(cos t, sin t)` over two objectives, t in degrees.
pub fn of_degrees(degrees: f64) -> [f64; 2] {
    let (sin, cos) = degrees.to_radians().sin_cos();
    [cos, sin]
}

/// Degrees between `least` and `most` at a uniform number in 0..1.
pub fn degrees_at(uniform: f64, least: f64, most: f64) -> f64 {
    least + uniform * (most - least)
}

/// Integer weights that a prompt shows of a direction, rounded half to even, and how far they are from length 1:
/// `|Σ (w / scale)² - 1|`.
pub fn prompt_weights(direction: [f64; 2], scale: f64) -> ([i64; 2], f64) {
    let weights = direction.map(|x| (x * scale).round_ties_even());
    let length = weights.iter().map(|w| (w / scale) * (w / scale)).sum::<f64>();
    (weights.map(|w| w as i64), (length - 1.0).abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn directions_have_length_one_unless_they_have_none() {
        assert_close(&unit(&[3.0, -4.0]), &[0.6, -0.8]);
        assert_eq!(unit(&[0.0, 0.0]), [0.0, 0.0]);
        assert_close(&of_degrees(60.0), &[0.5, 0.75f64.sqrt()]);
        assert_eq!(degrees_at(0.25, -45.0, 45.0), -22.5);
    }

    #[test]
    fn negative_weight_asks_for_less_of_an_objective() {
        assert_eq!(rewards(&[vec![1.0, 2.0], vec![5.0, 1.0]], &[1.0, -0.5]), [-1.5, 1.5]);
        assert!(rewards(&[], &[1.0]).is_empty());
    }

    #[test]
    fn prompts_show_integers_rounded_half_to_even() {
        assert_eq!(prompt_weights([0.125, -0.375], 100.0).0, [12, -38]);
        let (weights, error) = prompt_weights(of_degrees(-30.0), 100.0);
        assert_eq!(weights, [87, -50]);
        assert!((error - 0.0069).abs() < 1e-12);
    }
}
