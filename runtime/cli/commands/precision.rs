//! `--precision`: what matrix products are made of.

use clap::ValueEnum;
use plumb_model::engine::Precision;

/// Precisions of matrix products, by PyTorch's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MatmulPrecision {
    /// float32
    Highest,
    /// The sum of two bfloat16 for each number, where that is faster
    #[default]
    High,
    /// One bfloat16 for each number, where that is faster
    Medium,
}

impl From<MatmulPrecision> for Precision {
    fn from(precision: MatmulPrecision) -> Self {
        match precision {
            MatmulPrecision::Highest => Precision::Highest,
            MatmulPrecision::High => Precision::High,
            MatmulPrecision::Medium => Precision::Medium,
        }
    }
}

impl MatmulPrecision {
    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            MatmulPrecision::Highest => "highest",
            MatmulPrecision::High => "high",
            MatmulPrecision::Medium => "medium",
        }
    }
}
