//! Whether a reward model tells look-alike instructions apart.
//!
//! Reference: Shen et al. 2023, "The Trickle-down Impact of Reward (In-)consistency on RLHF" (contrast instructions and RewardFusion).

use crate::advantage::mean;
use crate::evaluation::preference::Ties;
use crate::stats::{dot, order};

/// Rewards of two instructions and their two responses: `rewards[i][j]` of response j under instruction i.
pub type Square = [[f64; 2]; 2];

/// Shares of comparisons that are right, each in 0..=1 and 0 without items.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Consistency {
    /// An instruction's own response above the other one.
    pub response: f64,
    /// The same over first instructions alone.
    pub response_first: f64,
    /// A response under its own instruction above the same under the other one.
    pub instruction: f64,
    /// The same over first responses alone.
    pub instruction_first: f64,
}

/// Consistency over items.
pub fn consistency(items: &[Square], ties: Ties) -> Consistency {
    let right = |own: f64, other: f64| ties.credit(own, other);
    let share = |sides: &[usize], of: &dyn Fn(&Square, usize) -> f64| {
        mean(&items.iter().flat_map(|item| sides.iter().map(|&side| of(item, side))).collect::<Vec<_>>())
    };
    let response = |item: &Square, i: usize| right(item[i][i], item[i][1 - i]);
    let instruction = |item: &Square, i: usize| right(item[i][i], item[1 - i][i]);
    Consistency {
        response: share(&[0, 1], &response),
        response_first: share(&[0], &response),
        instruction: share(&[0, 1], &instruction),
        instruction_first: share(&[0], &instruction),
    }
}

/// Pairs `i < j` with `low <= similarity < high`, in order.
pub fn band_pairs(similarity: &[Vec<f64>], low: f64, high: f64) -> Vec<(usize, usize)> {
    let pairs = (0..similarity.len()).flat_map(|i| (i + 1..similarity.len()).map(move |j| (i, j)));
    pairs.filter(|&(i, j)| (low..high).contains(&similarity[i][j])).collect()
}

/// A reward averaged with those of near neighbours.
#[derive(Clone, Debug, PartialEq)]
pub struct Fused {
    /// Neighbours that count, the most similar first.
    pub neighbours: Vec<usize>,
    /// Weights of the text itself and of those neighbours; they add up to 1.
    pub weights: Vec<f64>,
    /// The weighted mean.
    pub reward: f64,
}

/// Fuses a text's own reward with those of at most `top_k` neighbours of at least `threshold` similarity; weights are similarities, 1 for the text.
pub fn fuse(own: f64, rewards: &[f64], similarities: &[f64], threshold: f64, top_k: usize) -> Fused {
    let mut neighbours: Vec<usize> = (0..rewards.len()).filter(|&i| similarities[i] >= threshold).collect();
    neighbours.sort_by(|&a, &b| order(similarities[b], similarities[a]));
    neighbours.truncate(top_k);
    let raw: Vec<f64> = std::iter::once(1.0).chain(neighbours.iter().map(|&i| similarities[i])).collect();
    let total: f64 = raw.iter().sum();
    let weights: Vec<f64> = raw.iter().map(|weight| weight / total).collect();
    let all: Vec<f64> = std::iter::once(own).chain(neighbours.iter().map(|&i| rewards[i])).collect();
    Fused { reward: dot(&weights, &all), neighbours, weights }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn each_side_of_an_item_is_a_comparison() {
        let got = consistency(&[[[2.0, 1.0], [2.0, 2.0]]], Ties::Strict);
        assert_eq!(got, Consistency { response: 0.5, response_first: 1.0, instruction: 0.5, instruction_first: 0.0 });
        assert_eq!(consistency(&[[[2.0, 1.0], [2.0, 2.0]]], Ties::Half).response, 0.75);
        assert_eq!(consistency(&[], Ties::Half), Consistency::default());
    }

    #[test]
    fn bands_are_open_above() {
        let similarity = [vec![1.0, 0.75, 0.9], vec![0.75, 1.0, 0.8], vec![0.9, 0.8, 1.0]];
        assert_eq!(band_pairs(&similarity, 0.75, 0.9), [(0, 1), (1, 2)]);
    }

    #[test]
    fn without_near_neighbours_a_reward_is_its_own() {
        assert_eq!(fuse(1.5, &[9.0], &[0.5], 0.9, 5), Fused { neighbours: vec![], weights: vec![1.0], reward: 1.5 });
        let got = fuse(0.0, &[1.0, 2.0, 3.0], &[1.0, 1.0, 1.0], 0.9, 2);
        assert_eq!(got.neighbours, [0, 1]);
        assert_close(&[got.reward], &[1.0]);
    }
}
