//! Sheet 27-dpo.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "27-dpo", operations: &[] };
