//! Rewards of segments of a text.
//!
//! Reference: Wu et al. 2023, "Fine-Grained Human Feedback Gives Better Rewards for Language Model Training".

/// What each segment takes off the toxicity, from the scores after 0, 1, ... segments: one less than there are scores.
pub fn toxicity_drops(scores: &[f64]) -> Vec<f64> {
    scores.windows(2).map(|pair| pair[0] - pair[1]).collect()
}

/// Share of right segments of each text (0 without segments), and of all segments together.
pub fn right_shares(right: &[Vec<bool>]) -> (Vec<f64>, f64) {
    let share = |rights: usize, of: usize| if of == 0 { 0.0 } else { rights as f64 / of as f64 };
    let count = |text: &[bool]| text.iter().filter(|right| **right).count();
    let by_text = right.iter().map(|text| share(count(text), text.len())).collect();
    let all = right.concat();
    (by_text, share(count(&all), all.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_add_toxicity_have_negative_rewards() {
        assert_eq!(toxicity_drops(&[0.0, 0.5, 0.25]), [-0.5, 0.25]);
        assert!(toxicity_drops(&[0.3]).is_empty() && toxicity_drops(&[]).is_empty());
    }

    #[test]
    fn pooled_share_weighs_segments_alike_and_not_texts() {
        assert_eq!(right_shares(&[vec![true, false, false], vec![true], vec![]]), (vec![1.0 / 3.0, 1.0, 0.0], 0.5));
        assert_eq!(right_shares(&[]), (vec![], 0.0));
    }
}
