//! Sheet 55-health-text-simplification.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "55-health-text-simplification", operations: &[] };
