//! Advantages by the statistics of each prompt's latest rewards (Black et al. 2023, "Training Diffusion Models with Reinforcement
//! Learning").

use std::collections::{HashMap, VecDeque};

use crate::advantage::{mean, std_dev};

/// Constants of [`PromptStatistics`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptScaling {
    /// Rewards of a prompt that are remembered.
    pub buffer_size: usize,
    /// Remembered rewards from which on a prompt has statistics of its own.
    pub min_count: usize,
    /// Greatest magnitude of an advantage; infinite for none.
    pub clip: f64,
    /// Delta degrees of freedom of deviations.
    pub ddof: usize,
    /// Added to deviations.
    pub epsilon: f64,
}

/// Latest rewards of each prompt.
#[derive(Clone, Debug)]
pub struct PromptStatistics {
    scaling: PromptScaling,
    rewards: HashMap<String, VecDeque<f64>>,
}

impl PromptStatistics {
    /// Of no prompt yet.
    pub fn new(scaling: PromptScaling) -> Self {
        PromptStatistics { scaling, rewards: HashMap::new() }
    }

    /// Enters a batch, then gives `(r - mean) / (std + epsilon)` of each reward: by its prompt's latest rewards, or by those of the whole
    /// batch while the prompt has fewer than `min_count`.
    ///
    /// # Panics
    /// When there are not as many prompts as rewards.
    pub fn advantages(&mut self, prompts: &[String], rewards: &[f64]) -> Vec<f64> {
        assert_eq!(prompts.len(), rewards.len(), "each reward needs a prompt");
        let scaling = self.scaling;
        for (prompt, &reward) in prompts.iter().zip(rewards) {
            let latest = self.rewards.entry(prompt.clone()).or_default();
            latest.push_back(reward);
            if latest.len() > scaling.buffer_size {
                latest.pop_front();
            }
        }
        let advantage = |(prompt, reward): (&String, &f64)| {
            let latest = &self.rewards[prompt];
            let known: Vec<f64> =
                if latest.len() < scaling.min_count { rewards.to_vec() } else { latest.iter().copied().collect() };
            let advantage = (reward - mean(&known)) / (std_dev(&known, scaling.ddof) + scaling.epsilon);
            advantage.clamp(-scaling.clip, scaling.clip)
        };
        prompts.iter().zip(rewards).map(advantage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    const SCALING: PromptScaling = PromptScaling { buffer_size: 2, min_count: 2, clip: 5.0, ddof: 0, epsilon: 1e-6 };

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn prompts_have_statistics_of_their_own_once_they_have_rewards_enough() {
        let mut statistics = PromptStatistics::new(PromptScaling { epsilon: 0.0, ..SCALING });
        let first = statistics.advantages(&names(&["a", "b"]), &[1.0, 3.0]);
        assert_close(&first, &[-1.0, 1.0]);
        let second = statistics.advantages(&names(&["a", "c"]), &[5.0, 1.0]);
        assert_close(&second, &[1.0, -1.0]);
        // Of 1, 5 and 9 only the latest two are known.
        assert_close(&statistics.advantages(&names(&["a"]), &[9.0]), &[1.0]);
    }

    #[test]
    fn equal_rewards_have_advantage_zero_and_outliers_are_cut() {
        let mut statistics = PromptStatistics::new(SCALING);
        assert_eq!(statistics.advantages(&names(&["a", "a"]), &[2.0, 2.0]), [0.0, 0.0]);
        let mut statistics = PromptStatistics::new(PromptScaling { clip: 0.5, ..SCALING });
        assert_eq!(statistics.advantages(&names(&["a", "a"]), &[0.0, 2.0]), [-0.5, 0.5]);
        assert!(statistics.advantages(&[], &[]).is_empty());
    }
}
