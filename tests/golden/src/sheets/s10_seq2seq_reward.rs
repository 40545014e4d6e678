//! Sheet 10-seq2seq-reward.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "10-seq2seq-reward", operations: &[] };
