//! Operations on the CPU.

mod disjoint;
pub mod vector;

pub mod elementwise;
pub mod matmul;

pub mod attention;
pub mod embedding;
pub mod head_norm;
pub mod logprob;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;

pub mod adamw;
pub mod global_norm;

pub mod aligned;
pub mod awake;
pub mod ceilings;
pub mod decode_attention;
pub mod decode_rows;
pub mod isa;
pub mod packed_matmul;
pub mod sample;
pub mod tiles;

#[cfg(test)]
mod testing;
