//! Where each operation's weights lie in the flat buffer.
//!
//! The layout puts query, key and value matrices side by side, and gate and up too, so one product serves all of them.

use std::ops::Range;

use crate::config::ModelConfig;
use crate::params::Layout;

/// Ranges of a whole model.
pub(super) struct Weights {
    /// `[vocab, d]`.
    pub embedding: Range<usize>,
    pub layers: Vec<LayerWeights>,
    /// `[d]`.
    pub final_norm: Range<usize>,
    /// `[vocab, d]`; the embedding where they are tied.
    pub output: Range<usize>,
    len: usize,
}

/// Ranges of one block.
pub(super) struct LayerWeights {
    /// `[d]`.
    pub input_norm: Range<usize>,
    /// Queries, keys, values: `[q + 2·kv, d]`.
    pub qkv: Range<usize>,
    /// `[q + 2·kv]`.
    pub qkv_bias: Option<Range<usize>>,
    /// Norms of query and of key heads, `[head_dim]` each.
    pub head_norms: Option<[Range<usize>; 2]>,
    /// `[d, q]`.
    pub attention_output: Range<usize>,
    /// `[d]`.
    pub attention_output_bias: Option<Range<usize>>,
    /// `[d]`.
    pub post_norm: Range<usize>,
    /// Gate, up: `[2·f, d]`.
    pub gate_up: Range<usize>,
    /// `[d, f]`.
    pub down: Range<usize>,
}

impl Weights {
    pub(super) fn new(config: &ModelConfig, layout: &Layout) -> Self {
        let embedding = side_by_side(layout, &["model.embed_tokens.weight"]);
        let output = if config.tie_word_embeddings { embedding.clone() } else { side_by_side(layout, &["lm_head.weight"]) };
        let layer = |i: usize| {
            let range = |names: &[&str]| {
                let names: Vec<String> = names.iter().map(|name| format!("model.layers.{i}.{name}")).collect();
                side_by_side(layout, &names)
            };
            LayerWeights {
                input_norm: range(&["input_layernorm.weight"]),
                qkv: range(&["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"]),
                qkv_bias: config
                    .qkv_bias
                    .then(|| range(&["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"])),
                head_norms: config.qk_norm.then(|| [range(&["self_attn.q_norm.weight"]), range(&["self_attn.k_norm.weight"])]),
                attention_output: range(&["self_attn.o_proj.weight"]),
                attention_output_bias: config.output_bias.then(|| range(&["self_attn.o_proj.bias"])),
                post_norm: range(&["post_attention_layernorm.weight"]),
                gate_up: range(&["mlp.gate_proj.weight", "mlp.up_proj.weight"]),
                down: range(&["mlp.down_proj.weight"]),
            }
        };
        Weights {
            embedding,
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            final_norm: side_by_side(layout, &["model.norm.weight"]),
            output,
            len: layout.len(),
        }
    }

    /// Elements of the flat buffer.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// The range of tensors that follow each other in the buffer.
fn side_by_side(layout: &Layout, names: &[impl AsRef<str>]) -> Range<usize> {
    let mut all: Option<Range<usize>> = None;
    for name in names {
        let name = name.as_ref();
        let next = layout.get(name).unwrap_or_else(|| panic!("the layout has no tensor `{name}`")).range.clone();
        all = Some(match all {
            None => next,
            Some(before) => {
                assert_eq!(before.end, next.start, "`{name}` lies beside what it is multiplied with");
                before.start..next.end
            }
        });
    }
    all.expect("at least one name")
}
