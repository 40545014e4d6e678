//! Functions, fractions, roots and binomials.

use super::{Parser, half};
use crate::expr::{Answer, Constant, Expr, Function};
use crate::lex::Token;

impl Parser<'_, '_> {
    /// What a name before a bracket means: `f(x)` and `f(2, 3)` are calls, `x(x + 1)` is a product.
    pub(super) fn call_or_product(&mut self, name: &str, base: Expr, power: Option<Expr>) -> Option<Answer> {
        let start = self.at;
        let value = match &power {
            Some(power) => Expr::power(base, power.clone()),
            None => base,
        };
        let round = self.peek() == Some(Token::Sign('('));
        self.at += 1;
        let rows = self.nested(Self::rows)?;
        let first = self.tokens[start + 1];
        let closed = self.eat_sign(if round { ')' } else { ']' });
        if !closed || rows.len() != 1 {
            return None;
        }
        let mut arguments = rows.into_iter().flatten().map(Answer::into_expr).collect::<Option<Vec<_>>>()?;
        if arguments.len() > 1 || is_atom(&arguments[0], first) {
            let call = Expr::Apply(Function::Named(name.to_owned()), arguments);
            return Some(Answer::Expr(power.map_or(call.clone(), |power| Expr::power(call, power))));
        }
        // The bracket is a factor of its own, with its own power: `x(x+1)^2`.
        let mut factor = arguments.pop()?;
        for _ in 0..super::REPEATS_MAX {
            if self.peek() == Some(Token::Sign('^')) {
                factor = Expr::power(factor, self.superscript()?);
            } else if self.eat_sign('!') {
                factor = Expr::Apply(Function::Factorial, vec![factor]);
            } else {
                break;
            }
        }
        Some(Answer::Expr(Expr::product(value, factor)))
    }

    /// A factor that starts with a command.
    pub(super) fn command(&mut self, name: &'static str) -> Option<Expr> {
        self.at += 1;
        match name {
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                let above = self.braced()?;
                let below = self.braced()?;
                Some(Expr::quotient(above, below))
            }
            "binom" | "tbinom" | "dbinom" => {
                let above = self.braced()?;
                let below = self.braced()?;
                Some(Expr::Apply(Function::Binomial, vec![above, below]))
            }
            "sqrt" => {
                let exponent = if self.eat_sign('[') {
                    let root = self.expr()?;
                    self.expect_sign(']')?;
                    Expr::quotient(Expr::integer(1), root)
                } else {
                    half()
                };
                Some(Expr::power(self.braced()?, exponent))
            }
            "gcd" | "lcm" | "max" | "min" => {
                let function = multi_argument_function(name)?;
                self.function_of_many(function)
            }
            "log" | "ln" => self.logarithm(name),
            "exp" => {
                let (argument, power) = self.power_and_argument()?;
                let value = Expr::power(Expr::Constant(Constant::E), argument);
                Some(power.map_or(value.clone(), |power| Expr::power(value, power)))
            }
            _ => {
                let function = single_argument_function(name)?;
                self.function_of_one(function)
            }
        }
    }

    fn braced(&mut self) -> Option<Expr> {
        self.expect_sign('{')?;
        let value = self.expr()?;
        self.expect_sign('}')?;
        Some(value)
    }

    fn logarithm(&mut self, name: &str) -> Option<Expr> {
        let mut power = None;
        let mut base = if name == "ln" { Expr::Constant(Constant::E) } else { Expr::integer(10) };
        for _ in 0..2 {
            match self.peek() {
                Some(Token::Sign('_')) => {
                    self.at += 1;
                    base = if self.peek() == Some(Token::Sign('{')) { self.nested(Self::braced)? } else { self.atom()? };
                }
                Some(Token::Sign('^')) => power = Some(self.superscript()?),
                _ => {}
            }
        }
        let argument = self.argument()?;
        let value = Expr::Apply(Function::Log, vec![argument, base]);
        Some(power.map_or(value.clone(), |power| Expr::power(value, power)))
    }

    fn power_and_argument(&mut self) -> Option<(Expr, Option<Expr>)> {
        self.subscript()?;
        let power = if self.peek() == Some(Token::Sign('^')) { Some(self.superscript()?) } else { None };
        Some((self.argument()?, power))
    }

    /// The argument of a function: what the parentheses after it hold, or the product after it.
    fn argument(&mut self) -> Option<Expr> {
        if self.eat_sign('(') {
            let inner = self.nested(Self::expr)?;
            self.expect_sign(')')?;
            return Some(inner);
        }
        self.nested(|parser| parser.multiplicative(true))?.into_expr()
    }

    fn function_of_one(&mut self, function: Function) -> Option<Expr> {
        let (argument, power) = self.power_and_argument()?;
        // `\sin^{-1}` is the inverse function, any other power a power.
        if power == Some(Expr::integer(-1))
            && let Some(inverse) = inverse(&function)
        {
            return Some(Expr::Apply(inverse, vec![argument]));
        }
        let value = Expr::Apply(function, vec![argument]);
        Some(power.map_or(value.clone(), |power| Expr::power(value, power)))
    }

    fn function_of_many(&mut self, function: Function) -> Option<Expr> {
        self.expect_sign('(')?;
        let mut arguments = vec![self.expr()?];
        while self.eat_sign(',') {
            arguments.push(self.expr()?);
        }
        self.expect_sign(')')?;
        Some(Expr::Apply(function, arguments))
    }
}

/// A call's only argument must be an atom; anything longer is a factor in parentheses.
fn is_atom(argument: &Expr, first: Token<'_>) -> bool {
    let name = matches!(first, Token::Letter(_) | Token::Symbol(_) | Token::Word(_) | Token::Accent(..));
    match argument {
        Expr::Symbol(_) => name || matches!(first, Token::UpperE | Token::Differential(_)),
        Expr::Power(base, _) => name && matches!(**base, Expr::Symbol(_) | Expr::Constant(_)),
        Expr::Constant(Constant::E) => false,
        Expr::Constant(_) => true,
        Expr::Rational(_) | Expr::Decimal(_) => matches!(first, Token::Number(_) | Token::Scientific(_)),
        _ => false,
    }
}

fn multi_argument_function(name: &str) -> Option<Function> {
    Some(match name {
        "gcd" => Function::Gcd,
        "lcm" => Function::Lcm,
        "max" => Function::Max,
        "min" => Function::Min,
        _ => return None,
    })
}

fn single_argument_function(name: &str) -> Option<Function> {
    Some(match name {
        "sin" => Function::Sin,
        "cos" => Function::Cos,
        "tan" => Function::Tan,
        "csc" => Function::Csc,
        "sec" => Function::Sec,
        "cot" => Function::Cot,
        "arcsin" => Function::Asin,
        "arccos" => Function::Acos,
        "arctan" => Function::Atan,
        "arccsc" => Function::Acsc,
        "arcsec" => Function::Asec,
        "arccot" => Function::Acot,
        "sinh" => Function::Sinh,
        "cosh" => Function::Cosh,
        "tanh" => Function::Tanh,
        "arsinh" | "arcsinh" => Function::Asinh,
        "arcosh" | "arccosh" => Function::Acosh,
        "artanh" | "arctanh" => Function::Atanh,
        "floor" => Function::Floor,
        "ceil" => Function::Ceiling,
        "det" => Function::Determinant,
        _ => return None,
    })
}

fn inverse(function: &Function) -> Option<Function> {
    Some(match function {
        Function::Sin => Function::Asin,
        Function::Cos => Function::Acos,
        Function::Tan => Function::Atan,
        Function::Csc => Function::Acsc,
        Function::Sec => Function::Asec,
        Function::Cot => Function::Acot,
        Function::Sinh => Function::Asinh,
        Function::Cosh => Function::Acosh,
        Function::Tanh => Function::Atanh,
        _ => return None,
    })
}
