//! Formulas between delimiters.

use super::scan::{Candidate, Content, Piece, Scanner};
use std::ops::Range;

/// Formulas that are joined by commas, `and` or `or` beyond the first.
const JOINED_MAX: usize = 5;

impl Scanner<'_> {
    /// The formula that starts at `at` with those joined to it. `boxed`: each must hold a box.
    pub(super) fn formulas(&self, at: usize, boxed: bool) -> Option<Candidate> {
        let (first, mut end) = self.formula(at, boxed)?;
        let mut pieces = vec![first];
        while pieces.len() <= JOINED_MAX {
            let Some((piece, next_end)) = self.joined(end, boxed) else { break };
            pieces.push(piece);
            end = next_end;
        }
        Some(Candidate { start: at, end, content: Content::Latex(pieces) })
    }

    fn joined(&self, at: usize, boxed: bool) -> Option<(Piece, usize)> {
        let rest = self.text[at..].trim_start();
        let word = rest.strip_prefix(',').unwrap_or(rest);
        let rest = word.strip_prefix("and").or_else(|| word.strip_prefix("or")).or_else(|| rest.strip_prefix(','))?;
        let next = self.text.len() - rest.trim_start().len();
        self.formula(next, boxed).or_else(|| {
            // A bracket formula starts with the blank before it.
            (next > self.text.len() - rest.len()).then(|| self.formula(next - 1, boxed)).flatten()
        })
    }

    /// One formula and the end of its match: blanks and a percent sign after it included.
    fn formula(&self, at: usize, boxed: bool) -> Option<(Piece, usize)> {
        let (range, end) = self.delimited(at, boxed)?;
        let after = self.text[end..].trim_start();
        let sign = after.strip_prefix("\\%").or_else(|| after.strip_prefix('%'));
        let word = || ["ercent", "ct"].iter().find_map(|word| after.strip_prefix(['P', 'p'])?.strip_prefix(word));
        let percent = sign.or_else(word);
        let end = self.text.len() - percent.unwrap_or(after).len();
        Some((Piece { range, percent: percent.is_some() }, end))
    }

    /// The content at `at` between delimiters, and one past the closing one.
    fn delimited(&self, at: usize, boxed: bool) -> Option<(Range<usize>, usize)> {
        let escaped = at > 0 && self.bytes[at - 1] == b'\\';
        let rest = self.text.get(at..)?;
        let first = rest.chars().next()?;
        let found = match first {
            '$' | '\\' if escaped => None,
            '$' if rest.starts_with("$$") => self.until(0, at + 2, "$$", false),
            '$' if at > 0 && self.bytes[at - 1].is_ascii_digit() => None,
            '$' => self.inline_dollar(at + 1),
            '\\' if rest.starts_with("\\[") => self.until(1, at + 2, "\\]", false),
            '\\' if rest.starts_with("\\(") => self.until(2, at + 2, "\\)", true),
            blank if blank.is_whitespace() && rest[blank.len_utf8()..].starts_with('[') => {
                self.bracket(at + blank.len_utf8() + 1)
            }
            _ => None,
        };
        let found = match found {
            Some(found) if !boxed || holds_box(&self.text[found.0.clone()]) => Some(found),
            _ => None,
        };
        found.or_else(|| if boxed { None } else { self.fraction(at) })
    }

    /// Content of at least one character up to `close`; `line`: on one line.
    fn until(&self, kind: usize, start: usize, close: &str, line: bool) -> Option<(Range<usize>, usize)> {
        if start < self.unclosed[kind].get() {
            return None;
        }
        let first = self.text[start..].chars().next()?.len_utf8();
        let rest = &self.text[start + first..];
        let limit = if line { self.text[start..].find('\n').map_or(self.text.len(), |at| start + at) } else { self.text.len() };
        match rest.find(close).map(|at| start + first + at) {
            Some(end) if end < limit => {
                if self.bytes[end - 1] == b'\\' {
                    None
                } else {
                    Some((start..end, end + close.len()))
                }
            }
            _ => {
                self.unclosed[kind].set(limit);
                None
            }
        }
    }

    fn inline_dollar(&self, start: usize) -> Option<(Range<usize>, usize)> {
        if start < self.unclosed[3].get() {
            return None;
        }
        for (offset, byte) in self.bytes[start..].iter().enumerate() {
            let at = start + offset;
            match byte {
                b'$' if self.bytes[at - 1] == b'\\' => {}
                b'$' => return (offset > 0).then_some((start..at, at + 1)),
                b'\n' => {
                    self.unclosed[3].set(at);
                    return None;
                }
                _ => {}
            }
        }
        self.unclosed[3].set(self.bytes.len());
        None
    }

    /// `[...]` between blanks.
    fn bracket(&self, start: usize) -> Option<(Range<usize>, usize)> {
        if start < self.unclosed[4].get() {
            return None;
        }
        let rest = &self.text[start..];
        let Some(length) = rest.find(['\n', ']', '[']) else {
            self.unclosed[4].set(self.text.len());
            return None;
        };
        let after = rest[length..].strip_prefix(']')?;
        let blank = after.chars().next().filter(|c| c.is_whitespace())?;
        (length > 0).then_some((start..start + length, start + length + 1 + blank.len_utf8()))
    }

    /// `\frac{1}{2}` without delimiters.
    fn fraction(&self, at: usize) -> Option<(Range<usize>, usize)> {
        let rest = &self.text[at..];
        let mut body = rest.strip_prefix('-').unwrap_or(rest).strip_prefix("\\frac")?;
        for _ in 0..2 {
            body = body.strip_prefix('{')?;
            // Only over what a number may have: searching the brace alone would read the rest of the text for every `\frac{`.
            let length = body.find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '.' | ',')))?;
            if !body[length..].starts_with('}') || !is_simple_number(&body[..length]) {
                return None;
            }
            body = &body[length + 1..];
        }
        let end = self.text.len() - body.len();
        Some((at..end, end))
    }
}

fn is_simple_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    text.split_once(['.', ',']).map_or_else(|| digits(text), |(whole, part)| digits(whole) && digits(part))
}

/// True if `\boxed{`, something and a closing brace are inside.
fn holds_box(text: &str) -> bool {
    let Some(start) = text.find("\\boxed{") else { return false };
    let inner = &text[start + 7..];
    inner.chars().next().is_some_and(|first| inner[first.len_utf8()..].contains('}'))
}
