//! Sheet 17-raft.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "17-raft", operations: &[] };
