//! Sheet 48-t-reg.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "48-t-reg", operations: &[] };
