//! Sheet 46-dr-po.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "46-dr-po", operations: &[] };
