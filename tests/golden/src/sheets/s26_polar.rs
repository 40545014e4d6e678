//! Sheet 26-polar.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "26-polar", operations: &[] };
