//! What might differ between two runs of the same call, and must not.

use std::arch::wasm32::{memory_grow, memory_size};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use plumb_sdk::reward::Fault;
use plumb_sdk::{kv, random};

#[derive(serde::Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// Memory that nobody wrote, which another guest may have used before; then spoils it for the next one.
    UnwrittenMemory,
    /// Where things lie on the stack and on the heap.
    Addresses,
    /// The seed of the standard library's hash maps, and the order that follows from it.
    HashOrder,
    /// Sign and payload of what computing gives for NaN.
    NanBits,
    /// How many pages memory has, and at which size it stops growing.
    MemoryLimits,
    /// How deep the stack goes until memory for it would end; told by the addresses of its frames.
    StackAddresses,
    /// Whether a value that an earlier call of this step wrote can be seen.
    ReadAfterWrite,
    /// Random numbers under one name in every call.
    UnkeyedRandom,
}

impl Probe {
    /// Bits that say what was seen.
    pub fn look(self) -> Result<u64, Fault> {
        Ok(match self {
            Probe::UnwrittenMemory => {
                let page = memory_grow::<0>(4);
                let fresh = black_box(page * 65_536) as *mut u64;
                let words = 4 * 65_536 / 8;
                // SAFETY: these four pages were given to this function a moment ago.
                let memory = unsafe { std::slice::from_raw_parts_mut(fresh, words) };
                let seen = memory.iter().fold(0u64, |seen, word| seen.rotate_left(1) ^ black_box(*word));
                memory.fill(0xdead_beef_dead_beef);
                black_box(&memory);
                seen
            }
            Probe::Addresses => {
                let (here, there) = (black_box(0u8), black_box(Box::new(0u8)));
                (&raw const here as u64) << 20 ^ (&raw const *there as u64) ^ Probe::look as *const () as u64
            }
            Probe::HashOrder => {
                let map: HashMap<u64, u64> = (0..100).map(|i| (i, i)).collect();
                let order = map.keys().fold(0u64, |order, key| order.wrapping_mul(31).wrapping_add(*key));
                let set: HashSet<&str> = ["a", "b", "c", "d"].into();
                set.iter()
                    .fold(order ^ RandomState::new().hash_one(1), |order, text| order.rotate_left(7) ^ text.as_bytes()[0] as u64)
            }
            Probe::NanBits => {
                let zero = black_box(0.0f64);
                let made = [
                    zero / zero,
                    f64::INFINITY - black_box(f64::INFINITY),
                    black_box(-1.0f64).sqrt(),
                    f64::from_bits(0x7ff4_dead_beef_0001) + zero,
                ];
                let narrow = [black_box(0.0f32) / 0.0, black_box(made[3]) as f32];
                made.iter().fold(0, |bits: u64, nan| bits.rotate_left(9) ^ nan.to_bits())
                    ^ narrow.iter().fold(0, |bits, nan| bits << 3 ^ u64::from(nan.to_bits()))
            }
            Probe::MemoryLimits => {
                let before = memory_size::<0>();
                while memory_grow::<0>(1) != usize::MAX {}
                (before as u64) << 32 | memory_size::<0>() as u64
            }
            Probe::StackAddresses => lowest(1000),
            Probe::ReadAfterWrite => {
                let seen = kv::keys("").len() as u64 + kv::get("seen").map_or(0, |bytes| bytes.len() as u64);
                kv::set("seen", &[1; 7])?;
                seen
            }
            Probe::UnkeyedRandom => random::draw("one", 0, 1)[0],
        })
    }
}

fn lowest(depth: u32) -> u64 {
    let frame = black_box([depth; 16]);
    let here = &raw const frame as u64;
    if depth == 0 { here } else { here.min(lowest(depth - 1)) }
}
