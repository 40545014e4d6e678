//! Random streams keyed by what they are for, never by the order of execution.
//!
//! A stream is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a counter-based generator,
//! so the n-th number of a stream needs no state and a GPU can draw the same ones.

/// One random stream: `u64_at(n)` is its n-th number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream for `purpose` under a run's `seed`, told apart by `ids` (step, prompt, completion, ...).
    ///
    /// Parts are mixed in order with SplitMix64 (Steele et al. 2014), so `[1, 2]` and `[2, 1]` differ.
    pub fn new(seed: u64, purpose: &str, ids: &[u64]) -> Self {
        // FNV-1a over the purpose: any stable hash of a short label would do.
        let label = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let key = [seed, label].iter().chain(ids).fold(ids.len() as u64, |key, &part| split_mix(key ^ split_mix(part)));
        Stream { key }
    }

    /// The `n`-th 64-bit number.
    pub fn u64_at(self, n: u64) -> u64 {
        let block = philox([n as u32, (n >> 32) as u32, 0, 0], [self.key as u32, (self.key >> 32) as u32]);
        u64::from(block[0]) | (u64::from(block[1]) << 32)
    }

    /// The `n`-th number, uniform in [0, 1), with 53 random bits.
    pub fn f64_at(self, n: u64) -> f64 {
        (self.u64_at(n) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The `n`-th number, uniform in `0..bound`. Lemire's multiply-shift without rejection: the bias is below bound / 2^64.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below_at(self, n: u64, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no numbers");
        ((u128::from(self.u64_at(n)) * u128::from(bound)) >> 64) as u64
    }

    /// The `n`-th standard normal number (Box-Muller over draws 2n and 2n + 1).
    pub fn normal_at(self, n: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.f64_at(2 * n)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.f64_at(2 * n + 1)).cos()
    }

    /// A permutation of `0..n` (Fisher-Yates).
    pub fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below_at(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

fn split_mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Philox4x32 with 10 rounds.
fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (u64::from(c[0]) * 0xd251_1f53, u64::from(c[2]) * 0xcd9e_8d57);
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9e37_79b9), k[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_philox_gives_the_published_vectors() {
        // Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_differ_by_every_part_of_their_key() {
        let all = [
            Stream::new(0, "sample", &[1, 2]),
            Stream::new(1, "sample", &[1, 2]),
            Stream::new(0, "shuffle", &[1, 2]),
            Stream::new(0, "sample", &[2, 1]),
            Stream::new(0, "sample", &[1, 2, 0]),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a.u64_at(0), b.u64_at(0));
            }
        }
    }

    #[test]
    fn uniform_and_normal_numbers_have_their_moments() {
        let stream = Stream::new(7, "test", &[]);
        let n = 100_000u64;
        let mean = (0..n).map(|i| stream.f64_at(i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let square = (0..n).map(|i| stream.normal_at(i).powi(2)).sum::<f64>() / n as f64;
        assert!((square - 1.0).abs() < 0.02, "{square}");
        let mut order = stream.permutation(50);
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
