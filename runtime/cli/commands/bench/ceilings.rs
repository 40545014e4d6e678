//! What the machine can do at most, measured in the same run.

use plumb_kernels::cpu::ceilings::{bf16_peak, f32_peak, read_bandwidth};
use plumb_kernels::cpu::isa::Isa;
use plumb_model::rollout::WeightFormat;
use serde_json::{Value, json};

use super::CommonArgs;
use super::report::number;
use crate::commands::precision::MatmulPrecision;
use crate::system;

const MIB: usize = 1 << 20;

/// Rates of this machine, in 10⁹ a second.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    array_mib: usize,
    read_1_thread: f64,
    read: f64,
    f32_1_thread: f64,
    f32: f64,
    bf16: Option<f64>,
}

impl Ceilings {
    /// Measures for about a second. The array that is read is gone afterwards.
    pub fn measure(args: &CommonArgs) -> Self {
        let array_mib = args.ceiling_mib.unwrap_or_else(array_mib);
        let threads = rayon::current_num_threads();
        let read = |threads| read_bandwidth(array_mib * MIB, threads) / 1e9;
        Ceilings {
            array_mib,
            read_1_thread: read(1),
            read: read(threads),
            f32_1_thread: f32_peak(1) / 1e9,
            f32: f32_peak(threads) / 1e9,
            bf16: bf16_peak(threads).map(|peak| peak / 1e9),
        }
    }

    /// Measures again, since the machine may drift meanwhile, and keeps the better of each.
    #[must_use]
    pub fn again(self, args: &CommonArgs) -> Self {
        let after = Self::measure(args);
        Ceilings {
            array_mib: self.array_mib,
            read_1_thread: self.read_1_thread.max(after.read_1_thread),
            read: self.read.max(after.read),
            f32_1_thread: self.f32_1_thread.max(after.f32_1_thread),
            f32: self.f32.max(after.f32),
            bf16: self.bf16.zip(after.bf16).map(|(before, after)| before.max(after)),
        }
    }

    /// Bytes a second that all threads read, in 10⁹.
    pub fn read_gb_per_s(&self) -> f64 {
        self.read
    }

    /// Operations a second of all threads in products of this precision with weights of this format, in 10⁹: a product of a higher precision than
    /// `medium` is several of bfloat16.
    pub fn gflop_per_s(&self, weights: WeightFormat, precision: MatmulPrecision) -> f64 {
        let products = match (weights, precision) {
            (WeightFormat::Int8, _) | (_, MatmulPrecision::Highest) => return self.f32,
            (WeightFormat::F32, MatmulPrecision::High) => 3.0,
            (WeightFormat::Bf16, MatmulPrecision::High) => 2.0,
            (_, MatmulPrecision::Medium) => 1.0,
        };
        self.bf16.map_or(self.f32, |bf16| bf16 / products)
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        json!({
            "instructions": Isa::detect().name(), "read_array_mib": self.array_mib,
            "read_gb_per_s_1_thread": self.read_1_thread, "read_gb_per_s": self.read,
            "f32_gflop_per_s_1_thread": self.f32_1_thread, "f32_gflop_per_s": self.f32, "bf16_gflop_per_s": self.bf16,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let bf16 = self.bf16.map_or_else(String::new, |bf16| format!(", bfloat16 {} GFLOP/s", number(bf16)));
        format!(
            "reading {} MiB {} GB/s (1 thread {}), float32 {} GFLOP/s (1 thread {}){bf16}, {}",
            self.array_mib,
            number(self.read),
            number(self.read_1_thread),
            number(self.f32),
            number(self.f32_1_thread),
            Isa::detect().name()
        )
    }
}

/// Four times the last-level cache, so that little of it stays there from pass to pass; at most 1 GiB and an eighth of what is free.
fn array_mib() -> usize {
    let cache = system::last_level_cache_bytes().unwrap_or(32 << 20).div_ceil(MIB as u64);
    let free = system::memory_mib().map_or(1024, |(_, available)| available / 8);
    (4 * cache).min(1024).min(free).max(16) as usize
}
