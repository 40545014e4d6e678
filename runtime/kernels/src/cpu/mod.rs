//! Operations on the CPU.

pub mod matmul;

#[cfg(test)]
mod testing;
