//! The names and sizes of the weight formats.

use std::fmt;
use std::str::FromStr;

use crate::FormatError;

/// How the weights of a matrix are stored in a checkpoint.
///
/// A row is a whole number of blocks; rows follow one another without padding. Names without a comment are GGML's
/// (`block_q8_0` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// `block_q8_0`: f16 scale, 32 signed bytes.
    Q8_0,
    /// `block_q4_0`: f16 scale, 32 nibbles minus 8.
    Q4_0,
    /// `block_q4_1`: f16 scale, f16 minimum, 32 nibbles.
    Q4_1,
    /// `block_q5_0`: f16 scale, 32 fifth bits, 32 nibbles, minus 16.
    Q5_0,
    /// `block_q5_1`: f16 scale, f16 minimum, 32 fifth bits, 32 nibbles.
    Q5_1,
    /// `block_q2_K`: 16 sub-blocks of 16 with 4-bit scales and minimums.
    Q2K,
    /// `block_q3_K`: 16 sub-blocks of 16 with signed 6-bit scales.
    Q3K,
    /// `block_q4_K`: 8 sub-blocks of 32 with 6-bit scales and minimums.
    Q4K,
    /// `block_q5_K`: 8 sub-blocks of 32 with 6-bit scales and minimums.
    Q5K,
    /// `block_q6_K`: 16 sub-blocks of 16 with signed 8-bit scales.
    Q6K,
    /// `block_iq4_nl`: f16 scale, 32 nibbles into a fixed table of 16 values.
    Iq4Nl,
    /// `block_mxfp4`: E8M0 scale, 32 E2M1 values (OCP Microscaling Formats 1.0).
    Mxfp4,
    /// `block_q1_0`: f16 scale, 128 sign bits.
    Q1_0,
    /// TQ2_0_g128 of OxiBonsai: 128 2-bit codes in order, f16 scale last.
    Tq2_0G128,
    /// MLX's affine quantisation: `scale * code + bias` per group; codes, scales and biases are three tensors.
    Affine {
        /// Bits per code: 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// Weights per scale and bias: 32, 64 or 128.
        group: u16,
    },
}

/// Every format but affine, with its name.
const NAMES: [(Format, &str); 17] = [
    (Format::F32, "F32"),
    (Format::F16, "F16"),
    (Format::BF16, "BF16"),
    (Format::Q8_0, "Q8_0"),
    (Format::Q4_0, "Q4_0"),
    (Format::Q4_1, "Q4_1"),
    (Format::Q5_0, "Q5_0"),
    (Format::Q5_1, "Q5_1"),
    (Format::Q2K, "Q2_K"),
    (Format::Q3K, "Q3_K"),
    (Format::Q4K, "Q4_K"),
    (Format::Q5K, "Q5_K"),
    (Format::Q6K, "Q6_K"),
    (Format::Iq4Nl, "IQ4_NL"),
    (Format::Mxfp4, "MXFP4"),
    (Format::Q1_0, "Q1_0"),
    (Format::Tq2_0G128, "TQ2_0_g128"),
];

/// Bits per code that MLX's affine quantisation has.
const AFFINE_BITS: [u8; 6] = [2, 3, 4, 5, 6, 8];
/// Group sizes that MLX's affine quantisation has.
const AFFINE_GROUPS: [u16; 3] = [32, 64, 128];

impl Format {
    /// Every format: the block formats, then affine in all its bit widths and group sizes.
    pub fn all() -> impl Iterator<Item = Self> {
        let affine = AFFINE_BITS
            .into_iter()
            .flat_map(|bits| AFFINE_GROUPS.into_iter().map(move |group| Self::Affine { bits, group }));
        NAMES.into_iter().map(|(format, _)| format).chain(affine)
    }

    /// The affine format of these settings.
    ///
    /// # Errors
    /// Bits or a group size that MLX does not have.
    pub fn affine(bits: u32, group: u32) -> Result<Self, FormatError> {
        let known_bits = AFFINE_BITS.into_iter().find(|&b| u32::from(b) == bits);
        let known_group = AFFINE_GROUPS.into_iter().find(|&g| u32::from(g) == group);
        match (known_bits, known_group) {
            (Some(bits), Some(group)) => Ok(Self::Affine { bits, group }),
            _ => Err(FormatError::UnsupportedAffine { bits, group }),
        }
    }

    /// Weights per block; 1 for the float formats, the group size for affine.
    pub const fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Iq4Nl | Self::Mxfp4 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
            Self::Q1_0 | Self::Tq2_0G128 => 128,
            Self::Affine { group, .. } => group as usize,
        }
    }

    /// Bytes per block; for affine those of a group's codes with a 16-bit scale and bias.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 2 + 32,
            Self::Q4_0 | Self::Iq4Nl => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 2 + 2 + 4 + 16,
            Self::Q2K => 16 + 64 + 2 + 2,
            Self::Q3K => 32 + 64 + 12 + 2,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
            Self::Mxfp4 => 1 + 16,
            Self::Q1_0 => 2 + 16,
            Self::Tq2_0G128 => 32 + 2,
            Self::Affine { bits, group } => group as usize * bits as usize / 8 + 4,
        }
    }

    /// Bytes of a row of `cols` weights; `None` when that is not a whole number of blocks (or beyond `usize`).
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_elements()) {
            return None;
        }
        (cols / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// Whether the weights are plain floats: F32, F16 or BF16.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Affine { bits, group } = self {
            return f.pad(&format!("affine{bits}_g{group}"));
        }
        let name = NAMES.iter().find(|(format, _)| format == self).map_or("?", |(_, name)| name);
        f.pad(name)
    }
}

impl FromStr for Format {
    type Err = FormatError;

    /// Parses a name as `Display` prints it, in any case; `mlx4` is 4-bit affine in groups of 64, as mlx-lm writes it.
    fn from_str(name: &str) -> Result<Self, FormatError> {
        let unknown = || FormatError::UnknownName { name: name.to_owned() };
        if let Some((format, _)) = NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)) {
            return Ok(*format);
        }
        let lower = name.to_ascii_lowercase();
        if let Some(bits) = lower.strip_prefix("mlx") {
            return Self::affine(bits.parse().map_err(|_| unknown())?, 64);
        }
        let (bits, group) = lower.strip_prefix("affine").and_then(|rest| rest.split_once("_g")).ok_or_else(unknown)?;
        Self::affine(bits.parse().map_err(|_| unknown())?, group.parse().map_err(|_| unknown())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for format in Format::all() {
            assert_eq!(format.to_string().parse(), Ok(format));
            assert_eq!(format.to_string().to_lowercase().parse(), Ok(format));
        }
        assert_eq!("mlx4".parse(), Ok(Format::Affine { bits: 4, group: 64 }));
        assert_eq!(format!("{:>6}", Format::Q4K), "  Q4_K");
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!("IQ2_XXS".parse::<Format>(), Err(FormatError::UnknownName { name: "IQ2_XXS".into() }));
        assert_eq!("mlx7".parse::<Format>(), Err(FormatError::UnsupportedAffine { bits: 7, group: 64 }));
        assert_eq!("affine4_g48".parse::<Format>(), Err(FormatError::UnsupportedAffine { bits: 4, group: 48 }));
        assert!("affine_".parse::<Format>().is_err());
    }

    #[test]
    fn row_bytes_counts_whole_blocks() {
        assert_eq!(Format::Q8_0.row_bytes(64), Some(68));
        assert_eq!(Format::Q8_0.row_bytes(172), None);
        assert_eq!(Format::Q4K.row_bytes(512), Some(288));
        assert_eq!(Format::Affine { bits: 3, group: 32 }.row_bytes(64), Some(32));
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    }
}
