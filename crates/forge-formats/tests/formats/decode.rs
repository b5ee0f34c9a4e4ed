//! Decoders against the fixtures of `tests/formats/make_fixtures.py`, to the bit.

use crate::fixtures::{Fixture, Modes, affine_fixture};
use forge_formats::{AffineRow, Format, FormatError, decode_affine, decode_apart, decode_row, first_not_finite};

#[test]
fn block_formats_match_the_gguf_package() {
    for format in Format::all().filter(|f| !matches!(f, Format::Affine { .. })) {
        let Fixture { blocks, weights } = Fixture::read(&format!("{format}.bin"));
        let mut decoded = vec![f32::NAN; weights.len()];
        decode_row(format, &blocks, &mut decoded).expect("the fixture is whole blocks");
        assert_same_bits(format, &decoded, &weights);
    }
}

#[test]
fn affine_formats_match_mlx() {
    for format in Format::all().filter(|f| matches!(f, Format::Affine { .. })) {
        let fixture = affine_fixture(format);
        let mut decoded = vec![f32::NAN; fixture.weights.len()];
        decode_affine(&fixture.row(), &mut decoded).expect("the fixture is whole groups");
        assert_same_bits(format, &decoded, &fixture.weights);
    }
}

/// With the second scale that nvfp4 may have, too: code * (scale * factor).
#[test]
fn floating_modes_match_mlx() {
    for mode in Format::mlx_modes().split(", ") {
        let (format, apart) = Format::with_mlx_mode(mode).expect("a mode");
        let Modes { codes, scales, factor, plain, factored } = Modes::read(&format!("{mode}.mlx.bin"), apart.group);
        let mut decoded = vec![f32::NAN; plain.len()];
        decode_apart(format, &codes, &scales, 1.0, &mut decoded).expect("the fixture is whole groups");
        assert_same_bits(format, &decoded, &plain);
        assert_eq!(factored.is_empty(), !format.has_row_factors(), "{mode}");
        if !factored.is_empty() {
            decode_apart(format, &codes, &scales, factor, &mut decoded).expect("the fixture is whole groups");
            assert_same_bits(format, &decoded, &factored);
        }
    }
}

fn assert_same_bits(format: Format, decoded: &[f32], expected: &[f32]) {
    for (i, (d, e)) in decoded.iter().zip(expected).enumerate() {
        assert!(d.to_bits() == e.to_bits(), "{format}: weight {i} is {d:e}, expected {e:e}");
    }
}

#[test]
fn rows_decode_one_by_one_as_all_together() {
    let Fixture { blocks, weights } = Fixture::read("Q4_K.bin");
    let row_bytes = Format::Q4K.row_bytes(256).expect("256 is one block");
    for (row, expected) in blocks.chunks(row_bytes).zip(weights.chunks(256)) {
        let mut decoded = [0.0; 256];
        decode_row(Format::Q4K, row, &mut decoded).expect("one block");
        assert_eq!(decoded, expected);
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let mut out = [0.0; 64];
    assert_eq!(
        decode_row(Format::Q8_0, &[0; 67], &mut out),
        Err(FormatError::Length { format: Format::Q8_0, what: "blocks", expected: 68, found: 67 })
    );
    assert_eq!(
        decode_row(Format::Q8_0, &[0; 68], &mut out[..63]),
        Err(FormatError::RowNotBlocks { format: Format::Q8_0, cols: 63, block: 32 })
    );
    let affine = Format::Affine { bits: 4, group: 64 };
    assert!(matches!(decode_row(affine, &[0; 36], &mut out), Err(FormatError::NotBlocks { .. })));

    let row = AffineRow {
        format: affine,
        codes: &[0; 32],
        scales: &[0; 2],
        biases: &[0; 4],
        scale_format: Format::F16,
        zeros: false,
    };
    assert_eq!(
        decode_affine(&row, &mut out),
        Err(FormatError::Length { format: affine, what: "biases", expected: 2, found: 4 })
    );
    let row = AffineRow { scale_format: Format::Q8_0, ..row };
    assert_eq!(decode_affine(&row, &mut out), Err(FormatError::NotFloat { format: Format::Q8_0 }));
    let row = AffineRow { format: Format::Q8_0, ..row };
    assert_eq!(decode_affine(&row, &mut out), Err(FormatError::NotAffine { format: Format::Q8_0 }));
}

#[test]
fn numbers_that_are_not_finite_are_found() {
    let halves = [[0, 0x3C], [0xFF, 0x7B], [0, 0x7C], [1, 0xFC]].concat();
    assert_eq!(first_not_finite(Format::F16, &halves[..4]), Ok(None));
    assert_eq!(first_not_finite(Format::F16, &halves), Ok(Some((2, f32::INFINITY))));
    let bfloats = [0x7F, 0x7F, 0x81, 0xFF];
    assert!(first_not_finite(Format::BF16, &bfloats).unwrap().is_some_and(|(at, number)| at == 1 && number.is_nan()));
    let singles: Vec<u8> = [f32::MAX, f32::NEG_INFINITY].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(first_not_finite(Format::F32, &singles), Ok(Some((1, f32::NEG_INFINITY))));
    assert!(matches!(first_not_finite(Format::Q8_0, &[]), Err(FormatError::NotFloat { .. })));
}
