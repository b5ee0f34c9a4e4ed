//! GGML's K-quants: super-blocks of 256 weights whose sub-block scales are themselves quantised.

use super::f16_at;

/// The 2-bit code of weight `e` in Q2_K's and Q3_K's `qs`: each run of 32 bytes holds 128 weights, 32 per bit pair.
pub(crate) fn two_bits(qs: &[u8], e: usize) -> u8 {
    qs[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3
}

/// The nibble of weight `e` in Q4_K's and Q5_K's `qs`: each run of 32 bytes holds 64 weights, low nibbles first.
pub(crate) fn nibble(qs: &[u8], e: usize) -> u8 {
    qs[e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15
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

/// `block_q2_K`: scales u8[16] (low nibble scale, high nibble minimum), qs u8[64], d f16, dmin f16.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, qs) = (&block[..16], &block[16..80]);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (sub, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[sub] & 15);
        let min = dmin * f32::from(scales[sub] >> 4);
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * f32::from(two_bits(qs, sub * 16 + i)) - min;
        }
    }
}

/// Scale `sub` of Q3_K's 12 bytes, 32 too large: a nibble of bytes 0 to 7, and two bits of bytes 8 to 11.
pub(crate) fn q3_k_scale(scales: &[u8], sub: usize) -> u8 {
    let low = scales[sub % 8] >> (sub / 8 * 4) & 15;
    let high = scales[8 + sub % 4] >> (sub / 4 * 2) & 3;
    high << 4 | low
}

/// `block_q3_K`: hmask u8[32], qs u8[64], scales u8[12], d f16.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (hmask, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    for (sub, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * (f32::from(q3_k_scale(scales, sub)) - 32.0);
        for (i, o) in out.iter_mut().enumerate() {
            let e = sub * 16 + i;
            let third = hmask[e % 32] >> (e / 32) & 1;
            *o = scale * (f32::from(third << 2 | two_bits(qs, e)) - 4.0);
        }
    }
}

/// `block_q4_K`: d f16, dmin f16, scales u8[12], qs u8[128].
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, qs) = (&block[4..16], &block[16..]);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, sub);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * f32::from(nibble(qs, sub * 32 + i)) - min;
        }
    }
}

/// `block_q5_K`: d f16, dmin f16, scales u8[12], qh u8[32], qs u8[128].
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, qh, qs) = (&block[4..16], &block[16..48], &block[48..]);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, sub);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (i, o) in out.iter_mut().enumerate() {
            let fifth = qh[i] >> sub & 1;
            *o = scale * f32::from(fifth << 4 | nibble(qs, sub * 32 + i)) - min;
        }
    }
}

/// The 6-bit code of weight `e` of a Q6_K block: per 128 weights, 64 bytes of nibbles (low nibbles for the first 64) and
/// 32 bytes of bit pairs.
pub(crate) fn six_bits(block: &[u8], e: usize) -> u8 {
    let (ql, qh) = (&block[..128], &block[128..192]);
    let (half, quarter, lane) = (e / 128, e / 32 % 4, e % 32);
    let low = ql[half * 64 + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 15;
    let high = qh[half * 32 + lane] >> (quarter * 2) & 3;
    high << 4 | low
}

/// `block_q6_K`: ql u8[128], qh u8[64], scales i8[16], d f16.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scales = &block[192..208];
    let d = f16_at(block, 208);
    for (sub, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[sub].cast_signed());
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * (f32::from(six_bits(block, sub * 16 + i)) - 32.0);
        }
    }
}
