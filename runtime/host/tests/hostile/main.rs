//! Guests that attack. Whatever they do: their rows have a typed fault, all other rows keep their values to the bit, the plugin beside
//! them answers as before, and the host gives back what they took.
//!
//! A binary of its own, with one test at a time, since it measures its process.

mod answers; // what compiled guests return, and what they do to their imports
mod judges; // turns and verdicts
mod raw; // components that no toolchain makes
mod refused; // files that are not loaded
mod repeat; // what must not differ between two runs
mod soak; // many calls
mod support;
mod tools; // what plugins call
