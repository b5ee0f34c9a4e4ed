//! Other toolchains' matrices against the fixtures of `tests/formats/make_repack_fixtures.py`, to the bit.

use std::ops::Range;

use crate::fixtures::RepackFixture;
use forge_formats::{
    AffineRow, E4m3Matrix, Format, FormatError, IntegerMatrix, Packing, Pairs, Repack, Repacked, SourceRows, Zeros,
    decode_affine, decode_row,
};

/// What rows decode to, made in `range` of the matrix.
fn weights(repack: &Repack, parts: &[&[u8]], range: Range<usize>, cols: usize) -> Vec<f32> {
    let format = repack.format().expect("a format");
    let mut made = Repacked::default();
    repack.rows(parts, range.clone(), &mut made).expect("rows");
    let mut decoded = vec![f32::NAN; range.len() * cols];
    for (row, out) in decoded.chunks_exact_mut(cols).enumerate() {
        match made.source() {
            SourceRows::Blocks(bytes) => {
                let row_bytes = bytes.len() / range.len();
                decode_row(format, &bytes[row * row_bytes..][..row_bytes], out).expect("a row");
            }
            SourceRows::Apart { .. } | SourceRows::Factored { .. } => panic!("nothing is repacked to such rows"),
            SourceRows::Affine { codes, scales, biases } => {
                let part = |bytes| {
                    let bytes: &[u8] = bytes;
                    let row_bytes = bytes.len() / range.len();
                    &bytes[row * row_bytes..][..row_bytes]
                };
                let (codes, scales, biases) = (part(codes), part(scales), part(biases));
                let Pairs { bf16, zeros } = repack.pairs();
                let scale_format = if bf16 { Format::BF16 } else { Format::F16 };
                decode_affine(&AffineRow { format, codes, scales, biases, scale_format, zeros }, out).expect("a row");
            }
        }
    }
    decoded
}

fn check(name: &str, format: &str, repack: impl Fn(&[usize]) -> Repack) {
    let fixture = RepackFixture::read(name);
    let (rows, cols) = (fixture.sizes[0], fixture.sizes[1]);
    let repack = repack(&fixture.sizes);
    assert_eq!(repack.format().expect("a format").to_string(), format, "{name}");
    let parts: Vec<&[u8]> = fixture.parts.iter().map(Vec::as_slice).collect();
    // All at once, and in ranges that begin within a block.
    for first in [0, 3] {
        let ranges = [0..first, first..rows];
        let decoded: Vec<f32> = ranges.into_iter().flat_map(|range| weights(&repack, &parts, range, cols)).collect();
        for (i, (found, expected)) in decoded.iter().zip(&fixture.weights).enumerate() {
            // Zero has a sign where a code is a float, and none that counts where it is a whole number.
            let same = found.to_bits() == expected.to_bits() || (*found == 0.0 && *expected == 0.0);
            assert!(same, "{name}: weight {i} is {found:e}, expected {expected:e}");
        }
        assert_eq!(decoded.len(), fixture.weights.len());
    }
}

fn integers(packing: Packing, bits: u32, scale_format: Format, zeros: Zeros) -> impl Fn(&[usize]) -> Repack {
    move |sizes| {
        let [rows, cols, group] = sizes[..] else { panic!("three sizes") };
        Repack::Integers(IntegerMatrix { packing, bits, group, rows, cols, scale_format, zeros })
    }
}

#[test]
fn words_of_whole_numbers() {
    use Zeros::{Middle, Stored};
    let (old, new) = (Packing::Gptq { zero_offset: 1 }, Packing::Gptq { zero_offset: 0 });
    check("gptq4", "affine4_g64", integers(old, 4, Format::F16, Stored));
    check("gptq8", "affine8_g64", integers(new, 8, Format::F16, Stored));
    check("gptq3", "affine3_g32", integers(old, 3, Format::BF16, Stored));
    check("gptq2", "affine2_g64", integers(new, 2, Format::F16, Stored));
    check("awq4", "affine4_g32", integers(Packing::Awq, 4, Format::F16, Stored));
    check("compressed4", "affine4_g32", integers(Packing::Compressed, 4, Format::BF16, Middle));
    check("compressed4z", "affine4_g64", integers(Packing::Compressed, 4, Format::BF16, Stored));
    check("compressed8", "affine8_g64", integers(Packing::Compressed, 8, Format::BF16, Middle));
}

#[test]
fn floats_of_8_bits() {
    for (name, format, scale_format) in [
        ("fp8_edges", "E4M3_G32", Format::F32),
        ("fp8_blocks", "E4M3_G128", Format::BF16),
        ("fp8_channel", "E4M3_G128", Format::BF16),
        ("fp8_tensor", "E4M3_G32", Format::F32),
        ("fp8_groups", "E4M3_G32", Format::F16),
    ] {
        check(name, format, |sizes| {
            let [rows, cols, block_rows, block_cols] = sizes[..] else { panic!("four sizes") };
            Repack::E4m3(E4m3Matrix { rows, cols, block: [block_rows, block_cols], scale_format })
        });
    }
}

#[test]
fn codes_that_are_no_numbers_are_refused() {
    let matrix = E4m3Matrix { rows: 2, cols: 32, block: [2, 32], scale_format: Format::F32 };
    for nan in [0x7F, 0xFF] {
        let mut codes = [0x38; 64];
        codes[40] = nan;
        let repack = Repack::E4m3(matrix.clone());
        let parts: [&[u8]; 2] = [&codes, &1.0_f32.to_le_bytes()];
        let mut made = Repacked::default();
        assert_eq!(repack.rows(&parts, 0..1, &mut made), Ok(()));
        let error = repack.rows(&parts, 1..2, &mut made).expect_err("a code that is no number");
        assert!(matches!(error, FormatError::Unrepresentable { format: Format::E4m3G32, .. }), "{error}");
    }
}

#[test]
fn widths_without_a_format_are_refused() {
    let matrix = |cols, columns| E4m3Matrix { rows: 2, cols, block: [1, columns], scale_format: Format::F32 }.format();
    assert_eq!(matrix(256, 128), Ok(Format::E4m3G128));
    assert_eq!(matrix(256, 64), Ok(Format::E4m3G32));
    assert_eq!(matrix(160, 160), Ok(Format::E4m3G32));
    assert_eq!(matrix(256, 16), Err(FormatError::ScaleColumns { cols: 16 }));
    assert!(matches!(matrix(48, 48), Err(FormatError::RowNotBlocks { cols: 48, block: 32, .. })));
}

#[test]
fn names_say_toolchain_and_groups() {
    let matrix = |packing, group| {
        let (bits, rows, cols, scale_format, zeros) = (4, 64, 256, Format::F16, Zeros::Stored);
        Repack::Integers(IntegerMatrix { packing, bits, group, rows, cols, scale_format, zeros }).to_string()
    };
    assert_eq!(matrix(Packing::Gptq { zero_offset: 1 }, 128), "GPTQ int4 g128");
    assert_eq!(matrix(Packing::Awq, 64), "AWQ int4 g64");
    assert_eq!(matrix(Packing::Compressed, 256), "compressed-tensors int4 per channel");
    let fp8 = |block| Repack::E4m3(E4m3Matrix { rows: 64, cols: 256, block, scale_format: Format::F32 }).to_string();
    assert_eq!(fp8([128, 128]), "FP8 E4M3 128x128");
    assert_eq!(fp8([1, 256]), "FP8 E4M3 per channel");
    assert_eq!(fp8([64, 256]), "FP8 E4M3 per tensor");
}
