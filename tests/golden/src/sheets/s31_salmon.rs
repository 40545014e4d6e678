//! Sheet 31-salmon.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "31-salmon", operations: &[] };
