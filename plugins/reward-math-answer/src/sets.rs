//! Sets of real numbers as sorted intervals, and arithmetic of matrices.

use crate::compare::order;
use crate::exact;
use crate::expr::{Answer, Constant, Expr, Interval, NamedSet, Operator, Relation, SetOperation};
use num_traits::Signed;
use std::cmp::Ordering;

/// Intervals a set may have; every operation is quadratic in them at worst.
const INTERVALS_MAX: usize = 128;

/// A point of the extended line with a side: just before it, or just after it.
#[derive(Clone, Debug)]
struct Cut {
    at: Expr,
    after: bool,
}

impl Cut {
    fn compare(&self, other: &Self) -> Option<Ordering> {
        Some(order(&self.at, &other.at)?.then(self.after.cmp(&other.after)))
    }
}

/// A union of stretches between cuts, sorted and disjoint.
type Line = Vec<(Cut, Cut)>;

/// True if two sets have the same elements. Sets that are no unions of intervals must be built alike.
pub fn same(left: &Answer, right: &Answer) -> bool {
    if left == right {
        return true;
    }
    let (Some(left), Some(right)) = (line(left), line(right)) else { return false };
    left.len() == right.len()
        && left
            .iter()
            .zip(&right)
            .all(|(a, b)| a.0.compare(&b.0) == Some(Ordering::Equal) && a.1.compare(&b.1) == Some(Ordering::Equal))
}

/// The solutions of a chain of relations that are linear in one variable: `1 < x < 2`, `2x > 4`, `x ≠ 1`.
pub fn solutions(chain: &[Relation]) -> Option<Answer> {
    let mut variable = None;
    let mut total: Option<Answer> = None;
    for relation in chain {
        let (Answer::Expr(left), Answer::Expr(right)) = (&relation.left, &relation.right) else { return None };
        let (symbol, solved) = solve(left, relation.operator, right)?;
        if *variable.get_or_insert_with(|| symbol.clone()) != symbol {
            return None;
        }
        total = Some(match total {
            None => solved,
            Some(before) => Answer::Combined(SetOperation::Intersection, Box::new(before), Box::new(solved)),
        });
    }
    total
}

fn solve(left: &Expr, operator: Operator, right: &Expr) -> Option<(Expr, Answer)> {
    // A bare variable keeps the other side as it is written, be it irrational or infinite.
    let (variable, bound, operator) = match (left, right) {
        (Expr::Symbol(_) | Expr::Apply(..), bound) => (left.clone(), bound.clone(), operator),
        (bound, Expr::Symbol(_) | Expr::Apply(..)) => (right.clone(), bound.clone(), operator.flipped().unwrap_or(operator)),
        _ => {
            let (symbol, slope, offset) = exact::linear(&Expr::difference(left.clone(), right.clone()))?;
            let operator = if slope.is_negative() { operator.flipped().unwrap_or(operator) } else { operator };
            (Expr::Symbol(symbol), Expr::Rational(-offset / slope), operator)
        }
    };
    let (low, high) = (Expr::Constant(Constant::NegativeInfinity), Expr::Constant(Constant::Infinity));
    let interval = |start: Expr, end: Expr, start_open: bool, end_open: bool| {
        Answer::Interval(Box::new(Interval { start, end, start_open, end_open }))
    };
    let set = match operator {
        Operator::Equal => Answer::set(vec![Answer::Expr(bound)]),
        Operator::Less => interval(low, bound, true, true),
        Operator::LessOrEqual => interval(low, bound, true, false),
        Operator::Greater => interval(bound, high, true, true),
        Operator::GreaterOrEqual => interval(bound, high, false, true),
        Operator::Unequal => Answer::Combined(
            SetOperation::Union,
            Box::new(interval(low, bound.clone(), true, true)),
            Box::new(interval(bound, high, true, true)),
        ),
    };
    Some((variable, set))
}

fn line(answer: &Answer) -> Option<Line> {
    match answer {
        Answer::Set(elements) => {
            if elements.len() > INTERVALS_MAX {
                return None;
            }
            let mut points = Line::new();
            for element in elements {
                let Answer::Expr(value) = element else { return None };
                points.push((Cut { at: value.clone(), after: false }, Cut { at: value.clone(), after: true }));
            }
            union(points)
        }
        Answer::Interval(interval) => {
            let start = Cut { at: interval.start.clone(), after: interval.start_open };
            let end = Cut { at: interval.end.clone(), after: !interval.end_open };
            Some(if start.compare(&end)? == Ordering::Less { vec![(start, end)] } else { Line::new() })
        }
        Answer::Named(NamedSet::Reals) => Some(vec![line_ends()]),
        Answer::Named(NamedSet::Empty) => Some(Line::new()),
        Answer::Combined(operation, left, right) => {
            let (left, right) = (line(left)?, line(right)?);
            match operation {
                SetOperation::Union => union([left, right].concat()),
                SetOperation::Intersection => intersection(&left, &right),
                SetOperation::Difference => intersection(&left, &complement(&right)),
            }
        }
        _ => None,
    }
}

fn line_ends() -> (Cut, Cut) {
    let low = Cut { at: Expr::Constant(Constant::NegativeInfinity), after: true };
    let high = Cut { at: Expr::Constant(Constant::Infinity), after: false };
    (low, high)
}

fn union(mut stretches: Line) -> Option<Line> {
    if stretches.len() > INTERVALS_MAX {
        return None;
    }
    // Insertion sort: comparisons may fail, and there are few.
    for i in 1..stretches.len() {
        let mut j = i;
        while j > 0 && stretches[j].0.compare(&stretches[j - 1].0)? == Ordering::Less {
            stretches.swap(j, j - 1);
            j -= 1;
        }
    }
    let mut merged = Line::new();
    for (start, end) in stretches {
        match merged.last_mut() {
            Some(last) if start.compare(&last.1)? != Ordering::Greater => {
                if end.compare(&last.1)? == Ordering::Greater {
                    last.1 = end;
                }
            }
            _ => merged.push((start, end)),
        }
    }
    Some(merged)
}

fn intersection(left: &[(Cut, Cut)], right: &[(Cut, Cut)]) -> Option<Line> {
    let mut common = Line::new();
    for a in left {
        for b in right {
            let start = if a.0.compare(&b.0)? == Ordering::Less { &b.0 } else { &a.0 };
            let end = if a.1.compare(&b.1)? == Ordering::Greater { &b.1 } else { &a.1 };
            if start.compare(end)? == Ordering::Less {
                common.push((start.clone(), end.clone()));
            }
        }
    }
    union(common)
}

fn complement(stretches: &[(Cut, Cut)]) -> Line {
    let mut gaps = Line::new();
    let (mut from, high) = line_ends();
    for (start, end) in stretches {
        if from.compare(start) == Some(Ordering::Less) {
            gaps.push((from, start.clone()));
        }
        from = end.clone();
    }
    if from.compare(&high) == Some(Ordering::Less) {
        gaps.push((from, high));
    }
    gaps
}

/// Columns and entries of a matrix expression with sums, differences and rational factors worked out.
pub fn matrix(expr: &Expr) -> Option<(usize, Vec<Expr>)> {
    match expr {
        Expr::Matrix { columns, entries } => Some((*columns, entries.clone())),
        Expr::Sum(terms) => {
            let mut terms = terms.iter().map(matrix);
            let (columns, mut total) = terms.next()??;
            for term in terms {
                let (width, entries) = term?;
                if width != columns || entries.len() != total.len() {
                    return None;
                }
                total = total.into_iter().zip(entries).map(|(a, b)| Expr::sum(a, b)).collect();
            }
            Some((columns, total))
        }
        Expr::Product(factors) => {
            let (matrices, scalars): (Vec<&Expr>, Vec<&Expr>) = factors.iter().partition(|factor| factor.is_matrix());
            let [only] = matrices.as_slice() else { return None };
            let (columns, entries) = matrix(only)?;
            let scale = |entry: Expr| scalars.iter().fold(entry, |entry, factor| Expr::product((*factor).clone(), entry));
            Some((columns, entries.into_iter().map(scale).collect()))
        }
        _ => None,
    }
}
