//! The ranks of places, and what is looked for in each.

use std::cell::Cell;
use std::ops::Range;

/// A place that may hold the answer.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// First byte of the match, words before the answer included.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    pub content: Content,
}

/// What stands there, as byte ranges of the text.
#[derive(Clone, Debug)]
pub enum Content {
    /// Formulas joined by commas, `and` or `or`.
    Latex(Vec<Piece>),
    /// From the first `\boxed{` to the last closing brace.
    Box(Range<usize>),
    /// A number in plain text.
    Number { whole: Range<usize>, decimals: Range<usize>, percent: bool },
    /// Arithmetic in plain text, such as `1/2`.
    Arithmetic(Range<usize>),
}

/// One formula without its delimiters.
#[derive(Clone, Debug)]
pub struct Piece {
    pub range: Range<usize>,
    /// A percent sign or word follows.
    pub percent: bool,
}

/// How surely a place holds the answer, most sure first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// "final answer is ... I hope"
    FinalAnswerHope,
    /// "final answer is", or a box.
    FinalAnswerOrBox,
    /// "answer:"
    AnswerColon,
    /// "answer"
    Answer,
    /// Anything.
    Anywhere,
}

/// All ranks, in order.
pub const RANKS: [Rank; 5] = [Rank::FinalAnswerHope, Rank::FinalAnswerOrBox, Rank::AnswerColon, Rank::Answer, Rank::Anywhere];

/// Searches one text.
pub struct Scanner<'a> {
    pub text: &'a str,
    pub bytes: &'a [u8],
    /// For each kind of delimiter, up to where no closing one is: keeps the search linear in the text.
    pub unclosed: [Cell<usize>; 5],
    /// The stretch of arithmetic that was seen last.
    pub run: Cell<super::plain::Run>,
    has_answer: bool,
    has_box: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        let has_answer = find_ignoring_case(text.as_bytes(), b"answer", 0).is_some();
        Self {
            text,
            bytes: text.as_bytes(),
            unclosed: Default::default(),
            run: Cell::default(),
            has_answer,
            has_box: text.contains("\\boxed{"),
        }
    }

    /// All places of a rank, in the order of the patterns and of the text.
    pub fn candidates(&self, rank: Rank) -> Vec<Candidate> {
        let mut found = Vec::new();
        if rank == Rank::Anywhere {
            self.all(&mut found, |at| self.formulas(at, false));
            self.all_plain(&mut found);
            return found;
        }
        if self.has_answer {
            self.all_after_words(&mut found, rank, |at| self.formulas(at, false).map(|found| (found.end, found.content)), true);
            if rank == Rank::FinalAnswerOrBox && self.has_box {
                self.boxes(&mut found);
            }
            self.all_after_words(&mut found, rank, |at| self.plain(at, matches!(rank, Rank::AnswerColon | Rank::Answer)), false);
        } else if rank == Rank::FinalAnswerOrBox && self.has_box {
            self.boxes(&mut found);
        }
        found
    }

    fn boxes(&self, found: &mut Vec<Candidate>) {
        self.all(found, |at| self.formulas(at, true));
        if let Some(start) = self.text.find("\\boxed{")
            && let Some(end) = self.text.rfind('}')
            && end > start + 7
        {
            found.push(Candidate { start, end: end + 1, content: Content::Box(start..end + 1) });
        }
    }

    /// All matches from left to right that do not overlap.
    fn all(&self, found: &mut Vec<Candidate>, find: impl Fn(usize) -> Option<Candidate>) {
        let mut at = 0;
        while at < self.bytes.len() {
            if !matches!(self.bytes[at], b'$' | b'\\' | b'-' | b' ' | b'\n' | b'\t' | b'\r') {
                at += 1;
            } else if let Some(candidate) = find(at) {
                at = candidate.end;
                found.push(candidate);
            } else {
                at += 1;
            }
        }
    }

    fn all_after_words(
        &self,
        found: &mut Vec<Candidate>,
        rank: Rank,
        find: impl Fn(usize) -> Option<(usize, Content)>,
        across_lines: bool,
    ) {
        let words: &[u8] =
            if matches!(rank, Rank::FinalAnswerHope | Rank::FinalAnswerOrBox) { b"final answer" } else { b"answer" };
        let mut from = 0;
        while let Some(start) = find_ignoring_case(self.bytes, words, from) {
            let after = start + words.len();
            let place = match rank {
                Rank::FinalAnswerHope => self.final_answer_hope(after, &find),
                Rank::FinalAnswerOrBox => self.final_answer(after, &find, across_lines),
                Rank::AnswerColon if self.bytes.get(after) != Some(&b':') => None,
                Rank::AnswerColon => self.answer(after + 1, &find, across_lines),
                _ => self.answer(after, &find, across_lines),
            };
            match place {
                Some((end, content)) => {
                    found.push(Candidate { start, end, content });
                    from = end;
                }
                None => from = after,
            }
        }
    }

    /// `is`, an optional colon and blanks, the answer, `I hope`.
    fn final_answer_hope(&self, after: usize, find: &impl Fn(usize) -> Option<(usize, Content)>) -> Option<(usize, Content)> {
        let is = self.text[after..].strip_prefix(' ').filter(|rest| starts_ignoring_case(rest.as_bytes(), b"is"))?;
        let mut at = self.text.len() - is.len() + 2;
        at += usize::from(self.bytes.get(at) == Some(&b':'));
        let (end, content) = self.after_blanks(at, find)?;
        let rest = &self.text[end..];
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        let rest = rest.strip_prefix(char::is_whitespace).unwrap_or(rest);
        rest.starts_with("I hope").then_some((self.text.len() - rest.len() + 6, content))
    }

    /// Up to 100 characters, `is`, an optional colon, the answer.
    fn final_answer(
        &self,
        after: usize,
        find: &impl Fn(usize) -> Option<(usize, Content)>,
        across_lines: bool,
    ) -> Option<(usize, Content)> {
        for at in self.reach(after, 100, across_lines) {
            let rest = self.text[at..].trim_start();
            if rest.len() == self.text.len() - at {
                continue;
            }
            let Some(rest) = rest.strip_prefix("is") else { continue };
            let at = self.text.len() - rest.strip_prefix(':').unwrap_or(rest).len();
            let place = if across_lines { self.after_blanks(at, find) } else { find(at) };
            if place.is_some() {
                return place;
            }
        }
        None
    }

    /// After the last `=` within 100 characters for plain text, or else the first place within 50.
    fn answer(
        &self,
        after: usize,
        find: &impl Fn(usize) -> Option<(usize, Content)>,
        across_lines: bool,
    ) -> Option<(usize, Content)> {
        if !across_lines {
            let equals: Vec<usize> = self.reach(after, 100, false).filter(|at| self.bytes.get(*at) == Some(&b'=')).collect();
            for at in equals.into_iter().rev() {
                if let Some(place) = self.after_blanks(at + 1, find) {
                    return Some(place);
                }
            }
        }
        self.reach(after, 50, across_lines).find_map(find)
    }

    /// Tries behind all blanks first, then gives them back one by one: a number needs one before it.
    fn after_blanks(&self, at: usize, find: &impl Fn(usize) -> Option<(usize, Content)>) -> Option<(usize, Content)> {
        let rest = &self.text[at..];
        let end = self.text.len() - rest.trim_start().len();
        let mut position = end;
        loop {
            if let Some(place) = find(position) {
                return Some(place);
            }
            // One step suffices: further back there are only more blanks before the same text.
            if position == at || position < end {
                return None;
            }
            position -= self.text[at..position].chars().next_back().map_or(1, char::len_utf8);
        }
    }

    /// Positions `0..=count` characters after `start`, on the same line unless `across_lines`.
    fn reach(&self, start: usize, count: usize, across_lines: bool) -> impl Iterator<Item = usize> + '_ {
        let rest = self.text.get(start..).unwrap_or("");
        let mut line = true;
        rest.char_indices()
            .map(|(index, c)| (index, Some(c)))
            .chain(std::iter::once((rest.len(), None)))
            .take(count + 1)
            .take_while(move |(_, c)| {
                let reachable = line;
                line = across_lines || *c != Some('\n');
                reachable
            })
            .map(move |(index, _)| start + index)
    }
}

fn starts_ignoring_case(text: &[u8], word: &[u8]) -> bool {
    text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word)
}

/// The first place of an ASCII word in lower case, in any case.
fn find_ignoring_case(text: &[u8], word: &[u8], from: usize) -> Option<usize> {
    let last = text.len().checked_sub(word.len())?;
    (from..=last).find(|&at| (text[at] | 0x20) == word[0] && starts_ignoring_case(&text[at..], word))
}
