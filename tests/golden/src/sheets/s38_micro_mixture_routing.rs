//! Sheet 38-micro-mixture-routing.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "38-micro-mixture-routing", operations: &[] };
