//! What the machine offers and what this process uses of it.

/// The most memory that this process has held so far, in MiB; None where the system does not say.
pub fn peak_rss_mib() -> Option<f64> {
    status_kib("/proc/self/status", "VmHWM:").map(|kib| kib as f64 / 1024.0)
}

/// Memory of the machine in MiB: all, and what is free for programs.
pub fn memory_mib() -> Option<(u64, u64)> {
    let read = |field| status_kib("/proc/meminfo", field).map(|kib| kib / 1024);
    Some((read("MemTotal:")?, read("MemAvailable:")?))
}

fn status_kib(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// Watches the most memory that the process holds from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct PeakRss {
    is_reset: bool,
}

impl PeakRss {
    /// Begins: what was held before does not count any more.
    pub fn start() -> Self {
        // "5" sets the peak to what is held now: proc_pid_clear_refs(5).
        PeakRss { is_reset: std::fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The most so far, in MiB; None where the system does not say.
    pub fn mib(self) -> Option<f64> {
        peak_rss_mib().filter(|_| self.is_reset)
    }
}

/// Bytes of the last-level cache; None where the system does not say.
pub fn last_level_cache_bytes() -> Option<u64> {
    let levels = (0..8).map(|i| format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size"));
    let sizes = levels.filter_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let (number, unit) = text.trim().split_at(text.trim().len().checked_sub(1)?);
        let scale = match unit {
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => return None,
        };
        Some(number.parse::<u64>().ok()? * scale)
    });
    sizes.max()
}

/// What a CPU has that decides how fast this program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// As Rust names it: `x86_64`, `aarch64`, ...
    pub arch: &'static str,
    /// Cores that this process may use.
    pub cores: usize,
    /// Vector and matrix instructions, as Linux names them.
    pub features: Vec<&'static str>,
}

impl Cpu {
    /// This machine's.
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Cpu { arch: std::env::consts::ARCH, cores, features: cpu_features() }
    }

    fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }

    /// The widest vector instructions that kernels use here: see [`plumb_kernels::cpu::isa`].
    pub fn vectors(&self) -> &'static str {
        match self.arch {
            "x86_64" if self.has("avx2") && self.has("fma") && self.has("avx512f") => "AVX-512",
            "x86_64" if self.has("avx2") && self.has("fma") => "AVX2",
            "aarch64" => "NEON",
            _ => "portable",
        }
    }

    /// Why this machine is slower than others: a sentence for each reason, none on a machine that has it all.
    pub fn slower(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.vectors() == "portable" {
            reasons.push(
                "no AVX2 with FMA, so kernels run portable code; results are the same, expect a fraction of the speed".to_owned(),
            );
        }
        if self.cores == 1 {
            reasons.push(
                "one core, so rewards and decoding share it and nothing runs side by side; results are the same".to_owned(),
            );
        }
        reasons
    }
}

/// Vector and matrix instructions of this processor, as Linux names them.
fn cpu_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("f16c", is_x86_feature_detected!("f16c")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512_vnni", is_x86_feature_detected!("avx512vnni")),
            ("avx512_bf16", is_x86_feature_detected!("avx512bf16")),
        ];
        found.extend(all.into_iter().filter_map(|(name, there)| there.then_some(name)));
        // Of these the kernel says whether it lets programs use them.
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags: Vec<&str> =
            flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default().split_whitespace().collect();
        found.extend(["avx_vnni", "amx_tile", "amx_bf16", "amx_int8"].into_iter().filter(|name| flags.contains(name)));
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push("neon");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cores: usize, features: &[&'static str]) -> Cpu {
        Cpu { arch: "x86_64", cores, features: features.to_vec() }
    }

    #[test]
    fn cpus_without_avx2_or_with_one_core_are_called_slower() {
        let old = cpu(4, &["f16c"]);
        assert_eq!(old.vectors(), "portable");
        assert!(matches!(&old.slower()[..], [reason] if reason.starts_with("no AVX2")), "{:?}", old.slower());
        let narrow = cpu(1, &["avx2", "fma"]);
        assert_eq!(narrow.vectors(), "AVX2");
        assert!(matches!(&narrow.slower()[..], [reason] if reason.starts_with("one core")), "{:?}", narrow.slower());
        assert_eq!(cpu(1, &["avx2"]).slower().len(), 2, "AVX2 without FMA does not help");
    }

    #[test]
    fn cpus_that_have_it_all_are_not_called_slower() {
        let wide = cpu(2, &["avx2", "fma", "avx512f"]);
        assert_eq!((wide.vectors(), wide.slower()), ("AVX-512", Vec::new()));
        let arm = Cpu { arch: "aarch64", cores: 8, features: vec!["neon"] };
        assert_eq!((arm.vectors(), arm.slower()), ("NEON", Vec::new()));
    }

    #[test]
    fn this_machine_is_described_as_the_kernels_see_it() {
        let here = Cpu::here();
        assert!(here.cores > 0);
        if here.arch == "x86_64" {
            assert_eq!(here.vectors(), plumb_kernels::cpu::isa::Isa::detect().name());
        }
    }

    #[test]
    fn peak_memory_counts_from_its_start() {
        let before = PeakRss::start();
        let held = vec![1_u8; 64 << 20];
        std::hint::black_box(&held);
        if let Some(peak) = before.mib() {
            assert!(peak >= 64.0, "{peak}");
        }
    }
}
