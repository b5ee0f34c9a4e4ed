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

/// Of a lane's eight digits the last five are a number and the first three another, their first the lowest.
fn take_apart(row: &[u8], parts: &mut RowParts) {
    for block in row.chunks_exact(54) {
        for lane in 0..32 {
            let number =
                |own: Range<usize>| own.rev().fold(0, |number, e| 3 * number + u32::from(code(block, 8 * lane + e)));
            parts.entries[0].push(number(3..8));
            parts.entries[1].push(number(0..3));
        }
        parts.supers.extend_from_slice(&block[52..]);
    }
}
