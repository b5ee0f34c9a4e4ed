//! Weight formats: what each block looks like, how to decode and encode it, and how it is repacked for the device.
//!
//! Owns every fact about the bytes of a weight and knows nothing of models, files or kernels.

mod decode;
mod deviation;
mod encode;
mod error;
mod formats;
mod ggml;
mod layout;
mod repack;

pub use decode::{AffineRow, decode_affine, decode_apart, decode_row, first_not_finite};
pub use deviation::Deviation;
pub use encode::{EncodedAffine, encode_affine, encode_row};
pub use error::FormatError;
pub use formats::{Apart, Format, Pairs};
pub use ggml::{ggml_block, ggml_name};
pub use layout::{Layout, Packer, PlaneRange, SourceRows, packed_len};
pub use repack::{E4m3Matrix, IntegerMatrix, Packing, Repack, Repacked, Zeros};
