//! Blocks with one scale: GGML's 32-weight formats, and the 1- and 2-bit ones of 128 weights.

use super::f16_at;

/// The 16 levels of IQ4_NL (GGML's `kvalues_iq4nl`).
const IQ4_NL_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the 16 values of E2M1 (OCP Microscaling Formats 1.0, table 5); doubled, they are whole numbers.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

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

/// `block_q8_0`: d f16, qs i8[32].
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (o, q) in out.iter_mut().zip(&block[2..]) {
        *o = d * f32::from(q.cast_signed());
    }
}

/// `block_q4_0`: d f16, qs u8[16].
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    nibbles(&block[2..], |i, q| out[i] = d * (f32::from(q) - 8.0));
}

/// `block_q4_1`: d f16, m f16, qs u8[16].
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    nibbles(&block[4..], |i, q| out[i] = d * f32::from(q) + m);
}

/// `block_q5_0`: d f16, qh u32, qs u8[16].
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (f16_at(block, 0), fifth_bits(block, 2));
    nibbles(&block[6..], |i, q| {
        let code = u32::from(q) | (high >> i & 1) << 4;
        out[i] = d * (code as f32 - 16.0);
    });
}

/// `block_q5_1`: d f16, m f16, qh u32, qs u8[16].
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (f16_at(block, 0), f16_at(block, 2), fifth_bits(block, 4));
    nibbles(&block[8..], |i, q| {
        let code = u32::from(q) | (high >> i & 1) << 4;
        out[i] = d * code as f32 + m;
    });
}

/// `block_iq4_nl`: d f16, qs u8[16].
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    nibbles(&block[2..], |i, q| out[i] = d * f32::from(IQ4_NL_LEVELS[usize::from(q)]));
}

/// `block_mxfp4`: e u8 (scale 2^(e - 127)), qs u8[16].
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let half_scale = half_e8m0(block[0]);
    nibbles(&block[1..], |i, q| out[i] = half_scale * f32::from(E2M1_DOUBLED[usize::from(q)]));
}

/// 2^(e - 128): half of an E8M0 scale, which goes with the doubled values.
fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(match e {
        // 2^-128 and 2^-127 are subnormal.
        0 => 1 << 21,
        1 => 1 << 22,
        _ => (u32::from(e) - 1) << 23,
    })
}

/// `block_q1_0`: d f16, one bit per weight from bit 0 of byte 0 up; set is +d, clear is -d.
pub(super) fn q1_0(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = f16_at(block, 0);
    for (i, o) in out.iter_mut().enumerate() {
        *o = if block[2 + i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
    }
}

/// TQ2_0_g128: weight `4i + j` in bits `2j` of byte `i`, d f16 last; 0, 1, 2 are -d, 0, +d, and 3 counts as 0.
pub(super) fn tq2_0_g128(block: &[u8; 34], out: &mut [f32; 128]) {
    let d = f16_at(block, 32);
    let levels = [-d, 0.0, d, 0.0];
    for (i, o) in out.iter_mut().enumerate() {
        *o = levels[usize::from(block[i / 4] >> (2 * (i % 4)) & 3)];
    }
}
