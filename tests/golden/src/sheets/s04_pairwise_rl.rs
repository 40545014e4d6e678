//! Sheet 04-pairwise-rl.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "04-pairwise-rl", operations: &[] };
