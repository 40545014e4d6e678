//! Sheet 53-heron.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "53-heron", operations: &[] };
