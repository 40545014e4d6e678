//! float32 products on the matrix unit of Intel processors (AMX), which multiplies tiles of bfloat16 sixteen times as fast as the vector units
//! multiply float32.
//!
//! A float32 is split into the bfloat16 nearest to it and the bfloat16 nearest to what is left, `x ≈ high + low` with 16 bits of
//! mantissa, and a product of two of them is the sum of three products of tiles: `high·high + low·high + high·low`. What is left
//! out, `low·low`, is below 2⁻¹⁶ of the product. With [`Planes::One`] only the first is kept, 8 bits of mantissa.
//! (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019.)
//!
//! **Invariant.** An element of the result is one chain over k, [`TILE_K`] steps at a time, whatever the other rows and columns are:
//! [`dot_reference`] is that chain as code. So a row's bits do not depend on the rows beside it or on threads. They are this unit's
//! bits: a machine without it gets [`super::matmul`]'s.
#![expect(unsafe_code, reason = "instructions that the compiler does not know, on buffers of packed tiles")]

mod pack;
mod product;
#[cfg(test)]
mod tests;

pub(super) use pack::{Form, Source, pack_tile};
pub(super) use product::{PackedB, matmul_tiles, peak_work};

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a tile of `a`, and columns of a tile of `b`.
pub(super) const TILE: usize = 16;
/// Steps of k in a tile: 64 bytes of bfloat16.
pub(super) const TILE_K: usize = 32;
/// Elements of a packed tile, 1 KiB.
pub(super) const TILE_LEN: usize = TILE * TILE_K;
/// Rows, and columns, of the block of results that the unit's eight registers hold beside the operands: two tiles.
pub(super) const BLOCK: usize = 2 * TILE;

/// How many bfloat16 stand for a float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planes {
    /// The nearest one.
    One,
    /// That and the nearest to the rest.
    Two,
}

impl Planes {
    /// Their number.
    pub(super) const fn count(self) -> usize {
        match self {
            Planes::One => 1,
            Planes::Two => 2,
        }
    }
}

/// A matrix unit that this process may use: it can only be made by asking the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amx(());

impl Amx {
    /// The unit, where the processor has one and the system lets the process use it. The answer is found once.
    pub fn detect() -> Option<Self> {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        ANSWER.get_or_init(granted).then_some(Amx(()))
    }
}

/// Asks the processor, then the system: the registers are 8 KiB a thread, and Linux saves them only for processes that said they want it.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn granted() -> bool {
    use std::arch::x86_64::__cpuid_count;

    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let vectors = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512bf16");
    let edx = __cpuid_count(7, 0).edx;
    // SAFETY: the call takes two numbers and changes what the system saves of this process's registers, nothing else.
    vectors
        && edx & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE
        && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } == 0
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn granted() -> bool {
    false
}

/// The tile registers of the current thread, all eight of 16 rows and 64 bytes, for as long as this lives.
pub(super) struct Configured(());

impl Configured {
    #[cfg(target_arch = "x86_64")]
    pub(super) fn new(_: Amx) -> Self {
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.row_bytes[..8].fill((TILE_K * 2) as u16);
        config.rows[..8].fill(TILE as u8);
        // SAFETY: the machine has tiles, as `Amx` says; the instruction reads 64 bytes.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags)) };
        Configured(())
    }

    /// No machine without x86-64 can make an [`Amx`].
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn new(_: Amx) -> Self {
        unreachable!("there are no tiles");
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: only made on a machine with tiles. Without it the system would go on saving 8 KiB at each switch of this thread.
        unsafe {
            asm!("tilerelease", options(nomem, nostack, preserves_flags));
        }
    }
}

/// Packed operands of a block of results: tile after tile along k, and of each tile its planes.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// Both tiles of rows of `a`, `[k tiles][planes][TILE][TILE_K]` each. The second may be the first again when there is only one.
    pub a: [*const u16; 2],
    pub a_planes: Planes,
    /// A panel of [`BLOCK`] columns of `b`: `[k tiles][planes][2 tiles][TILE_K / 2][TILE][2]`.
    pub b: *const u16,
    pub b_planes: Planes,
    pub k_tiles: usize,
}

/// `out[32, 32] = a[32, k] · b[k, 32]`.
pub(super) type Block = [[f32; BLOCK]; BLOCK];

/// The instructions of one step of k, between the labels of a loop. Registers: 0 to 3 sums, 4 and 5 rows, 6 and 7 columns.
#[cfg(target_arch = "x86_64")]
macro_rules! product_loop {
    ($operands:expr, $out:expr, rows: $rows:tt, a: $a:tt, b: $b:tt) => {{
        let Operands { a: [a0, a1], b, k_tiles, .. } = $operands;
        asm!(
            "tilezero tmm0", "tilezero tmm1",
            product_loop!(@rows $rows, "tilezero tmm2\ntilezero tmm3"),
            "2:",
            "tileloadd tmm6, [{b} + {stride}]",
            "tileloadd tmm4, [{a0} + {stride}]",
            "tileloadd tmm7, [{b} + {stride} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            product_loop!(@rows $rows, "tileloadd tmm5, [{a1} + {stride}]\ntdpbf16ps tmm2, tmm5, tmm6\ntdpbf16ps tmm3, tmm5, tmm7"),
            product_loop!(@two $a, "tileloadd tmm4, [{a0} + {stride} + 1024]\ntdpbf16ps tmm0, tmm4, tmm6\ntdpbf16ps tmm1, tmm4, tmm7"),
            product_loop!(@rows_two $rows $a, "tileloadd tmm5, [{a1} + {stride} + 1024]\ntdpbf16ps tmm2, tmm5, tmm6\ntdpbf16ps tmm3, tmm5, tmm7"),
            product_loop!(@two $b, "tileloadd tmm6, [{b} + {stride} + 2048]\ntileloadd tmm4, [{a0} + {stride}]\n\
                tileloadd tmm7, [{b} + {stride} + 3072]\ntdpbf16ps tmm0, tmm4, tmm6\ntdpbf16ps tmm1, tmm4, tmm7"),
            product_loop!(@rows_two $rows $b, "tileloadd tmm5, [{a1} + {stride}]\ntdpbf16ps tmm2, tmm5, tmm6\ntdpbf16ps tmm3, tmm5, tmm7"),
            "add {a0}, {a_step}",
            "add {a1}, {a_step}",
            "add {b}, {b_step}",
            "dec {k}",
            "jnz 2b",
            "tilestored [{out} + {out_stride}], tmm0",
            "tilestored [{out} + {out_stride} + 64], tmm1",
            product_loop!(@rows $rows, "tilestored [{out} + {out_stride} + 2048], tmm2\ntilestored [{out} + {out_stride} + 2112], tmm3"),
            a0 = inout(reg) a0 => _,
            a1 = inout(reg) a1 => _,
            b = inout(reg) b => _,
            k = inout(reg) k_tiles => _,
            out = in(reg) $out,
            stride = in(reg) 64_usize,
            out_stride = in(reg) BLOCK * 4,
            a_step = const product_loop!(@planes $a) * 1024,
            b_step = const product_loop!(@planes $b) * 2048,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    }};
    (@rows 1, $text:expr) => { "" };
    (@rows 2, $text:expr) => { $text };
    (@two 1, $text:expr) => { "" };
    (@two 2, $text:expr) => { $text };
    (@rows_two 2 2, $text:expr) => { $text };
    (@rows_two $rows:tt $two:tt, $text:expr) => { "" };
    (@planes 1) => { 1 };
    (@planes 2) => { 2 };
}

/// Computes a block. `rows` is the number of row tiles, 1 or 2; with 1 only the first 16 rows of `out` are written.
///
/// # Safety
/// The pointers of `operands` lead to as many tiles as they say (of `a`, `rows` of them); `k_tiles` is not 0.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn multiply_block(_: &Configured, operands: Operands, rows: usize, out: &mut Block) {
    let out = out.as_mut_ptr();
    // SAFETY: the loop reads `k_tiles` tiles of each operand, which the caller vouches for, and writes the 32 × 32 floats of `out`.
    unsafe {
        match (rows, operands.a_planes, operands.b_planes) {
            (1, Planes::One, Planes::One) => product_loop!(operands, out, rows: 1, a: 1, b: 1),
            (1, Planes::Two, Planes::One) => product_loop!(operands, out, rows: 1, a: 2, b: 1),
            (1, Planes::One, Planes::Two) => product_loop!(operands, out, rows: 1, a: 1, b: 2),
            (1, Planes::Two, Planes::Two) => product_loop!(operands, out, rows: 1, a: 2, b: 2),
            (_, Planes::One, Planes::One) => product_loop!(operands, out, rows: 2, a: 1, b: 1),
            (_, Planes::Two, Planes::One) => product_loop!(operands, out, rows: 2, a: 2, b: 1),
            (_, Planes::One, Planes::Two) => product_loop!(operands, out, rows: 2, a: 1, b: 2),
            (_, Planes::Two, Planes::Two) => product_loop!(operands, out, rows: 2, a: 2, b: 2),
        }
    }
}

/// No machine without x86-64 can make an [`Amx`].
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn multiply_block(_: &Configured, _: Operands, _: usize, _: &mut Block) {
    unreachable!("there are no tiles");
}

/// The plain reference of an element of a product: what the unit does to one row of `a` and one column of `b`.
///
/// For each tile of k, and in it for each product of planes, even and odd steps are two chains of fused multiply-adds from 0; their sum is added to the
/// result. The unit takes subnormal numbers for 0 and rounds to nearest, ties to even (Intel's manual, `TDPBF16PS`).
pub fn dot_reference(a: &[f32], a_planes: Planes, b: &[f32], b_planes: Planes) -> f32 {
    let mut sum = 0.0_f32;
    let split = |x: f32| {
        let high = half::bf16::from_f32(x).to_f32();
        [high, half::bf16::from_f32(x - high).to_f32()]
    };
    for (a, b) in a.chunks(TILE_K).zip(b.chunks(TILE_K)) {
        for (of_a, of_b) in [(0, 0), (1, 0), (0, 1)] {
            if of_a >= a_planes.count() || of_b >= b_planes.count() {
                continue;
            }
            let mut chains = [0.0_f32; 2];
            for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
                chains[i % 2] = flush(split(a)[of_a].mul_add(split(b)[of_b], chains[i % 2]));
            }
            sum = flush(sum + flush(chains[0] + chains[1]));
        }
    }
    sum
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0 } else { x }
}
