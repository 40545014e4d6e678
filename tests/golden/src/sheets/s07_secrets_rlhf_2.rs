//! Sheet 07-secrets-rlhf-2.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "07-secrets-rlhf-2", operations: &[] };
