//! Keys and values of the tokens that were run so far, in pages.

use plumb_kernels::cpu::aligned::AlignedBuffer;
use plumb_kernels::cpu::decode_attention::{KEY_BLOCK, KvSpan, head_block, value_stride};

use crate::config::ModelConfig;

/// Tokens in a page: one block of keys, as attention reads them. A longer page would save little, as a head's keys of 16 tokens
/// are 4 KiB in a row already for heads of 64; a shorter last page wastes less memory, and more of a common prefix is whole pages.
pub const PAGE: usize = KEY_BLOCK;

/// Pages that hold that many tokens.
pub fn pages_for(tokens: usize) -> usize {
    tokens.div_ceil(PAGE)
}

/// The shapes of a model's keys and values.
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

    /// Memory of a page in bytes: `layers · heads · 16 · (head_dim + value_stride) · 4`.
    pub fn page_bytes(self) -> usize {
        self.layers * self.heads * head_block(self.head_dim) * size_of::<f32>()
    }

    /// Where a head of a layer lies in a page, in floats.
    fn offset(self, layer: usize, head: usize) -> usize {
        (layer * self.heads + head) * head_block(self.head_dim)
    }
}

/// The pages of one stretch of tokens in order: a prompt's, or a completion's own.
pub type PageTable = usize;

/// All keys and values of an engine: pages of [`PAGE`] tokens for all layers and heads, and which stretch of tokens has which.
///
/// A page lies as `[layer][head]{keys [head_dim][16], values [16][value_stride]}`, which
/// [`plumb_kernels::cpu::decode_attention`] reads. The pool grows by a page when none is free, and keeps what it has.
#[derive(Debug)]
pub struct KvPool {
    shape: KvShape,
    pages: Vec<AlignedBuffer>,
    free: Vec<u32>,
    peak: usize,
    tables: Vec<Vec<u32>>,
    free_tables: Vec<PageTable>,
}

impl KvPool {
    /// A pool without pages.
    pub fn new(shape: KvShape) -> Self {
        KvPool { shape, pages: Vec::new(), free: Vec::new(), peak: 0, tables: Vec::new(), free_tables: Vec::new() }
    }

    /// Takes everything back, and makes sure that at least so many tables have room for `pages` pages each.
    pub fn reset(&mut self, tables: usize, pages: usize) {
        self.free = (0..self.pages.len() as u32).rev().collect();
        self.peak = 0;
        self.tables.resize_with(self.tables.len().max(tables), Vec::new);
        for table in &mut self.tables {
            table.clear();
            table.reserve(pages);
        }
        self.free_tables = (0..self.tables.len()).rev().collect();
    }

    /// Hands out a page, a new one where none is free.
    pub fn take_page(&mut self) -> u32 {
        let page = self.free.pop().unwrap_or_else(|| {
            let floats = self.shape.page_bytes() / size_of::<f32>();
            self.pages.push(AlignedBuffer::zeros(floats));
            (self.pages.len() - 1) as u32
        });
        self.peak = self.peak.max(self.in_use());
        page
    }

    /// Takes a page back. What it holds is overwritten by its next user.
    pub fn give_back_page(&mut self, page: u32) {
        self.free.push(page);
    }

    /// Hands out an empty table.
    pub fn take_table(&mut self) -> PageTable {
        self.free_tables.pop().unwrap_or_else(|| {
            self.tables.push(Vec::new());
            self.tables.len() - 1
        })
    }

    /// Takes a table back, and its pages but for the first `kept`, which belong to others too.
    pub fn give_back_table(&mut self, table: PageTable, kept: usize) {
        self.free.extend(self.tables[table].drain(kept..));
        self.tables[table].clear();
        self.free_tables.push(table);
    }

    /// Appends a page to a table.
    pub fn push(&mut self, table: PageTable, page: u32) {
        self.tables[table].push(page);
    }

    /// Gives a table the pages that it lacks for that many tokens.
    pub fn reserve(&mut self, table: PageTable, tokens: usize) {
        while self.tables[table].len() < pages_for(tokens) {
            let page = self.take_page();
            self.push(table, page);
        }
    }

    /// Pages that are handed out.
    pub fn in_use(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    /// Most pages that were handed out at a time since the last reset.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Memory of a page in bytes.
    pub fn page_bytes(&self) -> usize {
        self.shape.page_bytes()
    }

    /// Memory of all pages in bytes, used or not.
    pub fn bytes(&self) -> usize {
        self.pages.iter().map(|page| size_of_val(&page[..])).sum()
    }

    /// Stores one token's key and value, `[heads, head_dim]` each.
    pub fn write(&mut self, table: PageTable, layer: usize, token: usize, key: &[f32], value: &[f32]) {
        let head_dim = self.shape.head_dim;
        let stride = value_stride(head_dim);
        let page = &mut self.pages[self.tables[table][token / PAGE] as usize];
        let token = token % PAGE;
        for (head, (key, value)) in key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim)).enumerate() {
            let block = &mut page[self.shape.offset(layer, head)..][..head_block(head_dim)];
            let (keys, values) = block.split_at_mut(PAGE * head_dim);
            for (line, key) in keys.chunks_exact_mut(PAGE).zip(key) {
                line[token] = *key;
            }
            values[token * stride..][..head_dim].copy_from_slice(value);
        }
    }

    /// A table's first `len` tokens, as one head of one layer sees them.
    pub fn span(&self, table: PageTable, layer: usize, head: usize, len: usize) -> KvSpan<'_> {
        KvSpan { pages: &self.pages, table: &self.tables[table], offset: self.shape.offset(layer, head), len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: KvShape = KvShape { layers: 2, heads: 3, head_dim: 5 };

    #[test]
    fn spans_show_what_was_written_for_their_layer_and_head() {
        let mut pool = KvPool::new(SHAPE);
        let (a, b) = (pool.take_table(), pool.take_table());
        let number = |table: usize, layer: usize, token: usize, head: usize, d: usize| {
            ((((table * 2 + layer) * 40 + token) * 3 + head) * 5 + d) as f32
        };
        for token in 0..20 {
            for (at, table) in [a, b].into_iter().enumerate() {
                pool.reserve(table, token + 1);
                for layer in 0..2 {
                    let key: Vec<f32> = (0..15).map(|i| number(at, layer, token, i / 5, i % 5)).collect();
                    let value: Vec<f32> = key.iter().map(|x| -x).collect();
                    pool.write(table, layer, token, &key, &value);
                }
            }
        }
        for (at, layer, head, token) in [(0, 0, 0, 0), (1, 1, 2, 19), (0, 1, 0, 16), (1, 0, 2, 15)] {
            let span = pool.span([a, b][at], layer, head, 20);
            let block = &span.pages[span.table[token / PAGE] as usize][span.offset..];
            for d in 0..5 {
                assert_eq!(block[d * PAGE + token % PAGE], number(at, layer, token, head, d));
                assert_eq!(block[PAGE * 5 + token % PAGE * value_stride(5) + d], -number(at, layer, token, head, d));
            }
        }
    }

    #[test]
    fn pages_are_handed_out_as_tokens_come_and_again_after_their_table_ends() {
        let mut pool = KvPool::new(SHAPE);
        pool.reset(2, 3);
        let (a, b) = (pool.take_table(), pool.take_table());
        pool.reserve(a, PAGE);
        assert_eq!(pool.in_use(), 1);
        pool.reserve(a, PAGE + 1);
        let shared = pool.span(a, 0, 0, 0).table[0];
        pool.push(b, shared);
        pool.reserve(b, 2 * PAGE);
        assert_eq!((pool.in_use(), pool.bytes()), (3, 3 * pool.page_bytes()), "one page is in both");
        pool.give_back_table(b, 1);
        assert_eq!(pool.in_use(), 2);
        pool.reserve(a, 3 * PAGE);
        assert_eq!((pool.in_use(), pool.pages.len()), (3, 3), "the page of the table that ended");
        pool.give_back_table(a, 0);
        assert_eq!((pool.in_use(), pool.peak()), (0, 3));
        pool.reset(2, 3);
        assert_eq!((pool.peak(), pool.pages.len()), (0, 3), "a reset keeps the memory");
    }
}
