//! From logits to one token.

use plumb_core::rollout::SamplingParams;
use plumb_kernels::cpu::isa::Isa;
use plumb_kernels::cpu::sample::{BLOCK, block_sums, exponential_sums, exponentiate, inverse_cdf, largest};

/// A sampled token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-probability before anything was cut: see `plumb_core::rollout::Completion::logprobs`.
    pub logprob: f32,
}

/// Draws tokens in Hugging Face's order: temperature, then top-k, top-p and min-p, each over what the one before left.
#[derive(Clone, Debug)]
pub struct Sampler {
    isa: Isa,
    temperature: f32,
    top_k: usize,
    top_p: f64,
    min_p: f32,
}

/// Buffers of [`Sampler::sample`], to be used again.
#[derive(Clone, Debug, Default)]
pub struct SampleScratch {
    sums: Vec<f64>,
    /// `[v]` where something is cut, else empty.
    weights: Vec<f32>,
    ranked: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler with these choices, which are sound: see [`problem`].
    pub fn new(sampling: &SamplingParams) -> Self {
        Sampler {
            isa: Isa::detect(),
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: f64::from(sampling.top_p),
            min_p: sampling.min_p,
        }
    }

    /// Draws a token, `uniform` in [0, 1) being the chance. `logits`: `[v]`. None when they are not finite.
    ///
    /// The draw inverts the cumulative distribution of the tokens that are kept, in the order of their ids. At temperature 0 it
    /// is the likeliest token, the lowest id among equals.
    pub fn sample(&self, logits: &[f32], uniform: f64, scratch: &mut SampleScratch) -> Option<Sampled> {
        let SampleScratch { sums, weights, ranked } = scratch;
        sums.resize(logits.len().div_ceil(BLOCK), 0.0);
        let greedy = self.temperature == 0.0;
        let inverse_temperature = if greedy { 1.0 } else { self.temperature.recip() };
        let cut_top_k = !greedy && self.top_k > 0 && self.top_k < logits.len();
        let cut = !greedy && (cut_top_k || self.top_p < 1.0 || self.min_p > 0.0);
        let max = largest(self.isa, logits);
        if cut {
            weights.resize(logits.len(), 0.0);
            exponentiate(self.isa, logits, max, inverse_temperature, weights);
            block_sums(self.isa, weights, sums);
        } else {
            exponential_sums(self.isa, logits, max, inverse_temperature, sums);
        }
        let total: f64 = sums.iter().sum();
        if !total.is_finite() {
            return None;
        }
        let sampled = |token: usize, weight: f32| {
            Some(Sampled { token: token as u32, logprob: (f64::from(weight).ln() - total.ln()) as f32 })
        };
        if greedy {
            let likeliest = logits.iter().position(|&logit| logit == max).unwrap_or(0);
            return sampled(likeliest, 1.0);
        }
        if !cut {
            let block = &mut [0.0; BLOCK];
            let (token, weight) = inverse_cdf(sums, uniform, move |ids| {
                let logits = &logits[ids.start..ids.end.min(logits.len())];
                exponentiate(self.isa, logits, max, inverse_temperature, block);
                &block[..logits.len()]
            });
            return sampled(token, weight);
        }

        // From here on a weight of 0 means cut.
        if cut_top_k {
            rank_top_k(logits, self.top_k, ranked);
            for (weight, id) in ranked.iter_mut() {
                *weight = weights[*id as usize];
            }
            keep_only(ranked, weights);
        }
        if self.top_p < 1.0 {
            block_sums(self.isa, weights, sums);
            keep_top_p(weights, self.top_p * sums.iter().sum::<f64>(), ranked);
        }
        // The likeliest token's weight is 1, so weights are already relative to it.
        if self.min_p > 0.0 {
            weights.iter_mut().filter(|weight| **weight < self.min_p).for_each(|weight| *weight = 0.0);
        }
        block_sums(self.isa, weights, sums);
        let (token, weight) = inverse_cdf(sums, uniform, |ids| &weights[ids.start..ids.end.min(logits.len())]);
        sampled(token, weight)
    }
}

/// What is wrong with sampling parameters, if anything.
pub fn problem(sampling: &SamplingParams) -> Option<String> {
    let SamplingParams { temperature, top_p, min_p, max_completion_length, stop, .. } = sampling;
    if !(temperature.is_finite() && *temperature >= 0.0) {
        return Some(format!("temperature {temperature} is not a number of 0 or more"));
    }
    if !(*top_p > 0.0 && *top_p <= 1.0) {
        return Some(format!("top_p {top_p} is not above 0 and at most 1"));
    }
    if !(0.0..=1.0).contains(min_p) {
        return Some(format!("min_p {min_p} is not between 0 and 1"));
    }
    if *max_completion_length == 0 {
        return Some("max_completion_length is 0, so there is nothing to generate".into());
    }
    stop.iter().any(String::is_empty).then(|| "a stop string is empty".into())
}

/// Lists the tokens whose logit is at least the k-th largest. As in Hugging Face, all that equal it are among them.
///
/// This looks at logits, since distinct logits may have weights that round to the same number.
fn rank_top_k(logits: &[f32], k: usize, ranked: &mut Vec<(f32, u32)>) {
    ranked.clear();
    ranked.extend(logits.iter().map(|&logit| (logit, 0)));
    let kth = ranked.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0)).1.0;
    ranked.clear();
    ranked.extend(logits.iter().enumerate().filter(|(_, logit)| **logit >= kth).map(|(id, &logit)| (logit, id as u32)));
}

/// Sets all weights to 0 but the listed ones.
fn keep_only(kept: &[(f32, u32)], weights: &mut [f32]) {
    weights.fill(0.0);
    for &(weight, id) in kept {
        weights[id as usize] = weight;
    }
}

/// Cuts all but the likeliest tokens whose weights first reach `target`; among equals the lower id comes first.
///
/// Without sorting the vocabulary: ranks only the tokens above a threshold, which falls by powers of 16 until their weights
/// reach the target. The first step, 1/16 of the likeliest, is already enough for most rows.
fn keep_top_p(weights: &mut [f32], target: f64, ranked: &mut Vec<(f32, u32)>) {
    let mut threshold = 1.0_f32;
    loop {
        threshold /= 16.0;
        // Below the smallest normal number there is nothing left but zeros.
        let threshold = if threshold < f32::MIN_POSITIVE { 0.0 } else { threshold };
        ranked.clear();
        let above = weights.iter().enumerate().filter(|(_, weight)| **weight > threshold);
        ranked.extend(above.map(|(id, &weight)| (weight, id as u32)));
        if threshold == 0.0 || ranked.iter().map(|(weight, _)| f64::from(*weight)).sum::<f64>() >= target {
            break;
        }
    }
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut mass = 0.0;
    let kept = ranked.iter().position(|(weight, _)| {
        mass += f64::from(*weight);
        mass >= target
    });
    ranked.truncate(kept.map_or(ranked.len(), |last| last + 1));
    keep_only(ranked, weights);
}

#[cfg(test)]
mod tests {
    use plumb_core::seed::Stream;

    use super::*;

    /// Logits of these probabilities.
    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() + 3.0).collect()
    }

    /// The ids that some of a thousand evenly spread draws reach, and how often.
    fn reached(sampling: &SamplingParams, probabilities: &[f32]) -> Vec<(u32, usize)> {
        let (sampler, mut scratch) = (Sampler::new(sampling), SampleScratch::default());
        let mut counts = vec![0; probabilities.len()];
        for i in 0..1000 {
            let draw = sampler.sample(&logits(probabilities), (i as f64 + 0.5) / 1000.0, &mut scratch).expect("finite");
            assert!((draw.logprob - probabilities[draw.token as usize].ln()).abs() < 1e-5, "log-probability before cuts");
            counts[draw.token as usize] += 1;
        }
        counts.into_iter().enumerate().filter(|(_, n)| *n > 0).map(|(id, n)| (id as u32, n)).collect()
    }

    const FIVE: [f32; 5] = [0.10, 0.40, 0.05, 0.30, 0.15];

    fn neutral() -> SamplingParams {
        SamplingParams::neutral(1)
    }

    #[test]
    fn neutral_sampling_follows_the_probabilities_exactly() {
        assert_eq!(reached(&neutral(), &FIVE), [(0, 100), (1, 400), (2, 50), (3, 300), (4, 150)]);
    }

    #[test]
    fn top_k_keeps_k_tokens_and_those_that_equal_the_last() {
        assert_eq!(reached(&SamplingParams { top_k: 2, ..neutral() }, &FIVE), [(1, 571), (3, 429)]);
        let ids = |k| -> Vec<u32> {
            reached(&SamplingParams { top_k: k, ..neutral() }, &[0.2, 0.4, 0.2, 0.2]).iter().map(|(id, _)| *id).collect()
        };
        assert_eq!(ids(1), [1]);
        assert_eq!(ids(2), [0, 1, 2, 3]);
        assert_eq!(ids(9), [0, 1, 2, 3]);
    }

    #[test]
    fn top_p_keeps_the_shortest_list_that_reaches_the_sum() {
        let ids =
            |top_p| -> Vec<u32> { reached(&SamplingParams { top_p, ..neutral() }, &FIVE).iter().map(|(id, _)| *id).collect() };
        assert_eq!(ids(0.01), [1]);
        assert_eq!(ids(0.39), [1]);
        assert_eq!(ids(0.41), [1, 3]);
        assert_eq!(ids(0.71), [1, 3, 4]);
        assert_eq!(ids(0.96), [0, 1, 2, 3, 4]);
        let equal = reached(&SamplingParams { top_p: 0.5, ..neutral() }, &[0.25; 4]);
        assert_eq!(equal, [(0, 500), (1, 500)], "among equals the lower ids");
    }

    #[test]
    fn top_p_reaches_deep_into_a_flat_distribution() {
        let mut probabilities = vec![0.5 / 3000.0; 3001];
        probabilities[7] = 0.5;
        let logits = logits(&probabilities);
        let mut weights = vec![0.0; logits.len()];
        exponentiate(Isa::detect(), &logits, largest(Isa::detect(), &logits), 1.0, &mut weights);
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        keep_top_p(&mut weights, 0.75 * total, &mut Vec::new());
        let kept = weights.iter().filter(|weight| **weight > 0.0).count();
        assert!((1501..=1502).contains(&kept), "half of the tail and the head: {kept}");
    }

    #[test]
    fn min_p_keeps_tokens_that_are_likely_enough_beside_the_likeliest() {
        let ids =
            |min_p| -> Vec<u32> { reached(&SamplingParams { min_p, ..neutral() }, &FIVE).iter().map(|(id, _)| *id).collect() };
        assert_eq!(ids(0.2), [0, 1, 3, 4]);
        assert_eq!(ids(0.3), [1, 3, 4]);
        assert_eq!(ids(0.8), [1]);
        assert_eq!(ids(1.0), [1]);
    }

    #[test]
    fn cuts_follow_each_other_over_what_is_left() {
        // top-k leaves 0.4, 0.3, 0.15 of 0.85; top-p 0.8 of that is reached by 0.4 + 0.3 (0.82), where of 1 it would not be.
        let sampling = SamplingParams { top_k: 3, top_p: 0.8, ..neutral() };
        assert_eq!(reached(&sampling, &FIVE), [(1, 571), (3, 429)]);
        let sampling = SamplingParams { min_p: 0.76, ..sampling };
        assert_eq!(reached(&sampling, &FIVE), [(1, 1000)]);
    }

    #[test]
    fn temperature_sharpens_the_distribution_and_its_logprobs() {
        let sampler = Sampler::new(&SamplingParams { temperature: 0.5, ..neutral() });
        let squares: f32 = FIVE.iter().map(|p| p * p).sum();
        let draw = sampler.sample(&logits(&FIVE), 0.2, &mut SampleScratch::default()).expect("finite");
        assert_eq!(draw.token, 1);
        assert!((draw.logprob - (0.16 / squares).ln()).abs() < 1e-5);
    }

    #[test]
    fn temperature_0_takes_the_lowest_of_the_likeliest_and_ignores_cuts() {
        let sampling = SamplingParams { top_k: 1, top_p: 0.1, min_p: 1.0, ..SamplingParams::greedy(1) };
        let draw = Sampler::new(&sampling)
            .sample(&logits(&[0.1, 0.35, 0.2, 0.35]), 0.99, &mut SampleScratch::default())
            .expect("finite");
        assert_eq!(draw.token, 1);
        assert!((draw.logprob - 0.35_f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn logits_that_are_not_finite_give_no_token() {
        let mut scratch = SampleScratch::default();
        for sampling in [neutral(), SamplingParams::greedy(1), SamplingParams { top_k: 2, top_p: 0.5, ..neutral() }] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut row = logits(&FIVE);
                row[3] = bad;
                assert_eq!(Sampler::new(&sampling).sample(&row, 0.5, &mut scratch), None, "{bad}");
            }
        }
    }

    #[test]
    fn frequencies_of_random_draws_match_the_distribution() {
        let n = 300;
        let weights: Vec<f32> = (0..n).map(|i| 1.0 + ((i * 37) % 101) as f32).collect();
        let sum: f32 = weights.iter().sum();
        let probabilities: Vec<f32> = weights.iter().map(|w| w / sum).collect();
        let (sampler, mut scratch) = (Sampler::new(&neutral()), SampleScratch::default());
        let (stream, draws) = (Stream::new(3, "test", &[]), 60_000_u64);
        let mut counts = vec![0.0_f64; n];
        for i in 0..draws {
            let draw = sampler.sample(&logits(&probabilities), stream.f64_at(i), &mut scratch).expect("finite");
            counts[draw.token as usize] += 1.0;
        }
        let chi_square: f64 = counts
            .iter()
            .zip(&probabilities)
            .map(|(&count, &p)| (count - f64::from(p) * draws as f64).powi(2) / (f64::from(p) * draws as f64))
            .sum();
        // 299 degrees of freedom: mean 299, standard deviation 24.5; four of those is past the 99.99th percentile.
        assert!((200.0..397.0).contains(&chi_square), "{chi_square}");
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        for (sampling, word) in [
            (SamplingParams { temperature: -1.0, ..neutral() }, "temperature"),
            (SamplingParams { temperature: f32::NAN, ..neutral() }, "temperature"),
            (SamplingParams { top_p: 0.0, ..neutral() }, "top_p"),
            (SamplingParams { min_p: 1.5, ..neutral() }, "min_p"),
            (SamplingParams { stop: vec![String::new()], ..neutral() }, "stop"),
            (SamplingParams::neutral(0), "max_completion_length"),
        ] {
            assert!(problem(&sampling).is_some_and(|text| text.contains(word)), "{word}");
        }
        assert_eq!(problem(&neutral()), None);
    }
}
