//! Sheet 44-vpo.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "44-vpo", operations: &[] };
