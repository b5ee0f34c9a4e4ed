//! The quantisers of E2M1 codes with a scale a group: MXFP4, whose scales are powers of two, and NVFP4, whose are E4M3. Of a group the
//! scales around the usual one are tried, and the one of least squared error is taken.

use super::largest;
use crate::formats::{E2M1, e4m3, e8m0};

/// Largest number of E2M1, and of E4M3.
const LARGEST_CODE: f32 = 6.0;
const LARGEST_SCALE: f32 = 448.0;
/// The code of the latter.
const LARGEST_SCALE_CODE: i32 = 0x7E;

/// What the largest weight of an NVFP4 row is multiplied to.
pub(crate) const NVFP4_RANGE: f32 = LARGEST_CODE * LARGEST_SCALE;

/// The code of the nearest number, of two equally near that of even code (OCP Microscaling Formats 1.0, section 5.3.3); none is the
/// negative zero.
fn code(value: f32) -> u8 {
    let size = value.abs();
    // Halfway between a number and the next; one between an odd code and the even one after it belongs to the latter.
    let [a, b, c, d, e, f, g] =
        [size > 0.25, size >= 0.75, size > 1.25, size >= 1.75, size > 2.5, size >= 3.5, size > 5.0];
    let code = [a, b, c, d, e, f, g].into_iter().map(u8::from).sum::<u8>();
    if value < 0.0 && code > 0 { code | 8 } else { code }
}

/// The code of `weight` in a group of this scale.
fn scaled_code(weight: f32, scale: f32) -> u8 {
    if scale == 0.0 { 0 } else { code(weight / scale) }
}

/// The scale of least squared error, the first of equals: a code and its number.
fn best(weights: &[f32], scales: impl Iterator<Item = (u8, f32)>) -> (u8, f32) {
    let error = |scale: f32| {
        let difference = |weight: &f32| weight - scale * E2M1[usize::from(scaled_code(*weight, scale))];
        weights.iter().map(|weight| difference(weight).powi(2)).sum::<f32>()
    };
    let rated = scales.map(|(code, scale)| (code, scale, error(scale)));
    let (code, scale, _) = rated.min_by(|a, b| a.2.total_cmp(&b.2)).expect("a scale");
    (code, scale)
}

/// `block_mxfp4`. The usual exponent is that of the largest weight less two, so that it is from 4 to 8 (OCP Microscaling Formats 1.0,
/// section 6.3); a group with a weight near 8 is often better off with the next one.
pub(crate) fn mxfp4(weights: &[f32; 32]) -> [u8; 17] {
    let exponent = (largest(weights).abs().to_bits() >> 23) as u8;
    let usual = exponent.saturating_sub(2);
    let (scale_code, scale) = best(weights, [usual, usual + 1].into_iter().map(|code| (code, e8m0(code))));
    let mut out = [0; 17];
    out[0] = scale_code;
    for (i, byte) in out[1..].iter_mut().enumerate() {
        *byte = scaled_code(weights[i], scale) | scaled_code(weights[i + 16], scale) << 4;
    }
    out
}

/// `block_nvfp4`; `None` where a weight is further from the largest number than half a step. The usual scale makes the largest
/// weight of 16 the largest code; those that make it from 4 to 8 are tried.
pub(crate) fn nvfp4(weights: &[f32; 64]) -> Option<[u8; 36]> {
    if largest(weights).abs() > LARGEST_SCALE * (LARGEST_CODE + 1.0) {
        return None;
    }
    let mut out = [0; 36];
    let (groups, _) = weights.as_chunks::<16>();
    for (group, weights) in groups.iter().enumerate() {
        let usual = e4m3_below(largest(weights).abs() / LARGEST_CODE);
        let codes = (usual - 3..=usual + 6).filter(|code| (0..=LARGEST_SCALE_CODE).contains(code));
        let (scale_code, scale) = best(weights, codes.map(|code| (code as u8, e4m3(code as u8))));
        out[group] = scale_code;
        for i in 0..8 {
            out[4 + group * 8 + i] = scaled_code(weights[i], scale) | scaled_code(weights[i + 8], scale) << 4;
        }
    }
    Some(out)
}

/// The code of the largest number of E4M3 that is not above `value`, which is not negative.
fn e4m3_below(value: f32) -> i32 {
    // Subnormal numbers are multiples of 2^-9. Of others the exponent's bias is 7 instead of 127, and three digits stay.
    let code = if value < 1.0 / 64.0 { (value * 512.0) as i32 } else { (value.to_bits() >> 20) as i32 - (120 << 3) };
    code.min(LARGEST_SCALE_CODE)
}
