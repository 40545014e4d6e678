//! A model's weights: one flat buffer with named matrices in it.
//!
//! Flat, so that the optimizer, the global norm and a checkpoint are loops over one slice.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::config::ModelConfig;

/// Name and shape of one tensor, and where it lies in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Hugging Face's name: `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// `[out, in]` for matrices, `[n]` for norms and biases.
    pub shape: Vec<usize>,
    /// Elements of the flat buffer.
    pub range: Range<usize>,
}

/// Which tensors a model has and where they lie; shared by weights, gradients and optimizer moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    by_name: BTreeMap<String, usize>,
    len: usize,
}

impl Layout {
    /// The layout of a model: the embedding, the blocks in order, the last norm, and `lm_head.weight` unless it is tied.
    pub fn new(config: &ModelConfig) -> Self {
        let (d, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let (q, kv) = (config.query_size(), config.key_value_size());
        let mut layout = Layout { tensors: Vec::new(), by_name: BTreeMap::new(), len: 0 };
        layout.push("model.embed_tokens.weight".into(), vec![v, d]);
        for i in 0..config.num_hidden_layers {
            let mut add = |name: &str, shape: Vec<usize>| layout.push(format!("model.layers.{i}.{name}"), shape);
            add("input_layernorm.weight", vec![d]);
            add("self_attn.q_proj.weight", vec![q, d]);
            add("self_attn.k_proj.weight", vec![kv, d]);
            add("self_attn.v_proj.weight", vec![kv, d]);
            if config.qkv_bias {
                add("self_attn.q_proj.bias", vec![q]);
                add("self_attn.k_proj.bias", vec![kv]);
                add("self_attn.v_proj.bias", vec![kv]);
            }
            if config.qk_norm {
                add("self_attn.q_norm.weight", vec![config.head_dim]);
                add("self_attn.k_norm.weight", vec![config.head_dim]);
            }
            add("self_attn.o_proj.weight", vec![d, q]);
            if config.output_bias {
                add("self_attn.o_proj.bias", vec![d]);
            }
            add("post_attention_layernorm.weight", vec![d]);
            add("mlp.gate_proj.weight", vec![f, d]);
            add("mlp.up_proj.weight", vec![f, d]);
            add("mlp.down_proj.weight", vec![d, f]);
        }
        layout.push("model.norm.weight".into(), vec![d]);
        if !config.tie_word_embeddings {
            layout.push("lm_head.weight".into(), vec![v, d]);
        }
        layout
    }

    fn push(&mut self, name: String, shape: Vec<usize>) {
        let len: usize = shape.iter().product();
        self.by_name.insert(name.clone(), self.tensors.len());
        self.tensors.push(TensorSpec { name, shape, range: self.len..self.len + len });
        self.len += len;
    }

    /// Tensors in the order of the buffer.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&TensorSpec> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    /// Elements of all tensors together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A model's weights in float32.
#[derive(Clone, Debug)]
pub struct Params {
    /// What the model is made of.
    pub config: ModelConfig,
    /// Where each tensor lies.
    pub layout: std::sync::Arc<Layout>,
    /// All weights, `[layout.len()]`.
    pub data: Vec<f32>,
}

impl Params {
    /// The weights without a language head of their own: its matrix goes, as in sequence-classification models.
    #[must_use]
    pub fn without_language_head(mut self) -> Self {
        self.config.tie_word_embeddings = true;
        // The head's matrix is the last tensor of the layout.
        self.layout = std::sync::Arc::new(Layout::new(&self.config));
        self.data.truncate(self.layout.len());
        self
    }

    /// Weights that are all 0, to be filled.
    pub fn zeros(config: ModelConfig) -> Self {
        let layout = std::sync::Arc::new(Layout::new(&config));
        let data = vec![0.0; layout.len()];
        Params { config, layout, data }
    }

    /// The elements of a tensor.
    ///
    /// # Panics
    /// When the model has no tensor of that name.
    pub fn tensor(&self, name: &str) -> &[f32] {
        let spec = self.layout.get(name).unwrap_or_else(|| panic!("the model has no tensor `{name}`"));
        &self.data[spec.range.clone()]
    }

    /// The output matrix `[vocab, hidden]`: `lm_head.weight`, or the embedding where they are tied.
    pub fn output_matrix(&self) -> &[f32] {
        &self.data[self.output_range()]
    }

    /// Where [`Params::output_matrix`] lies among the weights.
    ///
    /// # Panics
    /// When the layout is of another model.
    pub fn output_range(&self) -> std::ops::Range<usize> {
        let name = if self.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        self.layout.get(name).expect("a model has an output matrix").range.clone()
    }
}
