//! Where in a text the answer stands.
//!
//! Places are tried by rank, and within a rank from the end of the text: after "final answer is", in a box, after "answer:",
//! after "answer", then any LaTeX or number. The first place whose content parses holds the answer.

use crate::clean::{Boxes, clean};
use crate::expr::{Answer, Expr};
use crate::number::parse_decimal;
use crate::parse::parse;
use scan::{Candidate, Content, Scanner};

mod arithmetic;
mod latex;
mod plain;
mod scan;

/// Bytes of a text that are read, from its end: the answer comes last.
const TEXT_MAX: usize = 128 << 10;
/// Bytes one piece of LaTeX may have to be read as an answer.
const PIECE_MAX: usize = 8 << 10;

/// What was found in a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extraction {
    /// The answer, if one could be read.
    pub answer: Option<Answer>,
    /// The text of the first place that was tried; two answers that cannot be read are compared by it.
    pub text: Option<String>,
}

impl Extraction {
    /// True if there is neither an answer nor a text.
    pub fn is_empty(&self) -> bool {
        self.answer.is_none() && self.text.is_none()
    }
}

/// Finds the answer in a completion or a reference.
pub fn extract(text: &str) -> Extraction {
    let text = tail(text);
    let scanner = Scanner::new(text);
    let mut extraction = Extraction::default();
    for rank in scan::RANKS {
        let mut candidates = scanner.candidates(rank);
        // The rightmost end first, and of those the longest; equals keep their order.
        candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.end), candidate.start));
        for candidate in candidates {
            let (answer, shown) = read(text, &candidate);
            if extraction.text.is_none() && !shown.is_empty() {
                extraction.text = Some(shown);
            }
            if answer.is_some() {
                extraction.answer = answer;
                return extraction;
            }
        }
    }
    extraction
}

/// Reads a text that is LaTeX as a whole, such as the reference column of a dataset.
pub fn extract_latex(text: &str) -> Extraction {
    let (answer, shown) = read_latex(tail(text), Boxes::All, false);
    Extraction { answer, text: (!shown.is_empty()).then_some(shown) }
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TEXT_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

fn read(text: &str, candidate: &Candidate) -> (Option<Answer>, String) {
    match &candidate.content {
        Content::Latex(pieces) => {
            let mut read = pieces.iter().map(|piece| read_latex(&text[piece.range.clone()], Boxes::All, piece.percent));
            let first = read.next().unwrap_or_default();
            let rest: Vec<_> = read.collect();
            if rest.is_empty() || first.0.is_none() || rest.iter().any(|(answer, _)| answer.is_none()) {
                return first;
            }
            join(first, rest)
        }
        Content::Box(range) => read_latex(&text[range.clone()], Boxes::Last, false),
        Content::Number { whole, decimals, percent } => {
            let whole: String = text[whole.clone()].chars().filter(|c| !matches!(c, ' ' | ',')).collect();
            let whole = without_leading_zeros(&whole);
            let shown = format!("{whole}{}", text[decimals.clone()].replace(',', "."));
            let number = parse_decimal(&shown)
                .map(|value| if decimals.is_empty() { Expr::Rational(value) } else { Expr::Decimal(value) })
                .map(|number| Answer::Expr(if *percent { Expr::percent(number) } else { number }));
            (number, shown)
        }
        Content::Arithmetic(range) => {
            let shown = &text[range.clone()];
            (arithmetic::parse(shown).map(Answer::Expr), shown.to_owned())
        }
    }
}

fn without_leading_zeros(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

fn read_latex(text: &str, boxes: Boxes, percent: bool) -> (Option<Answer>, String) {
    let opened = crate::clean::open(text, boxes);
    if opened.len() > PIECE_MAX {
        return (None, opened.into_owned());
    }
    let cleaned = clean(&opened);
    let answer = parse(&cleaned).or_else(|| last_side(&cleaned).and_then(parse));
    let answer = match answer {
        Some(Answer::Expr(expr)) if percent => Some(Answer::Expr(Expr::percent(expr))),
        other => other,
    };
    (answer, cleaned)
}

/// What follows the last `=` of a chain such as `x! = 3 = 3`, for chains that do not parse as a whole.
fn last_side(text: &str) -> Option<&str> {
    if text.contains([',', ';']) {
        return None;
    }
    let bytes = text.as_bytes();
    let is_split = |&(at, _): &(usize, &str)| at == 0 || !matches!(bytes[at - 1], b'\\' | b'<' | b'!' | b'>');
    let splits: Vec<usize> = text.match_indices('=').filter(is_split).map(|(at, _)| at).collect();
    (splits.len() > 1).then(|| &text[splits[splits.len() - 1] + 1..])
}

/// `$1$ and $2$`: one set of all.
fn join(first: (Option<Answer>, String), rest: Vec<(Option<Answer>, String)>) -> (Option<Answer>, String) {
    let mut elements = Vec::new();
    let mut texts = Vec::new();
    for (answer, text) in std::iter::once(first).chain(rest) {
        match answer {
            Some(Answer::Set(more)) => elements.extend(more),
            Some(other) => elements.push(other),
            None => {}
        }
        texts.push(text);
    }
    (Some(Answer::set(elements)), texts.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(extract(text).text.as_deref(), Some(expected), "{text}");
    }

    #[test]
    fn final_answer_outranks_a_box_and_a_box_outranks_an_answer() {
        check("The answer is 3, or $\\boxed{4}$. Therefore the final answer is $5$. I hope it is correct.", "5");
        check("The answer is 3. So \\boxed{4}.", "4");
        check("The answer is 3. It took some time to see why, but the reason is this formula: $2 + 1$.", "3");
    }

    #[test]
    fn last_place_of_a_rank_wins() {
        check("First 1, then 2, then 3.", "3");
        check("$x = 1$ or so, hence $y = 2$", "y = 2");
        check("\\boxed{1}. Wait: that is wrong. Let me see. The result must be \\boxed{2}", "2");
    }

    #[test]
    fn numbers_lose_separators_and_keep_signs() {
        check("It costs $1,234.50", "1234.50");
        check("#### -140", "-140");
        check("about 60,386 people", "60386");
    }

    #[test]
    fn lists_of_formulas_join() {
        check("$7$ and $18$", "7 and 18");
        check("\\(1\\), \\(2\\) and \\(3\\)", "1 and 2 and 3");
    }

    #[test]
    fn text_without_mathematics_has_no_answer() {
        assert!(extract("I do not know.").is_empty());
        assert!(extract("(8,8)").is_empty());
        assert!(extract("").is_empty());
    }
}
