//! The text of a completion while it grows, and the search for stop strings in it.

/// Decodes ids to text, special tokens skipped.
pub type Decode<'a> = &'a dyn Fn(&[u32]) -> String;

/// Watches a completion's text for stop strings, decoding only its last few tokens each time.
///
/// A token is not a piece of text: a character may be spread over several tokens, and a decoder may treat a text's first token
/// differently. So text is taken as the difference of two decodings that start at the same earlier token, and only once it does
/// not end in the middle of a character (as in Hugging Face's text-generation-inference).
#[derive(Clone, Debug, Default)]
pub struct StopWatch {
    text: String,
    /// The decodings start at this token.
    from: usize,
    /// `text` is that of the tokens before this one.
    done: usize,
}

impl StopWatch {
    /// Forgets everything, for the next completion.
    pub fn reset(&mut self) {
        self.text.clear();
        (self.from, self.done) = (0, 0);
    }

    /// Looks at a completion that has grown: whether its text contains a stop string now.
    pub fn found(&mut self, decode: Decode, tokens: &[u32], stop: &[String]) -> bool {
        if stop.is_empty() {
            return false;
        }
        let known = decode(&tokens[self.from..self.done]);
        let grown = decode(&tokens[self.from..]);
        // A character whose bytes are not all there decodes to U+FFFD.
        if grown.ends_with('\u{FFFD}') || !grown.starts_with(&known) || grown.len() == known.len() {
            return false;
        }
        // A match may begin in the text before, but must end in the new one.
        let longest = stop.iter().map(String::len).max().unwrap_or(0);
        let search_from = floor_char_boundary(&self.text, self.text.len().saturating_sub(longest - 1));
        self.text.push_str(&grown[known.len()..]);
        (self.from, self.done) = (self.done, tokens.len());
        first_stop(&self.text[search_from..], stop).is_some()
    }
}

/// A completion's text, cut before the first stop string, and whether there was one.
pub fn final_text(decode: Decode, tokens: &[u32], stop: &[String]) -> (String, bool) {
    let mut text = decode(tokens);
    let cut = first_stop(&text, stop);
    if let Some(cut) = cut {
        text.truncate(cut);
    }
    (text, cut.is_some())
}

fn first_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte-level vocabulary of one-byte tokens, but 300 is "END" and 301 decodes to nothing, as special tokens do.
    fn decode(ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|&id| match id {
                300 => b"END".to_vec(),
                301 => Vec::new(),
                byte => vec![byte as u8],
            })
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tokens until the watch finds a stop string.
    fn tokens_until_found(tokens: &[u32], stop: &[&str]) -> Option<usize> {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut watch = StopWatch::default();
        (1..=tokens.len()).find(|&n| watch.found(&decode, &tokens[..n], &stop))
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn stop_strings_are_found_across_and_within_tokens() {
        assert_eq!(tokens_until_found(&bytes("one\n\nQ: two"), &["\nQ:"]), Some(7));
        assert_eq!(tokens_until_found(&[97, 300, 98], &["N"]), Some(2));
        assert_eq!(tokens_until_found(&[97, 300, 98], &["aE", "zz"]), Some(2));
        assert_eq!(tokens_until_found(&[97, 300, 98], &["Db"]), Some(3));
        assert_eq!(tokens_until_found(&[69, 301, 78, 301, 68], &["END"]), Some(5));
        assert_eq!(tokens_until_found(&bytes("nothing"), &["x", "ningg"]), None);
        assert_eq!(tokens_until_found(&bytes("nothing"), &[]), None);
    }

    #[test]
    fn stop_strings_of_several_bytes_are_found_when_their_last_byte_is_there() {
        assert_eq!(tokens_until_found(&bytes("aé"), &["é"]), Some(3));
        assert_eq!(tokens_until_found(&bytes("价格🙂!"), &["格🙂"]), Some(10));
        assert_eq!(tokens_until_found(&bytes("价格🙂!"), &["🙂!"]), Some(11));
        // A byte that can never become a character delays the text, it does not hide what follows.
        assert_eq!(tokens_until_found(&[0xff, 69, 78, 68, 33], &["END"]), Some(4));
    }

    #[test]
    fn final_text_is_cut_before_the_first_stop_string() {
        let stop = ["two".to_string(), "ne".to_string()];
        assert_eq!(final_text(&decode, &bytes("one two"), &stop), ("o".into(), true));
        assert_eq!(final_text(&decode, &bytes("é three"), &stop), ("é three".into(), false));
    }
}
