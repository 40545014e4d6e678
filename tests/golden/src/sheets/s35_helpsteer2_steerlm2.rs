//! Sheet 35-helpsteer2-steerlm2.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "35-helpsteer2-steerlm2", operations: &[] };
