//! Sheet 41-mm-rlhf.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "41-mm-rlhf", operations: &[] };
