//! Sheet 23-think-rm.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "23-think-rm", operations: &[] };
