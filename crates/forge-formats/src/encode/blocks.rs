//! GGML's one-scale blocks of 32 weights, rounded as its reference quantisers round.

use super::{finite_f16, largest};

/// 1 / d, or 0 where the block is all zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Packs 32 codes of 4 bits: weight `i` in the low and `i + 16` in the high nibble of byte `i`.
fn pack_nibbles(out: &mut [u8], code: impl Fn(usize) -> u8) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = code(i) | code(i + 16) << 4;
    }
}

/// `block_q8_0`: d = max|w| / 127.
pub(crate) fn q8_0(weights: &[f32; 32]) -> Option<[u8; 34]> {
    let mut out = [0; 34];
    let d = largest(weights).abs() / 127.0;
    let id = inverse(d);
    out[..2].copy_from_slice(&finite_f16(d)?.to_le_bytes());
    for (o, w) in out[2..].iter_mut().zip(weights) {
        *o = ((w * id).round() as i8).cast_unsigned();
    }
    Some(out)
}

/// `block_q4_0`: the largest weight, with its sign, becomes code 0, which is -8.
pub(crate) fn q4_0(weights: &[f32; 32]) -> Option<[u8; 18]> {
    let mut out = [0; 18];
    let d = largest(weights) / -8.0;
    let id = inverse(d);
    out[..2].copy_from_slice(&finite_f16(d)?.to_le_bytes());
    pack_nibbles(&mut out[2..], |i| ((weights[i] * id + 8.5) as u8).min(15));
    Some(out)
}

/// `block_q4_1`: codes 0 and 15 are the least and the largest weight.
pub(crate) fn q4_1(weights: &[f32; 32]) -> Option<[u8; 20]> {
    let mut out = [0; 20];
    let min = weights.iter().copied().fold(f32::INFINITY, f32::min);
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let d = (max - min) / 15.0;
    let id = inverse(d);
    out[..2].copy_from_slice(&finite_f16(d)?.to_le_bytes());
    out[2..4].copy_from_slice(&finite_f16(min)?.to_le_bytes());
    pack_nibbles(&mut out[4..], |i| (((weights[i] - min) * id + 0.5) as u8).min(15));
    Some(out)
}
