//! Sheet 13-daa-overoptimisation.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "13-daa-overoptimisation", operations: &[] };
