//! Keys and values as a cache stores them, `[positions, width]`: made up, decoded, and rounded. Written anew from the formats.

use super::error::{Approximate, FEW, HALF_ROUNDING, SMALLEST_HALF};
use super::packed::half;
use super::random::Random;
use super::table::CacheType;

/// Elements that share a scale.
const BLOCK: usize = 32;

/// Bytes of a position of `width` Q8_0 elements: codes, a half scale for each block, and what fills up eight bytes.
fn q8_0_bytes(width: usize) -> usize {
    (width + 2 * width.div_ceil(BLOCK)).div_ceil(8) * 8
}

/// A cache of random elements.
pub(super) fn contents(cache: CacheType, width: usize, positions: usize, random: &mut Random) -> Vec<u8> {
    let count = width * positions;
    match cache {
        CacheType::F16 => (0..count).flat_map(|_| random.half_bits().to_le_bytes()).collect(),
        CacheType::F32 => (0..count).flat_map(|_| random.between(-1.0, 1.0).to_le_bytes()).collect(),
        CacheType::Q8_0 => {
            let mut bytes = Vec::with_capacity(positions * q8_0_bytes(width));
            for position in 1..=positions {
                bytes.extend((0..width).map(|_| (random.below(255) as u8).wrapping_sub(127)));
                // From 2^-8 to 2^-6: elements to about 1.
                bytes.extend((0..width / BLOCK).flat_map(|_| (0x1C00 + random.below(0x800) as u16).to_le_bytes()));
                // Read by mistake, it is no number.
                bytes.resize(position * q8_0_bytes(width), 0xFF);
            }
            bytes
        }
    }
}

/// Its elements, `[positions, width]`.
pub(super) fn elements(cache: CacheType, width: usize, bytes: &[u8]) -> Vec<f64> {
    match cache {
        CacheType::F16 => bytes.chunks_exact(2).map(|b| half(u32::from(u16::from_le_bytes([b[0], b[1]])))).collect(),
        CacheType::F32 => {
            bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
        }
        CacheType::Q8_0 => {
            let scales = scales(cache, width, bytes);
            let codes = bytes.chunks_exact(q8_0_bytes(width)).flat_map(|position| &position[..width]);
            let element = |(at, &code): (usize, &u8)| f64::from(code.cast_signed()) * scales[at / BLOCK];
            codes.enumerate().map(element).collect()
        }
    }
}

/// Its scales, `[positions, width / BLOCK]`, where it has any.
pub(super) fn scales(cache: CacheType, width: usize, bytes: &[u8]) -> Vec<f64> {
    match cache {
        CacheType::F16 | CacheType::F32 => Vec::new(),
        CacheType::Q8_0 => {
            let position = |bytes: &[u8]| -> Vec<f64> {
                let scales = bytes[width..].chunks_exact(2).take(width / BLOCK);
                scales.map(|b| half(u32::from(u16::from_le_bytes([b[0], b[1]])))).collect()
            };
            bytes.chunks_exact(q8_0_bytes(width)).flat_map(position).collect()
        }
    }
}

/// What storing rounds comes to the bounds of a head's elements; the scales that they are stored with, if any.
pub(super) fn store(cache: CacheType, head: &mut [Approximate]) -> Vec<Approximate> {
    match cache {
        CacheType::F32 => Vec::new(),
        CacheType::F16 => {
            for element in head {
                element.bound += to_half(*element);
            }
            Vec::new()
        }
        CacheType::Q8_0 => head.chunks_mut(BLOCK).map(store_block).collect(),
    }
}

/// What rounding to half adds to a number's bound.
fn to_half(number: Approximate) -> f64 {
    (number.value.abs() + number.bound) * HALF_ROUNDING + SMALLEST_HALF
}

/// A block's scale: its largest magnitude is 127 of them. Each element is the whole number of them next to it, by the scale
/// before that is rounded.
fn store_block(block: &mut [Approximate]) -> Approximate {
    let largest = block.iter().map(|element| element.value.abs()).fold(0.0, f64::max);
    let off = block.iter().map(|element| element.bound).fold(0.0, f64::max);
    let scale = Approximate { value: largest / 127.0, bound: off / 127.0 + largest * FEW };
    let rounding = to_half(scale);
    for element in block {
        let codes = element.value.abs() / scale.value.max(f64::MIN_POSITIVE);
        element.bound =
            2.0 * element.bound + (0.5 + codes * FEW) * scale.value + (codes + 1.0) * (scale.bound + rounding);
    }
    Approximate { bound: scale.bound + rounding, ..scale }
}
