//! `plumb-kernels`: the loops that cost time, and the workspace's only `unsafe` code.
//!
//! One operation per file under [`cpu`], each with its plain reference first, then the fast path, and a test that holds one to
//! the other on random shapes. All matrices are float32, row-major, without padding.
//!
//! **Invariant.** A result depends on its inputs alone: work is split into blocks whose borders follow from the shapes, every sum
//! has a fixed order, and threads only choose who computes which block. One thread and sixty-four give the same bits.

#![allow(clippy::needless_range_loop, reason = "loops over several arrays keep the formulas' indices")]

pub mod cpu;
