//! Sheet 39-teacher-hacking.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "39-teacher-hacking", operations: &[] };
