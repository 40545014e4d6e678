//! Sheet 21-reward-consistency.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "21-reward-consistency", operations: &[] };
