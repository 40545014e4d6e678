//! Sheet 22-dpo-implicit-rm.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "22-dpo-implicit-rm", operations: &[] };
