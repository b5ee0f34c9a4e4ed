//! The pair of kernels of `indirect.metal`: one counts tiles, the other's grid is what it counted.
#![allow(dead_code, reason = "each test file uses its part")]

use metal_sim::{Binding, Buffer, Device, Library};

use super::common::{filled, floats, noise, read_floats};

/// Where in the buffer the counts are, in bytes: not at its start, and not on a boundary of 16.
pub const COUNTS: usize = 20;
/// Most tiles of a test.
pub const MOST: [u32; 3] = [12, 2, 1];

pub struct Tiles {
    lengths: Vec<u32>,
    input: Vec<f32>,
    lists: Buffer,
    lengths_buffer: Buffer,
    tiles: Buffer,
    x: Buffer,
    pub grid: Buffer,
    pub y: Buffer,
    pub seen: Buffer,
}

impl Tiles {
    pub fn new(device: &Device, lengths: &[u32]) -> Self {
        let words = |label, words: &[u32]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            filled(device, label, &bytes)
        };
        let rows: u32 = lengths.iter().sum();
        let input = noise(8 * rows.max(1) as usize, 5);
        let y = vec![0.0; input.len()];
        Self {
            lists: words("lists", &[lengths.len() as u32]),
            lengths_buffer: words("lengths", lengths),
            tiles: device.buffer("tiles", 12 * 20),
            grid: device.buffer("grid", 40),
            x: floats(device, "x", &input),
            y: floats(device, "y", &y),
            seen: words("seen", &[7, 7, 7]),
            lengths: lengths.to_vec(),
            input,
        }
    }

    pub fn counts(&self) -> Binding<'_> {
        Binding { buffer: &self.grid, offset: COUNTS, len: 12 }
    }

    pub fn count(&self, library: &Library, commands: &mut metal_sim::CommandBuffer) {
        let kernel = library.kernel("count_tiles").expect("is in the file");
        let bindings = [self.lists.whole(), self.lengths_buffer.whole(), self.tiles.whole(), self.counts()];
        commands.dispatch(&kernel, &bindings, [1, 1, 1], [1, 1, 1]);
    }

    pub fn scale(&self, library: &Library, commands: &mut metal_sim::CommandBuffer, most: [u32; 3]) {
        let kernel = library.kernel("scale_tiles").expect("is in the file");
        let bindings = [self.tiles.whole(), self.x.whole(), self.y.whole(), self.seen.whole()];
        commands.dispatch_indirect(&kernel, &bindings, self.counts(), most, [32, 1, 1]);
    }

    pub fn tile_count(&self) -> u32 {
        self.lengths.iter().map(|length| length.div_ceil(4)).sum()
    }

    /// Asserts that every row was multiplied by the number of its list and one.
    pub fn assert_scaled(&self) {
        let rows = self.lengths.iter().enumerate().flat_map(|(list, &length)| vec![list as f32 + 1.0; length as usize]);
        let want: Vec<f32> =
            rows.zip(self.input.chunks(8)).flat_map(|(factor, row)| row.iter().map(move |x| x * factor)).collect();
        assert_eq!(read_floats(&self.y)[..want.len()], want);
        let mut seen = [0; 12];
        self.seen.read(0, &mut seen);
        let seen: Vec<u32> =
            seen.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four"))).collect();
        assert_eq!(seen, [self.tile_count(), 2, 32 * self.tile_count()], "the grid as the kernel sees it");
    }
}
