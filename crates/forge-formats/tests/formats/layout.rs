//! The packed layout, read back as the kernels' `load4` reads it, against the reference decoders.

use forge_formats::{
    AffineRow, Format, FormatError, Layout, Packer, SourceRows, decode_affine, decode_apart, decode_row, packed_len,
};
use forge_spec::grids::{self, Grid};
use half::{bf16, f16};

/// xorshift64: bytes without a pattern.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next()).collect()
    }

    /// Finite 16-bit floats, as bits.
    fn halves(&mut self, n: usize) -> Vec<u8> {
        (0..n).flat_map(|_| [self.next(), 0x20 | self.next() & 0x0F]).collect()
    }
}

/// Where a kernel looks for four columns: `find_columns` in `common.metal`.
struct Place {
    tile: usize,
    count: usize,
    t: usize,
    lane: usize,
    j: usize,
}

fn find_columns(cols: usize, block: usize, tiles: usize, col: usize) -> Place {
    let (l, whole, at) = (block / 8, cols / 256, col / 256);
    let (tile, count) = if at >= whole {
        (whole, 1)
    } else {
        let start = at / tiles * tiles;
        let left = whole - start;
        let offset = at - start;
        match left {
            _ if left >= tiles => (start, tiles),
            _ if offset < left & 4 => (start, 4),
            _ if offset < (left & 4) + (left & 2) => (start + (left & 4), 2),
            _ => (start + (left & 6), 1),
        }
    };
    let quad = col % 256 / 4;
    Place { tile, count, t: at - tile, lane: quad / (2 * l) * l + quad % l, j: quad / l % 2 }
}

/// A packed matrix and where its planes start.
struct Packed {
    bytes: Vec<u8>,
    layout: Layout,
}

impl Packed {
    fn plane(&self, plane: usize, row: usize) -> &[u8] {
        let range = self.layout.planes()[plane];
        &self.bytes[range.offset as usize + row * range.row_bytes..][..range.row_bytes]
    }

    /// The codes of four columns in a plane of `bits` bits.
    fn four(&self, plane: usize, bits: usize, row: usize, p: &Place) -> [u32; 4] {
        let group = &self.plane(plane, row)[p.tile * 32 * bits..];
        if bits == 8 {
            let at = ((p.lane * p.count + p.t) * 2 + p.j) * 4;
            return [0, 1, 2, 3].map(|i| group[at + i].into());
        }
        let read = |at: usize, n: usize| (0..n).fold(0_u32, |word, i| word | u32::from(group[at + i]) << (8 * i));
        let lane_bytes = p.count * bits;
        let (word, tile_in_word) = match lane_bytes {
            1 => (spread_byte(read(p.lane, 1)), p.t),
            2 => (spread_short(read(p.lane * 2, 2)), p.t),
            _ => {
                let tiles_per_word = 4 / bits;
                (read(p.lane * lane_bytes + p.t / tiles_per_word * 4, 4), p.t % tiles_per_word)
            }
        };
        let word = word >> (8 * p.j) >> (tile_in_word * bits);
        [0, 16, 4, 20].map(|shift| word >> shift & ((1 << bits) - 1))
    }

    /// Entry of `bits` bits of the lane's block, `per_lanes` lanes to a block.
    fn entry(&self, plane: usize, bits: usize, lanes_per_block: usize, row: usize, p: &Place) -> u32 {
        let per_tile = 32 / lanes_per_block;
        let index = p.tile * per_tile + p.lane / lanes_per_block * p.count + p.t;
        let data = self.plane(plane, row);
        (0..bits).fold(0, |value, i| {
            let bit = index * bits + i;
            value | u32::from(data[bit / 8] >> (bit % 8) & 1) << i
        })
    }

    /// The number that the group's entries of a place are, which lies in parts of so many bits a tile: an entry per `columns` columns.
    fn split(&self, plane: usize, columns: usize, parts: &[usize], place: usize, row: usize, p: &Place) -> u64 {
        let (data, places) = (self.plane(plane, row), 256 / columns);
        let mut at = p.tile * places * parts.iter().sum::<usize>();
        let mut number = Vec::new();
        for part in parts {
            let count = part * p.count;
            let first = at + place * count;
            number.extend((first..first + count).map(|bit| data[bit / 8] >> (bit % 8) & 1));
            at += places * count;
        }
        number.iter().rev().fold(0, |value, bit| value << 1 | u64::from(*bit))
    }

    fn half(&self, plane: usize, index: usize, row: usize) -> f32 {
        let data = self.plane(plane, row);
        f16::from_le_bytes([data[2 * index], data[2 * index + 1]]).to_f32()
    }
}

fn spread_short(bits: u32) -> u32 {
    bits & 0x3333 | (bits & 0xCCCC) << 14
}

fn spread_byte(bits: u32) -> u32 {
    let bits = bits & 0x0F | (bits & 0xF0) << 4;
    let bits = bits & 0x0303 | (bits & 0x0C0C) << 2;
    bits & 0x1111 | (bits & 0x2222) << 15
}

fn low_half(bits: u32) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}

fn high_half(bits: u32) -> f32 {
    f16::from_bits((bits >> 16) as u16).to_f32()
}

/// Four coordinates of a point from `first`, times the scale, negative where their bit of `signs` is set.
fn signed(grid: &Grid, point: u32, first: usize, scale: f32, signs: u32) -> [f32; 4] {
    [0, 1, 2, 3].map(|i| {
        let size = scale * f32::from(grid.coordinate(point as usize, first + i));
        if signs >> i & 1 == 1 { -size } else { size }
    })
}

/// Seven signs and the eighth.
fn even_signs(seven: u32) -> u32 {
    seven & 127 | ((seven & 127).count_ones() & 1) << 7
}

/// Coordinates of a point from `first`, with an eighth added or, where `lower` is 1, taken away.
fn shifted(point: u32, first: usize, scale: f32, lower: u32) -> [f32; 4] {
    let eighth = if lower == 1 { -0.125 } else { 0.125 };
    [0, 1, 2, 3].map(|i| scale * (f32::from(grids::IQ1_S.coordinate(point as usize, first + i)) + eighth))
}

/// Four weights from `col`, with the arithmetic of the reference decoders.
fn load4(format: Format, packed: &Packed, cols: usize, row: usize, col: usize) -> [f32; 4] {
    const IQ4_NL: [f32; 16] =
        [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];
    const E2M1: [f32; 16] = [0., 0.5, 1., 1.5, 2., 3., 4., 6., 0., -0.5, -1., -1.5, -2., -3., -4., -6.];
    let place = |block, tiles| find_columns(cols, block, tiles, col);
    let sum = |low: [u32; 4], high: [u32; 4], weight: u32| [0, 1, 2, 3].map(|i| low[i] + weight * high[i]);
    let one_scale = |codes: [u32; 4], d: f32, zero: f32| codes.map(|q| d * (q as f32 - zero));
    let two_scales = |codes: [u32; 4], d: f32, m: f32| codes.map(|q| d * q as f32 + m);
    match format {
        Format::F32 => [0, 1, 2, 3].map(|i| {
            let bytes = &packed.plane(0, row)[(col + i) * 4..][..4];
            f32::from_le_bytes(bytes.try_into().unwrap())
        }),
        Format::F16 => [0, 1, 2, 3].map(|i| packed.half(0, col + i, row)),
        Format::BF16 => [0, 1, 2, 3].map(|i| {
            let bytes = &packed.plane(0, row)[(col + i) * 2..][..2];
            bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32()
        }),
        Format::Q8_0 => {
            let p = place(32, 2);
            one_scale(packed.four(0, 8, row, &p), low_half(packed.entry(1, 16, 4, row, &p)), 128.0)
        }
        Format::Q4_0 => {
            let p = place(32, 4);
            one_scale(packed.four(0, 4, row, &p), low_half(packed.entry(1, 16, 4, row, &p)), 8.0)
        }
        Format::Q4_1 => {
            let p = place(32, 4);
            let scales = packed.entry(1, 32, 4, row, &p);
            two_scales(packed.four(0, 4, row, &p), low_half(scales), high_half(scales))
        }
        Format::Q5_0 => {
            let p = place(32, 4);
            let codes = sum(packed.four(0, 4, row, &p), packed.four(1, 1, row, &p), 16);
            one_scale(codes, low_half(packed.entry(2, 16, 4, row, &p)), 16.0)
        }
        Format::Q5_1 => {
            let p = place(32, 4);
            let codes = sum(packed.four(0, 4, row, &p), packed.four(1, 1, row, &p), 16);
            let scales = packed.entry(2, 32, 4, row, &p);
            two_scales(codes, low_half(scales), high_half(scales))
        }
        Format::Iq4Nl => {
            let p = place(32, 4);
            let d = low_half(packed.entry(1, 16, 4, row, &p));
            packed.four(0, 4, row, &p).map(|q| d * IQ4_NL[q as usize])
        }
        Format::Iq4Xs => {
            let p = place(32, 4);
            let scale = packed.entry(1, 4, 4, row, &p) | packed.entry(2, 2, 4, row, &p) << 4;
            let d = packed.half(3, p.tile + p.t, row) * (scale as f32 - 32.0);
            packed.four(0, 4, row, &p).map(|q| d * IQ4_NL[q as usize])
        }
        Format::Iq3Xxs => {
            let p = place(8, 4);
            let point = packed.entry(0, 16, 1, row, &p) >> (8 * p.j) & 255;
            let word = packed.entry(1, 32, 4, row, &p);
            let scale = packed.half(2, p.tile + p.t, row) * (0.5 + (word >> 28) as f32) * 0.5;
            signed(&grids::IQ3_XXS, point, 0, scale, even_signs(word >> (p.lane % 4 * 7)) >> (4 * p.j))
        }
        Format::Iq3S => {
            let p = place(8, 4);
            let low = packed.entry(0, 16, 1, row, &p) >> (8 * p.j) & 255;
            let point = low | (packed.entry(1, 2, 1, row, &p) >> p.j & 1) << 8;
            let signs = packed.entry(2, 8, 1, row, &p) >> (4 * p.j);
            let scale = packed.half(4, p.tile + p.t, row) * (1 + 2 * packed.entry(3, 4, 4, row, &p)) as f32;
            signed(&grids::IQ3_S, point, 0, scale, signs)
        }
        Format::Iq2Xxs => {
            let p = place(8, 4);
            let word = packed.entry(1, 32, 4, row, &p);
            let scale = packed.half(2, p.tile + p.t, row) * (0.5 + (word >> 28) as f32) * 0.25;
            let signs = even_signs(word >> (p.lane % 4 * 7)) >> (4 * p.j);
            signed(&grids::IQ2_XXS, packed.entry(0, 8, 1, row, &p), 4 * p.j, scale, signs)
        }
        Format::Iq2Xs => {
            let p = place(8, 4);
            let word = packed.entry(0, 16, 1, row, &p);
            let scale = packed.half(2, p.tile + p.t, row) * (0.5 + packed.entry(1, 4, 2, row, &p) as f32) * 0.25;
            signed(&grids::IQ2_XS, word & 511, 4 * p.j, scale, even_signs(word >> 9) >> (4 * p.j))
        }
        Format::Iq2S => {
            let p = place(8, 4);
            let word = packed.entry(0, 16, 1, row, &p);
            let point = word & 255 | packed.entry(1, 2, 1, row, &p) << 8;
            let scale = packed.half(3, p.tile + p.t, row) * (0.5 + packed.entry(2, 4, 2, row, &p) as f32) * 0.25;
            signed(&grids::IQ2_S, point, 4 * p.j, scale, word >> (8 + 4 * p.j))
        }
        Format::Iq1S => {
            let p = place(8, 4);
            // Four lanes' bits above their points are the numbers of as many tiles.
            let first = p.lane / 4 * 4;
            let bits = |lane: usize| packed.split(0, 8, &[8, 4], lane, row, &p) >> (11 * p.count);
            let number = (0..4).fold(0, |all, lane| all | bits(first + lane) << (lane * p.count)) >> (4 * p.t) & 15;
            let point = packed.split(0, 8, &[8, 4], p.lane, row, &p) >> (11 * p.t) & 2047;
            let scale = packed.half(1, p.tile + p.t, row) * (2 * (number & 7) + 1) as f32;
            shifted(point as u32, 4 * p.j, scale, number as u32 >> 3)
        }
        Format::Iq1M => {
            let p = place(8, 4);
            let number = packed.split(0, 8, &[8, 4], p.lane, row, &p);
            let (point, sign) = (number >> (11 * p.t) & 2047, number >> (11 * p.count + p.t) & 1);
            let scale = packed.split(1, 16, &[2, 1], p.lane / 2, row, &p) >> (3 * p.t) & 7;
            let scale = packed.half(2, p.tile + p.t, row) * (2 * scale + 1) as f32;
            shifted(point as u32, 4 * p.j, scale, sign as u32)
        }
        Format::Mxfp4 => {
            let p = place(32, 4);
            let d = f32::from_bits((packed.entry(1, 8, 4, row, &p) << 23).max(1 << 22));
            packed.four(0, 4, row, &p).map(|q| d * E2M1[q as usize])
        }
        Format::Mxfp8 => {
            let p = place(32, 2);
            let d = f32::from_bits((packed.entry(1, 8, 4, row, &p) << 23).max(1 << 22));
            packed.four(0, 8, row, &p).map(|q| d * (256.0 * low_half((q & 128) << 8 | (q & 127) << 7)))
        }
        Format::Nvfp4 => {
            let p = place(16, 4);
            let scale = packed.entry(1, 8, 2, row, &p);
            let d = 256.0 * low_half((scale & 128) << 8 | (scale & 127) << 7);
            let factor = f32::from_le_bytes(packed.plane(2, row).try_into().expect("a float a row"));
            packed.four(0, 4, row, &p).map(|q| d * E2M1[q as usize] * factor)
        }
        Format::Q1_0 => {
            let p = place(128, 4);
            let d = low_half(packed.entry(1, 16, 16, row, &p));
            let byte = packed.plane(0, row)[p.tile * 32 + p.lane * p.count + p.t];
            [0, 1, 2, 3].map(|i| if byte >> (4 * p.j + i) & 1 == 1 { d } else { -d })
        }
        Format::Q2_0 => {
            let p = place(64, 4);
            one_scale(packed.four(0, 2, row, &p), low_half(packed.entry(1, 16, 8, row, &p)), 1.0)
        }
        Format::Tq1_0 => {
            let p = place(8, 4);
            let first = (packed.split(1, 8, &[4, 1], p.lane, row, &p) >> (5 * p.t)) as u32 & 31;
            let number = first + 27 * packed.entry(0, 8, 1, row, &p);
            let digits = [0, 1, 2, 3].map(|i| number / 3_u32.pow(4 * p.j as u32 + i) % 3);
            one_scale(digits, packed.half(2, p.tile + p.t, row), 1.0)
        }
        Format::Tq2_0 => {
            let p = place(128, 4);
            one_scale(packed.four(0, 2, row, &p), packed.half(1, p.tile + p.t, row), 1.0)
        }
        Format::Tq2_0G128 => {
            let p = place(128, 4);
            one_scale(packed.four(0, 2, row, &p), low_half(packed.entry(1, 16, 16, row, &p)), 1.0)
        }
        Format::E4m3G128 | Format::E4m3G32 => {
            let block = format.block_elements();
            let p = place(block, 2);
            let d = f32::from_bits(packed.entry(1, 32, block / 8, row, &p));
            // A half has its exponent where these bits come to, biased by 8 more.
            packed.four(0, 8, row, &p).map(|q| d * (256.0 * low_half((q & 128) << 8 | (q & 127) << 7)))
        }
        Format::Q2K => {
            let p = place(16, 4);
            let scales = packed.entry(1, 8, 2, row, &p);
            let (d, dmin) = (packed.half(2, 2 * (p.tile + p.t), row), packed.half(2, 2 * (p.tile + p.t) + 1, row));
            let min = dmin * (scales >> 4) as f32;
            packed.four(0, 2, row, &p).map(|q| d * (scales & 15) as f32 * q as f32 - min)
        }
        Format::Q3K => {
            let p = place(16, 4);
            let scale = packed.entry(2, 4, 2, row, &p) | packed.entry(3, 2, 2, row, &p) << 4;
            let codes = sum(packed.four(0, 2, row, &p), packed.four(1, 1, row, &p), 4);
            one_scale(codes, packed.half(4, p.tile + p.t, row) * (scale as f32 - 32.0), 4.0)
        }
        Format::Q4K | Format::Q5K => {
            let p = place(32, 4);
            let mut codes = packed.four(0, 4, row, &p);
            let first = if format == Format::Q5K {
                codes = sum(codes, packed.four(1, 1, row, &p), 16);
                2
            } else {
                1
            };
            let byte = packed.entry(first, 8, 4, row, &p);
            let minimum = byte >> 6 | packed.entry(first + 1, 4, 4, row, &p) << 2;
            let (d, dmin) =
                (packed.half(first + 2, 2 * (p.tile + p.t), row), packed.half(first + 2, 2 * (p.tile + p.t) + 1, row));
            let (scale, min) = (d * (byte & 63) as f32, dmin * minimum as f32);
            codes.map(|q| scale * q as f32 - min)
        }
        Format::Q6K => {
            let p = place(16, 4);
            let codes = sum(packed.four(0, 4, row, &p), packed.four(1, 2, row, &p), 16);
            let scale = packed.entry(2, 8, 2, row, &p) as f32 - 128.0;
            one_scale(codes, packed.half(3, p.tile + p.t, row) * scale, 32.0)
        }
        Format::Affine { bits, group } => {
            let group = usize::from(group);
            let p = place(group, if bits == 8 { 2 } else { 4 });
            let (codes, scales) = match bits {
                3 => (sum(packed.four(0, 2, row, &p), packed.four(1, 1, row, &p), 4), 2),
                5 => (sum(packed.four(0, 4, row, &p), packed.four(1, 1, row, &p), 16), 2),
                6 => (sum(packed.four(0, 4, row, &p), packed.four(1, 2, row, &p), 16), 2),
                bits => (packed.four(0, bits.into(), row, &p), 1),
            };
            let scales = packed.entry(scales, 32, group / 8, row, &p);
            two_scales(codes, low_half(scales), high_half(scales))
        }
    }
}

/// Random stored rows; halves that scale are kept finite.
fn random_blocks(format: Format, rows: usize, cols: usize, bytes: &mut Bytes) -> Vec<u8> {
    if format.is_float() {
        let mut data = bytes.take(format.row_bytes(cols).unwrap() * rows);
        let size = format.block_bytes();
        data.chunks_exact_mut(size).for_each(|value| value[size - 1] = 0x3C | value[size - 1] & 0x81);
        return data;
    }
    let mut data = bytes.take(format.row_bytes(cols).unwrap() * rows);
    let halves: &[usize] = match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        Format::Tq2_0G128 => &[32],
        Format::Tq1_0 => &[52],
        Format::Tq2_0 => &[64],
        Format::Iq1M => &[54],
        Format::Mxfp4 | Format::Mxfp8 | Format::Nvfp4 => &[],
        // The upper half of a float.
        Format::E4m3G128 | Format::E4m3G32 => &[2],
        _ => &[0],
    };
    for block in data.chunks_exact_mut(format.block_bytes()) {
        for &at in halves {
            block[at + 1] = block[at + 1] & 0x8F | 0x20;
        }
        if matches!(format, Format::E4m3G128 | Format::E4m3G32) {
            // Not the codes that are no numbers.
            block[4..].iter_mut().filter(|code| **code & 127 == 127).for_each(|code| *code ^= 1);
        }
        if format == Format::Mxfp8 {
            block[1..].iter_mut().filter(|code| **code & 127 == 127).for_each(|code| *code ^= 1);
        }
        if matches!(format, Format::Mxfp4 | Format::Mxfp8) {
            // Up to 2^-126 and down to 2^-127, which is subnormal.
            block[0] = if block[0] < 32 { block[0] & 1 } else { block[0] & 0x3F | 0x40 };
        }
    }
    data
}

/// Packs in two ranges of rows and checks every weight.
fn check(format: Format, rows: usize, cols: usize, seed: u64) {
    let mut bytes = Bytes(0x9E37_79B9_7F4A_7C15 ^ seed);
    let layout = Layout::new(format, rows, cols).expect("cols is a whole number of blocks");
    let mut packed = Packed { bytes: vec![0; layout.len() as usize], layout: layout.clone() };
    let mut packer = Packer::new(layout);
    let split = rows / 3;
    let mut reference = vec![0.0; rows * cols];
    let mut pack = |first: usize, source: SourceRows<'_>| {
        packer.pack(first, source, |at, plane| packed.bytes[at as usize..][..plane.len()].copy_from_slice(plane))
    };
    if let Format::Affine { bits, group } = format {
        let (row_codes, row_scales) = (cols * usize::from(bits) / 8, cols / usize::from(group) * 2);
        let codes = bytes.take(rows * row_codes);
        let (scales, biases) = (bytes.halves(rows * row_scales / 2), bytes.halves(rows * row_scales / 2));
        for (first, end) in [(0, split), (split, rows)] {
            let source = SourceRows::Affine {
                codes: &codes[first * row_codes..end * row_codes],
                scales: &scales[first * row_scales..end * row_scales],
                biases: &biases[first * row_scales..end * row_scales],
            };
            assert_eq!(pack(first, source), Ok(end - first));
        }
        for (row, out) in reference.chunks_exact_mut(cols).enumerate() {
            let row = AffineRow {
                format,
                codes: &codes[row * row_codes..][..row_codes],
                scales: &scales[row * row_scales..][..row_scales],
                biases: &biases[row * row_scales..][..row_scales],
                scale_format: Format::F16,
                zeros: false,
            };
            decode_affine(&row, out).unwrap();
        }
    } else {
        let data = random_blocks(format, rows, cols, &mut bytes);
        let row_bytes = format.row_bytes(cols).unwrap();
        for (first, end) in [(0, split), (split, rows)] {
            let source = SourceRows::Blocks(&data[first * row_bytes..end * row_bytes]);
            assert_eq!(pack(first, source), Ok(end - first));
        }
        for (row, out) in reference.chunks_exact_mut(cols).enumerate() {
            decode_row(format, &data[row * row_bytes..][..row_bytes], out).unwrap();
        }
    }
    for row in 0..rows {
        for col in (0..cols).step_by(4) {
            let found = load4(format, &packed, cols, row, col);
            let expected = &reference[row * cols + col..][..4];
            assert_eq!(found, expected, "{format} [{rows}, {cols}] at row {row}, column {col}");
        }
    }
}

#[test]
fn every_weight_is_found_where_kernels_look() {
    for (seed, format) in Format::all().enumerate() {
        for cols in [64, 96, 160, 172, 256, 512, 576, 640, 768, 896, 1024, 1792, 2560, 3616, 4096] {
            if format.row_bytes(cols).is_some() {
                check(format, 4, cols, seed as u64 * 100 + cols as u64);
            }
        }
    }
}

/// Codes and scales in two tensors become what blocks of the same become.
#[test]
fn codes_and_scales_apart_are_packed_as_blocks_are() {
    let (rows, cols, mut bytes) = (5, 1888, Bytes(11));
    let apart = Format::Mxfp4.apart().expect("codes and scales");
    let blocks = random_blocks(Format::Mxfp4, rows, cols, &mut bytes);
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in blocks.chunks_exact(17) {
        let of_weight = |i: usize| block[1 + i % 16] >> (i / 16 * 4) & 15;
        codes.extend((0..32).step_by(2).map(|i| of_weight(i) | of_weight(i + 1) << 4));
        scales.push(block[0]);
    }
    let packed = |source: SourceRows<'_>| {
        let layout = Layout::new(Format::Mxfp4, rows, cols).unwrap();
        let mut packed = vec![0; layout.len() as usize];
        let put = |at: u64, plane: &[u8]| packed[at as usize..][..plane.len()].copy_from_slice(plane);
        assert_eq!(Packer::new(layout).pack(0, source, put), Ok(rows));
        packed
    };
    let of_blocks = packed(SourceRows::Blocks(&blocks));
    assert!(packed(SourceRows::Apart { codes: &codes, scales: &scales }) == of_blocks);
    let [code_bytes, scale_bytes] = Format::Mxfp4.apart_row_bytes(cols).unwrap();
    assert_eq!([code_bytes, scale_bytes], [cols * apart.bits / 8, cols / apart.group]);
    let (mut found, mut expected) = (vec![0.0; cols], vec![0.0; cols]);
    for row in 0..rows {
        let own = (&codes[row * code_bytes..][..code_bytes], &scales[row * scale_bytes..][..scale_bytes]);
        decode_apart(Format::Mxfp4, own.0, own.1, 1.0, &mut found).unwrap();
        decode_row(Format::Mxfp4, &blocks[row * cols / 32 * 17..][..cols / 32 * 17], &mut expected).unwrap();
        // MLX has a negative zero, GGML has not.
        assert!(found.iter().zip(&expected).all(|(a, b)| a == b), "row {row}");
    }
}

/// NVFP4 with codes in order and a factor for each of some rows, packed and read back.
#[test]
fn rows_with_factors_are_multiplied_by_them() {
    let (rows, cols, mut bytes) = (6, 64 * 21, Bytes(12));
    let codes = bytes.take(rows * cols / 2);
    let scales: Vec<u8> =
        bytes.take(rows * cols / 16).iter().map(|&scale| if scale & 127 == 127 { 0 } else { scale }).collect();
    let factors = [0.5, 3.7 / 2688.0, 1.0, 2.0_f32.powi(-30), 1e5, -1.0];
    let layout = Layout::new(Format::Nvfp4, rows, cols).expect("whole blocks");
    let mut packed = Packed { bytes: vec![0; layout.len() as usize], layout: layout.clone() };
    let mut packer = Packer::new(layout);
    for (first, end) in [(0, 2), (2, rows)] {
        let apart = SourceRows::Apart {
            codes: &codes[first * cols / 2..end * cols / 2],
            scales: &scales[first * cols / 16..end * cols / 16],
        };
        let source = SourceRows::Factored { rows: &apart, factors: &factors[first..end] };
        let put = |at: u64, plane: &[u8]| packed.bytes[at as usize..][..plane.len()].copy_from_slice(plane);
        assert_eq!(packer.pack(first, source, put), Ok(end - first));
    }
    let apart = SourceRows::Apart { codes: &codes, scales: &scales };
    let short = SourceRows::Factored { rows: &apart, factors: &factors[1..] };
    let error = packer.pack(0, short, |_, _| {}).unwrap_err();
    assert!(matches!(error, FormatError::Length { what: "factors", expected: 6, found: 5, .. }), "{error}");
    let mut decoded = vec![0.0; cols];
    for (row, &factor) in factors.iter().enumerate() {
        let own = (&codes[row * cols / 2..][..cols / 2], &scales[row * cols / 16..][..cols / 16]);
        decode_apart(Format::Nvfp4, own.0, own.1, factor, &mut decoded).expect("whole groups");
        for (four, expected) in decoded.chunks_exact(4).enumerate() {
            let found = load4(Format::Nvfp4, &packed, cols, row, 4 * four);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 2e-7 * expected.abs(), "row {row}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn packing_adds_less_than_a_percent() {
    for format in Format::all() {
        for cols in [256, 640, 896, 2560] {
            let Some(row_bytes) = format.row_bytes(cols) else { continue };
            // A factor a row is a number of the checkpoint, though most have one for a whole matrix.
            let row_bytes = row_bytes + if format.has_row_factors() { 4 } else { 0 };
            let stored = (row_bytes * 2048) as u64;
            let packed = packed_len(format, 2048, cols).unwrap();
            assert!(packed <= stored + stored / 100, "{format} {cols}: {packed} for {stored}");
        }
    }
}

#[test]
fn sources_that_do_not_fit_are_refused() {
    assert_eq!(packed_len(Format::Q8_0, 4, 33), None);
    let mut packer = Packer::new(Layout::new(Format::Q8_0, 4, 64).unwrap());
    let error = packer.pack(0, SourceRows::Blocks(&[0; 69]), |_, _| {}).unwrap_err();
    assert!(matches!(error, FormatError::Length { expected: 68, found: 69, .. }), "{error}");
    let affine = SourceRows::Affine { codes: &[], scales: &[], biases: &[] };
    assert!(matches!(packer.pack(0, affine, |_, _| {}), Err(FormatError::NotAffine { .. })));
    let apart = SourceRows::Apart { codes: &[], scales: &[] };
    assert!(matches!(packer.pack(0, apart, |_, _| {}), Err(FormatError::NotApart { .. })));
    let mut packer = Packer::new(Layout::new(Format::Mxfp4, 4, 64).unwrap());
    for (codes, scales, missing) in [(33, 2, "codes"), (32, 1, "scales")] {
        let source = SourceRows::Apart { codes: &vec![0; codes], scales: &vec![0; scales] };
        let error = packer.pack(0, source, |_, _| {}).unwrap_err();
        assert!(matches!(error, FormatError::Length { what, .. } if what == missing), "{error}");
    }
    let rows = SourceRows::Apart { codes: &[0; 32], scales: &[0; 2] };
    let factored = SourceRows::Factored { rows: &rows, factors: &[2.0] };
    let error = packer.pack(0, factored, |_, _| {}).unwrap_err();
    assert!(matches!(error, FormatError::NoRowFactors { .. }), "{error}");
    // Scales and codes that are no numbers.
    for (format, codes, scales) in [
        (Format::Nvfp4, [0x77; 32].as_slice(), [0x38, 0x7F, 0x38, 0x38].as_slice()),
        (Format::Mxfp4, &[0x77; 32], &[127, 255]),
        (Format::Mxfp8, &[0x38; 64], &[127, 255]),
        (Format::Mxfp8, &[[0x38; 63].as_slice(), &[0xFF]].concat(), &[127, 127]),
    ] {
        let mut packer = Packer::new(Layout::new(format, 1, 64).unwrap());
        let error = packer.pack(0, SourceRows::Apart { codes, scales }, |_, _| {}).unwrap_err();
        let of_scales = matches!(error, FormatError::Companion { what: "scale", .. });
        assert!(of_scales || codes.contains(&0xFF) && matches!(error, FormatError::Unrepresentable { .. }), "{error}");
    }
    let mut out = [0.0; 64];
    for (codes, scales) in [(31, 2), (32, 3)] {
        let error = decode_apart(Format::Mxfp4, &vec![0; codes], &vec![0; scales], 1.0, &mut out).unwrap_err();
        assert!(matches!(error, FormatError::Length { .. }), "{error}");
    }
    assert!(matches!(decode_apart(Format::Q8_0, &[], &[], 1.0, &mut out), Err(FormatError::NotApart { .. })));
    assert!(matches!(
        decode_apart(Format::Mxfp4, &[], &[], 1.0, &mut out[..33]),
        Err(FormatError::RowNotBlocks { .. })
    ));
}
