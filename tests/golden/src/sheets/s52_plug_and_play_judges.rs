//! Sheet 52-plug-and-play-judges.

use crate::Sheet;

/// The sheet's operations.
pub const SHEET: Sheet = Sheet { method: "52-plug-and-play-judges", operations: &[] };
