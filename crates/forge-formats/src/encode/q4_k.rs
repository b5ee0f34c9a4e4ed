//! The Q4_K quantiser: a line per sub-block, then scales and minimums of 6 bits chosen around it.

use super::finite_f16;
use super::fit::{Line, best_line};

/// Largest code of 4 bits.
const LEVELS: f32 = 15.0;
/// Largest scale or minimum of 6 bits.
const SCALE_LEVELS: f32 = 63.0;

/// `block_q4_K`: minimums are subtracted and never negative, so offsets are never positive.
pub(super) fn q4_k(weights: &[f32; 256]) -> Option<[u8; 144]> {
    let (subs, _) = weights.as_chunks::<32>();
    let mut lines = [Line { scale: 0.0, offset: 0.0 }; 8];
    for (line, sub) in lines.iter_mut().zip(subs) {
        let low = sub.iter().copied().fold(0.0, f32::min);
        let high = sub.iter().copied().fold(low, f32::max);
        *line = best_line(sub, (low, high), LEVELS, 0.0, |line| line);
    }
    let d = finite_f16(lines.iter().fold(0.0, |max: f32, l| max.max(l.scale)) / SCALE_LEVELS)?;
    let dmin = finite_f16(lines.iter().fold(0.0, |max: f32, l| max.max(-l.offset)) / SCALE_LEVELS)?;

    let mut out = [0; 144];
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&dmin.to_le_bytes());
    for (j, (sub, line)) in subs.iter().zip(lines).enumerate() {
        let (scale, min) = round_scales(sub, line, d.to_f32(), dmin.to_f32());
        put_scale_and_min(&mut out[4..16], j, scale, min);
        let stored = stored_line(d.to_f32(), dmin.to_f32(), scale, min);
        for (i, &w) in sub.iter().enumerate() {
            out[16 + j / 2 * 32 + i] |= (stored.code(w, LEVELS) as u8) << (j % 2 * 4);
        }
    }
    Some(out)
}

fn stored_line(d: f32, dmin: f32, scale: u8, min: u8) -> Line {
    Line { scale: d * f32::from(scale), offset: -(dmin * f32::from(min)) }
}

/// The 6-bit scale and minimum of least error among the nearest and their neighbours.
fn round_scales(sub: &[f32; 32], line: Line, d: f32, dmin: f32) -> (u8, u8) {
    let around = |value: f32, unit: f32| {
        let nearest = if unit == 0.0 { 0.0 } else { (value / unit).round() };
        [-1.0, 0.0, 1.0].map(|step| (nearest + step).clamp(0.0, SCALE_LEVELS) as u8)
    };
    let (mut best, mut best_error) = ((0, 0), f32::INFINITY);
    for scale in around(line.scale, d) {
        for min in around(-line.offset, dmin) {
            let error = stored_line(d, dmin, scale, min).error(sub, LEVELS);
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
