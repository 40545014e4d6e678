//! Parts of the build that the command line shares: turning guests' sources into components.

pub mod borrows;
pub mod c;
pub mod guest;
pub mod javascript;
pub mod python;
pub mod toolchain;
pub mod world;
