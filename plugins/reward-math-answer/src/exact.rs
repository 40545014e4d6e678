//! Exact comparison: expressions as fractions of polynomials.
//!
//! A term is a rational coefficient times a product of atoms with rational exponents. Roots of rational numbers become
//! products of prime atoms with exponents in [0, 1), which are linearly independent over the rationals (Besicovitch 1940), and
//! `i² = -1` is reduced; so two expressions without functions are equal exactly when cross-multiplying their fractions gives
//! the same polynomial. A function of something is an atom of its own: then equal polynomials still prove equality, and unequal
//! ones prove nothing.

use crate::expr::{Constant, Expr, Function, Symbol};
use crate::number;
use num_bigint::BigInt;
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, ToPrimitive, Zero};
use std::collections::BTreeMap;

/// Terms a polynomial may have.
const TERMS_MAX: usize = 400;
/// Largest exponent that is multiplied out.
const EXPONENT_MAX: i64 = 64;
/// Numerator and denominator bound of an atom's exponent.
const ATOM_EXPONENT_MAX: i64 = 1 << 24;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Atom {
    Prime(u64),
    Constant(Constant),
    Symbol(Symbol),
    /// A function or power that is not taken apart, by its canonical text.
    Opaque(String),
}

type Exponent = Ratio<i64>;
type Monomial = Vec<(Atom, Exponent)>;

#[derive(Clone, Debug, PartialEq)]
struct Polynomial(BTreeMap<Monomial, BigRational>);

#[derive(Clone, Debug)]
struct Fraction {
    above: Polynomial,
    below: Polynomial,
}

/// What the normal forms say about two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Equal, proven.
    Equal,
    /// Unequal, proven.
    Unequal,
    /// Too large, or made of functions whose relations are unknown.
    Unknown,
}

/// Compares two expressions.
pub fn compare(left: &Expr, right: &Expr) -> Verdict {
    let mut form = Form { opaque: false };
    let (Some(left), Some(right)) = (form.of(left), form.of(right)) else { return Verdict::Unknown };
    if left.below.is_zero() || right.below.is_zero() {
        return Verdict::Unknown;
    }
    let (Some(a), Some(b)) = (left.above.times(&right.below), right.above.times(&left.below)) else { return Verdict::Unknown };
    if a == b {
        Verdict::Equal
    } else if form.opaque {
        Verdict::Unknown
    } else {
        Verdict::Unequal
    }
}

/// True if both sides are polynomials and one is the other times a number other than zero.
pub fn proportional(left: &Expr, right: &Expr) -> bool {
    let mut form = Form { opaque: false };
    let (Some(left), Some(right)) = (form.of(left), form.of(right)) else { return false };
    let (Some(a), Some(b)) = (left.above.times(&right.below), right.above.times(&left.below)) else { return false };
    let (Some((monomial, first)), Some(second)) = (a.0.first_key_value(), b.0.first_key_value()) else { return false };
    if monomial != second.0 || a.0.len() != b.0.len() {
        return false;
    }
    let ratio = second.1 / first;
    a.0.iter().zip(&b.0).all(|((m, x), (n, y))| m == n && *y == x * &ratio)
}

/// The rational number an expression is, if its normal form says so.
pub fn rational_value(expr: &Expr) -> Option<BigRational> {
    match expr {
        Expr::Rational(value) | Expr::Decimal(value) => Some(value.clone()),
        _ => Form { opaque: false }.of(expr)?.constant(),
    }
}

/// The coefficients `(a, b)` of `a x + b` in the only variable of an expression.
pub fn linear(expr: &Expr) -> Option<(Symbol, BigRational, BigRational)> {
    let fraction = Form { opaque: false }.of(expr)?;
    let below = fraction.below.constant()?;
    let mut slope = None;
    let mut offset = BigRational::zero();
    for (monomial, coefficient) in &fraction.above.0 {
        match monomial.as_slice() {
            [] => offset = coefficient / &below,
            [(Atom::Symbol(symbol), exponent)] if exponent.is_one() && slope.is_none() => {
                slope = Some((symbol.clone(), coefficient / &below));
            }
            _ => return None,
        }
    }
    slope.map(|(symbol, slope)| (symbol, slope, offset))
}

struct Form {
    /// Set when an atom's relation to others is unknown.
    opaque: bool,
}

impl Form {
    fn of(&mut self, expr: &Expr) -> Option<Fraction> {
        match expr {
            Expr::Rational(value) | Expr::Decimal(value) => Some(Fraction::number(value.clone())),
            Expr::Percent => Some(Fraction::number(BigRational::new(1.into(), 100.into()))),
            Expr::Constant(Constant::Infinity | Constant::NegativeInfinity | Constant::Undefined) | Expr::Matrix { .. } => None,
            Expr::Constant(constant) => Some(Fraction::atom(Atom::Constant(*constant))),
            Expr::Symbol(symbol) => Some(Fraction::atom(Atom::Symbol(symbol.clone()))),
            Expr::Sum(terms) => {
                let mut sum = Fraction::number(BigRational::zero());
                for term in terms {
                    sum = sum.plus(&self.of(term)?)?;
                }
                Some(sum)
            }
            Expr::Product(factors) => {
                let mut product = Fraction::number(BigRational::one());
                for factor in factors {
                    product = product.times(&self.of(factor)?)?;
                }
                Some(product)
            }
            Expr::Power(base, exponent) => self.power(base, exponent),
            Expr::Apply(function, arguments) => self.apply(function, arguments),
        }
    }

    fn power(&mut self, base: &Expr, exponent: &Expr) -> Option<Fraction> {
        let base = self.of(base)?;
        let exponent = self.of(exponent)?;
        if let Some(power) = exponent.constant() {
            if let Some(power) = number::small(&power)
                && let Some(result) = base.to_the(power)
            {
                return Some(result);
            }
            if let Some(result) = base.root(&power) {
                return Some(result);
            }
        }
        Some(self.opaque_atom(format!("({base:?})^({exponent:?})")))
    }

    fn apply(&mut self, function: &Function, arguments: &[Expr]) -> Option<Fraction> {
        let arguments = arguments.iter().map(|argument| self.of(argument)).collect::<Option<Vec<_>>>()?;
        let numbers: Option<Vec<BigRational>> = arguments.iter().map(Fraction::constant).collect();
        if let Some(value) = numbers.and_then(|numbers| evaluate(function, &numbers)) {
            return Some(Fraction::number(value));
        }
        Some(self.opaque_atom(format!("{function:?}{arguments:?}")))
    }

    fn opaque_atom(&mut self, text: String) -> Fraction {
        self.opaque = true;
        Fraction::atom(Atom::Opaque(text))
    }
}

/// Functions of rational numbers with rational values.
fn evaluate(function: &Function, arguments: &[BigRational]) -> Option<BigRational> {
    match (function, arguments) {
        (Function::Abs, [value]) => Some(value.abs()),
        (Function::Floor, [value]) => Some(value.floor()),
        (Function::Ceiling, [value]) => Some(value.ceil()),
        (Function::Factorial, [value]) => number::factorial(value),
        (Function::Binomial, [above, below]) => number::binomial(above, below),
        (Function::Mod, [value, modulus]) => number::modulo(value, modulus),
        (Function::Max, values) => values.iter().max().cloned(),
        (Function::Min, values) => values.iter().min().cloned(),
        (Function::Gcd, values) => number::gcd_or_lcm(values, false),
        (Function::Lcm, values) => number::gcd_or_lcm(values, true),
        _ => None,
    }
}

impl Fraction {
    fn number(value: BigRational) -> Self {
        Self { above: Polynomial::number(value), below: Polynomial::number(BigRational::one()) }
    }

    fn atom(atom: Atom) -> Self {
        let mut above = BTreeMap::new();
        above.insert(vec![(atom, Exponent::one())], BigRational::one());
        Self { above: Polynomial(above), below: Polynomial::number(BigRational::one()) }
    }

    fn constant(&self) -> Option<BigRational> {
        let below = self.below.constant()?;
        (!below.is_zero()).then(|| self.above.constant().map(|above| above / below)).flatten()
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        if self.below == other.below {
            return Some(Self { above: self.above.plus(&other.above)?, below: self.below.clone() });
        }
        let above = self.above.times(&other.below)?.plus(&other.above.times(&self.below)?)?;
        Some(Self { above, below: self.below.times(&other.below)? })
    }

    fn times(&self, other: &Self) -> Option<Self> {
        Some(Self { above: self.above.times(&other.above)?, below: self.below.times(&other.below)? })
    }

    fn to_the(&self, power: i64) -> Option<Self> {
        let base = if power < 0 {
            if self.above.is_zero() {
                return None;
            }
            Self { above: self.below.clone(), below: self.above.clone() }
        } else {
            self.clone()
        };
        let power = i64::try_from(power.unsigned_abs()).ok()?;
        Some(Self { above: base.above.to_the(power)?, below: base.below.to_the(power)? })
    }

    /// A power that is not whole, of a rational number or of one atom.
    fn root(&self, power: &BigRational) -> Option<Self> {
        let exponent = Exponent::new(power.numer().to_i64()?, power.denom().to_i64()?);
        if exponent.numer().abs() > EXPONENT_MAX || *exponent.denom() > EXPONENT_MAX {
            return None;
        }
        if let Some(value) = self.constant() {
            return root_of_rational(&value, exponent);
        }
        let below = self.below.constant().filter(Signed::is_positive)?;
        let (monomial, coefficient) = self.above.single()?;
        let [(atom, one)] = monomial.as_slice() else { return None };
        let coefficient = coefficient / below;
        if !one.is_one() || !coefficient.is_positive() {
            return None;
        }
        let mut above = BTreeMap::new();
        above.insert(vec![(atom.clone(), exponent)], BigRational::one());
        let root = Self { above: Polynomial(above), below: Polynomial::number(BigRational::one()) };
        root.times(&root_of_rational(&coefficient, exponent)?)
    }
}

fn root_of_rational(value: &BigRational, exponent: Exponent) -> Option<Fraction> {
    if value.is_zero() {
        return exponent.is_positive().then(|| Fraction::number(BigRational::zero()));
    }
    let mut monomial: Monomial = Vec::new();
    if value.is_negative() {
        // The principal square root of -1; other roots of negative numbers are left to the numeric comparison.
        if *exponent.denom() != 2 {
            return None;
        }
        monomial.push((Atom::Constant(Constant::I), Exponent::from_integer(*exponent.numer())));
    }
    for (number, sign) in [(value.numer(), 1), (value.denom(), -1)] {
        for (prime, count) in number::factorize(&number.abs())? {
            monomial.push((Atom::Prime(prime), exponent * count * sign));
        }
    }
    monomial.sort();
    let (monomial, coefficient) = reduce(monomial)?;
    let mut above = BTreeMap::new();
    above.insert(monomial, coefficient);
    Some(Fraction { above: Polynomial(above), below: Polynomial::number(BigRational::one()) })
}

/// Merges equal atoms, moves whole powers of primes into the coefficient and reduces powers of i.
fn reduce(sorted: Monomial) -> Option<(Monomial, BigRational)> {
    let mut merged: Monomial = Vec::with_capacity(sorted.len());
    for (atom, exponent) in sorted {
        match merged.last_mut() {
            Some((last, total)) if *last == atom => *total = checked_sum(*total, exponent)?,
            _ => merged.push((atom, exponent)),
        }
    }
    let mut coefficient = BigRational::one();
    for (atom, exponent) in &mut merged {
        match atom {
            Atom::Prime(prime) => {
                let whole = exponent.floor();
                if !whole.is_zero() {
                    let base = BigRational::from_integer(BigInt::from(*prime));
                    coefficient *= number::power(&base, whole.to_integer())?;
                    *exponent -= whole;
                }
            }
            Atom::Constant(Constant::I) => {
                let power = exponent.is_integer().then(|| exponent.to_integer())?.rem_euclid(4);
                if power >= 2 {
                    coefficient = -coefficient;
                }
                *exponent = Exponent::from_integer(power % 2);
            }
            _ => {}
        }
    }
    merged.retain(|(_, exponent)| !exponent.is_zero());
    Some((merged, coefficient))
}

fn checked_sum(left: Exponent, right: Exponent) -> Option<Exponent> {
    let bounded = |value: &Exponent| value.numer().abs() < ATOM_EXPONENT_MAX && *value.denom() < ATOM_EXPONENT_MAX;
    (bounded(&left) && bounded(&right)).then(|| left + right)
}

impl Polynomial {
    fn number(value: BigRational) -> Self {
        let mut terms = BTreeMap::new();
        if !value.is_zero() {
            terms.insert(Vec::new(), value);
        }
        Self(terms)
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn constant(&self) -> Option<BigRational> {
        match self.single() {
            Some((monomial, value)) => monomial.is_empty().then(|| value.clone()),
            None => self.is_zero().then(BigRational::zero),
        }
    }

    fn single(&self) -> Option<(&Monomial, &BigRational)> {
        (self.0.len() == 1).then(|| self.0.first_key_value()).flatten()
    }

    fn add_term(&mut self, monomial: Monomial, coefficient: BigRational) -> Option<()> {
        use std::collections::btree_map::Entry;
        match self.0.entry(monomial) {
            Entry::Vacant(entry) => {
                if !coefficient.is_zero() {
                    entry.insert(coefficient);
                }
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += coefficient;
                if entry.get().is_zero() {
                    entry.remove();
                }
            }
        }
        (self.0.len() <= TERMS_MAX).then_some(())
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        let mut sum = self.clone();
        for (monomial, coefficient) in &other.0 {
            sum.add_term(monomial.clone(), coefficient.clone())?;
        }
        Some(sum)
    }

    fn times(&self, other: &Self) -> Option<Self> {
        if let Some(value) = self.constant() {
            return Some(other.scaled(&value));
        }
        if let Some(value) = other.constant() {
            return Some(self.scaled(&value));
        }
        if self.0.len().saturating_mul(other.0.len()) > TERMS_MAX * 16 {
            return None;
        }
        let mut product = Self(BTreeMap::new());
        for (left, a) in &self.0 {
            for (right, b) in &other.0 {
                let mut monomial = [left.as_slice(), right.as_slice()].concat();
                monomial.sort();
                let (monomial, factor) = reduce(monomial)?;
                product.add_term(monomial, a * b * factor)?;
            }
        }
        Some(product)
    }

    fn scaled(&self, factor: &BigRational) -> Self {
        if factor.is_zero() {
            return Self(BTreeMap::new());
        }
        if factor.is_one() {
            return self.clone();
        }
        Self(self.0.iter().map(|(monomial, value)| (monomial.clone(), value * factor)).collect())
    }

    fn to_the(&self, power: i64) -> Option<Self> {
        if let Some(value) = self.constant() {
            return Some(Self::number(number::power(&value, power)?));
        }
        if power > EXPONENT_MAX {
            // One term needs no multiplying out.
            let (monomial, coefficient) = self.single()?;
            if power > ATOM_EXPONENT_MAX {
                return None;
            }
            let mut raised = Vec::with_capacity(monomial.len());
            for (atom, exponent) in monomial {
                if exponent.numer().abs() > 1 << 16 {
                    return None;
                }
                raised.push((atom.clone(), exponent * power));
            }
            let (raised, factor) = reduce(raised)?;
            let mut result = Self(BTreeMap::new());
            result.add_term(raised, number::power(coefficient, power)? * factor)?;
            return Some(result);
        }
        let mut result = Self::number(BigRational::one());
        for _ in 0..power {
            result = result.times(self)?;
        }
        Some(result)
    }
}
