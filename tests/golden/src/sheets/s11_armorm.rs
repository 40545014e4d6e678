//! Sheet 11-armorm.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "11-armorm", operations: &[] };
