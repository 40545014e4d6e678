//! What choosing the best of n completions gives, without bias, from one set of N ≥ n of them.

use crate::stats::dot;

/// KL(best of n ‖ policy) in nats, `ln n - (n - 1) / n`: exact for continuous rewards, an upper bound else.
pub fn best_of_n_kl(n: usize) -> f64 {
    let n = n as f64;
    n.ln() - (n - 1.0) / n
}

/// Probability that the i-th of N in ascending order is the best of n drawn without replacement: `C(i-1, n-1) / C(N, n)`.
///
/// None unless 1 ≤ n ≤ N. By ratios from the top: the binomials themselves overflow beyond N of a thousand.
pub fn rank_probabilities(of: usize, n: usize) -> Option<Vec<f64>> {
    if n == 0 || n > of {
        return None;
    }
    let mut weights = vec![0.0; of];
    let mut weight = n as f64 / of as f64;
    for i in (n..=of).rev() {
        weights[i - 1] = weight;
        weight *= (i - n) as f64 / (i - 1).max(1) as f64;
    }
    Some(weights)
}

/// Expected proxy and gold reward of the best of n by proxy; None unless 1 ≤ n ≤ N.
///
/// Of equal proxies the later one counts as the better (a stable ascending sort).
///
/// Reference: Coste et al. 2023, appendix; the estimator is that of Nakano et al. 2021 ("WebGPT").
pub fn unbiased(proxy: &[f64], gold: &[f64], n: usize) -> Option<(f64, f64)> {
    let mut order: Vec<usize> = (0..proxy.len()).collect();
    order.sort_by(|&a, &b| crate::stats::order(proxy[a], proxy[b]));
    let weights = rank_probabilities(proxy.len(), n)?;
    let sorted = |values: &[f64]| order.iter().map(|&i| values[i]).collect::<Vec<f64>>();
    Some((dot(&weights, &sorted(proxy)), dot(&weights, &sorted(gold))))
}

/// Probability that each completion is the best of n drawn without replacement, the lower index winning ties; None unless
/// 1 ≤ n ≤ N.
///
/// Reference: Kirk et al. 2023, "Understanding the Effects of RLHF on LLM Generalisation and Diversity".
pub fn pick_probabilities(rewards: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut order: Vec<usize> = (0..rewards.len()).rev().collect();
    order.sort_by(|&a, &b| crate::stats::order(rewards[a], rewards[b]));
    let weights = rank_probabilities(rewards.len(), n)?;
    let mut picked = vec![0.0; rewards.len()];
    order.iter().zip(weights).for_each(|(&i, weight)| picked[i] = weight);
    Some(picked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn probabilities_are_those_of_all_draws() {
        // Of the six pairs of four the best has rank 2 once, 3 twice, 4 three times.
        assert_close(&rank_probabilities(4, 2).unwrap(), &[0.0, 1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0]);
        assert_close(&rank_probabilities(3, 1).unwrap(), &[1.0 / 3.0; 3]);
        assert_close(&rank_probabilities(3, 3).unwrap(), &[0.0, 0.0, 1.0]);
        assert_close(&rank_probabilities(1, 1).unwrap(), &[1.0]);
        assert_eq!((rank_probabilities(3, 4), rank_probabilities(3, 0), rank_probabilities(0, 1)), (None, None, None));
    }

    #[test]
    fn probabilities_of_many_completions_neither_overflow_nor_lose_their_sum() {
        for n in [1, 2, 100, 6300, 12_500] {
            let total: f64 = rank_probabilities(12_600, n).unwrap().iter().sum();
            assert!((total - 1.0).abs() < 1e-9, "{n}: {total}");
        }
    }

    #[test]
    fn ties_go_to_the_later_in_the_estimator_and_to_the_lower_index_in_the_choice() {
        assert_eq!(unbiased(&[1.0, 1.0], &[5.0, 7.0], 2), Some((1.0, 7.0)));
        assert_eq!(pick_probabilities(&[1.0, 1.0], 2), Some(vec![1.0, 0.0]));
        assert_close(&pick_probabilities(&[0.0, 3.0, 3.0], 2).unwrap(), &[0.0, 2.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn best_of_one_is_the_policy_itself() {
        assert_eq!(best_of_n_kl(1), 0.0);
        assert_close(&[best_of_n_kl(2)], &[2.0f64.ln() - 0.5]);
    }
}
