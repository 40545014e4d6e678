//! Penalties by length.

/// `penalty` for each token beyond `valid`; 0 up to there.
///
/// Reference: Fu et al. 2025, "Reward Shaping to Mitigate Reward Hacking in RLHF", whose runs keep responses from growing by it.
pub fn excess_penalty(length: usize, valid: usize, penalty: f64) -> f64 {
    penalty * length.saturating_sub(valid) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_beyond_the_valid_length_cost_each() {
        assert_eq!([9, 10, 12].map(|length| excess_penalty(length, 10, 0.5)), [0.0, 0.0, 1.0]);
    }
}
