//! Sheet 42-cgpo-mixture-of-judges.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "42-cgpo-mixture-of-judges", operations: &[] };
