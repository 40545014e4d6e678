//! Sheet 45-rlhf-generalisation-diversity.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "45-rlhf-generalisation-diversity", operations: &[] };
