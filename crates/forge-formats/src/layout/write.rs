//! Writing one row of a plane.

use super::scheme::Scheme;
use super::{LANES, TILE};

/// Codes of a row: per group, per lane, the lane's tiles. 8-bit codes follow in column order. Others lie in words: bit
/// `4p..` of the low half holds column `2p` of the lane's 8, of the high half column `2p + 1`, the word's tiles side by
/// side within the nibble. A lane whose tiles fill less than 32 bits puts both columns of a pair next to one another.
pub(super) fn codes(scheme: &Scheme, cols: usize, codes: &[u8], shift: u32, bits: usize, out: &mut Vec<u8>) {
    let mask = ((1_u32 << bits) - 1) as u8;
    let field = |column: usize| codes[column] >> shift & mask;
    let lanes_per_block = scheme.block / 8;
    for group in scheme.groups(cols) {
        for lane in 0..LANES.min(group.cols / 8) {
            let first = lane / lanes_per_block * scheme.block + lane % lanes_per_block * 4;
            let column = |tile: usize, element: usize| {
                (group.tile + tile) * TILE + first + element / 4 * (scheme.block / 2) + element % 4
            };
            if bits == 8 {
                // Whole bytes: runs of four are copied as they are, which packing's throughput depends on.
                for i in (0..group.count * 8).step_by(4) {
                    let run = column(i / 8, i % 8);
                    out.extend_from_slice(&codes[run..run + 4]);
                }
                continue;
            }
            let word_bits = (group.count * 8 * bits).min(32);
            let tiles_per_word = word_bits / (8 * bits);
            for word_tile in (0..group.count).step_by(tiles_per_word) {
                let mut word = 0_u32;
                for i in 0..tiles_per_word * 8 {
                    let (tile, pair, second) = (i / 8, i % 8 / 2, i % 2);
                    let code = field(column(word_tile + tile, i % 8));
                    let place = if word_bits == 32 {
                        second * 16 + pair * 4
                    } else {
                        pair * (word_bits / 4) + second * (word_bits / 8)
                    };
                    word |= u32::from(code) << (place + tile * bits);
                }
                out.extend_from_slice(&word.to_le_bytes()[..word_bits / 8]);
            }
        }
    }
}

/// Entries of a row, one per block in column order: per group by block in the tile, then tile, as a little-endian stream
/// of bits.
pub(super) fn blocks(scheme: &Scheme, cols: usize, entries: &[u32], bits: usize, out: &mut Vec<u8>) {
    let per_tile = TILE / scheme.block;
    let (mut pending, mut filled) = (0_u64, 0);
    for group in scheme.groups(cols) {
        for block in 0..group.cols / scheme.block {
            for tile in 0..group.count {
                let entry = entries[(group.tile + tile) * per_tile + block];
                pending |= u64::from(entry) << filled;
                filled += bits;
                while filled >= 8 {
                    out.push(pending as u8);
                    pending >>= 8;
                    filled -= 8;
                }
            }
        }
    }
    debug_assert_eq!(filled, 0, "rows of entries below 8 bits are whole tiles");
}
