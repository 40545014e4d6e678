//! Sheet 12-reward-ensembles.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "12-reward-ensembles", operations: &[] };
