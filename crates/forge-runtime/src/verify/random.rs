//! Seeded numbers for inputs: the same on every machine, so that reports compare.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// A stream of its own for each name and number.
    pub fn new(name: &str, number: u64) -> Self {
        // FNV-1a.
        let hash = name
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
        Self(hash ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` to `high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.word() >> 40) as f32 / 16_777_216.0
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// Bits of a half from 1/16 to 2, of either sign.
    pub fn half_bits(&mut self) -> u16 {
        let word = self.word();
        ((word & 0x8000) | (11 + (word >> 16) % 5) << 10 | (word >> 32 & 0x3FF)) as u16
    }
}
