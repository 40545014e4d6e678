//! The transformer as rollouts run it: packed weights, and rows of tokens that each stand somewhere in some sequence.
//!
//! A row's numbers depend on its own sequence alone: each step is row-wise or a [`PackedMatrix`], whose rows do not influence
//! each other. So prefill and decode share this code, and rows of any sequences may be run together.

use plumb_kernels::cpu::decode_attention::{KvSpan, decode_attention};
use plumb_kernels::cpu::decode_rows::{rms_norm, rotate, swiglu};
use plumb_kernels::cpu::isa::Isa;
use plumb_kernels::cpu::matmul::Precision;
use plumb_kernels::cpu::packed_matmul::{PackedMatrix, WeightFormat, packed_bytes};
use rayon::prelude::*;

use super::kv_cache::{KvPool, PageTable};
use crate::config::ModelConfig;
use crate::params::Params;

/// A token to run.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its id.
    pub token: u32,
    /// Its place in the sequence, prompt included.
    pub position: usize,
    /// The prompt's pages.
    pub prompt: PageTable,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// The completion's pages; None for a token of the prompt.
    pub completion: Option<PageTable>,
}

#[derive(Debug)]
struct Block {
    input_norm: Vec<f32>,
    qkv: PackedMatrix,
    qkv_bias: Option<Vec<f32>>,
    head_norms: Option<[Vec<f32>; 2]>,
    output: PackedMatrix,
    output_bias: Option<Vec<f32>>,
    feed_norm: Vec<f32>,
    gate_up: PackedMatrix,
    down: PackedMatrix,
}

/// A model's weights in the layout of decoding, and the buffers a pass needs.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    isa: Isa,
    /// Row-major `[v, d]`; None where it is tied, as the packed output matrix holds it then.
    embedding: Option<Vec<f32>>,
    blocks: Vec<Block>,
    final_norm: Vec<f32>,
    output_matrix: PackedMatrix,
    frequencies: Vec<f64>,
    /// `[positions, head_dim / 2]`, as many as were needed so far.
    cos: Vec<f32>,
    sin: Vec<f32>,
    scratch: Scratch,
}

/// Buffers of one pass, `[rows, width]` each, and of logits; they only grow.
#[derive(Debug, Default)]
struct Scratch {
    hidden: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    fed: Vec<f32>,
    update: Vec<f32>,
    logits: Vec<f32>,
}

impl Scratch {
    /// The buffers of a pass with their widths.
    fn of_rows(&mut self, config: &ModelConfig) -> impl Iterator<Item = (&mut Vec<f32>, usize)> {
        let Scratch { hidden, normed, qkv, attended, gate_up, fed, update, .. } = self;
        [hidden, normed, qkv, attended, gate_up, fed, update].into_iter().zip(widths(config))
    }
}

/// Widths of the buffers of a pass: hidden, normed, qkv, attended, `gate_up`, fed, update.
fn widths(config: &ModelConfig) -> [usize; 7] {
    let (d, f, q, kv) = (config.hidden_size, config.intermediate_size, config.query_size(), config.key_value_size());
    [d, d, q + 2 * kv, q, 2 * f, f, d]
}

/// Shapes `[n, k]` of a block's matrices: qkv, output, `gate_up`, down.
fn block_shapes(config: &ModelConfig) -> [(usize, usize); 4] {
    let (d, f, q, kv) = (config.hidden_size, config.intermediate_size, config.query_size(), config.key_value_size());
    [(q + 2 * kv, d), (d, q), (2 * f, d), (d, f)]
}

/// Bytes of a model's matrices and embedding as [`Decoder`] stores them; the vectors beside them, less than a thousandth, are left out.
pub fn weight_bytes(config: &ModelConfig, format: WeightFormat, precision: Precision) -> usize {
    let packed = |(n, k)| packed_bytes(n, k, format, precision);
    let (v, d) = (config.vocab_size, config.hidden_size);
    let embedding = if config.tie_word_embeddings { 0 } else { v * d * size_of::<f32>() };
    config.num_hidden_layers * block_shapes(config).map(packed).iter().sum::<usize>() + packed((v, d)) + embedding
}

/// Bytes that [`Decoder::reserve`] makes room for.
pub fn buffer_bytes(config: &ModelConfig, positions: usize, rows: usize, lines: usize) -> usize {
    let of_rows = rows * widths(config).iter().sum::<usize>() + lines * config.vocab_size;
    (positions * config.head_dim + of_rows) * size_of::<f32>()
}

impl Decoder {
    /// Packs a model's weights in that format. Norms, biases and an embedding that is not tied stay float32: a token reads little of them.
    pub fn new(params: &Params, format: WeightFormat, precision: Precision) -> Self {
        let config = params.config.clone();
        let matrix = |(n, k)| PackedMatrix::zeros(n, k, format, precision);
        let block = || {
            let [qkv, output, gate_up, down] = block_shapes(&config).map(matrix);
            Block {
                input_norm: Vec::new(),
                qkv,
                qkv_bias: None,
                head_norms: None,
                output,
                output_bias: None,
                feed_norm: Vec::new(),
                gate_up,
                down,
            }
        };
        let mut decoder = Decoder {
            isa: Isa::detect(),
            embedding: None,
            blocks: (0..config.num_hidden_layers).map(|_| block()).collect(),
            final_norm: Vec::new(),
            output_matrix: matrix((config.vocab_size, config.hidden_size)),
            frequencies: config.rope_frequencies(),
            cos: Vec::new(),
            sin: Vec::new(),
            scratch: Scratch::default(),
            config,
        };
        decoder.update(params);
        decoder
    }

    /// The model's shapes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of the matrices and the embedding.
    pub fn weight_bytes(&self) -> usize {
        let of_block = |block: &Block| [&block.qkv, &block.output, &block.gate_up, &block.down].map(PackedMatrix::bytes);
        let embedding = self.embedding.as_ref().map_or(0, |embedding| size_of_val(&embedding[..]));
        self.blocks.iter().flat_map(of_block).sum::<usize>() + self.output_matrix.bytes() + embedding
    }

    /// Bytes of the buffers.
    pub fn buffer_bytes(&mut self) -> usize {
        let rows: usize = self.scratch.of_rows(&self.config).map(|(buffer, _)| buffer.capacity()).sum();
        (rows + self.scratch.logits.capacity() + self.cos.capacity() + self.sin.capacity()) * size_of::<f32>()
    }

    /// Packs other weights of the same shapes, in place.
    pub fn update(&mut self, params: &Params) {
        let config = &self.config;
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let get = |name: &str| params.tensor(&format!("model.layers.{i}.{name}"));
            let parts = ["q", "k", "v"].map(|part| format!("self_attn.{part}_proj"));
            block.input_norm = get("input_layernorm.weight").to_vec();
            block.qkv.pack(&parts.each_ref().map(|part| get(&format!("{part}.weight"))));
            block.qkv_bias = config.qkv_bias.then(|| parts.each_ref().map(|part| get(&format!("{part}.bias"))).concat());
            block.head_norms =
                config.qk_norm.then(|| [get("self_attn.q_norm.weight").to_vec(), get("self_attn.k_norm.weight").to_vec()]);
            block.output.pack(&[get("self_attn.o_proj.weight")]);
            block.output_bias = config.output_bias.then(|| get("self_attn.o_proj.bias").to_vec());
            block.feed_norm = get("post_attention_layernorm.weight").to_vec();
            block.gate_up.pack(&[get("mlp.gate_proj.weight"), get("mlp.up_proj.weight")]);
            block.down.pack(&[get("mlp.down_proj.weight")]);
        }
        self.final_norm = params.tensor("model.norm.weight").to_vec();
        self.output_matrix.pack(&[params.output_matrix()]);
        self.embedding = (!config.tie_word_embeddings).then(|| params.tensor("model.embed_tokens.weight").to_vec());
    }

    /// Makes room for positions below `positions`, for passes of `rows` rows and for `lines` rows of logits at a time, so that
    /// passes allocate nothing.
    pub fn reserve(&mut self, positions: usize, rows: usize, lines: usize) {
        // Room that no pass has used is not resident.
        let reserve = |buffer: &mut Vec<f32>, len: usize| buffer.reserve_exact(len.saturating_sub(buffer.len()));
        let half = self.frequencies.len();
        reserve(&mut self.cos, positions * half);
        reserve(&mut self.sin, positions * half);
        for position in self.cos.len() / half..positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                self.cos.push(cos as f32);
                self.sin.push(sin as f32);
            }
        }
        for (buffer, width) in self.scratch.of_rows(&self.config) {
            reserve(buffer, rows * width);
        }
        reserve(&mut self.scratch.logits, lines * self.config.vocab_size);
    }

    /// Runs the rows through all blocks and stores their keys and values. Positions must have been reserved, and so must the rows'
    /// pages; every earlier token of a row's sequence must have been run before or be among the rows.
    pub fn forward(&mut self, rows: &[Row], kv_pool: &mut KvPool) {
        let config = &self.config;
        let (d, f, q, kv) = (config.hidden_size, config.intermediate_size, config.query_size(), config.key_value_size());
        let (isa, eps, half) = (self.isa, config.rms_norm_eps as f32, config.head_dim / 2);
        for (buffer, width) in self.scratch.of_rows(config) {
            buffer.resize(rows.len() * width, 0.0);
        }
        let Scratch { hidden, normed, qkv, attended, gate_up, fed, update, .. } = &mut self.scratch;

        for (row, hidden) in rows.iter().zip(hidden.chunks_exact_mut(d)) {
            match &self.embedding {
                Some(embedding) => hidden.copy_from_slice(&embedding[row.token as usize * d..][..d]),
                None => self.output_matrix.row(row.token as usize, hidden),
            }
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            normed.copy_from_slice(hidden);
            normed.chunks_exact_mut(d).for_each(|row| rms_norm(isa, row, &block.input_norm, eps));
            block.qkv.multiply(normed, qkv);
            for (row, qkv) in rows.iter().zip(qkv.chunks_exact_mut(q + 2 * kv)) {
                if let Some(bias) = &block.qkv_bias {
                    add(qkv, bias);
                }
                if let Some([q_norm, k_norm]) = &block.head_norms {
                    qkv[..q].chunks_exact_mut(2 * half).for_each(|head| rms_norm(isa, head, q_norm, eps));
                    qkv[q..q + kv].chunks_exact_mut(2 * half).for_each(|head| rms_norm(isa, head, k_norm, eps));
                }
                let angles = row.position * half..(row.position + 1) * half;
                rotate(&mut qkv[..q + kv], &self.cos[angles.clone()], &self.sin[angles]);
                let (key, value) = qkv[q..].split_at(kv);
                match row.completion {
                    Some(table) => kv_pool.write(table, layer, row.position - row.prompt_len, key, value),
                    None => kv_pool.write(row.prompt, layer, row.position, key, value),
                }
            }
            attend(isa, config, layer, rows, kv_pool, qkv, attended);
            block.output.multiply(attended, update);
            if let Some(bias) = &block.output_bias {
                update.chunks_exact_mut(d).for_each(|row| add(row, bias));
            }
            add(hidden, update);

            normed.copy_from_slice(hidden);
            normed.chunks_exact_mut(d).for_each(|row| rms_norm(isa, row, &block.feed_norm, eps));
            block.gate_up.multiply(normed, gate_up);
            fed.par_chunks_exact_mut(f).zip(gate_up.par_chunks_exact(2 * f)).with_min_len(4).for_each(|(fed, gate_up)| {
                swiglu(isa, &gate_up[..f], &gate_up[f..], fed);
            });
            block.down.multiply(fed, update);
            add(hidden, update);
        }
    }

    /// Logits of the token after some rows of the last [`Decoder::forward`], `[which.len(), v]`.
    pub fn logits(&mut self, which: &[usize]) -> &[f32] {
        let d = self.config.hidden_size;
        let Scratch { hidden, normed, logits, .. } = &mut self.scratch;
        normed.resize(which.len() * d, 0.0);
        for (row, normed) in which.iter().zip(normed.chunks_exact_mut(d)) {
            normed.copy_from_slice(&hidden[row * d..][..d]);
            rms_norm(self.isa, normed, &self.final_norm, self.config.rms_norm_eps as f32);
        }
        logits.resize(which.len() * self.config.vocab_size, 0.0);
        self.output_matrix.multiply(normed, logits);
        logits
    }
}

/// Attention of each row over its prompt and its completion so far. `qkv`: `[rows, q + 2kv]`, `attended`: `[rows, q]`.
fn attend(isa: Isa, config: &ModelConfig, layer: usize, rows: &[Row], kv_pool: &KvPool, qkv: &[f32], attended: &mut [f32]) {
    let (heads, head_dim) = (config.num_key_value_heads, config.head_dim);
    // The query heads that share one key head: a task's queries and outputs are both contiguous.
    let width = config.query_size() / heads;
    let stride = config.query_size() + 2 * config.key_value_size();
    let scale = (head_dim as f32).sqrt().recip();
    attended.par_chunks_exact_mut(width).enumerate().with_min_len(4).for_each(|(task, out)| {
        let (row, head) = (task / heads, task % heads);
        let query = &qkv[row * stride + head * width..][..width];
        let row = &rows[row];
        let spans = match row.completion {
            Some(table) => [
                kv_pool.span(row.prompt, layer, head, row.prompt_len),
                kv_pool.span(table, layer, head, row.position - row.prompt_len + 1),
            ],
            None => [kv_pool.span(row.prompt, layer, head, row.position + 1), KvSpan::EMPTY],
        };
        decode_attention(isa, query, spans, head_dim, scale, out);
    });
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
