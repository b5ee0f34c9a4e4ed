//! Writing one row of a plane.

use forge_spec::{Plane, Scheme, TILE};

use super::LANES;
use super::groups::groups;

/// Bits of a word's codes for a lane's 8 columns of one tile, by the bits of the word.
const PLACES_IN_32: [u32; 8] = [0, 16, 4, 20, 8, 24, 12, 28];
const PLACES_IN_16: [u32; 8] = [0, 2, 4, 6, 8, 10, 12, 14];
const PLACES_IN_8: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// Calls `put` for every lane of every group with the tiles in the group and, per tile, the codes of the lane's two runs.
fn each_lane<'a>(
    scheme: &Scheme,
    cols: usize,
    codes: &'a [u8],
    mut put: impl FnMut(usize, &dyn Fn(usize) -> [&'a [u8]; 2]),
) {
    let lanes_per_block = scheme.block / 8;
    for group in groups(scheme, cols) {
        for lane in 0..LANES.min(group.cols / 8) {
            let first = group.tile * TILE + lane / lanes_per_block * scheme.block + lane % lanes_per_block * 4;
            put(group.count, &|tile| {
                let run = first + tile * TILE;
                [&codes[run..run + 4], &codes[run + scheme.block / 2..][..4]]
            });
        }
    }
}

/// Codes of a row: per group, per lane, the lane's tiles. 8-bit codes follow in column order. Others lie in words: bit
/// `4p..` of the low half holds column `2p` of the lane's 8, of the high half column `2p + 1`, the word's tiles side by
/// side within the nibble. A lane whose tiles fill less than 32 bits puts both columns of a pair next to one another.
pub(super) fn codes(scheme: &Scheme, cols: usize, codes: &[u8], shift: u32, bits: usize, out: &mut Vec<u8>) {
    if bits == 8 {
        return match scheme.block {
            32 => bytes::<32>(scheme, cols, codes, out),
            64 => bytes::<64>(scheme, cols, codes, out),
            block => {
                assert_eq!(block, 128, "formats of 8 bits");
                bytes::<128>(scheme, cols, codes, out);
            }
        };
    }
    let mask = (1_u32 << bits) - 1;
    each_lane(scheme, cols, codes, |count, runs| {
        let word_bits = (count * 8 * bits).min(32);
        let (tiles, places) = match word_bits {
            32 => (4 / bits, PLACES_IN_32),
            16 => (2 / bits, PLACES_IN_16),
            _ => (1, PLACES_IN_8),
        };
        for first in (0..count).step_by(tiles) {
            let mut word = 0;
            for tile in 0..tiles {
                for (code, place) in runs(first + tile).into_iter().flatten().zip(places) {
                    word |= (u32::from(*code) >> shift & mask) << (place + (tile * bits) as u32);
                }
            }
            out.extend_from_slice(&word.to_le_bytes()[..word_bits / 8]);
        }
    });
}

/// Codes of 8 bits. They are most of the bytes of the models that have them, so this goes through a row in order and puts
/// each run of four where it belongs.
fn bytes<const BLOCK: usize>(scheme: &Scheme, cols: usize, codes: &[u8], out: &mut Vec<u8>) {
    for group in groups(scheme, cols) {
        let start = out.len();
        out.resize(start + group.count * group.cols, 0);
        let (lanes, _) = out[start..].as_chunks_mut::<8>();
        for tile in 0..group.count {
            let (blocks, _) = codes[(group.tile + tile) * TILE..][..group.cols].as_chunks::<BLOCK>();
            for (block, lanes) in blocks.iter().zip(lanes.chunks_exact_mut(BLOCK / 8 * group.count)) {
                for lane in 0..BLOCK / 8 {
                    let to = &mut lanes[lane * group.count + tile];
                    to[..4].copy_from_slice(&block[lane * 4..][..4]);
                    to[4..].copy_from_slice(&block[BLOCK / 2 + lane * 4..][..4]);
                }
            }
        }
    }
}

/// Codes of 1 bit: a byte per lane and tile, the lane's columns from bit 0 up.
pub(super) fn bits(scheme: &Scheme, cols: usize, codes: &[u8], out: &mut Vec<u8>) {
    each_lane(scheme, cols, codes, |count, runs| {
        for tile in 0..count {
            let columns = runs(tile).into_iter().flatten().zip(PLACES_IN_8);
            out.push(columns.fold(0, |byte, (code, place)| byte | code << place));
        }
    });
}

/// Entries of a row, one per `columns` columns in their order: per group of tiles by place in the tile, then tile, as a
/// little-endian stream of bits.
pub(super) fn entries(scheme: &Scheme, cols: usize, columns: usize, entries: &[u32], bits: usize, out: &mut Vec<u8>) {
    let per_tile = TILE / columns;
    let (mut pending, mut filled) = (0_u64, 0);
    for group in groups(scheme, cols) {
        for place in 0..group.cols / columns {
            for tile in 0..group.count {
                let entry = entries[(group.tile + tile) * per_tile + place];
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

/// Entries of a row, one per `lanes` lanes of each tile: per group of tiles, those of the same lanes as one number, in parts.
pub(super) fn split(scheme: &Scheme, cols: usize, lanes: usize, entries: &[u32], bits: usize, out: &mut Vec<u8>) {
    let places = LANES / lanes;
    for group in groups(scheme, cols) {
        let of_place = |place: usize| {
            let entry = |tile: usize| u64::from(entries[(group.tile + tile) * places + place]) << (tile * bits);
            (0..group.count).map(entry).sum::<u64>()
        };
        in_parts((0..places).map(of_place), bits, group.count, out);
    }
}

/// Points of a row, one per lane of each tile, with the numbers that `lanes` lanes share above them: per group of tiles, a lane's points
/// and bits as one number, in parts.
pub(super) fn points(scheme: &Scheme, cols: usize, lanes: usize, entries: &[u32], out: &mut Vec<u8>) {
    const POINT: usize = Plane::POINT_BITS;
    for group in groups(scheme, cols) {
        let entry = |lane: usize, tile: usize| u64::from(entries[(group.tile + tile) * LANES + lane]);
        let of_lane = |lane: usize| {
            let tiles = 0..group.count;
            let points =
                tiles.clone().map(|tile| (entry(lane, tile) & ((1 << POINT) - 1)) << (POINT * tile)).sum::<u64>();
            let numbers = tiles.map(|tile| entry(lane, tile) >> POINT << (lanes * tile)).sum::<u64>();
            let own = numbers >> (lane % lanes * group.count) & ((1 << group.count) - 1);
            points | own << (POINT * group.count)
        };
        in_parts((0..LANES).map(of_lane), POINT + 1, group.count, out);
    }
}

/// Numbers of `bits` bits for each of `tiles` tiles: their [parts](Plane::parts), one after another, each as a little-endian stream of whole bytes.
fn in_parts(numbers: impl Iterator<Item = u64> + Clone, bits: usize, tiles: usize, out: &mut Vec<u8>) {
    let mut first = 0;
    for part in Plane::parts(bits) {
        let count = part * tiles;
        let (mut pending, mut filled) = (0_u64, 0);
        for number in numbers.clone() {
            pending |= (number >> first & ((1 << count) - 1)) << filled;
            filled += count;
            while filled >= 8 {
                out.push(pending as u8);
                pending >>= 8;
                filled -= 8;
            }
        }
        debug_assert_eq!(filled, 0, "numbers of a group fill bytes");
        first += count;
    }
}
