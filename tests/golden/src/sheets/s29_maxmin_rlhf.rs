//! Sheet 29-maxmin-rlhf.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "29-maxmin-rlhf", operations: &[] };
