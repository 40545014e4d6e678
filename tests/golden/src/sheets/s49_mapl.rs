//! Sheet 49-mapl.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "49-mapl", operations: &[] };
