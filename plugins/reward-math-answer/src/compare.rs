//! Whether two answers are the same.
//!
//! The rules are not symmetric: the reference decides what is asked for. A reference `5` accepts `x = 5`; a reference
//! `x = 5` accepts `5` and refuses `y = 5`.

use crate::exact::{self, Verdict};
use crate::expr::{Answer, Constant, Expr, Operator, Relation};
use crate::number;
use crate::numeric;
use crate::sets;
use num_rational::BigRational;
use std::cmp::Ordering;

/// Decimals to which a number with a decimal point is compared.
const DECIMALS: u32 = 6;

/// True if `candidate` answers what `reference` asks.
pub fn answers_match(reference: &Answer, candidate: &Answer) -> bool {
    let mut reference = shortened(reference);
    let mut candidate = shortened(candidate);
    let (reference_equation, candidate_equation) = (is_equation(&reference), is_equation(&candidate));
    if candidate_equation && !reference_equation {
        candidate = right_side(candidate);
    } else if is_assignment(&reference) && !candidate_equation {
        reference = right_side(reference);
    }
    if let (Answer::Relation(chain), true) = (&reference, candidate.is_set())
        && let Some(solutions) = sets::solutions(chain)
    {
        return sets::same(&solutions, &candidate);
    }
    if reference == candidate {
        return true;
    }
    match (&reference, &candidate) {
        (Answer::Relation(left), Answer::Relation(right)) => chains_match(left, right),
        (Answer::Expr(left), Answer::Expr(right)) => exprs_match(left, right),
        (Answer::Relation(_), Answer::Expr(_)) | (Answer::Expr(_), Answer::Relation(_)) => false,
        _ => collections_match(&reference, &candidate),
    }
}

/// `x = 2 + 3 = 5` as `x = 5`.
fn shortened(answer: &Answer) -> Answer {
    match answer {
        Answer::Relation(chain) if chain.len() > 1 && is_assignment(answer) => {
            let left = chain[0].left.clone();
            let right = chain[chain.len() - 1].right.clone();
            Answer::Relation(vec![Relation { left, operator: Operator::Equal, right }])
        }
        other => other.clone(),
    }
}

fn right_side(answer: Answer) -> Answer {
    match answer {
        Answer::Relation(mut chain) => chain.pop().map_or(Answer::Relation(Vec::new()), |last| last.right),
        other => other,
    }
}

/// True for equations and chains of them.
fn is_equation(answer: &Answer) -> bool {
    matches!(answer, Answer::Relation(chain) if chain.iter().all(|relation| relation.operator == Operator::Equal))
}

/// True for equations whose left side is made of names: `x = 5`, `f(x) = ...`, `(x, y) = ...`.
pub fn is_assignment(answer: &Answer) -> bool {
    match answer {
        Answer::Relation(chain) => is_equation(answer) && chain.first().is_some_and(|relation| names_only(&relation.left)),
        _ => false,
    }
}

fn names_only(answer: &Answer) -> bool {
    match answer {
        Answer::Expr(expr) => is_name(expr),
        Answer::Tuple(elements) | Answer::Set(elements) => elements.iter().all(names_only),
        _ => false,
    }
}

/// True for symbols, and sums, products, quotients and functions of nothing else.
pub fn is_name(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(_) => true,
        Expr::Sum(parts) | Expr::Product(parts) | Expr::Apply(_, parts) => parts.iter().all(is_name),
        Expr::Power(base, exponent) => is_name(base) && (is_name(exponent) || **exponent == Expr::integer(-1)),
        _ => false,
    }
}

fn chains_match(reference: &[Relation], candidate: &[Relation]) -> bool {
    reference.len() == candidate.len() && reference.iter().zip(candidate).all(|(left, right)| relations_match(left, right))
}

fn relations_match(reference: &Relation, candidate: &Relation) -> bool {
    if reference.operator == candidate.operator
        && answers_match_plainly(&reference.left, &candidate.left)
        && answers_match_plainly(&reference.right, &candidate.right)
    {
        return true;
    }
    let (Some(reference_gap), Some(candidate_gap)) = (gap(reference), gap(candidate)) else { return false };
    if reference.operator == candidate.operator && exprs_match(&reference_gap, &candidate_gap) {
        return true;
    }
    if reference.operator.flipped() == Some(candidate.operator)
        && exprs_match(&reference_gap, &Expr::negative(candidate_gap.clone()))
    {
        return true;
    }
    // Of equations in several variables, one may be a multiple of the other.
    reference.operator == Operator::Equal
        && candidate.operator == Operator::Equal
        && variables(&reference_gap) > 1
        && exact::proportional(&reference_gap, &candidate_gap)
}

/// Left side minus right side.
fn gap(relation: &Relation) -> Option<Expr> {
    match (&relation.left, &relation.right) {
        (Answer::Expr(left), Answer::Expr(right)) => Some(Expr::difference(left.clone(), right.clone())),
        _ => None,
    }
}

/// Sides of a relation that are not expressions: they are the same, element by element.
fn answers_match_plainly(reference: &Answer, candidate: &Answer) -> bool {
    reference == candidate
        || match (reference, candidate) {
            (Answer::Expr(left), Answer::Expr(right)) => exact::compare(left, right) == Verdict::Equal,
            (Answer::Set(left), Answer::Set(right)) => same_elements(left, right),
            _ => false,
        }
}

fn same_elements(left: &[Answer], right: &[Answer]) -> bool {
    left.len() == right.len() && left.iter().all(|element| right.iter().any(|other| answers_match_plainly(element, other)))
}

fn variables(expr: &Expr) -> usize {
    let mut names = Vec::new();
    expr.walk(&mut |part| {
        if let Expr::Symbol(symbol) = part
            && !names.contains(symbol)
        {
            names.push(symbol.clone());
        }
    });
    names.len()
}

/// Two answers of which at least one is a set or a tuple; a lone expression counts as the set of it.
fn collections_match(reference: &Answer, candidate: &Answer) -> bool {
    if let (Answer::Interval(left), Answer::Interval(right)) = (reference, candidate) {
        return left.start_open == right.start_open
            && left.end_open == right.end_open
            && exprs_match(&left.start, &right.start)
            && exprs_match(&left.end, &right.end);
    }
    if let (Some((left, ordered)), Some((right, _))) = (as_elements(reference), as_elements(candidate)) {
        // A tuple in the reference fixes an order, and a set is then read in the order it was written.
        if ordered { sequences_match(&left, &right) } else { sets_match(&left, &right) }
    } else {
        sets::same(&as_set(reference), &as_set(candidate))
    }
}

fn as_set(answer: &Answer) -> Answer {
    match answer {
        Answer::Expr(_) => Answer::Set(vec![answer.clone()]),
        other => other.clone(),
    }
}

/// The elements, and whether their order counts. An open interval may have been meant as a pair.
fn as_elements(answer: &Answer) -> Option<(Vec<Answer>, bool)> {
    match answer {
        Answer::Tuple(elements) => Some((elements.clone(), true)),
        Answer::Set(elements) => Some((elements.clone(), false)),
        Answer::Interval(interval) if interval.start_open && interval.end_open => {
            Some((vec![Answer::Expr(interval.start.clone()), Answer::Expr(interval.end.clone())], true))
        }
        Answer::Expr(_) | Answer::Relation(_) => Some((vec![answer.clone()], false)),
        _ => None,
    }
}

fn sequences_match(left: &[Answer], right: &[Answer]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| answers_match(left, right))
}

/// Each element has a partner of its own.
fn sets_match(left: &[Answer], right: &[Answer]) -> bool {
    /// Beyond this, pairs are sought in order of value alone.
    const ELEMENTS_MAX: usize = 64;
    if left.len() != right.len() {
        return false;
    }
    if left.len() > ELEMENTS_MAX {
        return sequences_match(&sorted(left), &sorted(right));
    }
    let mut free: Vec<&Answer> = right.iter().collect();
    left.iter().all(|element| {
        let partner = free.iter().position(|candidate| answers_match(element, candidate));
        partner.map(|index| free.swap_remove(index)).is_some()
    })
}

fn sorted(elements: &[Answer]) -> Vec<Answer> {
    let key = |answer: &Answer| match answer {
        Answer::Expr(expr) => numeric::value(expr).map_or(f64::INFINITY, |value| value.re),
        _ => f64::INFINITY,
    };
    let mut keyed: Vec<(f64, &Answer)> = elements.iter().map(|element| (key(element), element)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    keyed.into_iter().map(|(_, element)| element.clone()).collect()
}

/// True if two expressions are the same number, function or matrix.
pub fn exprs_match(reference: &Expr, candidate: &Expr) -> bool {
    if reference == candidate {
        return true;
    }
    if let (Expr::Symbol(_), _) | (_, Expr::Symbol(_)) = (reference, candidate) {
        return names_match(reference, candidate);
    }
    if reference.is_matrix() || candidate.is_matrix() {
        return matrices_match(reference, candidate);
    }
    if let (Some((left, _)), Some((right, _))) = (atomic(reference), atomic(candidate))
        && let (Some(left), Some(right)) = (left.as_integer(), right.as_integer())
        && left == right
    {
        return true;
    }
    if is_decimal(reference) || is_decimal(candidate) {
        return rounded(reference).is_some_and(|left| rounded(candidate).is_some_and(|right| left == right));
    }
    same_value(reference, candidate)
}

fn same_value(left: &Expr, right: &Expr) -> bool {
    if let (Some(left), Some(right)) = (left.as_rational(), right.as_rational()) {
        return left == right;
    }
    match exact::compare(left, right) {
        Verdict::Equal => true,
        Verdict::Unequal => false,
        Verdict::Unknown => numeric::equal(left, right),
    }
}

/// The number in `12` or `12%`, and whether it is a percentage.
fn atomic(expr: &Expr) -> Option<(&Expr, bool)> {
    match expr {
        Expr::Product(factors) => match factors.as_slice() {
            [number, Expr::Percent] if number.is_number() => Some((number, true)),
            _ => None,
        },
        number if number.is_number() => Some((number, false)),
        _ => None,
    }
}

/// True for numbers and percentages with a decimal point.
fn is_decimal(expr: &Expr) -> bool {
    matches!(atomic(expr), Some((Expr::Decimal(_), _)))
}

/// Real and imaginary part in millionths.
fn rounded(expr: &Expr) -> Option<[BigRational; 2]> {
    let round = |value: &BigRational| BigRational::from_integer(number::round_scaled(value, DECIMALS));
    if let Some(value) = exact::rational_value(expr) {
        return Some([round(&value), round(&BigRational::from_integer(0.into()))]);
    }
    let value = numeric::value(expr)?;
    Some([round(&BigRational::from_float(value.re)?), round(&BigRational::from_float(value.im)?)])
}

/// A name against a name, against the product of letters that the same word without `\text` is read as, or against a number
/// in `\text`.
fn names_match(left: &Expr, right: &Expr) -> bool {
    match (letters(left), letters(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

fn letters(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Rational(value) => Some(value.to_string()),
        Expr::Symbol(symbol) => Some(symbol.name.clone()),
        Expr::Constant(Constant::E) => Some("e".to_owned()),
        Expr::Product(factors) => factors
            .iter()
            .map(|factor| if matches!(factor, Expr::Symbol(_) | Expr::Constant(_)) { letters(factor) } else { None })
            .collect(),
        _ => None,
    }
}

fn matrices_match(left: &Expr, right: &Expr) -> bool {
    let (Some(left), Some(right)) = (sets::matrix(left), sets::matrix(right)) else { return false };
    left.0 == right.0
        && left.1.len() == right.1.len()
        && left.1.iter().zip(&right.1).all(|(left, right)| exprs_match(left, right) || same_value(left, right))
}

/// The order of two real numbers; none if either is not one, or they are too close to tell.
pub fn order(left: &Expr, right: &Expr) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (exact_simple(left), exact_simple(right)) {
        return Some(left.cmp(right));
    }
    let (left_value, right_value) = (extended(left)?, extended(right)?);
    if left_value.is_finite() && right_value.is_finite() && same_value(left, right) {
        return Some(Ordering::Equal);
    }
    left_value.partial_cmp(&right_value)
}

fn exact_simple(expr: &Expr) -> Option<&BigRational> {
    match expr {
        Expr::Rational(value) | Expr::Decimal(value) => Some(value),
        _ => None,
    }
}

/// A real number or an infinity as a double.
fn extended(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Constant(Constant::Infinity) => Some(f64::INFINITY),
        Expr::Constant(Constant::NegativeInfinity) => Some(f64::NEG_INFINITY),
        other => numeric::value(other).filter(|value| value.im == 0.0).map(|value| value.re),
    }
}
