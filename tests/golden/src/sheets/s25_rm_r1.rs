//! Sheet 25-rm-r1.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "25-rm-r1", operations: &[] };
