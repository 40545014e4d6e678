//! A GGUF file's vocabulary as a Hugging Face `tokenizer.json`.
//!
//! Going through that form means one tokenizer implementation for all sources, and a model from GGUF saves to a folder that
//! transformers loads.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::Result;
use crate::tokenizer::Tokenizer;

/// Token types of GGUF.
mod token_type {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
    /// Padding of the vocabulary to a round size: no text has it.
    pub const UNUSED: i64 = 5;
}

/// How Llama 3 cuts a text into words, Qwen2 too but for numbers: Llama's come in threes.
macro_rules! word_pattern {
    ($numbers:literal) => {
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $numbers,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// Builds the tokenizer that the metadata describe.
pub(super) fn read(metadata: &Metadata) -> Result<Tokenizer> {
    let tokens = metadata.required_texts("tokenizer.ggml.tokens")?;
    let types = metadata.integers("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![token_type::NORMAL; tokens.len()]);
    if types.len() != tokens.len() {
        return Err(metadata.malformed(format!("there are {} token types for {} tokens", types.len(), tokens.len())));
    }
    let vocabulary = Vocabulary { metadata, tokens, types };
    let kind = metadata.required_text("tokenizer.ggml.model")?;
    let (mut parts, adds_bos) = match kind {
        "gpt2" => vocabulary.byte_level()?,
        "llama" => vocabulary.sentence_piece()?,
        other => {
            return Err(metadata
                .unsupported(format!("tokenizer `{other}`; supported are gpt2 (byte-level BPE) and llama (SentencePiece)")));
        }
    };
    parts.insert("version".into(), "1.0".into());
    parts.insert("added_tokens".into(), vocabulary.added_tokens());
    let bos =
        vocabulary.special("bos")?.filter(|_| metadata.flag("tokenizer.ggml.add_bos_token").ok().flatten().unwrap_or(adds_bos));
    if let Some((id, token)) = bos {
        parts.insert("post_processor".into(), json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        }));
    }
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    for (key, name) in [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")] {
        if let Some((_, token)) = vocabulary.special(key)? {
            config.insert(name.into(), token.into());
        }
    }
    let template = metadata.text("tokenizer.chat_template")?.map(str::to_owned);
    let json = serde_json::to_string(&Value::Object(parts)).expect("texts and numbers are always valid JSON");
    Tokenizer::new(json, config, template).map_err(|error| metadata.malformed(error.to_string()))
}

struct Vocabulary<'a> {
    metadata: &'a Metadata<'a>,
    tokens: Vec<&'a str>,
    types: Vec<i64>,
}

impl<'a> Vocabulary<'a> {
    /// Ids and spellings of all tokens that texts can have.
    fn used(&self) -> impl Iterator<Item = (usize, &'a str)> + '_ {
        self.tokens.iter().copied().enumerate().filter(|&(id, _)| self.types[id] != token_type::UNUSED)
    }

    fn ids(&self) -> Map<String, Value> {
        self.used().map(|(id, token)| (token.to_owned(), id.into())).collect()
    }

    /// The token that plays a role (`bos`, `eos`, ...), where the file names one.
    fn special(&self, role: &str) -> Result<Option<(u32, &'a str)>> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let Some(id) = self.metadata.token_id(&key)? else { return Ok(None) };
        let token = self.tokens.get(id as usize);
        let missing = || self.metadata.malformed(format!("metadata `{key}` is {id}, but there are {} tokens", self.tokens.len()));
        token.map(|token| Some((id, *token))).ok_or_else(missing)
    }

    /// Tokens that are recognized as a whole before any splitting.
    fn added_tokens(&self) -> Value {
        let added = self
            .used()
            .filter(|&(id, _)| matches!(self.types[id], token_type::UNKNOWN | token_type::CONTROL | token_type::USER_DEFINED));
        added
            .map(|(id, token)| {
                let special = self.types[id] != token_type::USER_DEFINED;
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
            })
            .collect()
    }

    /// Byte-pair encoding over bytes (GPT-2); `tokenizer.ggml.pre` says how texts are cut into words before it.
    /// Returns the parts of `tokenizer.json`, and whether such files put a begin-of-text token first unless they say.
    fn byte_level(&self) -> Result<(Map<String, Value>, bool)> {
        let merges = self.metadata.required_texts("tokenizer.ggml.merges")?;
        let words = |pattern: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
                byte_level(false),
            ]})
        };
        let kind = match self.metadata.text("tokenizer.ggml.pre")? {
            Some(kind) => kind,
            // Files from before this key was there. All Qwen models cut alike; of Llama's shape there are many that do not.
            None if self.metadata.required_text("general.architecture")?.starts_with("qwen") => "qwen2",
            None => {
                let reason =
                    "it does not say how texts are cut into words (`tokenizer.ggml.pre`). Use the model's Hugging Face folder";
                return Err(self.metadata.unsupported(reason.into()));
            }
        };
        let llama3 = matches!(kind, "llama-bpe" | "llama3" | "llama-v3");
        let pre_tokenizer = match kind {
            "default" | "gpt-2" => byte_level(true),
            "smollm" => {
                json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(true)]})
            }
            "qwen2" => words(word_pattern!(r"\p{N}")),
            _ if llama3 => words(word_pattern!(r"\p{N}{1,3}")),
            other => {
                let supported = "default, gpt-2, llama-bpe, qwen2 and smollm";
                return Err(self.metadata.unsupported(format!(
                    "pre-tokenizer `{other}`; supported are {supported}. Use the model's Hugging Face folder"
                )));
            }
        };
        let parts = json!({
            "normalizer": if kind == "qwen2" { json!({"type": "NFC"}) } else { Value::Null },
            "pre_tokenizer": pre_tokenizer,
            "post_processor": null,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false,
                // Llama 3 takes a word that is in the vocabulary as it is, even where merges would not lead to it.
                "ignore_merges": llama3,
                "vocab": self.ids(), "merges": merges,
            },
        });
        Ok((into_object(parts), llama3))
    }

    /// SentencePiece's BPE (Llama 2, Mistral): spaces are `▁`, unknown characters fall back to bytes, and a pair merges the
    /// sooner the higher the score of what it merges to.
    fn sentence_piece(&self) -> Result<(Map<String, Value>, bool)> {
        let key = "tokenizer.ggml.scores";
        let scores = self.metadata.floats(key)?.ok_or_else(|| self.metadata.malformed(format!("metadata `{key}` is missing")))?;
        if scores.len() != self.tokens.len() {
            return Err(self.metadata.malformed(format!("there are {} scores for {} tokens", scores.len(), self.tokens.len())));
        }
        let space_first = self.metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let normalizers = if space_first { json!([{"type": "Prepend", "prepend": "▁"}, spaces]) } else { json!([spaces]) };
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if space_first {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let unknown = self.special("unknown")?.map(|(_, token)| token);
        let unknown =
            unknown.or_else(|| self.used().find(|&(id, _)| self.types[id] == token_type::UNKNOWN).map(|(_, token)| token));
        let parts = json!({
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": self.ids(), "merges": self.merges_by_score(&scores),
            },
        });
        Ok((into_object(parts), true))
    }

    /// Every way to put a token together from two others, best score first; at equal scores longer left parts first, then
    /// longer right parts, as transformers' converter orders them.
    fn merges_by_score(&self, scores: &[f32]) -> Vec<[&'a str; 2]> {
        let ids: HashMap<&str, usize> = self.used().map(|(id, token)| (token, id)).collect();
        let mut merges = Vec::new();
        for (id, token) in self.used().filter(|&(id, _)| self.types[id] == token_type::NORMAL) {
            let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let mut pairs: Vec<_> = splits.filter_map(|(l, r)| Some((*ids.get(l)?, *ids.get(r)?, l, r))).collect();
            pairs.sort_unstable();
            merges.extend(pairs.into_iter().map(|(_, _, l, r)| (scores[id], l, r)));
        }
        let length = |text: &str| std::cmp::Reverse(text.chars().count());
        merges.sort_by(|(a, al, ar), (b, bl, br)| {
            b.total_cmp(a).then_with(|| length(al).cmp(&length(bl))).then_with(|| length(ar).cmp(&length(br)))
        });
        merges.into_iter().map(|(_, l, r)| [l, r]).collect()
    }
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn into_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => unreachable!("built as an object"),
    }
}
