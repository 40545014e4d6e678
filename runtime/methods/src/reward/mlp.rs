//! A small network over a frozen model's state, or over named features, that gives one number.

use candle_core::Tensor;

use crate::rectify::positive_part;

/// What stands between two layers; none stands after the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing: the layers are one linear map.
    None,
    /// Hyperbolic tangent.
    Tanh,
    /// max(x, 0).
    Relu,
    /// x · σ(x).
    #[default]
    Silu,
}

/// `weight · x + bias`.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
}

/// Rewards `[N]` of inputs `[N, in]`: `w_L · a(… a(W_1 x + b_1) …) + b_L`. Two layers are one hidden layer.
///
/// Gradient flows to the inputs and to every layer.
///
/// # Errors
/// Those of candle, where sizes disagree; a last layer with more than one output.
///
/// Reference: Zhang et al. 2025 ("BaseReward"), the two-layer SiLU head.
pub fn rewards(inputs: &Tensor, layers: &[Layer], activation: Activation) -> candle_core::Result<Tensor> {
    let mut x = inputs.clone();
    for (l, Layer { weight, bias }) in layers.iter().enumerate() {
        if l > 0 {
            x = match activation {
                Activation::None => x,
                Activation::Tanh => x.tanh()?,
                Activation::Relu => positive_part(&x)?,
                Activation::Silu => x.silu()?,
            };
        }
        x = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
    }
    x.squeeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, matrix, numbers, vector};

    fn layers(of: &[Tensor]) -> [Layer; 2] {
        [Layer { weight: of[0].clone(), bias: of[1].clone() }, Layer { weight: of[2].clone(), bias: of[3].clone() }]
    }

    fn parameters() -> Vec<Tensor> {
        vec![matrix([[0.5, -1.0], [2.0, 0.3]]), vector(&[0.1, -0.2]), matrix([[1.5, -0.5]]), vector(&[0.25])]
    }

    #[test]
    fn activation_stands_between_layers_and_not_after_the_last() {
        let x = matrix([[1.0, 2.0]]);
        // Hidden: 0.5 - 2 + 0.1 = -1.4 and 2 + 0.6 - 0.2 = 2.4.
        for (activation, a) in [
            (Activation::None, [-1.4, 2.4]),
            (Activation::Relu, [0.0, 2.4]),
            (Activation::Tanh, [(-1.4f64).tanh(), 2.4f64.tanh()]),
            (Activation::Silu, [-1.4 / (1.0 + 1.4f64.exp()), 2.4 / (1.0 + (-2.4f64).exp())]),
        ] {
            let got = rewards(&x, &layers(&parameters()), activation).unwrap();
            assert_close(&numbers(&got), &[1.5 * a[0] - 0.5 * a[1] + 0.25]);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences_in_every_layer() {
        let mut leaves = parameters();
        leaves.push(matrix([[1.0, 2.0], [-0.3, 0.4], [0.9, -2.0]]));
        for activation in [Activation::None, Activation::Tanh, Activation::Relu, Activation::Silu] {
            check_gradients(&leaves, 1e-7, |l| rewards(&l[4], &layers(l), activation)?.sqr()?.mean_all());
        }
    }

    #[test]
    fn states_far_out_have_finite_rewards_and_gradients() {
        let leaves = parameters();
        assert_finite(&leaves, |l| rewards(&matrix([[1e5, -1e5]]), &layers(l), Activation::Silu)?.sum_all());
    }
}
