//! Sheet 06-reward-calibration-ppo-m-c.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "06-reward-calibration-ppo-m-c", operations: &[] };
