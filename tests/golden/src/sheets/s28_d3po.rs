//! Sheet 28-d3po.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "28-d3po", operations: &[] };
