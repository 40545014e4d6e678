//! Sheet 14-rewardmath.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "14-rewardmath", operations: &[] };
