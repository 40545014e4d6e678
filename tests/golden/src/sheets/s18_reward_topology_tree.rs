//! Sheet 18-reward-topology-tree.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "18-reward-topology-tree", operations: &[] };
