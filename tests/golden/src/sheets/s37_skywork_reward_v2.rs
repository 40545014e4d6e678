//! Sheet 37-skywork-reward-v2.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "37-skywork-reward-v2", operations: &[] };
