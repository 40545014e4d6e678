//! MetaRM: a reward model that keeps telling apart what a moving policy writes.
//!
//! Before each step on preference data, parameters move to where the rewards of the newest policy's completions differ more; the
//! preference loss has its gradient there.
//!
//! Reference: Wang et al. 2024, "Secrets of RLHF in Large Language Models Part II: Reward Modeling", section 3.

use candle_core::{Tensor, WithDType};

use super::differentiate;

/// `J = (2 / k²) Σ_{i<j} σ(|r_i - r_j|)` of the rewards of one prompt's k completions, `[]`; 0 of one or none.
///
/// Gradient flows to the rewards, `[k]`, and is 0 between equal ones, where J has its kink.
pub fn difference(rewards: &Tensor) -> candle_core::Result<Tensor> {
    let completions = rewards.elem_count() as f64;
    if completions < 2.0 {
        return rewards.zeros_like()?.sum_all();
    }
    let differences = rewards.unsqueeze(1)?.broadcast_sub(&rewards.unsqueeze(0)?)?;
    // candle's own absolute value has gradient 1 at its kink.
    let absolute = (&differences * differences.detach().sign()?)?;
    let sigmoids = super::log_sigmoid(&absolute)?.exp()?.sum_all()?;
    // The sum counts each pair twice, and on its diagonal each completion with itself: one half each.
    (sigmoids - completions / 2.0)? / (completions * completions)
}

/// Mean of [`difference`] over the prompts that have completions, `[]`; None where none has.
pub fn mean_difference(groups: &[Tensor]) -> candle_core::Result<Option<Tensor>> {
    let differences =
        groups.iter().filter(|group| group.elem_count() > 0).map(difference).collect::<candle_core::Result<Vec<_>>>()?;
    if differences.is_empty() { Ok(None) } else { Tensor::stack(&differences, 0)?.mean_all().map(Some) }
}

/// What one step made.
#[derive(Clone, Debug, PartialEq)]
pub struct MetaStep<F> {
    /// The objective at the parameters as they were.
    pub objective: f64,
    /// `θ' = θ + meta_learning_rate · ∇objective(θ)`.
    pub displaced: Vec<F>,
    /// The loss at θ'.
    pub loss: f64,
    /// `θ - learning_rate · ∇loss(θ')`.
    pub next: Vec<F>,
}

/// One step of first order: ascent on `objective` to a displaced copy, then descent from the parameters by the gradient of `loss` at the copy.
///
/// `objective` and `loss` are graphs from flat parameters, of the same dtype, to a `[]` scalar.
pub fn meta_step<F: WithDType>(
    parameters: &[F],
    objective: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    loss: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    meta_learning_rate: f64,
    learning_rate: f64,
) -> candle_core::Result<MetaStep<F>> {
    let moved = |by: f64, gradient: &[F]| -> Vec<F> {
        parameters.iter().zip(gradient).map(|(p, g)| F::from_f64(p.to_f64() + by * g.to_f64())).collect()
    };
    let (objective, ascent) = differentiate(parameters, objective)?;
    let displaced = moved(meta_learning_rate, &ascent);
    let (loss, descent) = differentiate(&displaced, loss)?;
    Ok(MetaStep { objective, loss, next: moved(-learning_rate, &descent), displaced })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::sigmoid;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, numbers, vector};

    fn of(rewards: &[f64]) -> f64 {
        numbers(&difference(&vector(rewards)).unwrap())[0]
    }

    #[test]
    fn difference_matches_the_formula_by_hand() {
        assert_close(&[of(&[1.0, 3.0]), of(&[2.0, 2.0, 2.0])], &[sigmoid(2.0) / 2.0, 1.0 / 3.0]);
        assert_eq!((of(&[5.0]), of(&[])), (0.0, 0.0));
        let groups = [vector(&[1.0, 3.0]), vector(&[]), vector(&[7.0])];
        assert_close(&numbers(&mean_difference(&groups).unwrap().unwrap()), &[sigmoid(2.0) / 4.0]);
        assert!(mean_difference(&groups[1..2]).unwrap().is_none());
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_are_zero_between_equal_rewards() {
        check_gradients(&[vector(&[0.5, -1.0, 2.0, 0.4])], 1e-8, |r| difference(&r[0]));
        let (_, gradient) = gradients(&[vector(&[1.0, 1.0, 4.0])], |r| difference(&r[0])).unwrap();
        let slope = 2.0 / 9.0 * sigmoid(3.0) * sigmoid(-3.0);
        assert_close(&gradient[0], &[-slope, -slope, 2.0 * slope]);
        for rewards in [vec![3.0], vec![1.0; 3], vec![1e5, -1e5]] {
            assert_finite(&[vector(&rewards)], |r| difference(&r[0]));
        }
    }

    #[test]
    fn step_descends_from_the_parameters_by_the_gradient_at_their_copy() {
        // Objective 3 θ, loss θ²: θ' = 1 + 0.5 · 3, and the gradient there is 5.
        let step = meta_step(&[1.0], |p| (p * 3.0)?.sum_all(), |p| p.sqr()?.sum_all(), 0.5, 0.1).unwrap();
        assert_eq!(step, MetaStep { objective: 3.0, displaced: vec![2.5], loss: 6.25, next: vec![0.5] });
        let still = meta_step(&[1.0f32], |p| p.zeros_like()?.sum_all(), |p| p.zeros_like()?.sum_all(), 0.5, 0.1).unwrap();
        assert_eq!((still.displaced, still.next), (vec![1.0], vec![1.0]));
    }
}
