//! Which vector instructions this machine has, and how one plain loop is compiled for each of them.
//!
//! Rust neither contracts nor reorders float operations, so a loop that spells out its fused multiply-adds and its order of
//! summation gives the same bits in every version. That is what rollouts' reproducibility stands on.

/// A set of vector instructions that this machine has: it can only be made by asking the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The widest set.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512() {
                return Isa(Kind::Avx512);
            }
            if has_avx2() {
                return Isa(Kind::Avx2);
            }
        }
        Isa(Kind::Portable)
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "AVX2",
            Kind::Portable => "portable",
        }
    }

    /// Every set this machine has, for tests that hold one to the other.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Isa(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                all.push(Isa(Kind::Avx2));
            }
            if has_avx512() {
                all.push(Isa(Kind::Avx512));
            }
        }
        all
    }
}

// The standard library caches the answers, so asking costs a load and a test.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && has_avx2()
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Compiles the `#[inline(always)]` function `$body` once per instruction set, and makes `$name(isa, ...)` choose among them.
macro_rules! for_each_isa {
    ($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$meta])*
        #[allow(unsafe_code, reason = "calls a function compiled for instructions that the machine was asked for")]
        pub fn $name(isa: $crate::cpu::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                match isa.0 {
                    // SAFETY: an `Isa` is only made after the machine said that it has these instructions.
                    $crate::cpu::isa::Kind::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::isa::Kind::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::isa::Kind::Portable => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            $body($($arg),*)
        }
    };
}

pub(crate) use for_each_isa;
