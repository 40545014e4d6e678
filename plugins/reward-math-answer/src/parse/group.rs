//! Brackets of all kinds, matrices, and the choice between all that can start a factor.

use super::{Parser, interval_or_pair};
use crate::expr::{Answer, Expr, Function, NamedSet};
use crate::lex::Token;

impl Parser<'_, '_> {
    /// One factor without the powers and marks after it.
    pub(super) fn primary(&mut self) -> Option<Answer> {
        match self.peek()? {
            Token::Letter(_) | Token::Symbol(_) | Token::Word(_) | Token::Accent(..) => self.name_or_call(),
            Token::Number(_) | Token::Scientific(_) | Token::PercentNumber(_) | Token::UpperE | Token::Differential(_) => {
                self.atom().map(Answer::Expr)
            }
            Token::E => {
                self.at += 1;
                let e = Expr::Constant(crate::expr::Constant::E);
                let power = if self.peek() == Some(Token::Sign('^')) { Some(self.superscript()?) } else { None };
                Some(Answer::Expr(power.map_or(e.clone(), |power| Expr::power(e, power))))
            }
            Token::NamedSet(letter) => {
                self.at += 1;
                Some(Answer::Named(match letter {
                    'N' => NamedSet::Naturals,
                    'Z' => NamedSet::Integers,
                    'Q' => NamedSet::Rationals,
                    'R' => NamedSet::Reals,
                    'C' => NamedSet::Complexes,
                    _ => NamedSet::Empty,
                }))
            }
            Token::Sign('(' | '[' | '{') | Token::OpenSet => self.bracketed(),
            Token::Sign('|') => self.between(Token::Sign('|'), Token::Sign('|'), Function::Abs),
            Token::Begin(_) => self.matrix().map(Answer::Expr),
            Token::Command(name) => match name {
                "lvert" => self.between(Token::Command("lvert"), Token::Command("rvert"), Function::Abs),
                "lfloor" => self.between(Token::Command("lfloor"), Token::Command("rfloor"), Function::Floor),
                "lceil" => self.between(Token::Command("lceil"), Token::Command("rceil"), Function::Ceiling),
                "boxed" | "phantom" => {
                    self.at += 1;
                    self.bracketed()
                }
                "infty" => self.atom().map(Answer::Expr),
                _ => self.command(name).map(Answer::Expr),
            },
            _ => None,
        }
    }

    fn between(&mut self, open: Token<'_>, close: Token<'_>, function: Function) -> Option<Answer> {
        self.eat(open).then_some(())?;
        let inner = self.expr()?;
        self.eat(close).then_some(())?;
        Some(Answer::Expr(Expr::Apply(function, vec![inner])))
    }

    /// `( )`, `[ ]`, `{ }` or `\{ \}`: a group, a tuple, an interval or a set, by what is inside.
    pub(super) fn bracketed(&mut self) -> Option<Answer> {
        let open = self.peek()?;
        self.at += 1;
        let braces = matches!(open, Token::Sign('{') | Token::OpenSet);
        if braces && matches!(self.peek(), Some(Token::Sign('}') | Token::CloseSet)) {
            self.at += 1;
            return Some(Answer::Named(NamedSet::Empty));
        }
        let mut rows = self.rows()?;
        if open == Token::Sign('{') && rows.len() == 1 && rows[0].len() == 1 && self.eat(Token::Command("choose")) {
            let above = rows.pop()?.pop()?.into_expr()?;
            let below = self.expr()?;
            self.expect_sign('}')?;
            return Some(Answer::Expr(Expr::Apply(Function::Binomial, vec![above, below])));
        }
        let close = self.peek()?;
        self.at += 1;
        if braces {
            let matching = if open == Token::OpenSet { Token::CloseSet } else { Token::Sign('}') };
            return (close == matching).then(|| Answer::set(rows.into_iter().flatten().collect()));
        }
        let (Token::Sign(open), Token::Sign(close @ (')' | ']'))) = (open, close) else { return None };
        let matching = (open == '(') == (close == ')');
        let mut elements: Vec<Answer> = rows.into_iter().flatten().collect();
        if elements.len() == 2 && elements.iter().all(|element| matches!(element, Answer::Expr(_))) {
            let end = elements.pop()?.into_expr()?;
            let start = elements.pop()?.into_expr()?;
            return Some(interval_or_pair(start, end, open == '(', close == ')'));
        }
        if !matching {
            return None;
        }
        Some(if elements.len() == 1 { elements.pop()? } else { Answer::Tuple(elements) })
    }

    /// `\begin{...matrix} a & b \\ c & d \end{...matrix}`; `vmatrix` is its determinant.
    fn matrix(&mut self) -> Option<Expr> {
        let Token::Begin(environment) = self.peek()? else { return None };
        self.at += 1;
        let mut entries = Vec::new();
        let mut columns = None;
        loop {
            let start = entries.len();
            entries.push(self.expr()?);
            while self.eat_sign('&') {
                entries.push(self.expr()?);
            }
            let width = entries.len() - start;
            if *columns.get_or_insert(width) != width {
                return None;
            }
            let new_row = self.eat(Token::NewRow);
            if let Some(Token::End(end)) = self.peek() {
                self.at += 1;
                if (end == "vmatrix") != (environment == "vmatrix") || (end == "array") != (environment == "array") {
                    return None;
                }
                break;
            }
            if !new_row {
                return None;
            }
        }
        let matrix = Expr::Matrix { columns: columns?, entries };
        Some(if environment == "vmatrix" { Expr::Apply(Function::Determinant, vec![matrix]) } else { matrix })
    }
}
