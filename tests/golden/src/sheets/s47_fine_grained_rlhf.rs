//! Sheet 47-fine-grained-rlhf.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "47-fine-grained-rlhf", operations: &[] };
