//! Sheet 05-reward-robust-brme.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "05-reward-robust-brme", operations: &[] };
