//! Sheet 19-openrubrics.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "19-openrubrics", operations: &[] };
