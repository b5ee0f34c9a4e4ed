//! The header of `weights.safetensors`: where each packed tensor lies.
//!
//! The safetensors format (<https://github.com/huggingface/safetensors>) is an 8-byte little-endian length, JSON,
//! then the data without holes. Forge adds: the data starts on a 16 KiB page and ends on one, every tensor starts
//! on 256 bytes. The gaps are tensors of their own, `pad.N`.

use forge_formats::{Format, packed_len};
use forge_plan::{PackPlan, PackedTensor};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The data's alignment in the file: a page of Apple silicon.
const PAGE: u64 = 16 * 1024;
/// A tensor's alignment: the largest that any Metal buffer offset needs.
const ALIGNMENT: u64 = 256;

/// The header of a weights file, with what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The file's first bytes: length word and JSON, padded with spaces up to the data.
    pub bytes: Vec<u8>,
    /// First byte of each tensor of the plan, counted from the start of the file.
    pub offsets: Vec<u64>,
    /// Length of the whole file.
    pub file_bytes: u64,
}

impl Header {
    /// The header of the file that `plan` asks for. Depends on nothing but the plan.
    pub fn new(plan: &PackPlan) -> Self {
        let mut entries = Map::new();
        let mut offsets = Vec::with_capacity(plan.tensors.len());
        let mut end = 0;
        let mut pads = 0;
        let mut pad = |entries: &mut Map<String, Value>, end: &mut u64, alignment: u64| {
            let gap = end.next_multiple_of(alignment) - *end;
            if gap > 0 {
                entries.insert(format!("pad.{pads}"), entry("U8", &[gap], *end, gap));
                pads += 1;
                *end += gap;
            }
        };
        for tensor in &plan.tensors {
            pad(&mut entries, &mut end, ALIGNMENT);
            let bytes = packed_bytes(tensor);
            let (dtype, shape) = element(tensor, bytes);
            entries.insert(tensor.name.clone(), entry(dtype, &shape, end, bytes));
            offsets.push(end);
            end += bytes;
        }
        pad(&mut entries, &mut end, PAGE);
        let mut bytes = vec![0; 8];
        serde_json::to_writer(&mut bytes, &entries).expect("a map of strings and numbers is valid JSON");
        let data = (bytes.len() as u64).next_multiple_of(PAGE);
        bytes.resize(data as usize, b' ');
        bytes[..8].copy_from_slice(&(data - 8).to_le_bytes());
        for offset in &mut offsets {
            *offset += data;
        }
        Self { bytes, offsets, file_bytes: data + end }
    }

    /// SHA-256, in hex, of [`Header::bytes`].
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }
}

/// Bytes of a packed tensor in the file.
pub fn packed_bytes(tensor: &PackedTensor) -> u64 {
    // A plan that stacks broken blocks is refused when the rows are packed.
    packed_len(tensor.format, tensor.rows, tensor.cols).unwrap_or(0)
}

/// The element type and shape that the file states.
fn element(tensor: &PackedTensor, bytes: u64) -> (&'static str, Vec<u64>) {
    let dtype = match tensor.format {
        Format::F32 => "F32",
        Format::F16 => "F16",
        Format::BF16 => "BF16",
        _ => return ("U8", vec![bytes]),
    };
    if tensor.is_vector() {
        (dtype, vec![tensor.cols as u64])
    } else {
        (dtype, vec![tensor.rows as u64, tensor.cols as u64])
    }
}

fn entry(dtype: &str, shape: &[u64], begin: u64, bytes: u64) -> Value {
    json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, begin + bytes] })
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
