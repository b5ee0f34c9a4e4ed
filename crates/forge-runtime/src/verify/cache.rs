//! Keys and values as a cache stores them, `[positions, width]`: made up, decoded, and rounded. Written anew from the formats.

use super::super::spec::half;
use super::error::{Approximate, FEW, HALF_ROUNDING, SMALLEST_HALF};
use super::random::Random;
use super::table::CacheType;

/// Elements that share a scale.
const BLOCK: usize = 32;

/// Bytes of a position whose codes take `codes`, of `width` elements: codes, a half scale for each block, and what fills up eight
/// bytes.
fn position_bytes(codes: usize, width: usize) -> usize {
    (codes + 2 * width.div_ceil(BLOCK)).div_ceil(8) * 8
}

/// Positions of random codes and scales.
fn random_blocks(
    codes: usize,
    width: usize,
    positions: usize,
    random: &mut Random,
    code: impl Fn(&mut Random) -> u8,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(positions * position_bytes(codes, width));
    for position in 1..=positions {
        bytes.extend((0..codes).map(|_| code(random)));
        // From 2^-8 to 2^-6: elements to about 1.
        bytes.extend((0..width / BLOCK).flat_map(|_| (0x1C00 + random.below(0x800) as u16).to_le_bytes()));
        // Read by mistake, it is no number.
        bytes.resize(position * position_bytes(codes, width), 0xFF);
    }
    bytes
}

/// A cache of random elements.
pub(super) fn contents(cache: CacheType, width: usize, positions: usize, random: &mut Random) -> Vec<u8> {
    let count = width * positions;
    match cache {
        CacheType::F16 => (0..count).flat_map(|_| random.half_bits().to_le_bytes()).collect(),
        CacheType::F32 => (0..count).flat_map(|_| random.between(-1.0, 1.0).to_le_bytes()).collect(),
        CacheType::Q8_0 => {
            random_blocks(width, width, positions, random, |random| (random.below(255) as u8).wrapping_sub(127))
        }
        CacheType::Q4_0 => random_blocks(width / 2, width, positions, random, |random| random.below(256) as u8),
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
            let codes = bytes.chunks_exact(position_bytes(width, width)).flat_map(|position| &position[..width]);
            let element = |(at, &code): (usize, &u8)| f64::from(code.cast_signed()) * scales[at / BLOCK];
            codes.enumerate().map(element).collect()
        }
        CacheType::Q4_0 => {
            let scales = scales(cache, width, bytes);
            let codes =
                bytes.chunks_exact(position_bytes(width / 2, width)).flat_map(|position| &position[..width / 2]);
            let codes = codes.flat_map(|byte| [byte % 16, byte / 16]);
            codes.enumerate().map(|(at, code)| (f64::from(code) - 8.0) * scales[at / BLOCK]).collect()
        }
    }
}

/// Its scales, `[positions, width / BLOCK]`, where it has any.
pub(super) fn scales(cache: CacheType, width: usize, bytes: &[u8]) -> Vec<f64> {
    let codes = match cache {
        CacheType::F16 | CacheType::F32 => return Vec::new(),
        CacheType::Q8_0 => width,
        CacheType::Q4_0 => width / 2,
    };
    let position = |bytes: &[u8]| -> Vec<f64> {
        let scales = bytes[codes..].chunks_exact(2).take(width / BLOCK);
        scales.map(|b| half(u32::from(u16::from_le_bytes([b[0], b[1]])))).collect()
    };
    bytes.chunks_exact(position_bytes(codes, width)).flat_map(position).collect()
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
        CacheType::Q4_0 => head.chunks_mut(BLOCK).map(store_signed_block).collect(),
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

/// A block's scale: the element of the largest magnitude is -8 of them. Each element is the whole number of them next to it, 7 at
/// most, by the scale before that is rounded.
fn store_signed_block(block: &mut [Approximate]) -> Approximate {
    let ends = |by: fn(f64, f64) -> f64| block.iter().map(|element| element.value).fold(0.0, by);
    let (low, high) = (ends(f64::min), ends(f64::max));
    let largest = if high > -low { high } else { low };
    let off = block.iter().map(|element| element.bound).fold(0.0, f64::max);
    let scale = Approximate { value: largest / -8.0, bound: off / 8.0 + largest.abs() * FEW };
    let (rounding, size) = (to_half(scale), scale.value.abs());
    for element in block {
        let codes = element.value / if size > f64::MIN_POSITIVE { scale.value } else { f64::INFINITY };
        // What is beyond 7 by up to a whole scale is cut to 7.
        let cut = (codes - 7.5).max(0.0) * size;
        element.bound = 2.0 * element.bound
            + (0.5 + codes.abs() * FEW) * size
            + cut
            + (codes.abs() + 1.0) * (scale.bound + rounding);
    }
    Approximate { bound: scale.bound + rounding, ..scale }
}
