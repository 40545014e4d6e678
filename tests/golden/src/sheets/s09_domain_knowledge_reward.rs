//! Sheet 09-domain-knowledge-reward.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "09-domain-knowledge-reward", operations: &[] };
