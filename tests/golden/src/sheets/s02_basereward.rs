//! Sheet 02-basereward.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "02-basereward", operations: &[] };
