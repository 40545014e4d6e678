//! Numbers and arithmetic in plain text.

use super::scan::{Candidate, Content, Scanner};

/// A stretch of digits, operators and blanks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    from: usize,
    to: usize,
    /// The last place where arithmetic may end, and the end of the stop there.
    end: Option<(usize, usize)>,
    /// The last operator with something behind it.
    last_operator: Option<usize>,
}

const CURRENCIES: &str = "$€£¥₹₽₪₩₫฿₡₢₣₤₥₦₧₨₭₮₯₰₱₲₳₴₵₶₷₸₺₻₼₾₿";

impl Scanner<'_> {
    /// All arithmetic, then all numbers, each from left to right without overlap.
    pub(super) fn all_plain(&self, found: &mut Vec<Candidate>) {
        for arithmetic in [true, false] {
            let mut at = 0;
            while at < self.bytes.len() {
                // Only the start, blanks and equals signs come before a number; most bytes are none of them.
                if at > 0 && !matches!(self.bytes[at], b'=' | b'\t'..=b'\r' | b' ' | 0x1c..=0x1f | 0x80..) {
                    at += 1;
                    continue;
                }
                let place = if arithmetic { self.arithmetic(at) } else { self.number(at, false) };
                match place {
                    Some((end, content)) => {
                        found.push(Candidate { start: at, end, content });
                        at = end.max(at + 1);
                    }
                    None => at += 1,
                }
            }
        }
    }

    /// Arithmetic or a number at `at`. `no_equation`: not if an equals sign follows.
    pub(super) fn plain(&self, at: usize, no_equation: bool) -> Option<(usize, Content)> {
        self.arithmetic(at)
            .filter(|(end, _)| !(no_equation && self.equals_follows(*end)))
            .or_else(|| self.number(at, no_equation))
    }

    fn equals_follows(&self, at: usize) -> bool {
        self.text[at..].trim_start().starts_with('=')
    }

    /// What must stand before a number: the start of the text, a blank or an equals sign, and maybe `**`. None elsewhere.
    fn anchored(&self, at: usize) -> Option<impl Iterator<Item = usize> + use<>> {
        let first = self.bytes.get(at).copied().unwrap_or(0);
        let blank = if first == b'=' {
            1
        } else if first < 0x80 {
            usize::from(first.is_ascii_whitespace())
        } else if self.text.is_char_boundary(at) {
            self.text[at..].chars().next().filter(|c| c.is_whitespace()).map_or(0, char::len_utf8)
        } else {
            0
        };
        let starts = [(at == 0).then_some(0), (blank > 0).then_some(at + blank)];
        if starts == [None, None] {
            return None;
        }
        let bold = starts.map(|start| start.filter(|start| self.bytes[*start..].starts_with(b"**")).map(|start| start + 2));
        Some([bold[0], starts[0], bold[1], starts[1]].into_iter().flatten())
    }

    fn number(&self, at: usize, no_equation: bool) -> Option<(usize, Content)> {
        self.anchored(at)?.find_map(|start| {
            let first = self.text[start..].chars().next()?;
            let paid = if CURRENCIES.contains(first) { self.digits_at(start + first.len_utf8(), no_equation) } else { None };
            paid.or_else(|| self.digits_at(start, no_equation))
        })
    }

    /// `1,234.5`, `12.5` or `12,5`, `.5`, `12`: the first of these forms that fits, and a percent sign or word.
    fn digits_at(&self, start: usize, no_equation: bool) -> Option<(usize, Content)> {
        let signed = start + usize::from(self.bytes.get(start) == Some(&b'-'));
        let digits = |at: usize| self.bytes[at.min(self.bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let first = digits(signed);
        let point = |at: usize| matches!(self.bytes.get(at), Some(b'.'));
        let mut forms: [Option<(usize, usize)>; 4] = [None; 4];
        if (1..=3).contains(&first) && self.bytes[signed] != b'0' {
            let mut end = signed + first;
            while matches!(self.bytes.get(end), Some(b' ' | b',')) && digits(end + 1) >= 3 {
                end += 4;
            }
            if end > signed + first {
                let decimals = if point(end) { digits(end + 1) } else { 0 };
                forms[0] = Some((end, if decimals > 0 { end + 1 + decimals } else { end }));
            }
        }
        if first > 0 {
            let end = signed + first;
            if matches!(self.bytes.get(end), Some(b'.' | b',')) && digits(end + 1) > 0 {
                forms[1] = Some((end, end + 1 + digits(end + 1)));
            }
            forms[3] = Some((end, end));
        }
        if point(start) && digits(start + 1) > 0 {
            forms[2] = Some((start, start + 1 + digits(start + 1)));
        }
        forms.into_iter().flatten().find_map(|(whole, end)| self.number_ending(start, whole, end, no_equation))
    }

    fn number_ending(&self, start: usize, whole: usize, end: usize, no_equation: bool) -> Option<(usize, Content)> {
        let (after, percent) = self.percent(end);
        if !(no_equation && self.equals_follows(after)) {
            return Some((after, Content::Number { whole: start..whole, decimals: whole..end, percent }));
        }
        // `12 = x`: without its last digit the number is followed by a digit, not by an equals sign.
        let last_run = if end > whole { end - whole - 1 } else { end - start - usize::from(self.bytes[start] == b'-') };
        if last_run < 2 {
            return None;
        }
        let (whole, end) = (whole.min(end - 1), end - 1);
        Some((end, Content::Number { whole: start..whole, decimals: whole..end, percent: false }))
    }

    fn percent(&self, end: usize) -> (usize, bool) {
        let after = self.text[end..].trim_start();
        let rest = after.strip_prefix('%').or_else(|| {
            let word = after.strip_prefix(['P', 'p'])?;
            word.strip_prefix("ercent").or_else(|| word.strip_prefix("ct"))
        });
        rest.map_or((end, false), |rest| (self.text.len() - rest.len(), true))
    }

    /// `1/2`, `3 - 4`, `2*(3+4)`: digits, operators and blanks with at least one operator, up to a stop.
    fn arithmetic(&self, at: usize) -> Option<(usize, Content)> {
        self.anchored(at)?.find_map(|start| {
            let mut digit = start;
            for optional in [b'-', b'(', b'-'] {
                digit += usize::from(self.bytes.get(digit) == Some(&optional));
            }
            self.bytes.get(digit).filter(|byte| byte.is_ascii_digit())?;
            let run = self.run(digit);
            let (end, stop) = run.end?;
            // Something must stand between the first digit and an operator, and something behind it.
            (run.last_operator? > digit).then_some((stop, Content::Arithmetic(start..end)))
        })
    }

    /// The stretch of arithmetic around a digit. It is the same for all digits in it, and found once.
    fn run(&self, digit: usize) -> Run {
        let known = self.run.get();
        if (known.from..known.to).contains(&digit) {
            return known;
        }
        let length = self.text[digit..].find(|c: char| !is_arithmetic(c));
        let to = length.map_or(self.text.len(), |length| digit + length);
        let mut run = Run { from: digit, to, end: None, last_operator: None };
        let mut position = to;
        while position > digit && run.last_operator.is_none() {
            if run.end.is_none() {
                run.end = self.stop(position).map(|stop| (position, stop));
            }
            let Some(before) = self.text[..position].chars().next_back() else { break };
            position -= before.len_utf8();
            if is_operator(before) && run.end.is_some_and(|(end, _)| position + before.len_utf8() < end) {
                run.last_operator = Some(position);
            }
        }
        self.run.set(run);
        run
    }

    /// One past the stop at `at`: a full stop, comma, colon, blank, parenthesis, dollar sign, or the end; maybe after `**`.
    fn stop(&self, at: usize) -> Option<usize> {
        let plain = |at: usize| match self.text[at..].chars().next() {
            None => Some(at),
            Some(c) => (matches!(c, '.' | ',' | ':' | ')' | '$') || c.is_whitespace()).then(|| at + c.len_utf8()),
        };
        if self.bytes[at..].starts_with(b"**")
            && let Some(end) = plain(at + 2)
        {
            return Some(end);
        }
        plain(at)
    }
}

fn is_operator(c: char) -> bool {
    matches!(c, '+' | '-' | '*' | '×' | '/' | '^' | '(' | ')' | '÷')
}

fn is_arithmetic(c: char) -> bool {
    c.is_ascii_digit() || c == '.' || c.is_whitespace() || is_operator(c)
}
