//! Sheet 43-online-self-preferring.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "43-online-self-preferring", operations: &[] };
