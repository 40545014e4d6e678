//! Contrast of states along answers: states of a good answer are drawn to its later ones, and away from those of a bad one.
//!
//! Reference: Nath et al. 2024, "Learning Goal-Conditioned Representations for Language Reward Models".

use candle_core::{D, Tensor};

use super::log_sigmoid;
use crate::stats::NORM_FLOOR;

/// Index of the state that a uniform number in 0..1 chooses in a sequence padded on the left, its answer ending at the last column.
///
/// The state is `k = floor(((p - 1) u + 1) n + 1)` from the end, `1 ≤ k < padded`: p = 0 takes all n tokens of the answer, a greater
/// p only those near its beginning. It may be the prompt's last token; it is never index 0. 0 in a sequence of one token.
pub fn state_index(uniform: f64, tokens: usize, padded: usize, percentile: f64) -> usize {
    let back = (((percentile - 1.0) * uniform + 1.0) * tokens as f64 + 1.0).floor().max(1.0) as usize;
    padded - back.min(padded.saturating_sub(1)).max(usize::from(padded > 0))
}

/// How goals of one answer are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Every source with every goal.
    #[default]
    Cosine,
    /// Every source with the mean of the goals.
    CosineAvg,
}

/// Sources and goals among the states of a batch of answers.
#[derive(Clone, Copy, Debug)]
pub struct States<'a> {
    /// Indices of sources in each chosen answer, `[B][S]`.
    pub sources: &'a [Vec<u32>],
    /// Indices of goals, `[B][G]`: in the chosen answer for the positive term, in the rejected one for the negative.
    pub goals: &'a [Vec<u32>],
}

/// Parts of [`goal_contrastive`].
#[derive(Clone, Debug)]
pub struct Contrast {
    /// `beta · (-ln P - ln(1 - N))`, `[]`.
    pub loss: Tensor,
    /// P: mean of σ(cos) of sources and goals of the same chosen answer, `[]`.
    pub positive: Tensor,
    /// N: mean of σ(cos) of sources of the chosen and goals of the rejected answer, `[]`.
    pub negative: Tensor,
}

/// The goal-conditioned contrastive loss. The logarithms are of the batch's means.
///
/// # Shapes
/// - `chosen`, `rejected`: `[B, T, D]` hidden states. Gradient flows to both, through sources and goals.
///
/// # Errors
/// Those of candle; a batch without states, of which there is no mean.
pub fn goal_contrastive(
    chosen: &Tensor,
    rejected: &Tensor,
    positive: States<'_>,
    negative: States<'_>,
    strategy: Strategy,
    beta: f64,
) -> candle_core::Result<Contrast> {
    let mean = |goals_of: &Tensor, states: States<'_>| {
        let goals = pick(goals_of, states.goals)?;
        let goals = if strategy == Strategy::CosineAvg { goals.mean_keepdim(1)? } else { goals };
        let cosines = normalised(&pick(chosen, states.sources)?)?.matmul(&normalised(&goals)?.transpose(1, 2)?)?;
        log_sigmoid(&cosines)?.exp()?.mean_all()
    };
    let (positive, negative) = (mean(chosen, positive)?, mean(rejected, negative)?);
    let loss = ((positive.log()? + (1.0 - &negative)?.log()?)? * -beta)?;
    Ok(Contrast { loss, positive, negative })
}

/// States `[B, S, D]` at the given indices of `[B, T, D]`.
fn pick(hidden: &Tensor, indices: &[Vec<u32>]) -> candle_core::Result<Tensor> {
    let (rows, tokens, width) = hidden.dims3()?;
    let states = indices.first().map_or(0, Vec::len);
    if states == 0 {
        candle_core::bail!("a contrast needs states of every answer");
    }
    let flat = indices.iter().enumerate().flat_map(|(row, states)| states.iter().map(move |t| (row * tokens) as u32 + t));
    let flat = Tensor::from_iter(flat.collect::<Vec<u32>>(), hidden.device())?;
    hidden.reshape((rows * tokens, width))?.index_select(&flat, 0)?.reshape((rows, states, width))
}

/// Vectors of the last dimension divided by their norms, the norms at least [`NORM_FLOOR`].
pub(super) fn normalised(vectors: &Tensor) -> candle_core::Result<Tensor> {
    // The floor is under the root: at 0 the root's gradient is infinite.
    let norms = vectors.sqr()?.sum_keepdim(D::Minus1)?.maximum(NORM_FLOOR * NORM_FLOOR)?.sqrt()?;
    vectors.broadcast_div(&norms)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::testing::{assert_finite, assert_float32_agrees, check_gradients};

    fn hidden(seed: usize) -> Tensor {
        let values: Vec<f64> = (0..24).map(|i| (((i + seed) * 13) % 17) as f64 / 8.0 - 1.0).collect();
        Tensor::from_vec(values, (2, 4, 3), &Device::Cpu).unwrap()
    }

    fn graph(l: &[Tensor], strategy: Strategy) -> candle_core::Result<Tensor> {
        let (a, b) = (vec![vec![0, 1], vec![1, 1]], vec![vec![2, 3, 3], vec![3, 0, 1]]);
        let states = States { sources: &a, goals: &b };
        Ok(goal_contrastive(&l[0], &l[1], states, states, strategy, 0.5)?.loss)
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for strategy in [Strategy::Cosine, Strategy::CosineAvg] {
            check_gradients(&[hidden(0), hidden(5)], 1e-7, |l| graph(l, strategy));
        }
    }

    #[test]
    fn float32_agrees() {
        assert_float32_agrees(&[hidden(0), hidden(5)], |l| graph(l, Strategy::Cosine));
    }

    #[test]
    fn zero_and_huge_states_have_finite_losses_and_gradients() {
        for scale in [0.0, 1e6] {
            for strategy in [Strategy::Cosine, Strategy::CosineAvg] {
                let states = [(hidden(0) * scale).unwrap(), (hidden(5) * scale).unwrap()];
                assert_finite(&states, |l| graph(l, strategy));
            }
        }
    }

    #[test]
    fn loss_is_least_where_positives_agree_and_negatives_oppose() {
        let ones = hidden(0).ones_like().unwrap();
        let value = graph(&[ones.clone(), ones.neg().unwrap()], Strategy::Cosine).unwrap().to_scalar::<f64>().unwrap();
        let win = 1.0 / (1.0 + (-1.0f64).exp());
        assert!((value + win.ln()).abs() < 1e-12, "{value}");
    }

    #[test]
    fn a_batch_without_states_is_an_error() {
        let none = vec![vec![], vec![]];
        let states = States { sources: &none, goals: &none };
        assert!(goal_contrastive(&hidden(0), &hidden(1), states, states, Strategy::Cosine, 0.5).is_err());
    }

    #[test]
    fn states_lie_in_the_answer_or_at_the_end_of_its_prompt() {
        assert_eq!(state_index(0.0, 8, 12, 0.0), 3, "the prompt's last token");
        assert_eq!(state_index(0.999, 8, 12, 0.0), 11);
        assert_eq!(state_index(0.999, 8, 12, 1.0), 3, "percentile 1 takes the beginning alone");
        assert_eq!(state_index(0.0, 12, 12, 0.0), 1, "index 0 is never taken");
        assert_eq!(state_index(0.5, 0, 12, 0.0), 11, "no tokens");
        assert_eq!((state_index(0.5, 3, 1, 0.0), state_index(0.5, 3, 0, 0.0)), (0, 0));
    }
}
