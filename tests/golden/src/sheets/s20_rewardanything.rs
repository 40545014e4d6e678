//! Sheet 20-rewardanything.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "20-rewardanything", operations: &[] };
