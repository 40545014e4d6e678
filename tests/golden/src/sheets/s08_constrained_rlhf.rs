//! Sheet 08-constrained-rlhf.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "08-constrained-rlhf", operations: &[] };
