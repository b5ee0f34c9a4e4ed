//! How matrices of the weights file are packed.

/// How a matrix of the weights file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Binary32, row by row.
    F32,
    /// Binary16, row by row.
    F16,
    /// The upper half of a binary32, row by row.
    BF16,
    /// 8-bit codes less 128; half scale per 32 columns.
    Q8_0,
    /// 4-bit codes less 8; half scale per 32.
    Q4_0,
    /// 4-bit codes; half scale and half minimum per 32.
    Q4_1,
    /// 5-bit codes less 16; half scale per 32.
    Q5_0,
    /// 5-bit codes; half scale and half minimum per 32.
    Q5_1,
    /// 2-bit codes; 4-bit scale and minimum per 16, half factors of both per 256.
    Q2K,
    /// 3-bit codes less 4; 6-bit scale less 32 per 16, half factor per 256.
    Q3K,
    /// 4-bit codes; 6-bit scale and minimum per 32, half factors of both per 256.
    Q4K,
    /// 5-bit codes, scaled as [`Format::Q4K`].
    Q5K,
    /// 6-bit codes less 32; 8-bit scale less 128 per 16, half factor per 256.
    Q6K,
    /// 4-bit codes of fixed levels; half scale per 32.
    Iq4Nl,
    /// 4-bit codes of the same levels; 6-bit scale less 32 per 32, half factor per 256.
    Iq4Xs,
    /// Points of a grid of four; signs and 4-bit scale per 32, half factor per 256.
    Iq3Xxs,
    /// Points of a grid of four; signs, 4-bit scale per 32, half factor per 256.
    Iq3S,
    /// Points of a grid of eight; signs and 4-bit scale per 32, half factor per 256.
    Iq2Xxs,
    /// Points of a larger grid of eight with their signs; 4-bit scale per 16, half factor per 256.
    Iq2Xs,
    /// Points of the largest grid of eight; signs, 4-bit scale per 16, half factor per 256.
    Iq2S,
    /// Points of a grid of -1, 0 and 1, and an eighth; 3-bit scale and the eighth's sign per 32, half factor per 256.
    Iq1S,
    /// Points of the same grid, and an eighth of either sign; 3-bit scale per 16, half factor per 256.
    Iq1M,
    /// E2M1 values; power of two per 32.
    Mxfp4,
    /// Signs; half scale per 128.
    Q1_0,
    /// 2-bit codes less 1; half scale per 64.
    Q2_0,
    /// Digits in base 3 less 1, eight in 13 bits; half factor per 256.
    Tq1_0,
    /// 2-bit codes less 1; half factor per 256.
    Tq2_0,
    /// 2-bit codes less 1; half scale per 128.
    Tq2_0G128,
    /// E4M3 values; binary32 scale per 128.
    E4m3G128,
    /// E4M3 values; binary32 scale per 32.
    E4m3G32,
    /// Codes with a scale and a bias per group.
    Affine {
        /// Bits per code.
        bits: usize,
        /// Columns per scale and bias.
        group: usize,
        /// Scales and biases are bfloats rather than halves.
        bf16: bool,
        /// Zero points in place of biases: scale * (code - zero).
        zeros: bool,
    },
}
