//! Sheet 16-secrets-rlhf-ppo-max.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "16-secrets-rlhf-ppo-max", operations: &[] };
