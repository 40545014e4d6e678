//! Numbers, names and constants, with their subscripts and superscripts.

use super::{Parser, named_constant, number};
use crate::expr::{Answer, Constant, Expr};
use crate::lex::Token;

impl Parser<'_, '_> {
    /// An atom: what may follow a caret without braces. Nothing is read when there is none.
    pub(super) fn atom(&mut self) -> Option<Expr> {
        let token = self.peek()?;
        if matches!(token, Token::Letter(_) | Token::Symbol(_) | Token::Word(_) | Token::Accent(..)) {
            let (name, value) = self.name()?;
            return self.scripts(&name, value);
        }
        let value = match token {
            Token::Number(text) => {
                self.at += 1;
                // The base in `101_2` is a remark.
                self.subscript()?;
                return number(text);
            }
            Token::Scientific(text) => number(text)?,
            Token::PercentNumber(text) => Expr::percent(number(text)?),
            Token::UpperE => self.symbol("e"),
            Token::Differential(name) => self.symbol(&format!("d{name}")),
            Token::Command("infty") => Expr::Constant(Constant::Infinity),
            _ => return None,
        };
        self.at += 1;
        Some(value)
    }

    /// A letter, Greek letter or word, without scripts: its name and value.
    pub(super) fn name(&mut self) -> Option<(String, Expr)> {
        let (name, value) = match self.peek()? {
            Token::Letter('I') => ("I".to_owned(), Expr::Constant(Constant::I)),
            Token::Letter(letter) => (letter.to_string(), self.symbol(letter.encode_utf8(&mut [0; 4]))),
            Token::Symbol(name) => (name.to_owned(), named_constant(name).unwrap_or_else(|| self.symbol(name))),
            Token::Word(text) => {
                let name: String = text.chars().filter(|c| !matches!(c, ' ' | '(' | ')')).collect();
                let value = named_constant(&name).unwrap_or_else(|| self.symbol(&name));
                (name, value)
            }
            Token::Accent(accent, text) => {
                let name = format!("{accent}{{{}}}", text.replace(' ', ""));
                let value = self.symbol(&name);
                (name, value)
            }
            _ => return None,
        };
        self.at += 1;
        Some((name, value))
    }

    /// The subscript and the power after a name, in either order.
    fn scripts(&mut self, name: &str, value: Expr) -> Option<Expr> {
        let before = self.subscript()?;
        let power = if self.peek() == Some(Token::Sign('^')) { Some(self.superscript()?) } else { None };
        let after = if before.is_none() { self.subscript()? } else { None };
        let value = match before.or(after) {
            Some(subscript) if subscript.chars().count() > 1 => self.symbol(&format!("{name}_{{{subscript}}}")),
            Some(subscript) => self.symbol(&format!("{name}_{subscript}")),
            None => value,
        };
        Some(match power {
            Some(power) => Expr::power(value, power),
            None => value,
        })
    }

    /// The text after `_`, if there is one: subscripts are part of a name and not evaluated.
    #[expect(clippy::option_option, reason = "outer: well formed; inner: present")]
    pub(super) fn subscript(&mut self) -> Option<Option<String>> {
        if !self.eat_sign('_') {
            return Some(None);
        }
        let start = self.at;
        if self.eat_sign('{') {
            let mut depth = 1;
            while depth > 0 {
                match self.peek()? {
                    Token::Sign('{') => depth += 1,
                    Token::Sign('}') => depth -= 1,
                    _ => {}
                }
                self.at += 1;
            }
            return Some(Some(self.tokens[start + 1..self.at - 1].iter().map(token_text).collect()));
        }
        self.nested(Self::atom)?;
        Some(Some(self.tokens[start..self.at].iter().map(token_text).collect()))
    }

    /// The exponent after a caret: an atom or a braced expression.
    pub(super) fn superscript(&mut self) -> Option<Expr> {
        self.expect_sign('^')?;
        if !self.eat_sign('{') {
            return self.nested(Self::atom);
        }
        let exponent = self.nested(Self::expr)?;
        self.expect_sign('}')?;
        Some(exponent)
    }

    /// A number, a name or a function call: all that starts with neither a bracket nor a command of its own.
    pub(super) fn name_or_call(&mut self) -> Option<Answer> {
        let start = self.at;
        let (name, value) = self.name()?;
        let subscript = self.subscript()?;
        let power = if self.peek() == Some(Token::Sign('^')) { Some(self.superscript()?) } else { None };
        if matches!(self.peek(), Some(Token::Sign('(' | '['))) {
            let name = subscript.map_or_else(|| name.clone(), |subscript| format!("{name}_{subscript}"));
            let base = if name.contains('_') { self.symbol(&name) } else { value };
            return self.call_or_product(&name, base, power);
        }
        self.at = start;
        self.atom().map(Answer::Expr)
    }
}

fn token_text(token: &Token<'_>) -> String {
    match token {
        Token::Number(text) | Token::Scientific(text) | Token::PercentNumber(text) => (*text).to_owned(),
        Token::Word(text) | Token::Accent(_, text) => text.replace(' ', ""),
        Token::Letter(letter) | Token::Sign(letter) | Token::NamedSet(letter) => letter.to_string(),
        Token::E => "e".to_owned(),
        Token::UpperE => "E".to_owned(),
        Token::Differential(name) => format!("d{name}"),
        Token::Symbol(name) | Token::Command(name) => format!("\\{name}"),
        Token::Begin(_) | Token::End(_) | Token::NewRow | Token::Degree | Token::Transpose => String::new(),
        Token::OpenSet => "{".to_owned(),
        Token::CloseSet => "}".to_owned(),
    }
}
