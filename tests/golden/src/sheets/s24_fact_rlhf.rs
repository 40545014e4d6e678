//! Sheet 24-fact-rlhf.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "24-fact-rlhf", operations: &[] };
