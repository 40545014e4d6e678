//! Rewards of stretches of a completion, aligned to the tokens that were generated.
//!
//! **Rule.** The text is taken apart by decoding the generated ids themselves, a token at a time; it is never tokenized again. A token
//! covers the characters of which it holds at least one byte: where byte-level tokens split a character, all its pieces cover it.
//! Special tokens and an end-of-text token have no characters; spans in tokens can name them. Bounds beyond the completion's text (which
//! ends before a stop string) or its tokens are clamped to them. A token that several spans of one name cover gets the sum of their
//! values, each in full; tokens without a span get 0.

use std::collections::BTreeMap;
use std::ops::Range;

use plumb_core::feedback::{MAX_PARTS, Span};
use plumb_core::rollout::Completion;
use plumb_model::Tokenizer;

use super::rows::StepRows;

/// Adds `spans/<reward>/<name>`, one value per token, for all spans that rewards gave. Names beyond [`MAX_PARTS`] of a reward are left
/// out, in the order of the alphabet.
pub fn align(rows: &mut StepRows, tokenizer: &Tokenizer) {
    let refs = rows.rows();
    // Texts are taken apart once, and only those that some span in characters is about.
    let mut covered: BTreeMap<usize, Vec<Range<u32>>> = BTreeMap::new();
    let mut columns = Vec::new();
    for scores in &rows.scores {
        let mut named: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
        scores.spans.iter().for_each(|span| named.entry(&span.name).or_default().push(span));
        for (name, spans) in named.into_iter().take(MAX_PARTS) {
            let mut values: Vec<Vec<f32>> = refs.iter().map(|row| vec![0.0; row.completion.tokens.len()]).collect();
            for span in spans {
                let row = span.row as usize;
                let (completion, values) = (refs[row].completion, &mut values[row]);
                if span.in_tokens {
                    let last = values.len();
                    let (start, stop) = ((span.start as usize).min(last), (span.stop as usize).min(last));
                    values[start..stop.max(start)].iter_mut().for_each(|value| *value += span.value as f32);
                    continue;
                }
                let covered = covered.entry(row).or_insert_with(|| characters(tokenizer, &completion.tokens));
                let stop = span.stop.min(length(completion));
                for (value, token) in values.iter_mut().zip(covered) {
                    if token.start < stop && span.start < token.end.min(stop) {
                        *value += span.value as f32;
                    }
                }
            }
            columns.push((format!("spans/{}/{name}", scores.name), values));
        }
    }
    rows.spans = columns;
}

fn length(completion: &Completion) -> u32 {
    completion.text.chars().count() as u32
}

/// The characters (Unicode scalar values of the decoded text) that each token covers.
///
/// A text's piece is the difference of two decodings that start at the same earlier token, since a decoder may treat a first token
/// differently. What ends in U+FFFD is a character whose bytes are not all there, or bytes that never become one.
pub fn characters(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<Range<u32>> {
    // `seen` characters are whole after the tokens before `done`; decodings start at `from`. Of the characters after those, `whole` are
    // there and one more is `begun`.
    let (mut from, mut done, mut seen, mut whole, mut begun) = (0, 0, 0u32, 0u32, false);
    let mut covered = Vec::with_capacity(tokens.len());
    for end in 1..=tokens.len() {
        let known = tokenizer.decode(&tokens[from..done]);
        let grown = tokenizer.decode(&tokens[from..end]);
        let piece = grown.strip_prefix(known.as_str()).unwrap_or("\u{FFFD}");
        let count = piece.chars().count() as u32;
        // Bytes that became no character with this token never will, and it is not theirs.
        let broken = begun && count > whole + 1 && piece.chars().nth(whole as usize) == Some('\u{FFFD}');
        let start = seen + whole + u32::from(broken);
        if piece.is_empty() {
            covered.push(start..start);
            continue;
        }
        covered.push(start..seen + count);
        begun = piece.ends_with('\u{FFFD}');
        if begun {
            whole = count - 1;
        } else {
            (from, done, seen, whole) = (done, end, seen + count, 0);
        }
    }
    covered
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use plumb_core::rollout::{FinishReason, Group, Prompt};
    use serde_json::json;

    use super::*;
    use crate::pipeline::rows::{Example, Scores};

    /// Byte-level tokens as real vocabularies have them: é is C3 A9, the emoji F0 9F 99 82, and `cð` ends in the emoji's first byte.
    const TOKENS: [&str; 14] = ["</s>", "a", "b", "c", "Ġ", "Ã", "©", "ð", "Ł", "Ļ", "Ĥ", "ab", "cð", "Ã©"];

    fn tokenizer() -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let vocab: serde_json::Map<_, _> = TOKENS.iter().enumerate().map(|(id, token)| ((*token).into(), id.into())).collect();
        let merges = [["a", "b"], ["c", "ð"], ["Ã", "©"]];
        let special = json!({"id": 0, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                             "normalized": false});
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special], "normalizer": null,
            "pre_tokenizer": level, "post_processor": null, "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "dropout": null, "unk_token": null,
                      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false},
        });
        let config = json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 14, "hidden_size": 8, "intermediate_size": 8,
                            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8, "eos_token_id": 0});
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        plumb_model::random_from_config(folder.path(), 0).unwrap().tokenizer
    }

    fn ids(tokens: &[&str]) -> Vec<u32> {
        tokens.iter().map(|token| TOKENS.iter().position(|known| known == token).unwrap() as u32).collect()
    }

    #[test]
    fn pieces_of_a_character_cover_it_and_the_end_of_text_covers_nothing() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode("ab é").unwrap(), ids(&["ab", "Ġ", "Ã©"]));
        let tokens = ids(&["ab", "Ġ", "Ã", "©", "cð", "Ł", "Ļ", "Ĥ", "Ã©", "</s>"]);
        assert_eq!(tokenizer.decode(&tokens), "ab éc🙂é");
        let expected = [(0, 2), (2, 3), (3, 4), (3, 4), (4, 6), (5, 6), (5, 6), (5, 6), (6, 7), (7, 7)];
        assert_eq!(characters(&tokenizer, &tokens), expected.map(|(start, stop)| start..stop));
        // A byte that becomes no character is one U+FFFD of the text, and the next token has nothing to do with it.
        let tokens = ids(&["©", "ab", "ð"]);
        assert_eq!(tokenizer.decode(&tokens), "\u{FFFD}ab\u{FFFD}");
        assert_eq!(characters(&tokenizer, &tokens), [0..1, 1..3, 3..4]);
    }

    fn aligned(tokens: Vec<u32>, text: &str, spans: Vec<Span>) -> Vec<(String, Vec<f32>)> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jsonl"), "{}\n").unwrap();
        let row = crate::data::read(&["a.jsonl".into()], folder.path()).unwrap().remove(0);
        let prompt = Prompt { id: 0, tokens: vec![1] };
        let example = Example { row, prompt_text: String::new(), prompt: prompt.clone() };
        let logprobs = vec![0.0; tokens.len()];
        let completion = Completion { tokens, logprobs, text: text.into(), finish: FinishReason::Stop };
        let columns = BTreeSet::new();
        let mut rows = StepRows::new(1, "rl", &columns, vec![&example], vec![Group { prompt, completions: vec![completion] }]);
        rows.scores = vec![Scores { name: "r".into(), spans, ..Scores::default() }];
        align(&mut rows, &tokenizer());
        rows.spans.into_iter().map(|(name, mut values)| (name, values.remove(0))).collect()
    }

    fn span(name: &str, in_tokens: bool, start: u32, stop: u32, value: f64) -> Span {
        Span { name: Arc::from(name), in_tokens, row: 0, start, stop, value }
    }

    #[test]
    fn values_add_up_per_token_and_bounds_are_clamped_to_the_text_that_is_left() {
        // "ab é" was cut before the stop string "c": its token is there, its character is not.
        let tokens = ids(&["ab", "Ġ", "Ã", "©", "c", "</s>"]);
        let spans = vec![
            span("chars", false, 1, 3, 1.0),
            span("chars", false, 2, 99, 0.5),
            span("chars", false, 4, 9, 8.0),
            span("tokens", true, 4, 99, -1.0),
            span("tokens", true, 7, 9, 4.0),
            span("tokens", true, 3, 2, 4.0),
        ];
        let values = aligned(tokens, "ab é", spans);
        assert_eq!(values[0], ("spans/r/chars".into(), vec![1.0, 1.5, 0.5, 0.5, 0.0, 0.0]));
        assert_eq!(values[1], ("spans/r/tokens".into(), vec![0.0, 0.0, 0.0, 0.0, -1.0, -1.0]));
    }
}
