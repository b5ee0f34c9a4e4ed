//! The quantisers of blocks of 256: Q4_K and Q5_K have a line per sub-block of 32, then scales and minimums of 6 bits chosen
//! around it; Q6_K has a factor per sub-block of 16, then scales of 8 bits.

use super::finite_f16;
use super::fit::{Line, best_factor, best_line, factor_error, signed_code};

/// Largest scale or minimum of 6 bits.
const SCALE_LEVELS: f32 = 63.0;

/// `block_q4_K`: codes in the nibbles of 128 bytes.
pub(crate) fn q4_k(weights: &[f32; 256]) -> Option<[u8; 144]> {
    let mut out = [0; 144];
    let (head, qs) = out.split_at_mut(16);
    scaled_with_minimums(weights, 15.0, head, |e, code| qs[e / 64 * 32 + e % 32] |= code << (e / 32 % 2 * 4))?;
    Some(out)
}

/// `block_q5_K`: fifth bits in 32 bytes, then nibbles as `block_q4_K` has them.
pub(crate) fn q5_k(weights: &[f32; 256]) -> Option<[u8; 176]> {
    let mut out = [0; 176];
    let (head, codes) = out.split_at_mut(16);
    let (qh, qs) = codes.split_at_mut(32);
    scaled_with_minimums(weights, 31.0, head, |e, code| {
        qs[e / 64 * 32 + e % 32] |= (code & 15) << (e / 32 % 2 * 4);
        qh[e % 32] |= (code >> 4) << (e / 32);
    })?;
    Some(out)
}

/// `block_q6_K`: low nibbles in 128 bytes, top pairs of bits in 64, scales i8[16], d f16.
pub(crate) fn q6_k(weights: &[f32; 256]) -> Option<[u8; 210]> {
    /// Codes are from -32 to 31.
    const LEVELS: f32 = 32.0;
    let (subs, _) = weights.as_chunks::<16>();
    let factors: Vec<f32> = subs.iter().map(|sub| best_factor(sub, LEVELS)).collect();
    let largest = factors.iter().fold(0.0, |most: f32, factor| if factor.abs() > most.abs() { *factor } else { most });
    // The largest has a scale of -128, as GGML puts it.
    let d = finite_f16(largest / -128.0)?;
    let unit = d.to_f32();
    let mut out = [0; 210];
    for (sub, (weights, factor)) in subs.iter().zip(&factors).enumerate() {
        let nearest = if unit == 0.0 { 0.0 } else { (factor / unit).round() };
        let around = [-1.0, 0.0, 1.0].map(|step| (nearest + step).clamp(-128.0, 127.0));
        let error = |scale: &f32| factor_error(weights, unit * scale, LEVELS);
        let scale = around.into_iter().min_by(|a, b| error(a).total_cmp(&error(b))).expect("three scales");
        out[192 + sub] = (scale as i8).cast_unsigned();
        for (i, &weight) in weights.iter().enumerate() {
            let (e, code) = (sub * 16 + i, (signed_code(weight, unit * scale, LEVELS) + LEVELS) as u8);
            let (half, quarter, lane) = (e / 128, e / 32 % 4, e % 32);
            out[half * 64 + quarter % 2 * 32 + lane] |= (code & 15) << (quarter / 2 * 4);
            out[128 + half * 32 + lane] |= (code >> 4) << (quarter * 2);
        }
    }
    out[208..].copy_from_slice(&d.to_le_bytes());
    Some(out)
}

/// The head of `block_q4_K` and `block_q5_K` (d, dmin, scales and minimums), and each weight's code. Minimums are subtracted and
/// never negative, so offsets are never positive.
fn scaled_with_minimums(
    weights: &[f32; 256],
    levels: f32,
    head: &mut [u8],
    mut put: impl FnMut(usize, u8),
) -> Option<()> {
    let (subs, _) = weights.as_chunks::<32>();
    let mut lines = [Line { scale: 0.0, offset: 0.0 }; 8];
    for (line, sub) in lines.iter_mut().zip(subs) {
        let low = sub.iter().copied().fold(0.0, f32::min);
        let high = sub.iter().copied().fold(low, f32::max);
        *line = best_line(sub, (low, high), levels, 0.0, |line| line);
    }
    let d = finite_f16(lines.iter().fold(0.0, |max: f32, l| max.max(l.scale)) / SCALE_LEVELS)?;
    let dmin = finite_f16(lines.iter().fold(0.0, |max: f32, l| max.max(-l.offset)) / SCALE_LEVELS)?;
    head[..2].copy_from_slice(&d.to_le_bytes());
    head[2..4].copy_from_slice(&dmin.to_le_bytes());
    for (j, (sub, line)) in subs.iter().zip(lines).enumerate() {
        let (scale, min) = round_scales(sub, line, d.to_f32(), dmin.to_f32(), levels);
        put_scale_and_min(&mut head[4..16], j, scale, min);
        let stored = stored_line(d.to_f32(), dmin.to_f32(), scale, min);
        for (i, &w) in sub.iter().enumerate() {
            put(j * 32 + i, stored.code(w, levels) as u8);
        }
    }
    Some(())
}

fn stored_line(d: f32, dmin: f32, scale: u8, min: u8) -> Line {
    Line { scale: d * f32::from(scale), offset: -(dmin * f32::from(min)) }
}

/// The 6-bit scale and minimum of least error among the nearest and their neighbours.
fn round_scales(sub: &[f32; 32], line: Line, d: f32, dmin: f32, levels: f32) -> (u8, u8) {
    let around = |value: f32, unit: f32| {
        let nearest = if unit == 0.0 { 0.0 } else { (value / unit).round() };
        [-1.0, 0.0, 1.0].map(|step| (nearest + step).clamp(0.0, SCALE_LEVELS) as u8)
    };
    let (mut best, mut best_error) = ((0, 0), f32::INFINITY);
    for scale in around(line.scale, d) {
        for min in around(-line.offset, dmin) {
            let error = stored_line(d, dmin, scale, min).error(sub, levels);
            if error < best_error {
                (best, best_error) = ((scale, min), error);
            }
        }
    }
    best
}

/// The inverse of the decoder's `scale_and_min`, into zeroed bytes.
fn put_scale_and_min(scales: &mut [u8], j: usize, scale: u8, min: u8) {
    if j < 4 {
        scales[j] |= scale;
        scales[j + 4] |= min;
    } else {
        scales[j + 4] |= scale & 15 | (min & 15) << 4;
        scales[j - 4] |= scale >> 4 << 6;
        scales[j] |= min >> 4 << 6;
    }
}
