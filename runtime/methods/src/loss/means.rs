//! Means of numbers that only some losses have.

use std::collections::BTreeMap;

/// Running means by the name of their metric; micro-batches add up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Means(BTreeMap<&'static str, (f64, f64)>);

impl Means {
    /// Counts one value.
    pub fn add(&mut self, name: &'static str, value: f64) {
        let (sum, count) = self.0.entry(name).or_default();
        *sum += value;
        *count += 1.0;
    }

    /// The mean of what was counted under a name, if anything was.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(|(sum, count)| sum / count)
    }

    /// Names and means, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().map(|(&name, (sum, count))| (name, sum / count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_values_have_no_mean() {
        let mut means = Means::default();
        [("b", 1.0), ("a", 3.0), ("b", 4.0)].into_iter().for_each(|(name, value)| means.add(name, value));
        assert_eq!(means.iter().collect::<Vec<_>>(), [("a", 3.0), ("b", 2.5)]);
        assert_eq!((means.get("b"), means.get("c")), (Some(2.5), None));
    }
}
