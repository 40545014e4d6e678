//! Sheet 34-branch-and-rethink-rm.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "34-branch-and-rethink-rm", operations: &[] };
