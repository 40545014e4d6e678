//! Sheet 40-pf-ppo.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "40-pf-ppo", operations: &[] };
