//! The weight formats: one file each with all that is particular to it.

mod grid;

use std::fmt;
use std::str::FromStr;

use forge_spec::{Plane, Scheme};
use half::f16;

use crate::FormatError;
use crate::encode::fp4::NVFP4_RANGE;
use crate::ggml::SHARED_ID;
use crate::layout::RowParts;

/// Makes a module of each file in the list of formats, and the enum of what is in them.
macro_rules! formats {
    ($($file:ident { $($(#[$doc:meta])* $name:ident = $stored:ident { $($packed:tt)* })* })*) => {
        $(mod $file;)*

        /// How the weights of a matrix are stored in a checkpoint. What blocks hold is said in the files of formats; here, and in
        /// short, what they are packed to.
        ///
        /// A row is a whole number of blocks; rows follow one another without padding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Format {
            $($($(#[$doc])* $name,)*)*
            /// MLX's affine quantisation: `scale * code + bias` per group; codes, scales and biases are three tensors.
            Affine {
                /// Bits per code: 2, 3, 4, 5, 6 or 8.
                bits: u8,
                /// Weights per scale and bias: 32, 64 or 128.
                group: u16,
            },
        }

        /// Every format but affine.
        const BLOCK_FORMATS: &[&BlockFormat] = &[$($(&$file::$stored,)*)*];

        impl Format {
            /// The format that such matrices have in the weights file; what stands beside codes is told apart for affine
            /// formats alone.
            pub fn packed(self, pairs: Pairs) -> forge_spec::Format {
                match self {
                    $($(Self::$name => forge_spec::Format::$name,)*)*
                    Self::Affine { bits, group } => {
                        let Pairs { bf16, zeros } = pairs;
                        forge_spec::Format::Affine { bits: bits.into(), group: group.into(), bf16, zeros }
                    }
                }
            }

            /// The checkpoint's format that a packed one comes from.
            pub fn stored(packed: forge_spec::Format) -> Self {
                match packed {
                    $($(forge_spec::Format::$name => Self::$name,)*)*
                    forge_spec::Format::Affine { bits, group, .. } => {
                        Self::Affine { bits: bits as u8, group: group as u16 }
                    }
                }
            }
        }
    };
}
forge_spec::packed_formats!(formats);

/// What stands beside the codes of an affine matrix, two numbers a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Bfloats rather than halves.
    pub bf16: bool,
    /// Scale and zero point rather than scale and bias.
    pub zeros: bool,
}

/// Quantises a row of finite weights to whole blocks.
type Encode = fn(&[f32], &mut [u8]) -> Result<(), f32>;

/// What there is to know about a format that lies in blocks: one constant per format, in a file of its own.
#[derive(Debug)]
pub(crate) struct BlockFormat {
    pub format: Format,
    /// GGML's name for it, where GGML has it.
    pub name: &'static str,
    /// GGML's type id.
    pub ggml_id: Option<u32>,
    /// Weights per block.
    pub elements: usize,
    /// Bytes per block.
    pub bytes: usize,
    /// How its codes and scales lie where a checkpoint has them in two tensors.
    pub apart: Option<Apart>,
    /// Decodes a row: whole blocks, to as many f32 as they hold. Arithmetic is f32, in the order that GGML's own reference
    /// uses, so that results agree to the bit.
    pub decode: fn(&[u8], &mut [f32]),
    /// Takes a row apart into codes, entries and super-blocks, for the planes.
    pub take_apart: fn(&[u8], &mut RowParts),
    /// Quantises a row of finite weights, for `--quantize`. The error is a weight that the format cannot hold.
    pub encode: Option<Encode>,
}

/// A format whose codes and scales some checkpoints have in two tensors.
#[derive(Clone, Copy, Debug)]
pub struct Apart {
    /// Weights that share a scale, which is a byte.
    pub group: usize,
    /// Bits of a code. Those of a row are a stream of bits, a code's lowest first.
    pub bits: usize,
    /// What MLX calls it (`mode` of `mx.quantize`).
    pub mlx_mode: &'static str,
    /// The number that a scale stands for.
    pub scale: fn(u8) -> f32,
    /// The number that a code stands for; their product is the weight.
    pub code: fn(u8) -> f32,
}

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
        BLOCK_FORMATS.iter().copied().map(|known| known.format).chain(affine)
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

    /// The format's facts; `None` for affine.
    pub(crate) fn block(self) -> Option<&'static BlockFormat> {
        BLOCK_FORMATS.iter().copied().find(|known| known.format == self)
    }

    /// How its codes and scales lie in two tensors, where some checkpoint has them so.
    pub fn apart(self) -> Option<Apart> {
        self.block()?.apart
    }

    /// The format that MLX has under this mode.
    pub fn with_mlx_mode(mode: &str) -> Option<(Self, Apart)> {
        Self::in_mlx().find(|(_, apart)| apart.mlx_mode == mode)
    }

    /// MLX's names of the block formats that it has, with commas.
    pub fn mlx_modes() -> String {
        Self::in_mlx().map(|(_, apart)| apart.mlx_mode).collect::<Vec<_>>().join(", ")
    }

    fn in_mlx() -> impl Iterator<Item = (Self, Apart)> {
        BLOCK_FORMATS.iter().filter_map(|known| Some((known.format, known.apart?)))
    }

    /// Whether each row may have a factor besides.
    pub fn has_row_factors(self) -> bool {
        self.scheme().planes.contains(&Plane::RowFactor)
    }

    /// What a row of floats is divided by before it is quantised, so that its largest weight is the largest number there is: the
    /// factor that the device multiplies by. `None` for formats that have none.
    pub fn row_factor(self, weights: &[f32]) -> Option<f32> {
        let largest = weights.iter().fold(0.0, |most: f32, weight| most.max(weight.abs()));
        let factor = largest / NVFP4_RANGE;
        // A row of zeros, or of weights that are as good as that.
        self.has_row_factors().then_some(if factor.is_normal() { factor } else { 1.0 })
    }

    /// How its rows lie on the device.
    pub(crate) fn scheme(self) -> Scheme {
        self.packed(Pairs::default()).scheme()
    }

    /// Whether rows of floats can be quantised to it.
    pub fn has_quantiser(self) -> bool {
        !self.is_float() && self.block().is_none_or(|known| known.encode.is_some())
    }

    /// The names of the block formats that rows of floats can be quantised to, with commas.
    pub fn quantisers() -> String {
        let names =
            BLOCK_FORMATS.iter().filter(|known| known.format.has_quantiser()).map(|known| known.name.to_lowercase());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Bytes of the codes and of the scales of a row of `cols` weights where they are in two tensors; `None` for a format that
    /// is not stored so, or where that is not a whole number of groups.
    pub fn apart_row_bytes(self, cols: usize) -> Option<[usize; 2]> {
        let Apart { group, bits, .. } = self.apart()?;
        cols.is_multiple_of(group).then_some([cols / 8 * bits, cols / group])
    }

    /// The format of this GGML type id; type 42 has two (see [`Format::from_ggml`]).
    pub(crate) fn with_ggml_id(id: u32) -> Option<&'static BlockFormat> {
        BLOCK_FORMATS.iter().copied().find(|known| known.ggml_id == Some(id))
    }

    /// Weights per block; 1 for the float formats, the group size for affine.
    pub fn block_elements(self) -> usize {
        match self {
            Self::Affine { group, .. } => group.into(),
            _ => self.block().map_or(1, |known| known.elements),
        }
    }

    /// Bytes per block; for affine those of a group's codes with a 16-bit scale and bias.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Affine { bits, group } => usize::from(group) * usize::from(bits) / 8 + 4,
            _ => self.block().map_or(0, |known| known.bytes),
        }
    }

    /// Bytes of a row of `cols` weights; `None` when that is not a whole number of blocks (or beyond `usize`).
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
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
        f.pad(self.block().map_or("?", |known| known.name))
    }
}

impl FromStr for Format {
    type Err = FormatError;

    /// Parses a name as `Display` prints it, in any case; `mlx4` is 4-bit affine in groups of 64, as mlx-lm writes it.
    fn from_str(name: &str) -> Result<Self, FormatError> {
        let unknown = || FormatError::UnknownName { name: name.to_owned() };
        if let Some(known) = BLOCK_FORMATS.iter().copied().find(|known| known.name.eq_ignore_ascii_case(name)) {
            return Ok(known.format);
        }
        let lower = name.to_ascii_lowercase();
        if let Some(bits) = lower.strip_prefix("mlx") {
            return Self::affine(bits.parse().map_err(|_| unknown())?, 64);
        }
        let (bits, group) = lower.strip_prefix("affine").and_then(|rest| rest.split_once("_g")).ok_or_else(unknown)?;
        Self::affine(bits.parse().map_err(|_| unknown())?, group.parse().map_err(|_| unknown())?)
    }
}

pub(crate) use e4m3::e4m3;
pub(crate) use mxfp4::{E2M1, e8m0};

/// Runs `decode` over blocks of `BYTES` bytes and `WEIGHTS` weights; the caller has checked the lengths.
fn each_block<const BYTES: usize, const WEIGHTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; WEIGHTS]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (outs, _) = out.as_chunks_mut::<WEIGHTS>();
    for (block, out) in blocks.iter().zip(outs) {
        decode(block, out);
    }
}

/// The f16 at byte `at` of a block.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The bits of the 16-bit value at byte `at`.
pub(crate) fn half_bits(block: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The bits of the scale at byte `at`, below those of the minimum after it.
fn two_halves(block: &[u8], at: usize) -> u32 {
    half_bits(block, at) | half_bits(block, at + 2) << 16
}

/// Calls `put(i, code)` for the 32 nibbles of 16 bytes: low nibbles are weights 0 to 15, high ones 16 to 31.
fn nibbles(bytes: &[u8], mut put: impl FnMut(usize, u8)) {
    for (i, byte) in bytes.iter().enumerate() {
        put(i, byte & 15);
        put(i + 16, byte >> 4);
    }
}

/// The fifth bits of a Q5 block: bit `i` belongs to weight `i`.
fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The 2-bit code of weight `e` in Q2_K's and Q3_K's `qs`: each run of 32 bytes holds 128 weights, 32 per bit pair.
fn two_bits(qs: &[u8], e: usize) -> u8 {
    qs[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3
}

/// The nibble of weight `e` in Q4_K's and Q5_K's `qs`: each run of 32 bytes holds 64 weights, low nibbles first.
fn nibble(qs: &[u8], e: usize) -> u8 {
    qs[e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15
}

/// Decodes a block of Q4_K or Q5_K: d f16, dmin f16, scales u8[12], and codes, each `scale * code - minimum`.
fn scaled_with_minimums(block: &[u8], out: &mut [f32; 256], code: impl Fn(usize) -> u8) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], sub);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * f32::from(code(sub * 32 + i)) - min;
        }
    }
}

/// Scale and minimum of sub-block `j` from the 12 bytes of Q4_K and Q5_K: 6 bits each, the last four of either kind
/// split into a nibble of bytes 8 to 11 and the top two bits of an earlier byte.
pub(crate) fn scale_and_min(scales: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        (scales[j + 4] & 15 | scales[j - 4] >> 6 << 4, scales[j + 4] >> 4 | scales[j] >> 6 << 4)
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
        assert_eq!("Q8_K".parse::<Format>(), Err(FormatError::UnknownName { name: "Q8_K".into() }));
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
