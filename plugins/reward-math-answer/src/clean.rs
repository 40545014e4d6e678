//! LaTeX as models write it to LaTeX that parses: boxes opened, layout and units dropped, short forms completed.
//!
//! The steps run in a fixed order and each looks for its trigger first, so that `42` costs next to nothing.

mod boxed;
mod units;

pub use boxed::{Boxes, open};
use std::borrow::Cow;

/// Cleans one piece of LaTeX whose boxes are open.
pub fn clean(text: &str) -> String {
    let trimmed = text.trim();
    if is_plain_integer(trimmed) {
        return trimmed.to_owned();
    }
    let mut text = text.to_owned();
    drop_layout(&mut text);
    text = replace_words(&text);
    if text.contains(['\n', '\t']) {
        text = text.replace(['\n', '\t'], " ");
    }
    if !text.contains("matrix") && text.contains("\\\\") {
        text = single_backslashes(&text);
    }
    text = units::strip(&text);
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    if text == "0.5" {
        text = String::from("\\frac{1}{2}");
    }
    complete_short_forms(&mut text);
    text.trim().to_owned()
}

fn is_plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn replace_all(text: &mut String, from: &str, to: &str) {
    if text.contains(from) {
        *text = text.replace(from, to);
    }
}

/// Brackets' sizes, display styles, dollar signs and quotes.
fn drop_layout(text: &mut String) {
    if text.contains('\\') {
        if text.contains("\\mathrm") {
            replace_all(text, "\\mathrm{T}", "T");
            replace_all(text, "\\mathrm{d}", "d");
            replace_all(text, "\\mathrm{th}", "");
        }
        replace_all(text, "{\\rm d}", "d");
        if text.contains("{matrix}") {
            replace_all(text, "\\left[\\begin{matrix}", "\\begin{bmatrix}");
            replace_all(text, "\\end{matrix}\\right]", "\\end{bmatrix}");
        }
        for (size, brackets) in [("left", LEFT_BRACKETS), ("right", RIGHT_BRACKETS)] {
            if text.contains(size) {
                *text = without_sizes(text, size, brackets);
            }
        }
        replace_all(text, "\\displaystyle", "");
        while let Some(at) = text.find("\\!") {
            let end = at + 2 + text[at + 2..].len() - text[at + 2..].trim_start().len();
            text.replace_range(at..end, "");
        }
        if text.contains("\\text") {
            *text = without_empty_texts(text);
        }
        replace_all(text, "\\$", "");
    }
    replace_all(text, "$", "");
    if text.contains(['"', '\'']) {
        let mut before = ' ';
        text.retain(|c| {
            let keep = !matches!(c, '"' | '\'') || before == '\\';
            before = c;
            keep
        });
    }
}

const LEFT_BRACKETS: &[&str] = &[
    "\\{", "{", "\\|", "|", "[", "(", "\\lgroup", "\\lbrace", "\\lbrack", "\\vert", "\\lvert", "\\lceil", "\\lfloor", "\\langle",
];
const RIGHT_BRACKETS: &[&str] = &[
    "\\}", "}", "\\|", "|", "]", ")", "\\rgroup", "\\rbrace", "\\rbrack", "\\vert", "\\rvert", "\\rceil", "\\rfloor", "\\rangle",
];

/// `\left(` to `(`.
fn without_sizes(text: &str, size: &str, brackets: &[&str]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let command = after.strip_prefix(size).or_else(|| after.strip_prefix('m').and_then(|after| after.strip_prefix(size)));
        match command {
            Some(bracket) if brackets.iter().any(|known| bracket.starts_with(known)) => rest = bracket,
            _ => {
                result.push('\\');
                rest = after;
            }
        }
    }
    result.push_str(rest);
    result
}

fn without_empty_texts(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\text") {
        result.push_str(&rest[..at]);
        let after = &rest[at + 5..];
        let inner = after.trim_start().strip_prefix('{').and_then(|inner| inner.trim_start().strip_prefix('}'));
        rest = inner.unwrap_or_else(|| {
            result.push_str("\\text");
            after
        });
    }
    result.push_str(rest);
    result
}

/// `\\frac`, written with the backslash of a string literal, to `\frac`.
fn single_backslashes(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek() == Some(&'\\') {
            chars.next();
            if !chars.peek().is_some_and(char::is_ascii_alphabetic) {
                result.push('\\');
            }
        }
        result.push(c);
    }
    result
}

/// Commands and words with a shorter equivalent, by what they start with.
const WORDS: &[(&str, &str)] = &[
    ("\\mathrm", "\\text"),
    ("\\mathit", "\\text"),
    ("\\mathbf", "\\text"),
    ("\\textnormal", "\\text"),
    ("\\textbf", "\\text"),
    ("\\textit", "\\text"),
    ("\\textrm", "\\text"),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("{.", "{0."),
    ("~=", "\\approx"),
    ("infinity", "\\infty"),
    ("\\text{percentage}", "%"),
    ("\\text{percent}", "%"),
    ("\\text{pct}", "%"),
    (",\\ldots", " "),
    ("\\ldots", " "),
    (" sqrt", "\\sqrt"),
];

/// Synonyms, list words and percent words, in one pass from left to right.
fn replace_words(text: &str) -> String {
    let triggers =
        |byte: u8| matches!(byte, b'\\' | b'{' | b'~' | b' ' | b'\n' | b'\t' | b',' | b'.') || byte.is_ascii_lowercase();
    if !text.bytes().any(triggers) {
        return text.to_owned();
    }
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if let Some((replacement, length)) = replacement(&text[..at], rest) {
            result.push_str(replacement);
            at += length;
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            result.push_str(&rest[..length]);
            at += length;
        }
    }
    result
}

fn replacement(before: &str, rest: &str) -> Option<(&'static str, usize)> {
    let first = rest.chars().next()?;
    // What starts like a word: most characters do not, and go on at once.
    if !(matches!(first, '\\' | '{' | '~' | ',' | 'a' | 'o' | 'p' | 'i') || first.is_whitespace()) {
        return None;
    }
    let bytes = rest.as_bytes();
    let starts = |word: &str| word.as_bytes()[0] == bytes[0] && word.as_bytes().get(1) == bytes.get(1) && rest.starts_with(word);
    if let Some((word, to)) = WORDS.iter().find(|(word, _)| starts(word)) {
        return Some((to, word.len()));
    }
    let blanks = rest.len() - rest.trim_start().len();
    let body = &rest[blanks..];
    if blanks > 0 && first.len_utf8() == blanks && body.starts_with('.') {
        return Some((" 0.", blanks + 1));
    }
    // `{,}` between the groups of a large number.
    if let Some(inner) = body.strip_prefix('{')
        && let Some(inner) = inner.trim_start().strip_prefix(',')
        && let Some(inner) = inner.trim_start().strip_prefix('}')
    {
        return Some((",", rest.len() - inner.len()));
    }
    if let Some(length) = list_word(before, rest) {
        return Some((",", length));
    }
    if first == '\\' && !before.ends_with('\\') && rest[1..].starts_with(char::is_whitespace) {
        return Some((" ", 1 + rest[1..].chars().next().map_or(0, char::len_utf8)));
    }
    for word in ["percentage", "percent", "pct"] {
        let starts_word = blanks > 0 || !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if starts_word
            && let Some(after) = body.strip_prefix(word)
            && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            return Some(("\\%", blanks + word.len()));
        }
    }
    if rest.starts_with("inf") && !before.ends_with('\\') && !rest.starts_with("infinity") {
        return Some(("\\infty", 3));
    }
    None
}

/// The length of `and` or `or` between two answers, with the comma and the blanks before it.
fn list_word(before: &str, rest: &str) -> Option<usize> {
    let body = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    let is_letter = |c: char| c.is_ascii_alphabetic();
    for word in ["and", "or"] {
        if let Some(after) = body.strip_prefix(word)
            && !before.ends_with(is_letter)
            && !after.starts_with(is_letter)
        {
            return Some(rest.len() - after.len());
        }
        if let Some(inner) = body.strip_prefix("\\text{")
            && let Some(inner) = inner.trim_start().strip_prefix(word)
            && let Some(after) = inner.trim_start().strip_prefix('}')
        {
            return Some(rest.len() - after.len());
        }
    }
    None
}

/// `\frac12`, `\sqrt2`, `sqrt(2)`, `2^(3)`, `3/4`.
fn complete_short_forms(text: &mut String) {
    if text.contains('^') {
        *text = braced_exponents(text);
    }
    if text.contains("sqrt") {
        *text = roots(text);
    }
    if text.contains("\\frac") {
        *text = fractions(text);
    }
    if text.contains("\\log_") {
        *text = logarithms(text);
    }
    if let Some((above, below)) = text.split_once('/')
        && is_plain_integer(above)
        && is_plain_integer(below)
    {
        *text = format!("\\frac{{{above}}}{{{below}}}");
    }
}

/// `^(a)` to `^{a}`, up to the first closing parenthesis.
fn braced_exponents(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('^') {
        result.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let after = rest.strip_prefix(char::is_whitespace).unwrap_or(rest);
        if let Some(body) = after.strip_prefix('(')
            && let Some(end) = body.find(')')
        {
            result.push('{');
            result.push_str(&body[..end]);
            result.push('}');
            rest = &body[end + 1..];
        }
    }
    result.push_str(rest);
    result
}

/// `sqrt(a)` to `\sqrt{a}` and `\sqrt2` to `\sqrt{2}`.
fn roots(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(at) = rest.find("sqrt") {
        result.push_str(&rest[..at]);
        let command = result.ends_with('\\');
        let body = &rest[at + 4..];
        let after = body.strip_prefix(char::is_whitespace).unwrap_or(body);
        if let Some(inner) = after.strip_prefix('(')
            && let Some(end) = inner.find(')')
        {
            // After a backslash the result does not parse, as `\sqrt(2)` is no LaTeX for a root.
            result.push_str("\\sqrt{");
            result.push_str(&inner[..end]);
            result.push('}');
            rest = &inner[end + 1..];
            continue;
        }
        result.push_str("sqrt");
        let body_start = body.trim_start();
        match body_start.chars().next() {
            Some(argument) if command && !matches!(argument, '{' | '[') => {
                result.push('{');
                result.push(argument);
                result.push('}');
                rest = &body_start[argument.len_utf8()..];
            }
            _ => rest = if command { body_start } else { body },
        }
    }
    result.push_str(rest);
    result
}

/// `\frac12`, `\frac1{2}`, `\frac{1}2` and `\frac123` (one over 23) with both braces.
fn fractions(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 8);
    let mut parts = text.split("\\frac");
    result.push_str(parts.next().unwrap_or_default());
    for part in parts {
        result.push_str("\\frac");
        let part = part.trim_start();
        let mut chars = part.chars();
        match chars.next() {
            Some('{') => {
                let close = part.find('}').map_or(part.len(), |end| end + 1);
                let after = part[close..].trim_start();
                let digit = after.chars().next().filter(char::is_ascii_digit);
                if let (Some(digit), false) = (digit, part[1..close].contains('{')) {
                    result.push_str(&part[..close]);
                    result.push('{');
                    result.push(digit);
                    result.push('}');
                    result.push_str(&after[1..]);
                } else {
                    result.push_str(part);
                }
            }
            Some(above) => {
                let after = chars.as_str();
                let unspaced = if above.is_ascii_digit() { after.trim_start() } else { after };
                let digits = unspaced.bytes().take_while(u8::is_ascii_digit).count();
                let below =
                    if above.is_ascii_digit() && digits > 0 { digits } else { unspaced.chars().next().map_or(0, char::len_utf8) };
                result.push('{');
                result.push(above);
                result.push('}');
                if unspaced.starts_with('{') || below == 0 {
                    result.push_str(unspaced);
                } else {
                    result.push('{');
                    result.push_str(&unspaced[..below]);
                    result.push('}');
                    result.push_str(&unspaced[below..]);
                }
            }
            None => {}
        }
    }
    result
}

/// `\log_28` to `\log_{2}{8}`.
fn logarithms(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(at) = rest.find("\\log_") {
        result.push_str(&rest[..at + 5]);
        rest = &rest[at + 5..];
        let start = rest.trim_start();
        let Some(base) = start.chars().next().filter(char::is_ascii_digit) else { continue };
        let after = start[1..].trim_start();
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            result.extend(['{', base, '}', '{']);
            result.push_str(&after[..digits]);
            result.push('}');
            rest = &after[digits..];
        }
    }
    result.push_str(rest);
    result
}

/// Borrowed or changed text.
type Text<'a> = Cow<'a, str>;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(clean(&open(text, Boxes::All)), expected);
    }

    #[test]
    fn short_forms_gain_their_braces() {
        check("\\frac12", "\\frac{1}{2}");
        check("\\frac1{2}", "\\frac{1}{2}");
        check("\\frac{1}2", "\\frac{1}{2}");
        check("\\dfrac{1}{2}", "\\frac{1}{2}");
        check("4\\sqrt2", "4\\sqrt{2}");
        check("6*sqrt(2)", "6*\\sqrt{2}");
        check("2^(10)", "2^{10}");
        check("3/4", "\\frac{3}{4}");
        check("\\log_28", "\\log_{2}{8}");
    }

    #[test]
    fn layout_and_units_go() {
        check("\\left(7,4\\right)", "(7,4)");
        check("\\$12.50", "12.50");
        check("12\\text{ cm}", "12");
        check("12\\text{ cm}^2", "12");
        check("12 meters", "12");
        check("\\text{east}", "\\text{east}");
        check("1{,}234", "1,234");
    }

    #[test]
    fn list_words_become_commas() {
        check("1 and 2", "1, 2");
        check("1, or 2", "1, 2");
        check("1 \\text{ and } 2", "1, 2");
        check("\\text{sand}", "\\text{sand}");
    }

    #[test]
    fn percent_words_become_signs() {
        check("12 percent", "12\\%");
        check("12\\text{percent}", "12%");
    }

    #[test]
    fn boxes_open() {
        check("x = \\boxed{\\frac{1}{2}}", "\\frac{1}{2}");
        check("\\boxed{1} and \\boxed{2}", "1,2");
    }
}
