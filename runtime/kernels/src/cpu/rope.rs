//! Rotary position embedding (Su et al. 2021, section 3.2.2), in Hugging Face's half-split layout.
//!
//! A head at position p has each pair `(x[i], x[i + h/2])` turned by the angle `p · frequency[i]`. The backward pass turns
//! gradients by the opposite angle, as a rotation's transpose is its inverse.
//!
//! Bytes: 8 an element and the table, which stays in cache; 3 FLOP.

use rayon::prelude::*;

use super::vector::vectorize;

/// Rows of a parallel block.
const ROWS: usize = 32;

/// Cosines and sines by position, `[positions, head_dim / 2]` each, grown on demand.
#[derive(Clone, Debug)]
pub struct RopeTable {
    frequencies: Vec<f64>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Which way to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// By the positions' angles.
    Forward,
    /// Back, for gradients.
    Backward,
}

impl RopeTable {
    /// A table for these frequencies, radians per position, `[head_dim / 2]`; no positions yet.
    pub fn new(frequencies: Vec<f64>) -> Self {
        RopeTable { frequencies, cos: Vec::new(), sin: Vec::new() }
    }

    /// Makes sure that positions `0..positions` are there. Angles are computed in f64.
    pub fn grow(&mut self, positions: usize) {
        for position in self.cos.len() / self.frequencies.len().max(1)..positions {
            for frequency in &self.frequencies {
                let angle = position as f64 * frequency;
                self.cos.push(angle.cos() as f32);
                self.sin.push(angle.sin() as f32);
            }
        }
    }

    /// Turns the first `heads` heads of each row of `x`, `[positions.len(), stride]`, in place; the rest of a row stays.
    ///
    /// # Panics
    /// When shapes disagree or a position is not in the table.
    pub fn apply(&self, turn: Turn, x: &mut [f32], stride: usize, heads: usize, positions: &[u32]) {
        let half = self.frequencies.len();
        assert!(x.len() == positions.len() * stride && heads * 2 * half <= stride, "rope of {heads} heads in rows of {stride}");
        x.par_chunks_mut(ROWS * stride).zip(positions.par_chunks(ROWS)).for_each(|(rows, positions)| {
            vectorize(
                #[inline(always)]
                || {
                    for (row, &position) in rows.chunks_exact_mut(stride).zip(positions) {
                        let cos = &self.cos[position as usize * half..][..half];
                        let sin = &self.sin[position as usize * half..][..half];
                        for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
                            let (first, second) = head.split_at_mut(half);
                            for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                                let sin = if turn == Turn::Forward { sin } else { -sin };
                                (*a, *b) = (a.mul_add(cos, -(*b * sin)), b.mul_add(cos, *a * sin));
                            }
                        }
                    }
                },
            );
        });
    }
}

/// Plain reference of [`RopeTable::apply`].
pub fn rope_reference(frequencies: &[f64], turn: Turn, x: &mut [f32], stride: usize, heads: usize, positions: &[u32]) {
    let half = frequencies.len();
    for (row, &position) in x.chunks_mut(stride).zip(positions) {
        for head in 0..heads {
            for (i, frequency) in frequencies.iter().enumerate() {
                let angle = f64::from(position) * frequency * if turn == Turn::Forward { 1.0 } else { -1.0 };
                let (i, j) = (head * 2 * half + i, head * 2 * half + half + i);
                let (a, b) = (f64::from(row[i]), f64::from(row[j]));
                row[i] = (a * angle.cos() - b * angle.sin()) as f32;
                row[j] = (a * angle.sin() + b * angle.cos()) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise};

    #[test]
    fn rope_equals_reference_both_ways_and_leaves_the_rest_of_the_row() {
        for (rows, heads, half, rest) in [(1, 1, 1, 0), (40, 3, 32, 64), (33, 2, 5, 7)] {
            let stride = heads * 2 * half + rest;
            let frequencies: Vec<f64> = (0..half).map(|i| 1e4_f64.powf(-(i as f64) / half as f64)).collect();
            let positions: Vec<u32> = (0..rows as u32).map(|i| i * 37 % 1000).collect();
            let mut table = RopeTable::new(frequencies.clone());
            table.grow(10);
            table.grow(1000);
            for turn in [Turn::Forward, Turn::Backward] {
                let x = noise(rows * stride, 1);
                let [mut got, mut expected] = [x.clone(), x];
                table.apply(turn, &mut got, stride, heads, &positions);
                rope_reference(&frequencies, turn, &mut expected, stride, heads, &positions);
                assert_close(&got, &expected, 1e-6, "rope");
            }
        }
    }

    #[test]
    fn rope_backward_undoes_rope_forward() {
        let x = noise(20 * 64, 1);
        let positions: Vec<u32> = (0..20).collect();
        let mut table = RopeTable::new((0..32).map(|i| 0.9_f64.powi(i)).collect());
        table.grow(20);
        let mut turned = x.clone();
        table.apply(Turn::Forward, &mut turned, 64, 1, &positions);
        table.apply(Turn::Backward, &mut turned, 64, 1, &positions);
        assert_close(&turned, &x, 1e-6, "there and back");
    }
}
