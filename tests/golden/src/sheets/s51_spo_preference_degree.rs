//! Sheet 51-spo-preference-degree.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "51-spo-preference-degree", operations: &[] };
