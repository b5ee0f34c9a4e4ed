//! Quantisers: GGML's to the bit, the searching ones by their error.

use crate::fixtures::{Fixture, mlx_encode_fixture};
use forge_formats::{AffineRow, Deviation, Format, FormatError, decode_affine, decode_row, encode_affine, encode_row};

/// Block formats that have a quantiser.
const BLOCKS: [Format; 8] =
    [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K, Format::Q5K, Format::Q6K, Format::Mxfp4, Format::Nvfp4];

/// The numbers of E2M1 without a sign (OCP Microscaling Formats 1.0, table 5).
const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// `count` weights, roughly normal with standard deviation 0.02, the same every time.
fn normal(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.02).collect()
}

fn encode(format: Format, weights: &[f32]) -> Result<Vec<u8>, FormatError> {
    let mut out = vec![0xff; format.row_bytes(weights.len()).expect("whole blocks")];
    encode_row(format, weights, &mut out).map(|()| out)
}

/// What a row becomes and is again, with the row's factor where the format has one.
fn round_trip(format: Format, weights: &[f32]) -> Vec<f32> {
    let factor = format.row_factor(weights).unwrap_or(1.0);
    let divided: Vec<f32> = weights.iter().map(|weight| weight / factor).collect();
    let mut decoded = without_factor(format, &divided);
    decoded.iter_mut().for_each(|weight| *weight *= factor);
    decoded
}

fn without_factor(format: Format, weights: &[f32]) -> Vec<f32> {
    let blocks = encode(format, weights).expect("weights are finite and small");
    let mut decoded = vec![f32::NAN; weights.len()];
    decode_row(format, &blocks, &mut decoded).expect("whole blocks");
    decoded
}

fn affine_round_trip(format: Format, scale_format: Format, weights: &[f32]) -> Vec<f32> {
    let row = encode_affine(format, scale_format, weights).expect("weights are finite and small");
    let row =
        AffineRow { format, codes: &row.codes, scales: &row.scales, biases: &row.biases, scale_format, zeros: false };
    let mut decoded = vec![f32::NAN; weights.len()];
    decode_affine(&row, &mut decoded).expect("whole groups");
    decoded
}

fn relative_rms(weights: &[f32], decoded: &[f32]) -> f64 {
    let mut deviation = Deviation::default();
    deviation.add(weights, decoded);
    deviation.relative_rms()
}

#[test]
fn ggml_quantisers_match_the_gguf_package() {
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1] {
        let Fixture { blocks, weights } = Fixture::read(&format!("{format}.encode.bin"));
        let encoded = encode(format, &weights).expect("weights are finite and small");
        let size = format.block_bytes();
        for (i, (ours, theirs)) in encoded.chunks(size).zip(blocks.chunks(size)).enumerate() {
            assert_eq!(ours, theirs, "{format}, block {i}");
        }
    }
}

#[test]
fn errors_are_those_of_the_bit_width() {
    let weights = normal(64 * 256);
    let error = |format| relative_rms(&weights, &round_trip(format, &weights));
    let [q8_0, q4_0, q4_1, q4_k, q5_k, q6_k, mxfp4, nvfp4] = BLOCKS.map(error);
    assert!(q8_0 < 0.0055, "Q8_0: {q8_0}");
    assert!(q4_0 < 0.085, "Q4_0: {q4_0}");
    assert!(q4_1 < 0.078, "Q4_1: {q4_1}");
    assert!(q4_k < 0.07, "Q4_K: {q4_k}");
    assert!(q5_k < 0.035, "Q5_K: {q5_k}");
    assert!(q6_k < 0.019, "Q6_K: {q6_k}");
    assert!(mxfp4 < 0.115, "MXFP4: {mxfp4}");
    assert!(nvfp4 < 0.09, "NVFP4: {nvfp4}");
}

#[test]
fn errors_of_e2m1_are_at_most_those_of_mlx() {
    for (format, mode) in [(Format::Mxfp4, "mxfp4"), (Format::Nvfp4, "nvfp4")] {
        let (theirs, weights) = mlx_encode_fixture(mode);
        let ours = relative_rms(&weights, &without_factor(format, &weights));
        assert!(ours <= f64::from(theirs), "{format}: {ours}, mlx {theirs}");
    }
}

/// Against all scales that a group may have, each weight at the nearest number: the least error that there is.
#[test]
fn scales_of_e2m1_are_as_good_as_any() {
    let power = |code: i32| 2.0_f64.powi(code - 127);
    // E4M3 (OCP 8-bit Floating Point 1.0): the exponent's bias is 7, the smallest exponent is that of subnormal numbers.
    let e4m3 = |code: i32| match (code >> 3, f64::from(code & 7)) {
        (0, mantissa) => mantissa * 2.0_f64.powi(-9),
        (exponent, mantissa) => (1.0 + mantissa / 8.0) * 2.0_f64.powi(exponent - 7),
    };
    let error = |weights: &[f32], scale: f64| -> f64 {
        let nearest = |size: f64| E2M1.iter().map(|number| (size - scale * number).abs()).fold(f64::INFINITY, f64::min);
        weights.iter().map(|weight| nearest(f64::from(*weight).abs()).powi(2)).sum()
    };
    let mut weights = normal(64 * 64);
    // Groups of several sizes: down to scales that are subnormal, and up to the largest.
    for (group, weights) in weights.chunks_mut(64).enumerate() {
        weights.iter_mut().for_each(|weight| *weight *= 4.0_f32.powi(group as i32 % 8 - 2));
    }
    for (format, group) in [(Format::Mxfp4, 32), (Format::Nvfp4, 16)] {
        let scales: Vec<f64> = if group == 32 { (0..255).map(power).collect() } else { (0..127).map(e4m3).collect() };
        let decoded = without_factor(format, &weights);
        let (mut ours, mut least) = (0.0, 0.0);
        for (weights, decoded) in weights.chunks(group).zip(decoded.chunks(group)) {
            let best = scales.iter().map(|scale| error(weights, *scale)).fold(f64::INFINITY, f64::min);
            let found: f64 = weights.iter().zip(decoded).map(|(w, d)| f64::from(w - d).powi(2)).sum();
            let size: f64 = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum();
            assert!(found >= best - 1e-6 * size, "{format}: {found} is better than the best, {best}: {weights:?}");
            (ours, least) = (ours + found / size, least + best / size);
        }
        // Further scales are tried for no group; those that would be better are rare.
        assert!(ours <= 1.001 * least, "{format}: {ours}, at best {least}");
    }
}

#[test]
fn e2m1_rounds_to_nearest_and_ties_to_even() {
    let halfway = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
    for (size, expected) in halfway.into_iter().zip([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]) {
        // All that is exact with a scale of 1, so that others are worse.
        let group = [6.0, size, -size, 4.0, 3.0, 2.0, 1.5, 1.0, 0.5, -6.0, -3.0, -2.0, -1.5, -1.0, -0.5, 6.0];
        let weights = [group; 4].concat();
        // Two errors of 1 are more than another scale of NVFP4, which has more than powers of two, makes of all the rest.
        let formats = if size == 5.0 { &[Format::Mxfp4][..] } else { &[Format::Nvfp4, Format::Mxfp4] };
        for &format in formats {
            let decoded = without_factor(format, &weights);
            assert_eq!(decoded[..4], [6.0, expected, -expected, 4.0], "{format} of {size}");
            assert!(expected > 0.0 || decoded[2].is_sign_positive(), "{format} of {size}: a negative zero");
        }
    }
}

#[test]
fn rows_of_nvfp4_have_factors() {
    let weights = normal(1024);
    let largest = weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
    assert_eq!(Format::Nvfp4.row_factor(&weights), Some(largest / (6.0 * 448.0)));
    assert_eq!(Format::Nvfp4.row_factor(&[0.0; 64]), Some(1.0));
    assert_eq!(Format::Mxfp4.row_factor(&weights), None);
    // Without one, scales of such weights are subnormal.
    let [with, without] = [round_trip(Format::Nvfp4, &weights), without_factor(Format::Nvfp4, &weights)];
    assert!(relative_rms(&weights, &with) < 0.95 * relative_rms(&weights, &without));
}

#[test]
fn floats_round_to_nearest() {
    let weights = [1.0, -0.1, 65_504.0, 1e-8, 0.0];
    assert_eq!(round_trip(Format::F32, &weights), weights);
    assert_eq!(round_trip(Format::F16, &weights), [1.0, -0.099_975_586, 65_504.0, 0.0, 0.0]);
    assert_eq!(round_trip(Format::BF16, &weights), [1.0, -0.100_097_656, 65_536.0, 1.001_171_8e-8, 0.0]);
}

#[test]
fn affine_errors_are_at_most_those_of_mlx() {
    for format in Format::all().filter(|f| matches!(f, Format::Affine { .. })) {
        let (theirs, weights) = mlx_encode_fixture(&format.to_string());
        let ours = relative_rms(&weights, &affine_round_trip(format, Format::F32, &weights));
        assert!(ours <= f64::from(theirs), "{format}: {ours}, mlx {theirs}");
        let halves = relative_rms(&weights, &affine_round_trip(format, Format::F16, &weights));
        assert!(halves <= 1.01 * f64::from(theirs), "{format} with f16 scales: {halves}, mlx {theirs}");
    }
}

#[test]
fn zeros_constants_and_signs_survive() {
    for value in [0.0, 0.75, -0.75] {
        let weights = [value; 256];
        for format in BLOCKS {
            let error = relative_rms(&weights, &round_trip(format, &weights));
            assert!(error < 2e-3, "{format} of {value}: {error}");
        }
        for format in Format::all().filter(|f| matches!(f, Format::Affine { .. })) {
            let decoded = affine_round_trip(format, Format::F16, &weights);
            assert_eq!(decoded, weights, "{format} of {value}");
        }
    }
}

/// Scales below f16's, and below f32's normal range, become zero and not NaN.
#[test]
fn tiny_weights_decode_to_tiny_weights() {
    for magnitude in [1e-9f32, 1e-38, 1e-44] {
        let weights: Vec<f32> = (0..256).map(|i| magnitude * (i % 7 - 3) as f32).collect();
        let tiny = |decoded: &[f32]| decoded.iter().all(|w| w.abs() <= 1e-7);
        for format in BLOCKS {
            assert!(tiny(&round_trip(format, &weights)), "{format} of {magnitude}");
        }
        for format in Format::all().filter(|f| matches!(f, Format::Affine { .. })) {
            for scale_format in [Format::F32, Format::F16, Format::BF16] {
                assert!(tiny(&affine_round_trip(format, scale_format, &weights)), "{format} of {magnitude}");
            }
        }
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30] {
        let mut weights = vec![0.5; 256];
        weights[77] = value;
        let same = |found: &FormatError| match found {
            FormatError::Unrepresentable { value: found, .. } => found.to_bits() == value.to_bits(),
            _ => false,
        };
        // Powers of two go further than floats.
        let scales_of_halves = |format: &Format| !value.is_finite() || *format != Format::Mxfp4;
        for format in [Format::F16].into_iter().chain(BLOCKS).filter(scales_of_halves) {
            let error = encode(format, &weights).expect_err("a scale beyond the format's");
            assert!(same(&error), "{format} of {value}: {error}");
        }
        let affine = Format::Affine { bits: 4, group: 64 };
        let error = encode_affine(affine, Format::F16, &weights).expect_err("a scale beyond f16");
        assert!(same(&error), "{affine} of {value}: {error}");
    }
    assert_eq!(encode(Format::Q3K, &[0.0; 256]), Err(FormatError::NoEncoder { format: Format::Q3K }));
}
