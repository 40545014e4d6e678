//! Comparison by value: expressions evaluated in double precision at a few fixed points.

use crate::expr::{Constant, Expr, Function, Symbol};
use crate::number;
use num_complex::Complex64;

/// Points at which expressions with variables are compared.
const POINTS: u32 = 6;
/// Points at which both expressions must have a value.
const POINTS_NEEDED: usize = 2;
/// Relative difference up to which two values count as equal: some hundred roundings of a double.
const TOLERANCE: f64 = 1e-12;

/// True if both expressions have the same value at every point where they have one.
pub fn equal(left: &Expr, right: &Expr) -> bool {
    let variables = has_variables(left) || has_variables(right);
    let points = if variables { POINTS } else { 1 };
    let mut compared = 0;
    for point in 0..points {
        let (mut scale, mut other_scale) = (0.0, 0.0);
        let a = evaluate(left, point, &mut scale);
        let b = evaluate(right, point, &mut other_scale);
        if !a.is_finite() || !b.is_finite() {
            continue;
        }
        // Sums that cancel are as exact as their largest term.
        let scale = a.norm().max(b.norm()).max(1e-3 * scale.max(other_scale));
        if (a - b).norm() > TOLERANCE * scale {
            return false;
        }
        compared += 1;
    }
    compared >= if variables { POINTS_NEEDED } else { 1 }
}

/// The value of an expression without variables.
pub fn value(expr: &Expr) -> Option<Complex64> {
    if has_variables(expr) {
        return None;
    }
    let value = evaluate(expr, 0, &mut 0.0);
    value.is_finite().then_some(value)
}

/// True if a variable or an unknown function occurs.
pub fn has_variables(expr: &Expr) -> bool {
    let mut found = false;
    expr.walk(&mut |part| found |= matches!(part, Expr::Symbol(_) | Expr::Apply(Function::Named(_), _)));
    found
}

/// A fixed number for a name: FNV-1a, spread over (0.2, 2.2).
fn spread(name: &str, salt: u32) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ u64::from(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 32;
    0.2 + 2.0 * (hash >> 11) as f64 / (1u64 << 53) as f64
}

fn variable(symbol: &Symbol, point: u32) -> Complex64 {
    let size = spread(&symbol.name, point);
    // Even points are positive throughout, odd ones have both signs: √(x²) is not x.
    let negative = point % 2 == 1 && spread(&symbol.name, point + 100) < 1.4;
    let real = if negative { -size } else { size };
    if symbol.real { Complex64::from(real) } else { Complex64::new(real, spread(&symbol.name, point + 200)) }
}

/// The value at a point. `scale` grows to the largest term of any sum on the way.
fn evaluate(expr: &Expr, point: u32, scale: &mut f64) -> Complex64 {
    match expr {
        Expr::Rational(value) | Expr::Decimal(value) => number::to_f64(value).into(),
        Expr::Percent => 0.01.into(),
        Expr::Constant(constant) => match constant {
            Constant::Pi => std::f64::consts::PI.into(),
            Constant::E => std::f64::consts::E.into(),
            Constant::EulerGamma => 0.577_215_664_901_532_9.into(),
            Constant::I => Complex64::I,
            Constant::Infinity => f64::INFINITY.into(),
            Constant::NegativeInfinity => f64::NEG_INFINITY.into(),
            Constant::Undefined => f64::NAN.into(),
        },
        Expr::Symbol(symbol) => variable(symbol, point),
        Expr::Sum(terms) => {
            let mut sum = Complex64::ZERO;
            for term in terms {
                let value = evaluate(term, point, scale);
                *scale = scale.max(value.norm());
                sum += value;
            }
            sum
        }
        Expr::Product(factors) => factors.iter().map(|factor| evaluate(factor, point, scale)).product(),
        Expr::Power(base, exponent) => {
            let base = evaluate(base, point, scale);
            power(base, evaluate(exponent, point, scale))
        }
        Expr::Apply(function, arguments) => {
            let values: Vec<Complex64> = arguments.iter().map(|argument| evaluate(argument, point, scale)).collect();
            match (function, arguments.as_slice()) {
                (Function::Determinant, [Expr::Matrix { columns, entries }]) => {
                    let entries = entries.iter().map(|entry| evaluate(entry, point, scale)).collect();
                    determinant(entries, *columns)
                }
                _ => apply(function, &values),
            }
        }
        Expr::Matrix { .. } => f64::NAN.into(),
    }
}

fn power(base: Complex64, exponent: Complex64) -> Complex64 {
    if base.im == 0.0 && exponent.im == 0.0 {
        let whole = exponent.re.fract() == 0.0;
        if base.re >= 0.0 || whole {
            return base.re.powf(exponent.re).into();
        }
    }
    if exponent.im == 0.0 && exponent.re.fract() == 0.0 && exponent.re.abs() <= 64.0 {
        return base.powi(exponent.re as i32);
    }
    base.powc(exponent)
}

fn apply(function: &Function, arguments: &[Complex64]) -> Complex64 {
    let undefined = Complex64::from(f64::NAN);
    if let Function::Named(name) = function {
        // An unknown function is some smooth function of its arguments, the same wherever its name is.
        let phase = arguments
            .iter()
            .enumerate()
            .fold(Complex64::ZERO, |sum, (index, argument)| sum + argument * spread(name, 300 + index as u32));
        return (phase + spread(name, 400)).sin() + spread(name, 500);
    }
    let one = Complex64::ONE;
    let real = |compute: &dyn Fn(f64) -> f64, value: Complex64| -> Complex64 {
        if value.im == 0.0 { compute(value.re).into() } else { undefined }
    };
    match (function, arguments) {
        (Function::Sin, [x]) => x.sin(),
        (Function::Cos, [x]) => x.cos(),
        (Function::Tan, [x]) => x.tan(),
        (Function::Csc, [x]) => one / x.sin(),
        (Function::Sec, [x]) => one / x.cos(),
        (Function::Cot, [x]) => x.cos() / x.sin(),
        (Function::Asin, [x]) => x.asin(),
        (Function::Acos, [x]) => x.acos(),
        (Function::Atan, [x]) => x.atan(),
        (Function::Acsc, [x]) => (one / x).asin(),
        (Function::Asec, [x]) => (one / x).acos(),
        (Function::Acot, [x]) => (one / x).atan(),
        (Function::Sinh, [x]) => x.sinh(),
        (Function::Cosh, [x]) => x.cosh(),
        (Function::Tanh, [x]) => x.tanh(),
        (Function::Asinh, [x]) => x.asinh(),
        (Function::Acosh, [x]) => x.acosh(),
        (Function::Atanh, [x]) => x.atanh(),
        (Function::Log, [x, base]) => x.ln() / base.ln(),
        (Function::Abs, [x]) => x.norm().into(),
        (Function::Floor, [x]) => real(&|x| nearly_whole(x).unwrap_or(x.floor()), *x),
        (Function::Ceiling, [x]) => real(&|x| nearly_whole(x).unwrap_or(x.ceil()), *x),
        (Function::Factorial, [x]) => real(&|x| gamma(x + 1.0), *x),
        (Function::Binomial, [n, k]) if n.im == 0.0 && k.im == 0.0 => {
            (gamma(n.re + 1.0) / (gamma(k.re + 1.0) * gamma(n.re - k.re + 1.0))).into()
        }
        (Function::Mod, [x, m]) if x.im == 0.0 && m.im == 0.0 && m.re != 0.0 => (x.re - m.re * (x.re / m.re).floor()).into(),
        (Function::Max, values) if values.iter().all(|value| value.im == 0.0) => {
            values.iter().map(|value| value.re).fold(f64::NEG_INFINITY, f64::max).into()
        }
        (Function::Min, values) if values.iter().all(|value| value.im == 0.0) => {
            values.iter().map(|value| value.re).fold(f64::INFINITY, f64::min).into()
        }
        _ => undefined,
    }
}

/// The integer a value is within a few roundings of.
fn nearly_whole(value: f64) -> Option<f64> {
    let nearest = value.round();
    ((value - nearest).abs() <= TOLERANCE * value.abs().max(1.0)).then_some(nearest)
}

/// The gamma function by Lanczos' approximation (g = 7, 9 coefficients), relative error below 1e-13.
fn gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return std::f64::consts::PI / ((std::f64::consts::PI * x).sin() * gamma(1.0 - x));
    }
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = COEFFICIENTS.iter().enumerate().skip(1).fold(COEFFICIENTS[0], |sum, (i, c)| sum + c / (x + i as f64));
    (2.0 * std::f64::consts::PI).sqrt() * t.powf(x + 0.5) * (-t).exp() * sum
}

/// Determinant by elimination with partial pivoting.
fn determinant(mut entries: Vec<Complex64>, columns: usize) -> Complex64 {
    if entries.len() != columns * columns {
        return f64::NAN.into();
    }
    let mut product = Complex64::ONE;
    for column in 0..columns {
        let norm = |row: &usize| entries[row * columns + column].norm();
        let pivot = (column..columns).max_by(|a, b| norm(a).total_cmp(&norm(b))).unwrap_or(column);
        if entries[pivot * columns + column].norm() == 0.0 {
            return Complex64::ZERO;
        }
        if pivot != column {
            product = -product;
            for k in 0..columns {
                entries.swap(pivot * columns + k, column * columns + k);
            }
        }
        let diagonal = entries[column * columns + column];
        product *= diagonal;
        for row in column + 1..columns {
            let factor = entries[row * columns + column] / diagonal;
            for k in column..columns {
                let above = entries[column * columns + k];
                entries[row * columns + k] -= factor * above;
            }
        }
    }
    product
}
