//! Sheet 33-goal-conditioned-rm.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "33-goal-conditioned-rm", operations: &[] };
