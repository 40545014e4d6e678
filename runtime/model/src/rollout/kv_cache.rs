//! Keys and values of the tokens that were run so far.

use plumb_kernels::cpu::aligned::AlignedBuffer;
use plumb_kernels::cpu::decode_attention::{KEY_BLOCK, KvSpan, value_stride};

use crate::config::ModelConfig;

/// The shapes all caches of a model share.
#[derive(Clone, Copy, Debug)]
pub struct KvShape {
    layers: usize,
    heads: usize,
    head_dim: usize,
}

impl KvShape {
    /// The shapes of a model.
    pub fn new(config: &ModelConfig) -> Self {
        KvShape { layers: config.num_hidden_layers, heads: config.num_key_value_heads, head_dim: config.head_dim }
    }
}

/// Keys and values of up to `capacity` consecutive tokens, for all layers and heads: a prompt, or a completion's own tokens.
///
/// Keys lie as `[layer][head][block][head_dim][16]` and values as `[layer][head][token][value_stride]`, as
/// [`plumb_kernels::cpu::decode_attention`] reads them. Memory that no token has reached is not resident.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    capacity: usize,
    keys: AlignedBuffer,
    values: AlignedBuffer,
}

impl KvCache {
    /// A cache for `capacity` tokens or a few more.
    pub fn new(shape: KvShape, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(KEY_BLOCK);
        let tokens = shape.layers * shape.heads * capacity;
        KvCache {
            shape,
            capacity,
            keys: AlignedBuffer::zeros(tokens * shape.head_dim),
            values: AlignedBuffer::zeros(tokens * value_stride(shape.head_dim)),
        }
    }

    /// Stores one token's key and value, `[heads, head_dim]` each.
    pub fn write(&mut self, layer: usize, token: usize, key: &[f32], value: &[f32]) {
        assert!(token < self.capacity, "token {token} of a cache for {}", self.capacity);
        let KvShape { heads, head_dim, .. } = self.shape;
        let stride = value_stride(head_dim);
        for (head, (key, value)) in key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim)).enumerate() {
            let first = (layer * heads + head) * self.capacity;
            let block = &mut self.keys[(first + token / KEY_BLOCK * KEY_BLOCK) * head_dim..][..KEY_BLOCK * head_dim];
            for (line, key) in block.chunks_exact_mut(KEY_BLOCK).zip(key) {
                line[token % KEY_BLOCK] = *key;
            }
            self.values[(first + token) * stride..][..head_dim].copy_from_slice(value);
        }
    }

    /// The first `len` tokens, as one head of one layer sees them.
    pub fn span(&self, layer: usize, head: usize, len: usize) -> KvSpan<'_> {
        assert!(len <= self.capacity, "{len} tokens of a cache for {}", self.capacity);
        let KvShape { heads, head_dim, .. } = self.shape;
        let first = (layer * heads + head) * self.capacity;
        let (keys, stride) = (len.next_multiple_of(KEY_BLOCK) * head_dim, value_stride(head_dim));
        KvSpan { keys: &self.keys[first * head_dim..][..keys], values: &self.values[first * stride..][..len * stride], len }
    }
}

/// Caches that are handed out by number and used again.
#[derive(Debug)]
pub struct KvPool {
    shape: KvShape,
    capacity: usize,
    caches: Vec<KvCache>,
    free: Vec<usize>,
}

impl KvPool {
    /// A pool without caches.
    pub fn new(shape: KvShape) -> Self {
        KvPool { shape, capacity: 0, caches: Vec::new(), free: Vec::new() }
    }

    /// Takes all caches back, and makes sure that those handed out from now on hold `capacity` tokens.
    pub fn reset(&mut self, capacity: usize) {
        if capacity > self.capacity {
            self.capacity = capacity;
            self.caches.clear();
        }
        self.free = (0..self.caches.len()).rev().collect();
    }

    /// Hands out a cache, a new one where none is free.
    pub fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.caches.push(KvCache::new(self.shape, self.capacity));
            self.caches.len() - 1
        })
    }

    /// Takes a cache back. What it holds is overwritten by its next user.
    pub fn give_back(&mut self, index: usize) {
        self.free.push(index);
    }

    /// A cache that was handed out.
    pub fn get(&self, index: usize) -> &KvCache {
        &self.caches[index]
    }

    /// A cache that was handed out.
    pub fn get_mut(&mut self, index: usize) -> &mut KvCache {
        &mut self.caches[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_what_was_written_for_their_layer_and_head() {
        let shape = KvShape { layers: 2, heads: 3, head_dim: 5 };
        let mut cache = KvCache::new(shape, 20);
        let number = |layer: usize, token: usize, head: usize, d: usize| (((layer * 40 + token) * 3 + head) * 5 + d) as f32;
        for layer in 0..2 {
            for token in 0..20 {
                let key: Vec<f32> = (0..15).map(|i| number(layer, token, i / 5, i % 5)).collect();
                let value: Vec<f32> = key.iter().map(|x| -x).collect();
                cache.write(layer, token, &key, &value);
            }
        }
        for (layer, head, token) in [(0, 0, 0), (1, 2, 19), (1, 0, 16), (0, 2, 15)] {
            let span = cache.span(layer, head, 20);
            for d in 0..5 {
                assert_eq!(span.keys[(token / 16 * 5 + d) * 16 + token % 16], number(layer, token, head, d));
                assert_eq!(span.values[token * value_stride(5) + d], -number(layer, token, head, d));
            }
        }
    }

    #[test]
    fn pool_hands_a_returned_cache_out_again_and_grows_on_reset() {
        let mut pool = KvPool::new(KvShape { layers: 1, heads: 1, head_dim: 4 });
        pool.reset(10);
        let (a, b) = (pool.take(), pool.take());
        assert_ne!(a, b);
        pool.give_back(a);
        assert_eq!(pool.take(), a);
        pool.reset(40);
        let a = pool.take();
        assert_eq!(pool.get(a).span(0, 0, 40).len, 40);
    }
}
