//! Sheet 54-superhf.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "54-superhf", operations: &[] };
