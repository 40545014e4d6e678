//! Sheet 50-logicllama.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "50-logicllama", operations: &[] };
