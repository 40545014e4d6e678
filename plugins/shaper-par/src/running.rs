//! Statistics of all rewards so far, one batch after the other.

use plumb_sdk::Fault;

/// Count, moments and extremes of the values seen.
///
/// Batches are merged by Chan et al.'s update ("Algorithms for computing the sample variance", 1983), which loses less to rounding
/// than sums of squares do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    /// Values seen.
    pub count: u64,
    /// Their mean; 0 before the first.
    pub mean: f64,
    /// Sum of their squared distances from the mean.
    pub squares: f64,
    /// The lowest; infinity before the first.
    pub min: f64,
    /// The highest; negative infinity before the first.
    pub max: f64,
}

impl Default for Running {
    fn default() -> Self {
        Running { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Running {
    /// Merges a batch; values that are NaN are none.
    pub fn update(&mut self, values: &[f64]) {
        let known = || values.iter().copied().filter(|value| !value.is_nan());
        let count = known().count() as u64;
        if count == 0 {
            return;
        }
        let mean = known().sum::<f64>() / count as f64;
        let squares: f64 = known().map(|value| (value - mean).powi(2)).sum();
        let (old, total) = (self.count as f64, (self.count + count) as f64);
        let delta = mean - self.mean;
        self.squares += squares + delta * delta * old * count as f64 / total;
        self.mean += delta * count as f64 / total;
        self.count += count;
        self.min = known().fold(self.min, f64::min);
        self.max = known().fold(self.max, f64::max);
    }

    /// Population variance (ddof 0); 0 before the first value.
    pub fn variance(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.squares / self.count as f64 }
    }

    /// All fields, little-endian.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        for value in [self.mean, self.squares, self.min, self.max] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Running::to_bytes`] wrote.
    ///
    /// # Errors
    /// For bytes of another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        let (words, rest) = bytes.as_chunks::<8>();
        let &[count, mean, squares, min, max] = words else {
            return Err(Fault::new("bad-state", format!("the state has {} bytes, expected 40", bytes.len())));
        };
        if !rest.is_empty() {
            return Err(Fault::new("bad-state", format!("the state has {} bytes, expected 40", bytes.len())));
        }
        Ok(Running {
            count: u64::from_le_bytes(count),
            mean: f64::from_le_bytes(mean),
            squares: f64::from_le_bytes(squares),
            min: f64::from_le_bytes(min),
            max: f64::from_le_bytes(max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_in_parts_equals_update_at_once() {
        let values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0];
        let (mut once, mut parts) = (Running::default(), Running::default());
        once.update(&values);
        for part in [&values[..1], &[f64::NAN], &values[1..4], &[], &values[4..]] {
            parts.update(part);
        }
        assert_eq!((once.count, once.min, once.max), (parts.count, parts.min, parts.max));
        assert!((once.mean - parts.mean).abs() < 1e-12);
        assert!((once.variance() - parts.variance()).abs() < 1e-12);
        // By hand: mean 11/6, sum of squares 133.
        assert!((once.variance() - (133.0 / 6.0 - (11.0_f64 / 6.0).powi(2))).abs() < 1e-12);
    }

    #[test]
    fn bytes_are_read_back_and_other_lengths_refused() {
        let mut running = Running::default();
        assert_eq!(Running::from_bytes(&running.to_bytes()).unwrap(), running);
        running.update(&[0.1, 0.2]);
        assert_eq!(Running::from_bytes(&running.to_bytes()).unwrap(), running);
        assert!(Running::from_bytes(&[0; 39]).is_err());
        assert!(Running::from_bytes(&[0; 48]).is_err());
    }
}
