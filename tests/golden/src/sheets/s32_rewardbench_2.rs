//! Sheet 32-rewardbench-2.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "32-rewardbench-2", operations: &[] };
