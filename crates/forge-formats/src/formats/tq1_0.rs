//! `block_tq1_0`: qs u8[48], qh u8[4], d f16. A byte holds five weights (qh: four) as the digits of a fraction in base 3.

use std::ops::Range;

use super::{BlockFormat, each_block, f16_at};
use crate::Format;
use crate::layout::RowParts;

pub(super) const TQ1_0: BlockFormat = BlockFormat {
    format: Format::Tq1_0,
    name: "TQ1_0",
    ggml_id: Some(34),
    elements: 256,
    bytes: 54,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart,
    encode: None,
};

/// The code of weight `e`, 1 more than the weight: 32 bytes of 160 weights, 16 of 80, 4 of 16, each byte with weights as far
/// apart as there are bytes.
fn code(block: &[u8], e: usize) -> u8 {
    let (byte, digit) = match e {
        0..160 => (e % 32, e / 32),
        160..240 => (32 + e % 16, (e - 160) / 16),
        _ => (48 + e % 4, (e - 240) / 4),
    };
    // Times a power of three, what is left of the point goes and the digit stands right of it.
    let fraction = block[byte].wrapping_mul([1, 3, 9, 27, 81][digit]);
    ((u16::from(fraction) * 3) >> 8) as u8
}

fn decode(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = f16_at(block, 52);
    for (i, o) in out.iter_mut().enumerate() {
        *o = d * (f32::from(code(block, i)) - 1.0);
    }
}

/// Of two tiles, which are blocks here, a lane has twice five digits in a byte and six in ten bits, five of them with either tile; of a tile that is left it has
/// three.
fn take_apart(row: &[u8], parts: &mut RowParts) {
    let digits =
        |block: &[u8], lane: usize, own: Range<usize>| own.map(|e| u32::from(code(block, 8 * lane + e))).collect();
    let number = |digits: Vec<u32>| digits.iter().rev().fold(0, |number, digit| 3 * number + digit);
    for pair in row.chunks(2 * 54) {
        let tiles: Vec<&[u8]> = pair.chunks_exact(54).collect();
        for (index, tile) in tiles.iter().enumerate() {
            for lane in 0..32 {
                let others = tiles.iter().flat_map(|tile| -> Vec<u32> { digits(tile, lane, 5..8) }).collect();
                parts.entries[0].push(number(digits(tile, lane, 0..5)));
                parts.entries[1].push(number(others) >> (5 * index) & 31);
            }
            parts.supers.extend_from_slice(&tile[52..]);
        }
    }
}
