//! Apple's chips and the machine at hand.

use std::process::Command;

/// A chip by the bandwidth of its memory, which is what decoding waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chip {
    /// Apple's name for it.
    pub name: &'static str,
    /// Peak memory bandwidth in GB/s.
    pub bandwidth: u32,
    /// Peak of the GPU's single-precision arithmetic in TFLOP/s, of the most cores that the chip comes with; none where Apple announced none.
    pub tflops: Option<f64>,
}

/// Apple's chips, with figures of Apple's announcements; chips of one name with two memory systems have two rows.
pub const CHIPS: [Chip; 22] = [
    chip("M1", 68).with_tflops(2.6),
    chip("M1 Pro", 200).with_tflops(5.2),
    chip("M1 Max", 400).with_tflops(10.4),
    chip("M1 Ultra", 800).with_tflops(20.8),
    chip("M2", 100).with_tflops(3.6),
    chip("M2 Pro", 200).with_tflops(6.8),
    chip("M2 Max", 400).with_tflops(13.6),
    chip("M2 Ultra", 800).with_tflops(27.2),
    chip("M3", 100),
    chip("M3 Pro", 150),
    chip("M3 Max, 30 cores", 300),
    chip("M3 Max, 40 cores", 400),
    chip("M3 Ultra", 819),
    chip("M4", 120),
    chip("M4 Pro", 273),
    chip("M4 Max, 32 cores", 410),
    chip("M4 Max, 40 cores", 546),
    chip("M5", 153),
    chip("M5 Pro", 307),
    chip("M5 Max, 32 cores", 460),
    chip("M5 Max, 40 cores", 614),
    chip("M5 Ultra (unconfirmed)", 1200),
];

const fn chip(name: &'static str, bandwidth: u32) -> Chip {
    Chip { name, bandwidth, tflops: None }
}

impl Chip {
    const fn with_tflops(self, tflops: f64) -> Self {
        Self { tflops: Some(tflops), ..self }
    }

    /// Stands for a Mac where there is none.
    const USUAL: &str = "M4";

    /// The first of [`CHIPS`] of that name: of two memory systems the slower one unless the cores are named.
    pub fn named(name: &str) -> Option<Self> {
        let family = |chip: &Self| chip.name.split([',', '(']).next().unwrap_or_default().trim();
        let is = |of: fn(&Self) -> &str| CHIPS.into_iter().find(|chip| of(chip).eq_ignore_ascii_case(name.trim()));
        is(|chip| chip.name).or_else(|| CHIPS.into_iter().find(|chip| family(chip).eq_ignore_ascii_case(name.trim())))
    }

    /// That of this Mac; where it is none, or a newer one, one that stands for it.
    pub fn here() -> Self {
        let brand = sysctl("machdep.cpu.brand_string");
        let own = brand.as_deref().and_then(|brand| Self::named(brand.trim().strip_prefix("Apple ")?));
        own.or_else(|| Self::named(Self::USUAL)).expect("a chip of the table")
    }

    /// Tokens a second of a step that reads and writes so many bytes, at most.
    pub fn rate(&self, bytes: u64) -> String {
        rate(self.bandwidth.into(), bytes)
    }
}

/// Tokens a second that a bandwidth in GB/s allows for, of a step that reads and writes so many bytes.
pub fn tokens_per_second(bandwidth: f64, bytes: u64) -> f64 {
    bandwidth * 1e9 / bytes as f64
}

/// [`tokens_per_second`] as people read it.
pub fn rate(bandwidth: f64, bytes: u64) -> String {
    let rate = tokens_per_second(bandwidth, bytes);
    format!("{rate:.0$}", usize::from(rate < 100.0))
}

/// Bytes of this machine's memory that a model may take: of a Mac two thirds, which is the least that its GPU is given; of another
/// machine all.
pub fn usable_memory() -> Option<u64> {
    if cfg!(target_os = "macos") {
        let bytes: u64 = sysctl("hw.memsize")?.trim().parse().ok()?;
        return Some(bytes / 3 * 2);
    }
    memory_total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// A value that macOS has under this name.
fn sysctl(name: &str) -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Chip, memory_total, rate};

    #[test]
    fn chips_are_found_by_name() {
        let bandwidth = |name: &str| Chip::named(name).map(|chip| chip.bandwidth);
        assert_eq!(bandwidth("m4 pro"), Some(273));
        assert_eq!(bandwidth("M4 Max"), Some(410));
        assert_eq!(bandwidth("M4 Max, 40 cores"), Some(546));
        assert_eq!(bandwidth("M5 Ultra"), Some(1200));
        assert_eq!(bandwidth("M"), None);
        assert_eq!(Chip::here(), Chip::here());
    }

    #[test]
    fn memory_and_rates() {
        assert_eq!(memory_total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(memory_total("nothing"), None);
        assert_eq!(rate(100.0, 1_000_000_000), "100");
        assert_eq!(rate(100.0, 3_000_000_000), "33.3");
    }
}
