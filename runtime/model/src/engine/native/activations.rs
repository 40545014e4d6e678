//! Buffers of a pass. They are allocated once, grow to the largest batch, and are written before they are read.
//!
//! Shapes: n tokens, d width, q and kv widths of queries and keys, f width of the feed-forward layer.

/// A buffer that only grows.
#[derive(Default)]
pub(super) struct Buffer(Vec<f32>);

impl Buffer {
    /// The first `len` elements, with any content.
    pub(super) fn writable(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            // A new allocation rather than `resize`: the old content need not be copied.
            self.0 = vec![0.0; len];
        }
        &mut self.0[..len]
    }

    /// The first `len` elements, as they were written.
    pub(super) fn read(&self, len: usize) -> &[f32] {
        &self.0[..len]
    }

    /// As [`Buffer::read`], to be changed in place.
    pub(super) fn read_mut(&mut self, len: usize) -> &mut [f32] {
        &mut self.0[..len]
    }

    /// The vector itself, for operations that size it.
    pub(super) fn vec(&mut self) -> &mut Vec<f32> {
        &mut self.0
    }
}

/// What one block writes in the forward pass.
#[derive(Default)]
pub(super) struct LayerActivations {
    /// Inverse root mean squares of the block's input, `[n]`.
    pub input_r: Buffer,
    /// Queries, keys and values before the head norms, `[n, q + 2·kv]`; only where there are such norms.
    pub qkv_before_norms: Buffer,
    /// Inverse root mean squares of query and key heads, `[n, heads]`; as above.
    pub head_r: Buffer,
    /// Queries, keys and values as attention sees them, `[n, q + 2·kv]`.
    pub qkv: Buffer,
    /// Log-sum-exps of attention, `[query heads, n]`.
    pub lse: Buffer,
    /// Attention's output, `[n, q]`.
    pub mixed: Buffer,
    /// Inverse root mean squares of the stream between attention and feed-forward, `[n]`.
    pub post_r: Buffer,
    /// `[n, 2·f]`.
    pub gate_up: Buffer,
}

/// What a forward pass writes. With fewer layers than the model has, later layers overwrite earlier ones.
pub(super) struct Activations {
    pub layers: Vec<LayerActivations>,
    /// The residual stream `[n, d]` before each block, between its halves, and after the last: `2·layers + 1`.
    pub streams: Vec<Buffer>,
    /// Rows of the last stream that are asked for, `[rows + H, d]`: the plan's `hidden_rows`.
    pub target_rows: Buffer,
    /// Their inverse root mean squares, `[rows + H]`.
    pub final_r: Buffer,
    /// The same rows after the last norm, `[rows + H, d]`.
    pub hidden: Buffer,
}

impl Activations {
    /// Room for so many layers.
    pub(super) fn new(layers: usize) -> Self {
        Activations {
            layers: std::iter::repeat_with(LayerActivations::default).take(layers).collect(),
            streams: std::iter::repeat_with(Buffer::default).take(2 * layers + 1).collect(),
            target_rows: Buffer::default(),
            final_r: Buffer::default(),
            hidden: Buffer::default(),
        }
    }

    /// Where block `layer` of the model keeps its activations.
    pub(super) fn slot(&self, layer: usize) -> usize {
        layer % self.layers.len()
    }

    /// Indices of the streams before a block, between its halves, and after it. After the last slot comes the end of the model, or
    /// slot 0 again where slots are reused.
    pub(super) fn streams_of(&self, layer: usize, is_last: bool) -> [usize; 3] {
        let before = 2 * self.slot(layer);
        let after = if is_last { before + 2 } else { 2 * self.slot(layer + 1) };
        [before, before + 1, after]
    }
}

/// Memory that no pass leaves anything in.
#[derive(Default)]
pub(super) struct Scratch {
    /// Output of a norm, `[n, d]`.
    pub normed: Buffer,
    /// SwiGLU's output, `[n, f]`.
    pub gated: Buffer,
    /// Logits of a chunk of rows.
    pub logits: Buffer,
    /// Gradients, each of the activation it is named after.
    pub dstream: Buffer,
    pub dnormed: Buffer,
    pub dgated: Buffer,
    pub dgate_up: Buffer,
    pub dmixed: Buffer,
    pub dqkv: Buffer,
    pub dhidden: Buffer,
    pub dtarget_rows: Buffer,
}
