//! Sheet 36-rpo-sft-regularizer.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "36-rpo-sft-regularizer", operations: &[] };
