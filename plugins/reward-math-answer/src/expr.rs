//! What an answer can be: the syntax tree that the parser builds and the comparison reads.
//!
//! Nothing is simplified while parsing beyond what a reader does at sight (`3/4` is one number, `2 1/2` is five halves):
//! some rules of the comparison depend on how an answer was written.

use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// A scalar or matrix expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// An integer or a fraction of integers.
    Rational(BigRational),
    /// A number written with a decimal point: exact as written, yet compared after rounding.
    Decimal(BigRational),
    /// A named number.
    Constant(Constant),
    /// A variable, or a word such as `\text{east}`.
    Symbol(Symbol),
    /// The factor 1/100 a percent sign leaves behind.
    Percent,
    /// At least two terms, in the order they were written.
    Sum(Vec<Expr>),
    /// At least two factors, in the order they were written.
    Product(Vec<Expr>),
    /// Base and exponent.
    Power(Box<Expr>, Box<Expr>),
    /// A function applied to its arguments.
    Apply(Function, Vec<Expr>),
    /// A matrix, row by row.
    Matrix {
        /// Entries in a row, at least 1.
        columns: usize,
        /// A multiple of `columns` entries.
        entries: Vec<Expr>,
    },
}

/// A named number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constant {
    /// 3.14159...
    Pi,
    /// 2.71828...
    E,
    /// The Euler–Mascheroni constant, 0.57721...
    EulerGamma,
    /// The imaginary unit.
    I,
    /// Positive infinity.
    Infinity,
    /// Negative infinity.
    NegativeInfinity,
    /// A division by zero.
    Undefined,
}

/// A variable's identity. The same letter is another variable in a text about complex numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// Lower case, with its subscript.
    pub name: String,
    /// False when the answer speaks of complex numbers.
    pub real: bool,
}

/// A function that is evaluated, or an unknown one that is only compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the functions'")]
pub enum Function {
    Sin,
    Cos,
    Tan,
    Csc,
    Sec,
    Cot,
    Asin,
    Acos,
    Atan,
    Acsc,
    Asec,
    Acot,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    /// Argument and base.
    Log,
    Abs,
    Floor,
    Ceiling,
    Factorial,
    Binomial,
    Gcd,
    Lcm,
    Max,
    Min,
    Mod,
    Determinant,
    /// `f` in `f(x)`.
    Named(String),
}

/// An answer: an expression, a relation, or a collection of answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A scalar or a matrix.
    Expr(Expr),
    /// An ordered tuple.
    Tuple(Vec<Answer>),
    /// A finite set, in the order it was written, without structural duplicates.
    Set(Vec<Answer>),
    /// An interval of the real line.
    Interval(Box<Interval>),
    /// A set made of two others.
    Combined(SetOperation, Box<Answer>, Box<Answer>),
    /// ℕ, ℤ, ℚ, ℝ, ℂ or ∅.
    Named(NamedSet),
    /// A relation, or a chain of them: `a < b < c` is `[a < b, b < c]`.
    Relation(Vec<Relation>),
}

/// The points between two ends.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Interval {
    pub start: Expr,
    pub end: Expr,
    pub start_open: bool,
    pub end_open: bool,
}

/// How two sets are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SetOperation {
    Union,
    Intersection,
    Difference,
}

/// Sets with a letter of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum NamedSet {
    Naturals,
    Integers,
    Rationals,
    Reals,
    Complexes,
    Empty,
}

/// `left operator right`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Relation {
    pub left: Answer,
    pub operator: Operator,
    pub right: Answer,
}

/// A relation's operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    /// The operator after swapping both sides; none for `≠`.
    pub fn flipped(self) -> Option<Self> {
        match self {
            Self::Equal => Some(Self::Equal),
            Self::Unequal => None,
            Self::Less => Some(Self::Greater),
            Self::LessOrEqual => Some(Self::GreaterOrEqual),
            Self::Greater => Some(Self::Less),
            Self::GreaterOrEqual => Some(Self::LessOrEqual),
        }
    }
}

impl Expr {
    /// An integer.
    pub fn integer(value: i64) -> Self {
        Self::Rational(BigRational::from_integer(value.into()))
    }

    /// The value of an integer or fraction.
    pub fn as_rational(&self) -> Option<&BigRational> {
        match self {
            Self::Rational(value) => Some(value),
            _ => None,
        }
    }

    /// The value, if it is an integer.
    pub fn as_integer(&self) -> Option<&BigRational> {
        self.as_rational().filter(|value| value.is_integer())
    }

    /// True for numbers that need no evaluation, infinities included.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Rational(_) | Self::Decimal(_) | Self::Constant(Constant::Infinity | Constant::NegativeInfinity))
    }

    /// True for matrices and for sums and products that contain one.
    pub fn is_matrix(&self) -> bool {
        match self {
            Self::Matrix { .. } => true,
            Self::Sum(parts) | Self::Product(parts) => parts.iter().any(Self::is_matrix),
            Self::Power(base, _) => base.is_matrix(),
            _ => false,
        }
    }

    /// `left + right`, as one flat sum.
    pub fn sum(left: Self, right: Self) -> Self {
        let mut terms = match left {
            Self::Sum(terms) => terms,
            other => vec![other],
        };
        match right {
            Self::Sum(more) => terms.extend(more),
            other => terms.push(other),
        }
        Self::Sum(terms)
    }

    /// `left * right`, as one flat product.
    pub fn product(left: Self, right: Self) -> Self {
        let mut factors = match left {
            Self::Product(factors) => factors,
            other => vec![other],
        };
        match right {
            Self::Product(more) => factors.extend(more),
            other => factors.push(other),
        }
        Self::Product(factors)
    }

    /// `base ^ exponent`.
    pub fn power(base: Self, exponent: Self) -> Self {
        Self::Power(Box::new(base), Box::new(exponent))
    }

    /// `left / right`; two integers make one fraction.
    pub fn quotient(left: Self, right: Self) -> Self {
        if let (Some(above), Some(below)) = (left.as_integer(), right.as_integer()) {
            return if below.is_zero() { Self::Constant(Constant::Undefined) } else { Self::Rational(above / below) };
        }
        Self::product(left, Self::power(right, Self::integer(-1)))
    }

    /// `-value`; a number stays one number.
    pub fn negative(value: Self) -> Self {
        match value {
            Self::Rational(number) => Self::Rational(-number),
            Self::Decimal(number) => Self::Decimal(-number),
            Self::Constant(Constant::Infinity) => Self::Constant(Constant::NegativeInfinity),
            Self::Constant(Constant::NegativeInfinity) => Self::Constant(Constant::Infinity),
            other => Self::product(Self::integer(-1), other),
        }
    }

    /// `left - right`.
    pub fn difference(left: Self, right: Self) -> Self {
        Self::sum(left, Self::negative(right))
    }

    /// `value %`.
    pub fn percent(value: Self) -> Self {
        Self::Product(vec![value, Self::Percent])
    }

    /// Two numbers side by side: `2 1/2` is five halves, and any other pair of factors a product.
    pub fn juxtaposed(left: Self, right: Self) -> Self {
        if let (Some(whole), Some(part)) = (left.as_integer(), right.as_rational())
            && part.is_positive()
        {
            let sign = if whole.is_negative() { -BigRational::one() } else { BigRational::one() };
            return Self::Rational(whole + sign * part);
        }
        Self::product(left, right)
    }

    /// Calls `visit` on this expression and all below it, parents first.
    pub fn walk(&self, visit: &mut dyn FnMut(&Self)) {
        visit(self);
        match self {
            Self::Sum(parts) | Self::Product(parts) | Self::Apply(_, parts) | Self::Matrix { entries: parts, .. } => {
                for part in parts {
                    part.walk(visit);
                }
            }
            Self::Power(base, exponent) => {
                base.walk(visit);
                exponent.walk(visit);
            }
            Self::Rational(_) | Self::Decimal(_) | Self::Constant(_) | Self::Symbol(_) | Self::Percent => {}
        }
    }
}

impl Answer {
    /// A finite set without structural duplicates.
    pub fn set(elements: Vec<Self>) -> Self {
        let mut unique: Vec<Self> = Vec::with_capacity(elements.len());
        for element in elements {
            if !unique.contains(&element) {
                unique.push(element);
            }
        }
        if unique.is_empty() { Self::Named(NamedSet::Empty) } else { Self::Set(unique) }
    }

    /// The expression in it; a set of one braced expression is that expression.
    pub fn into_expr(self) -> Option<Expr> {
        match self {
            Self::Expr(expr) => Some(expr),
            Self::Set(mut elements) if elements.len() == 1 => elements.pop()?.into_expr(),
            _ => None,
        }
    }

    /// True for sets of any kind, tuples excluded.
    pub fn is_set(&self) -> bool {
        matches!(self, Self::Set(_) | Self::Interval(_) | Self::Combined(..) | Self::Named(_))
    }
}
