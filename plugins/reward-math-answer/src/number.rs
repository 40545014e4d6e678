//! Exact numbers, kept within bounds.

use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Pow, Signed, ToPrimitive, Zero};
use std::cmp::Ordering;

/// Digits a number may be written with.
const DIGITS_MAX: usize = 1000;
/// Bits a computed power or factorial may have; larger ones are compared only as they are written.
const BITS_MAX: u64 = 16_384;

/// The value of `12`, `12.5`, `.5`, `1.5E-3`; thousands separators must be gone.
pub fn parse_decimal(text: &str) -> Option<BigRational> {
    let (text, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (mantissa, exponent) = match text.split_once('E') {
        Some((mantissa, exponent)) => (mantissa, exponent.replace('−', "-").parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + part.len() > DIGITS_MAX || exponent.unsigned_abs() as usize > DIGITS_MAX {
        return None;
    }
    if part.is_empty() && exponent == 0 && whole.len() < 19 {
        let value = whole.parse::<i64>().ok()?;
        return Some(BigRational::from_integer(if negative { -value } else { value }.into()));
    }
    let digits = format!("{whole}{part}");
    let value = BigInt::parse_bytes(digits.as_bytes(), 10)?;
    let value = if negative { -value } else { value };
    let scale = exponent - i32::try_from(part.len()).ok()?;
    let power = BigInt::from(10).pow(scale.unsigned_abs());
    Some(if scale < 0 { BigRational::new(value, power) } else { BigRational::from_integer(value * power) })
}

/// `base ^ exponent`, if it stays within bounds.
pub fn power(base: &BigRational, exponent: i64) -> Option<BigRational> {
    if base.is_zero() {
        return (exponent > 0).then(BigRational::zero).or_else(|| (exponent == 0).then(BigRational::one));
    }
    let bits = base.numer().bits().max(base.denom().bits());
    if bits > 1 && bits.saturating_mul(exponent.unsigned_abs()) > BITS_MAX {
        return None;
    }
    // Numerator and denominator are 1 or -1 where the bound above allows a large exponent: its parity is all that counts.
    let exponent = if bits > 1 { i32::try_from(exponent).ok()? } else { (exponent % 2) as i32 };
    Some(Pow::pow(base, exponent))
}

/// `n!` for small whole `n`.
pub fn factorial(value: &BigRational) -> Option<BigRational> {
    let n = small(value).filter(|n| (0..=1000).contains(n))?;
    Some(BigRational::from_integer((2..=n).map(BigInt::from).product()))
}

/// `n` choose `k` for small whole numbers.
pub fn binomial(above: &BigRational, below: &BigRational) -> Option<BigRational> {
    let n = small(above).filter(|n| (0..=5000).contains(n))?;
    let k = small(below)?;
    if k < 0 || k > n {
        return Some(BigRational::zero());
    }
    let k = k.min(n - k).min(1000);
    let mut result = BigInt::one();
    for i in 0..k {
        result = result * BigInt::from(n - i) / BigInt::from(i + 1);
    }
    Some(BigRational::from_integer(result))
}

/// The value as a machine integer, if it is one.
pub fn small(value: &BigRational) -> Option<i64> {
    value.is_integer().then(|| value.numer().to_i64()).flatten()
}

/// The nearest double; infinite when out of its range.
pub fn to_f64(value: &BigRational) -> f64 {
    if let (Some(above), Some(below)) = (value.numer().to_i64(), value.denom().to_i64())
        && above.unsigned_abs() < 1 << 53
        && below < 1 << 53
    {
        return above as f64 / below as f64;
    }
    value.to_f64().unwrap_or(f64::NAN)
}

/// `value * 10^decimals`, rounded to an integer, halves to even.
pub fn round_scaled(value: &BigRational, decimals: u32) -> BigInt {
    let (below, rest) = (value.numer() * BigInt::from(10).pow(decimals)).div_mod_floor(value.denom());
    let up = match (rest * 2i32).cmp(value.denom()) {
        Ordering::Less => false,
        Ordering::Equal => below.is_odd(),
        Ordering::Greater => true,
    };
    if up { below + 1 } else { below }
}

/// Prime factors of a positive integer with their powers: small primes by trial division, the rest as one factor.
pub fn factorize(value: &BigInt) -> Option<Vec<(u64, i64)>> {
    let mut factors = Vec::new();
    if value.sign() != Sign::Plus {
        return None;
    }
    // Large radicands are rare; what does not fit 64 bits is left to the numeric comparison.
    let mut rest = value.to_u64()?;
    let mut divisor = 2u64;
    while divisor * divisor <= rest && divisor < 1 << 16 {
        let mut count = 0;
        while rest.is_multiple_of(divisor) {
            rest /= divisor;
            count += 1;
        }
        if count > 0 {
            factors.push((divisor, count));
        }
        divisor += if divisor == 2 { 1 } else { 2 };
    }
    if rest > 1 {
        // Beyond 2^32 the rest may be a square of a prime or a product of two: neither is safe to call prime.
        if rest >= 1 << 32 {
            return None;
        }
        factors.push((rest, 1));
    }
    Some(factors)
}

/// `value mod modulus` with the sign of the modulus.
pub fn modulo(value: &BigRational, modulus: &BigRational) -> Option<BigRational> {
    if modulus.is_zero() {
        return None;
    }
    Some(value - modulus * (value / modulus).floor())
}

/// The greatest common divisor or least common multiple of whole numbers.
pub fn gcd_or_lcm(values: &[BigRational], lcm: bool) -> Option<BigRational> {
    let mut result: Option<BigInt> = None;
    for value in values {
        let value = value.is_integer().then(|| value.numer().abs())?;
        result = Some(match result {
            None => value,
            Some(before) if lcm => num_integer::lcm(before, value),
            Some(before) => num_integer::gcd(before, value),
        });
    }
    result.map(BigRational::from_integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_parse_exactly() {
        let value = |text| parse_decimal(text).unwrap().to_string();
        assert_eq!([value("12"), value("-12.50"), value(".5"), value("1.5E-3")], ["12", "-25/2", "1/2", "3/2000"]);
        assert_eq!(value("123456789012345678901234567890"), "123456789012345678901234567890");
        assert_eq!(parse_decimal(&"9".repeat(DIGITS_MAX + 1)), None);
        assert_eq!(parse_decimal("1E99999"), None);
    }

    #[test]
    fn rounding_takes_halves_to_even() {
        let round = |text| round_scaled(&parse_decimal(text).unwrap(), 0).to_string();
        assert_eq!(["0.5", "1.5", "2.5", "-0.5", "-1.5", "2.51"].map(round), ["0", "2", "2", "0", "-2", "3"]);
    }

    #[test]
    fn powers_stop_at_the_bound() {
        let two = BigRational::from_integer(2.into());
        assert_eq!(power(&two, 10).unwrap().to_string(), "1024");
        assert_eq!(power(&two, -2).unwrap().to_string(), "1/4");
        assert_eq!(power(&two, 1 << 40), None);
        assert_eq!(power(&-BigRational::one(), (1 << 40) + 1), Some(-BigRational::one()));
        assert_eq!(power(&BigRational::zero(), -1), None);
    }

    #[test]
    fn factors_are_prime_or_refused() {
        assert_eq!(factorize(&BigInt::from(360)), Some(vec![(2, 3), (3, 2), (5, 1)]));
        assert_eq!(factorize(&BigInt::from(1)), Some(vec![]));
        assert_eq!(factorize(&BigInt::from(4_294_967_291u64)), Some(vec![(4_294_967_291, 1)]));
        // The square of a prime above the trial bound.
        assert_eq!(factorize(&BigInt::from(65_537u64 * 65_537)), None);
    }
}
