//! Sheet 03-dpa.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "03-dpa", operations: &[] };
