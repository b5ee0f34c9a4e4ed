//! What the references of `verify` read: packed weights against the formats' own decoders.

use forge_formats::{AffineRow, Format as Stored, Layout, Packer, SourceRows, decode_affine, decode_row};
use forge_runtime::spec::Weight;
use forge_runtime::verify::Format;
use forge_runtime::verify::packed::Packed;

/// xorshift64: bytes without a pattern.
struct Bytes(u64);

impl Iterator for Bytes {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some((self.0 >> 32) as u8)
    }
}

fn packed_format(format: Stored, zeros: bool) -> Format {
    match format {
        Stored::F32 => Format::F32,
        Stored::F16 => Format::F16,
        Stored::BF16 => Format::BF16,
        Stored::Q8_0 => Format::Q8_0,
        Stored::Q4_0 => Format::Q4_0,
        Stored::Q4_1 => Format::Q4_1,
        Stored::Q5_0 => Format::Q5_0,
        Stored::Q5_1 => Format::Q5_1,
        Stored::Q2K => Format::Q2K,
        Stored::Q3K => Format::Q3K,
        Stored::Q4K => Format::Q4K,
        Stored::Q5K => Format::Q5K,
        Stored::Q6K => Format::Q6K,
        Stored::Iq4Nl => Format::Iq4Nl,
        Stored::Iq4Xs => Format::Iq4Xs,
        Stored::Iq3Xxs => Format::Iq3Xxs,
        Stored::Iq3S => Format::Iq3S,
        Stored::Iq2Xxs => Format::Iq2Xxs,
        Stored::Iq2Xs => Format::Iq2Xs,
        Stored::Iq2S => Format::Iq2S,
        Stored::Iq1S => Format::Iq1S,
        Stored::Iq1M => Format::Iq1M,
        Stored::Mxfp4 => Format::Mxfp4,
        Stored::Mxfp8 => Format::Mxfp8,
        Stored::Nvfp4 => Format::Nvfp4,
        Stored::Q1_0 => Format::Q1_0,
        Stored::Q2_0 => Format::Q2_0,
        Stored::Tq1_0 => Format::Tq1_0,
        Stored::Tq2_0 => Format::Tq2_0,
        Stored::Tq2_0G128 => Format::Tq2_0G128,
        Stored::E4m3G128 => Format::E4m3G128,
        Stored::E4m3G32 => Format::E4m3G32,
        Stored::Affine { bits, group } => Format::Affine { bits: bits.into(), group: group.into(), bf16: false, zeros },
    }
}

/// Packs rows and compares every weight read back with what they decode to.
fn compare(format: Stored, zeros: bool, rows: usize, cols: usize, source: SourceRows<'_>, decoded: &[f32]) {
    let layout = Layout::new(format, rows, cols).expect("whole blocks");
    let mut bytes = vec![0; layout.len() as usize];
    let write = |at: u64, data: &[u8]| bytes[at as usize..at as usize + data.len()].copy_from_slice(data);
    Packer::new(layout).pack(0, source, write).expect("packs");
    let packed = Packed { bytes: &bytes, format: packed_format(format, zeros), rows, cols };
    let mut row = vec![Weight::default(); cols];
    for (r, decoded) in decoded.chunks_exact(cols).enumerate() {
        packed.row(r, &mut row);
        for (col, (found, &expected)) in row.iter().zip(decoded).enumerate() {
            let error = (found.value - f64::from(expected)).abs();
            assert!(found.magnitude >= found.value.abs() * 0.999_999, "{format} [{r}, {col}]: {found:?}");
            assert!(
                error <= 3e-7 * found.magnitude + 1e-40,
                "{format} [{r}, {col}] of {cols}: {found:?}, not {expected}"
            );
        }
    }
}

#[test]
fn packed_weights_decode_as_their_formats_do() {
    let mut random = Bytes(0x0123_4567_89AB_CDEF);
    for format in Stored::all() {
        let block = format.block_elements();
        // Whole groups of tiles, what is left of them, and partial tiles.
        for cols in [256 * 4, 256 * 7, 256 * 3 + 128, 256 * 9, 128].map(|cols: usize| cols.next_multiple_of(block)) {
            let rows = 3;
            let mut decoded = vec![0.0_f32; rows * cols];
            if let Stored::Affine { bits, group } = format {
                let groups = cols / usize::from(group);
                let codes: Vec<u8> = random.by_ref().take(rows * cols * usize::from(bits) / 8).collect();
                let mut halves = || -> Vec<u8> {
                    (0..rows * groups)
                        .flat_map(|_| [random.next().unwrap(), 0x20 | random.next().unwrap() & 15])
                        .collect()
                };
                let (scales, biases) = (halves(), halves());
                let source = SourceRows::Affine { codes: &codes, scales: &scales, biases: &biases };
                for zeros in [false, true] {
                    for (r, out) in decoded.chunks_exact_mut(cols).enumerate() {
                        let row = AffineRow {
                            format,
                            codes: &codes[r * codes.len() / rows..][..codes.len() / rows],
                            scales: &scales[r * groups * 2..][..groups * 2],
                            biases: &biases[r * groups * 2..][..groups * 2],
                            scale_format: Stored::F16,
                            zeros,
                        };
                        decode_affine(&row, out).expect("decodes");
                    }
                    compare(format, zeros, rows, cols, source, &decoded);
                }
                continue;
            }
            let mut blocks = Vec::new();
            for out in decoded.chunks_exact_mut(block) {
                // Scales that are not finite are not what is tested.
                let bytes = loop {
                    let bytes: Vec<u8> = random.by_ref().take(format.block_bytes()).collect();
                    decode_row(format, &bytes, out).expect("decodes");
                    if out.iter().all(|weight| weight.abs() < 1e30 && (*weight == 0.0 || weight.abs() > 1e-30)) {
                        break bytes;
                    }
                };
                blocks.extend(bytes);
            }
            compare(format, false, rows, cols, SourceRows::Blocks(&blocks), &decoded);
        }
    }
}
