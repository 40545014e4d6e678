//! Rewards of segments of a text, where segments begin, and on which tokens their rewards stand.
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

/// What two values of one component on the same token become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collision {
    /// The later one, as in the authors' code: of segments behind a cut only the last counts.
    #[default]
    Overwrite,
    /// Their sum.
    Sum,
}

/// How values of segments stand on the tokens of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Whether a segment that ends past the last token, in an answer that was cut, has its value on that token, or none.
    pub clamp_to_last: bool,
    /// What values on the same token become.
    pub collision: Collision,
}

/// Values of one component's segments on their last tokens `ends`, of an answer of `length` tokens; 0 on all others.
///
/// # Panics
/// When there are not as many values as ends.
pub fn on_tokens(ends: &[usize], values: &[f64], length: usize, placement: Placement) -> Vec<f64> {
    assert_eq!(ends.len(), values.len(), "each segment needs a value");
    let mut tokens = vec![0.0; length];
    for (&end, &value) in ends.iter().zip(values) {
        let end = if placement.clamp_to_last { end.min(length.saturating_sub(1)) } else { end };
        let Some(token) = tokens.get_mut(end) else { continue };
        match placement.collision {
            Collision::Overwrite => *token = value,
            Collision::Sum => *token += value,
        }
    }
    tokens
}

/// Scale of a reward model's scores of whole answers; its constants belong to the reward model and not to the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreScale {
    /// Mean of the scores.
    pub mean: f64,
    /// Their deviation, above 0.
    pub std: f64,
    /// Factor of standardised scores.
    pub scale: f64,
    /// Added last.
    pub bias: f64,
}

impl ScoreScale {
    /// `(score - mean) / std · scale + bias`.
    pub fn apply(self, score: f64) -> f64 {
        (score - self.mean) / self.std * self.scale + self.bias
    }
}

/// `Σ_k weight_k · r_k,t` of each of `length` tokens, from components `[components][length]`: different components add up where they meet.
pub fn token_rewards(components: &[Vec<f64>], weights: &[f64], length: usize) -> Vec<f64> {
    let token = |t: usize| components.iter().zip(weights).map(|(component, weight)| weight * component[t]).sum();
    (0..length).map(token).collect()
}

/// Whether each word of a sentence begins a sub-sentence.
///
/// One may begin at word i behind a word that ends in `,`, `;`, `!` or `?` if `i + min_words < words`. If the piece that ends there is shorter than
/// `min_words`, it is joined to the piece before it; the first piece has none before it, and is not split off then.
pub fn subsentence_starts<S: AsRef<str>>(words: &[S], min_words: usize) -> Vec<bool> {
    let mut starts = vec![false; words.len()];
    if let Some(first) = starts.first_mut() {
        *first = true;
    }
    let mut begin = 0;
    for i in 1..words.len() {
        if !words[i - 1].as_ref().ends_with([',', ';', '!', '?']) || i + min_words >= words.len() {
            continue;
        }
        let short = i - begin < min_words;
        if short && begin == 0 {
            continue;
        }
        if short {
            starts[begin] = false;
        }
        starts[i] = true;
        begin = i;
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

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

    const CLAMPED: Placement = Placement { clamp_to_last: true, collision: Collision::Overwrite };

    #[test]
    fn segments_behind_a_cut_meet_on_the_last_token_or_vanish() {
        let of = |placement| on_tokens(&[1, 3, 9], &[0.3, -0.3, 0.5], 3, placement);
        assert_close(&of(CLAMPED), &[0.0, 0.3, 0.5]);
        assert_close(&of(Placement { collision: Collision::Sum, ..CLAMPED }), &[0.0, 0.3, 0.2]);
        assert_close(&of(Placement { clamp_to_last: false, ..CLAMPED }), &[0.0, 0.3, 0.0]);
    }

    #[test]
    fn later_value_of_a_token_wins_even_if_it_is_zero() {
        assert_close(&on_tokens(&[1, 1], &[0.3, 0.0], 2, CLAMPED), &[0.0, 0.0]);
        assert_close(&on_tokens(&[1, 1], &[0.3, 0.5], 2, Placement { collision: Collision::Sum, ..CLAMPED }), &[0.0, 0.8]);
    }

    #[test]
    fn answers_without_tokens_have_no_rewards() {
        assert!(on_tokens(&[0, 4], &[1.0, 1.0], 0, CLAMPED).is_empty());
        assert!(token_rewards(&[vec![], vec![]], &[1.0, 2.0], 0).is_empty());
        assert_eq!(token_rewards(&[], &[], 2), [0.0, 0.0]);
    }

    #[test]
    fn components_add_up_by_their_weights() {
        let scale = ScoreScale { mean: -1.0, std: 2.0, scale: 0.5, bias: 0.25 };
        assert_close(&[scale.apply(3.0), scale.apply(-1.0)], &[1.25, 0.25]);
        assert_close(&token_rewards(&[vec![1.0, 0.5], vec![0.0, -2.0]], &[2.0, 0.5], 2), &[2.0, 0.0]);
    }

    fn starts(text: &str, min_words: usize) -> Vec<usize> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let starts = subsentence_starts(&words, min_words);
        assert_eq!(starts.len(), words.len());
        (0..words.len()).filter(|&i| starts[i]).collect()
    }

    #[test]
    fn short_pieces_join_the_one_before_and_the_first_stays_whole() {
        // With 2 words: "a," is too short to be split off, "d," joins the piece before it, "g" is too close to the end.
        assert_eq!(starts("a, b c; d, e f? g", 2), [0, 4]);
        assert_eq!(starts("a b, c d; e f! g h i", 2), [0, 2, 4, 6]);
        assert_eq!(starts("a, b, c, d", 1), [0, 1, 2]);
        assert_eq!(starts("a, b. c: d", 0), [0, 1]);
    }

    #[test]
    fn sentences_of_one_word_or_none_have_no_boundary() {
        assert_eq!(starts("a,", 0), [0]);
        assert!(starts("", 5).is_empty());
        assert_eq!(subsentence_starts(&["", "a"], 0), [true, false]);
    }
}
