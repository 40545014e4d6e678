//! Sheet 56-vpl.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "56-vpl", operations: &[] };
