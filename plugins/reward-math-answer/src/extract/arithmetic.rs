//! Arithmetic as a programmer writes it: `2*(3 + 4)**2`. Unlike in LaTeX, nothing multiplies unsaid.

use crate::expr::Expr;
use crate::number::parse_decimal;

/// Nesting of parentheses, signs and powers together.
const DEPTH_MAX: u32 = 48;

/// The expression, if the text is one.
pub fn parse(text: &str) -> Option<Expr> {
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let value = reader.sum()?;
    reader.rest.trim_start().is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
    depth: u32,
}

impl Reader<'_> {
    fn eat(&mut self, sign: &str) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.strip_prefix(sign).map(|rest| self.rest = rest).is_some()
    }

    fn sum(&mut self) -> Option<Expr> {
        let mut left = self.product()?;
        loop {
            if self.eat("+") {
                left = Expr::sum(left, self.product()?);
            } else if self.eat("-") {
                left = Expr::difference(left, self.product()?);
            } else {
                return Some(left);
            }
        }
    }

    fn product(&mut self) -> Option<Expr> {
        let mut left = self.signed()?;
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("**") {
                return None;
            }
            if self.eat("*") {
                left = Expr::product(left, self.signed()?);
            } else if self.eat("/") {
                let right = self.signed()?;
                left = Expr::product(left, Expr::power(right, Expr::integer(-1)));
            } else {
                return Some(left);
            }
        }
    }

    fn signed(&mut self) -> Option<Expr> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let value = if self.eat("-") {
            self.signed().map(Expr::negative)
        } else if self.eat("+") {
            self.signed()
        } else {
            self.power()
        };
        self.depth -= 1;
        value
    }

    /// Binds tighter than a sign on its left and looser than one on its right, and groups from the right.
    fn power(&mut self) -> Option<Expr> {
        let base = self.atom()?;
        if self.eat("**") || self.eat("^") { Some(Expr::power(base, self.signed()?)) } else { Some(base) }
    }

    fn atom(&mut self) -> Option<Expr> {
        if self.eat("(") {
            let inner = self.sum()?;
            return self.eat(")").then_some(inner);
        }
        self.rest = self.rest.trim_start();
        let length = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(length);
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        // As in programs, `007` is not a number.
        if decimals.contains('.') || number.len() <= usize::from(number.contains('.')) || is_padded(whole, number) {
            return None;
        }
        self.rest = rest;
        let value = parse_decimal(number.strip_suffix('.').unwrap_or(number))?;
        Some(if number.contains('.') { Expr::Decimal(value) } else { Expr::Rational(value) })
    }
}

fn is_padded(whole: &str, number: &str) -> bool {
    whole == number && whole.len() > 1 && whole.starts_with('0') && whole.bytes().any(|byte| byte != b'0')
}
