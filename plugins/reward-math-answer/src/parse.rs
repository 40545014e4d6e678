//! Tokens to an [`Answer`].
//!
//! The grammar follows how LaTeX answers are commonly read: juxtaposition multiplies and binds tighter than `/`, a function
//! without parentheses takes the whole product after it, `f(x)` is a function while `x(x+1)` is a product, a comma at the top
//! makes a set, two numbers in parentheses an open interval.

use crate::expr::{Answer, Constant, Expr, Function, Interval, NamedSet, Operator, Relation, SetOperation, Symbol};
use crate::lex::{Token, tokenize};
use crate::number::parse_decimal;
use num_bigint::BigInt;
use num_rational::BigRational;

mod atom;
mod call;
mod group;

/// Nesting an answer may have. Each level costs the parser, and all recursion over its result, some stack.
const DEPTH_MAX: u32 = 48;

/// Operators of a kind that nest, such as the carets of `a^b^c`, in one row.
const REPEATS_MAX: u32 = 24;

/// Reads one piece of mathematics; none if it is not well formed.
pub fn parse(text: &str) -> Option<Answer> {
    if let Some(number) = grouped_number(text) {
        return Some(Answer::Expr(number));
    }
    let tokens = tokenize(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, real: !speaks_of_complex_numbers(text) };
    let rows = parser.rows()?;
    if parser.at != tokens.len() {
        return None;
    }
    Some(top_level(rows))
}

/// `12,345.6`: a number, although its comma could also make a set.
fn grouped_number(text: &str) -> Option<Expr> {
    let text = text.trim();
    let body = text.strip_prefix('-').unwrap_or(text);
    let (whole, decimals) = body.split_once('.').map_or((body, None), |(whole, decimals)| (whole, Some(decimals)));
    let mut groups = whole.split(',');
    let first = groups.next()?;
    let digits = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    let mut grouped = false;
    for group in groups {
        if group.len() != 3 || !digits(group) {
            return None;
        }
        grouped = true;
    }
    if !grouped || !digits(first) || first.len() > 3 || decimals.is_some_and(|decimals| !digits(decimals)) {
        return None;
    }
    if body.starts_with('0') {
        // `0,111` is a decimal comma.
        return Some(Expr::Decimal(parse_decimal(&text.replacen(',', ".", 1).replace(',', ""))?));
    }
    let value = parse_decimal(&text.replace(',', ""))?;
    Some(if decimals.is_some() { Expr::Decimal(value) } else { Expr::Rational(value) })
}

/// True where a bare `i` is in sight, or one of the operators of complex numbers and matrices.
fn speaks_of_complex_numbers(text: &str) -> bool {
    const SIGNS: &[&str] = &["\\mathbb{C}", "\\text{i}", "\\mathrm{i}", "\\imath", "\\det", "\\arg{", "\\Re{", "\\Im{"];
    const NAMES: &[&str] = &["{tr}", "{rank}", "{Re}", "{Im}"];
    let bytes = text.as_bytes();
    let word = |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80);
    let bare_i = (0..bytes.len()).any(|at| bytes[at] == b'i' && !word(at + 1) && (at == 0 || !word(at - 1)));
    bare_i || SIGNS.iter().any(|sign| text.contains(sign)) || NAMES.iter().any(|name| text.contains(name))
}

/// Semicolons separate rows, commas what is in them. `x = 1, 2` says that x is in {1, 2}; `x = 1, y = 2` is a set of relations.
fn top_level(mut rows: Vec<Vec<Answer>>) -> Answer {
    let later_relations = rows.iter().flatten().skip(1).filter(|answer| matches!(answer, Answer::Relation(_))).count();
    if later_relations == 0
        && rows.iter().map(Vec::len).sum::<usize>() > 1
        && let Some(Answer::Relation(chain)) = rows.first().and_then(|row| row.first())
        && let [relation] = chain.as_slice()
        && relation.operator == Operator::Equal
        && is_name_list(&relation.left)
    {
        let (left, right) = (relation.left.clone(), relation.right.clone());
        rows[0][0] = right;
        return Answer::Relation(vec![Relation { left, operator: Operator::Equal, right: collection(rows) }]);
    }
    collection(rows)
}

/// A name, or a tuple of names.
fn is_name_list(answer: &Answer) -> bool {
    match answer {
        Answer::Expr(Expr::Symbol(_)) => true,
        Answer::Expr(Expr::Power(base, _)) => matches!(**base, Expr::Symbol(_)),
        Answer::Tuple(parts) => parts.iter().all(is_name_list),
        Answer::Interval(interval) => matches!((&interval.start, &interval.end), (Expr::Symbol(_), Expr::Symbol(_))),
        _ => false,
    }
}

/// `(x, y)` left of an equality is a pair of names, not an interval.
fn name_tuple(answer: Answer) -> Answer {
    match answer {
        Answer::Interval(interval) => Answer::Tuple(vec![Answer::Expr(interval.start), Answer::Expr(interval.end)]),
        other => other,
    }
}

fn collection(mut rows: Vec<Vec<Answer>>) -> Answer {
    if rows.len() == 1 {
        let mut row = rows.remove(0);
        return if row.len() == 1 { row.remove(0) } else { Answer::set(row) };
    }
    if rows.iter().all(|row| row.len() == 1) {
        return Answer::set(rows.into_iter().flatten().collect());
    }
    Answer::set(rows.into_iter().map(Answer::Tuple).collect())
}

struct Parser<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    depth: u32,
    /// Whether variables are real numbers.
    real: bool,
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn eat(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn eat_sign(&mut self, sign: char) -> bool {
        self.eat(Token::Sign(sign))
    }

    fn expect_sign(&mut self, sign: char) -> Option<()> {
        self.eat_sign(sign).then_some(())
    }

    /// Runs `parse` one level deeper; none beyond the bound.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn symbol(&self, name: &str) -> Expr {
        Expr::Symbol(Symbol { name: name.to_lowercase(), real: self.real })
    }

    /// Rows between semicolons, elements between commas.
    fn rows(&mut self) -> Option<Vec<Vec<Answer>>> {
        let mut rows = vec![Vec::new()];
        loop {
            let row = rows.last_mut()?;
            self.element(row)?;
            if self.eat_sign(';') {
                rows.push(Vec::new());
            } else if !self.eat_sign(',') {
                return Some(rows);
            }
        }
    }

    /// A relation, an expression or a set; `±` makes two elements.
    fn element(&mut self, row: &mut Vec<Answer>) -> Option<()> {
        if self.eat_sign('±') {
            let value = self.expr()?;
            row.extend([Answer::Expr(Expr::negative(value.clone())), Answer::Expr(value)]);
            return Some(());
        }
        let left = self.operand()?;
        if self.eat_sign('±') {
            row.extend(self.both_signs(left.into_expr()?)?);
            return Some(());
        }
        let answer = self.relation(left)?;
        row.push(answer);
        Some(())
    }

    fn both_signs(&mut self, center: Expr) -> Option<[Answer; 2]> {
        let offset = self.expr()?;
        let plus = Expr::sum(center.clone(), offset.clone());
        Some([Answer::Expr(plus), Answer::Expr(Expr::difference(center, offset))])
    }

    /// The relations after `left`: a chain reads `a < b = c` as `a < b` and `b = c`.
    fn relation(&mut self, left: Answer) -> Option<Answer> {
        let mut chain: Vec<Relation> = Vec::new();
        let mut left = left;
        if matches!(self.peek(), Some(Token::Sign('=' | '∈'))) && is_name_list(&left) {
            left = name_tuple(left);
        }
        while let Some(Token::Sign(sign)) = self.peek() {
            let operator = match sign {
                '=' | '∈' => Operator::Equal,
                '≠' => Operator::Unequal,
                '<' => Operator::Less,
                '≤' => Operator::LessOrEqual,
                '>' => Operator::Greater,
                '≥' => Operator::GreaterOrEqual,
                '≈' => {
                    self.at += 1;
                    let right = self.operand()?;
                    // An approximation is not the answer, unless it is all that is known about a name.
                    if chain.is_empty() && left_is_name(&left) {
                        left = right;
                    }
                    continue;
                }
                _ => break,
            };
            self.at += 1;
            let right = self.right_side()?;
            let more = matches!(self.peek(), Some(Token::Sign('=' | '≠' | '<' | '≤' | '>' | '≥')));
            let next_left = if more { right.clone() } else { Answer::Named(NamedSet::Empty) };
            chain.push(Relation { left, operator, right });
            left = next_left;
            if chain.len() > 64 {
                return None;
            }
        }
        Some(if chain.is_empty() { left } else { Answer::Relation(chain) })
    }

    /// What stands right of a relation; `x = ±2` says that x is in {-2, 2}.
    fn right_side(&mut self) -> Option<Answer> {
        if self.eat_sign('±') {
            let value = self.expr()?;
            return Some(Answer::set(vec![Answer::Expr(Expr::negative(value.clone())), Answer::Expr(value)]));
        }
        let operand = self.operand()?;
        if self.eat_sign('±') {
            return Some(Answer::set(self.both_signs(operand.into_expr()?)?.into()));
        }
        Some(operand)
    }

    /// Sets joined by `∖` (loosest), `∪`, `∩` (tightest), or an expression.
    fn operand(&mut self) -> Option<Answer> {
        self.combined(0)
    }

    fn combined(&mut self, level: usize) -> Option<Answer> {
        const LEVELS: [(char, SetOperation); 3] =
            [('∖', SetOperation::Difference), ('∪', SetOperation::Union), ('∩', SetOperation::Intersection)];
        let Some((sign, operation)) = LEVELS.get(level).copied() else {
            return self.additive();
        };
        let mut left = self.combined(level + 1)?;
        let mut count = 0;
        while self.eat_sign(sign) {
            count += 1;
            let right = self.combined(level + 1)?;
            if count > 32 {
                return None;
            }
            left = Answer::Combined(operation, Box::new(as_set(left)?), Box::new(as_set(right)?));
        }
        Some(left)
    }

    fn expr(&mut self) -> Option<Expr> {
        self.additive()?.into_expr()
    }

    fn additive(&mut self) -> Option<Answer> {
        let mut left = self.multiplicative(false)?;
        loop {
            let minus = match self.peek() {
                Some(Token::Sign('+')) => false,
                Some(Token::Sign('-')) => true,
                _ => return Some(left),
            };
            self.at += 1;
            let right = self.multiplicative(false)?.into_expr()?;
            let right = if minus { Expr::negative(right) } else { right };
            left = Answer::Expr(Expr::sum(left.into_expr()?, right));
        }
    }

    /// A product. `bare_argument`: the argument of a function without parentheses, which ends before the next function.
    fn multiplicative(&mut self, bare_argument: bool) -> Option<Answer> {
        let mut left = self.unary(bare_argument)?;
        let mut remainders = 0;
        loop {
            let sign = match self.peek() {
                Some(Token::Sign(sign @ ('*' | '/' | ':'))) => sign,
                Some(Token::Command("mod")) => '%',
                _ => return Some(left),
            };
            self.at += 1;
            remainders += u32::from(sign == '%');
            if remainders > REPEATS_MAX {
                return None;
            }
            let value = left.into_expr()?;
            let right = self.unary(bare_argument)?.into_expr()?;
            left = Answer::Expr(match sign {
                '*' => Expr::product(value, right),
                '%' => Expr::Apply(Function::Mod, vec![value, right]),
                _ => Expr::quotient(value, right),
            });
        }
    }

    fn unary(&mut self, bare_argument: bool) -> Option<Answer> {
        let mut negative = false;
        let mut signed = false;
        while let Some(Token::Sign(sign @ ('+' | '-'))) = self.peek() {
            self.at += 1;
            negative ^= sign == '-';
            signed = true;
        }
        let value = self.juxtaposition(bare_argument)?;
        if !signed {
            return Some(value);
        }
        let value = value.into_expr()?;
        Some(Answer::Expr(if negative { Expr::negative(value) } else { value }))
    }

    /// Factors side by side.
    fn juxtaposition(&mut self, bare_argument: bool) -> Option<Answer> {
        let first = self.postfix()?;
        if !self.starts_factor(bare_argument) {
            return Some(first);
        }
        let mut factors = vec![first.into_expr()?];
        while self.starts_factor(bare_argument) {
            factors.push(self.postfix()?.into_expr()?);
        }
        // From the right, so that in `2 \frac{1}{2} x` the fraction belongs to the x.
        let last = factors.pop()?;
        Some(Answer::Expr(factors.into_iter().rev().fold(last, |right, left| match right {
            Expr::Product(mut rest) => {
                rest.insert(0, left);
                Expr::Product(rest)
            }
            other => Expr::juxtaposed(left, other),
        })))
    }

    fn starts_factor(&self, bare_argument: bool) -> bool {
        match self.peek() {
            Some(
                Token::Number(_)
                | Token::PercentNumber(_)
                | Token::Scientific(_)
                | Token::Letter(_)
                | Token::UpperE
                | Token::Differential(_)
                | Token::Symbol(_)
                | Token::Word(_)
                | Token::Accent(..)
                | Token::Begin(_)
                | Token::OpenSet
                | Token::Sign('(' | '[' | '{'),
            ) => true,
            Some(Token::E) => !bare_argument,
            Some(Token::Command(name)) => match name {
                "frac" | "dfrac" | "tfrac" | "cfrac" | "binom" | "tbinom" | "dbinom" | "lfloor" | "lceil" | "lvert" | "infty"
                | "boxed" | "phantom" => true,
                "rfloor" | "rceil" | "rvert" | "mod" | "choose" => false,
                _ => !bare_argument,
            },
            _ => false,
        }
    }

    /// A power with the marks after it.
    fn postfix(&mut self) -> Option<Answer> {
        let base = self.nested(Self::primary)?;
        if !matches!(self.peek(), Some(Token::Sign('^' | '!') | Token::Degree | Token::Transpose)) {
            return Some(base);
        }
        let mut value = base.into_expr()?;
        for _ in 0..REPEATS_MAX {
            match self.peek() {
                Some(Token::Sign('^')) => {
                    let exponent = self.superscript()?;
                    value = Expr::power(value, exponent);
                }
                Some(Token::Sign('!')) => {
                    self.at += 1;
                    value = Expr::Apply(Function::Factorial, vec![value]);
                }
                // Angles are compared by their number.
                Some(Token::Degree) => self.at += 1,
                Some(Token::Transpose) => {
                    self.at += 1;
                    value = transpose(value);
                }
                _ => return Some(Answer::Expr(value)),
            }
        }
        None
    }
}

fn left_is_name(answer: &Answer) -> bool {
    matches!(answer, Answer::Expr(expr) if crate::compare::is_name(expr))
}

/// A set operation takes sets; a tuple among them counts as the set of its elements.
fn as_set(answer: Answer) -> Option<Answer> {
    match answer {
        Answer::Tuple(elements) => Some(Answer::set(elements)),
        set if set.is_set() => Some(set),
        _ => None,
    }
}

fn transpose(value: Expr) -> Expr {
    match value {
        Expr::Matrix { columns, entries } => {
            let rows = entries.len() / columns;
            let turned = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
            let entries = turned.map(|index| entries[index].clone()).collect();
            Expr::Matrix { columns: rows, entries }
        }
        other => other,
    }
}

/// A number token's value: whole numbers are exact, the rest decimals.
fn number(text: &str) -> Option<Expr> {
    let value = parse_decimal(text)?;
    Some(if text.contains(['.', 'E']) { Expr::Decimal(value) } else { Expr::Rational(value) })
}

/// One half, for square roots.
fn half() -> Expr {
    Expr::Rational(BigRational::new(BigInt::from(1), BigInt::from(2)))
}

/// A constant that has the name of a letter.
fn named_constant(name: &str) -> Option<Expr> {
    match name {
        "pi" => Some(Expr::Constant(Constant::Pi)),
        "gamma" | "Gamma" => Some(Expr::Constant(Constant::EulerGamma)),
        _ => None,
    }
}

/// The interval's ends, unless the pair can only be a point of the plane.
fn interval_or_pair(start: Expr, end: Expr, start_open: bool, end_open: bool) -> Answer {
    // Infinity belongs to no set of numbers, whatever bracket is written next to it.
    let infinite = |end: &Expr| matches!(end, Expr::Constant(Constant::Infinity | Constant::NegativeInfinity));
    let (start_open, end_open) = (start_open || infinite(&start), end_open || infinite(&end));
    let order = crate::compare::order(&start, &end);
    let empty = match order {
        Some(std::cmp::Ordering::Greater) => start_open == end_open,
        Some(std::cmp::Ordering::Equal) => start_open && end_open,
        _ => false,
    };
    if empty {
        return Answer::Tuple(vec![Answer::Expr(start), Answer::Expr(end)]);
    }
    match order {
        Some(std::cmp::Ordering::Equal) if !start_open && !end_open => Answer::set(vec![Answer::Expr(start)]),
        _ => Answer::Interval(Box::new(Interval { start, end, start_open, end_open })),
    }
}
