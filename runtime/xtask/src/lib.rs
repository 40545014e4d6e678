//! Parts of the build that the command line shares: turning guest crates into components.

pub mod guest;
pub mod toolchain;
