//! Sheet 01-online-iterative-rlhf.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "01-online-iterative-rlhf", operations: &[] };
