//! Sheet 30-reward-shaping-par.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "30-reward-shaping-par", operations: &[] };
