//! Sheet 15-tool-augmented-rm.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "15-tool-augmented-rm", operations: &[] };
