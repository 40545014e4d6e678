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
/// differently. What ends in U+FFFD is a character whose bytes are not all there, or bytes that never become one. Tokens that are a
/// byte are no matter of decoding: a run of them is its text where it is UTF-8 as a whole, else one U+FFFD a byte.
pub fn characters(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<Range<u32>> {
    // `seen` characters are whole after the tokens before `done`; decodings start at `from`. Of the characters after those, `whole` are
    // there and one more is `begun`.
    let (mut from, mut done, mut seen, mut whole, mut begun) = (0, 0, 0u32, 0u32, false);
    let mut covered = Vec::with_capacity(tokens.len());
    while covered.len() < tokens.len() {
        let end = covered.len() + 1;
        let bytes: Vec<u8> = tokens[end - 1..].iter().map_while(|&token| tokenizer.fallback_byte(token)).collect();
        if !bytes.is_empty() {
            let start = seen + whole + u32::from(begun);
            covered.extend(run_of_bytes(&bytes, start));
            (done, seen, whole, begun) = (covered.len(), covered.last().map_or(start, |last| last.end), 0, false);
            // One token before is enough to tell the next one's text, and a longer run would be decoded again and again.
            from = done - 1;
            continue;
        }
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
        if !begun {
            (from, done, seen, whole) = (done, end, seen + count, 0);
        } else if broken {
            // What came before this token is settled, so that no decoding gets longer than a character has bytes.
            (from, done, seen, whole) = (end - 2, end - 1, start, seen + count - 1 - start);
        } else {
            whole = count - 1;
        }
    }
    covered
}

/// The characters that each byte of a run covers, the first of which is `start`.
fn run_of_bytes(bytes: &[u8], start: u32) -> Vec<Range<u32>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let of_char = |(i, c): (usize, char)| std::iter::repeat_n(start + i as u32..start + i as u32 + 1, c.len_utf8());
            text.chars().enumerate().flat_map(of_char).collect()
        }
        Err(_) => (start..start + bytes.len() as u32).map(|character| character..character + 1).collect(),
    }
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
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        of_vocabulary(&TOKENS, &[["a", "b"], ["c", "ð"], ["Ã", "©"]], &level, &level)
    }

    /// As Llama 2's: words begin with `▁`, and what the vocabulary lacks is spelled in bytes.
    fn with_fallback(tokens: &[&str]) -> Tokenizer {
        let decoders = json!([
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]);
        of_vocabulary(tokens, &[], &json!(null), &json!({"type": "Sequence", "decoders": decoders}))
    }

    fn of_vocabulary(tokens: &[&str], merges: &[[&str; 2]], pre: &serde_json::Value, decoder: &serde_json::Value) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let vocab: serde_json::Map<_, _> = tokens.iter().enumerate().map(|(id, token)| ((*token).into(), id.into())).collect();
        let special = json!({"id": 0, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                             "normalized": false});
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special], "normalizer": null,
            "pre_tokenizer": pre, "post_processor": null, "decoder": decoder,
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "dropout": null, "unk_token": null,
                      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false},
        });
        let config = json!({"architectures": ["LlamaForCausalLM"], "vocab_size": tokens.len(), "hidden_size": 8, "intermediate_size": 8,
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

    #[test]
    fn byte_that_never_becomes_a_character_settles_what_came_before_it() {
        let tokenizer = tokenizer();
        let tokens = ids(&["a", "ð", "Ã", "Ã", "©", "©", "©", "cð", "Ł", "Ã", "a"]);
        let text = tokenizer.decode(&tokens);
        assert_eq!(text, "a\u{FFFD}\u{FFFD}é\u{FFFD}\u{FFFD}c\u{FFFD}\u{FFFD}a");
        let expected = [(0, 1), (1, 2), (2, 3), (3, 4), (3, 4), (4, 5), (5, 6), (6, 8), (7, 8), (8, 9), (9, 10)];
        assert_eq!(characters(&tokenizer, &tokens), expected.map(|(start, stop)| start..stop));
        // Thousands of them are taken apart in no more than a moment: no decoding begins at the first.
        let many = vec![ids(&["©"])[0]; 20_000];
        assert_eq!(characters(&tokenizer, &many).last(), Some(&(19_999..20_000)));
    }

    #[test]
    fn bytes_of_a_fallback_cover_their_character_and_broken_ones_the_place_of_each() {
        let vocabulary = ["</s>", "▁ab", "cd", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "<0xC3>", "<0xA9>", "▁"];
        let tokenizer = with_fallback(&vocabulary);
        let covers = |tokens: &[&str], text: &str, expected: &[(u32, u32)]| {
            let ids: Vec<u32> = tokens.iter().map(|token| tokenizer.token_id(token).unwrap()).collect();
            assert_eq!(tokenizer.decode(&ids), text);
            let expected: Vec<Range<u32>> = expected.iter().map(|&(start, stop)| start..stop).collect();
            assert_eq!(characters(&tokenizer, &ids), expected, "{tokens:?}");
        };
        let smile = ["<0xF0>", "<0x9F>", "<0x99>", "<0x82>"];
        let whole = [&["▁ab"], &smile[..], &["<0xC3>", "<0xA9>", "cd", "▁ab"]].concat();
        covers(&whole, "ab🙂écd ab", &[(0, 2), (2, 3), (2, 3), (2, 3), (2, 3), (3, 4), (3, 4), (4, 6), (6, 9)]);
        // Cut off within a character, the run's whole characters are no text any more either.
        let cut = [&["▁ab", "<0xC3>", "<0xA9>"], &smile[..2], &["cd"]].concat();
        covers(&cut, "ab\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}cd", &[(0, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 8)]);
        covers(&["<0xC3>", "<0xA9>", "▁ab", "</s>"], "é ab", &[(0, 1), (0, 1), (1, 4), (4, 4)]);
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
