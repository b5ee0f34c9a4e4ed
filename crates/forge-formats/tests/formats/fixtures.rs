//! Reading the fixtures.

use std::path::Path;

use forge_formats::{AffineRow, Format};

/// Blocks and the weights that they decode to or were made from.
pub struct Fixture {
    pub blocks: Vec<u8>,
    pub weights: Vec<f32>,
}

impl Fixture {
    pub fn read(name: &str) -> Self {
        let mut file = Bytes(read(name));
        let (weights, blocks) = (file.u32(), file.u32());
        let fixture = Self { blocks: file.take(blocks), weights: file.floats(weights) };
        assert!(file.0.is_empty(), "{name} is longer than its counts say");
        fixture
    }
}

/// Codes and scales of one of MLX's floating modes.
pub struct Modes {
    pub codes: Vec<u8>,
    pub scales: Vec<u8>,
    /// Of all scales; 0 where the mode has none.
    pub factor: f32,
    /// Weights without the factor, and with it where there is one.
    pub plain: Vec<f32>,
    pub factored: Vec<f32>,
}

impl Modes {
    pub fn read(name: &str, group: usize) -> Self {
        let mut file = Bytes(read(name));
        let (weights, codes) = (file.u32(), file.u32());
        let factor = file.floats(1)[0];
        let (codes, scales, plain) = (file.take(codes), file.take(weights / group), file.floats(weights));
        let factored = if factor > 0.0 { file.floats(weights) } else { Vec::new() };
        assert!(file.0.is_empty(), "{name} is longer than its counts say");
        Self { codes, scales, factor, plain, factored }
    }
}

/// The parts of an affine row and the weights that they decode to.
pub struct AffineFixture {
    format: Format,
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
    scale_format: Format,
    pub weights: Vec<f32>,
}

impl AffineFixture {
    pub fn row(&self) -> AffineRow<'_> {
        AffineRow {
            format: self.format,
            codes: &self.codes,
            scales: &self.scales,
            biases: &self.biases,
            scale_format: self.scale_format,
            zeros: false,
        }
    }
}

pub fn affine_fixture(format: Format) -> AffineFixture {
    let Format::Affine { bits, group } = format else { panic!("{format} is not affine") };
    let mut file = Bytes(read(&format!("{format}.bin")));
    let (weights, id) = (file.u32(), file.u32());
    let scale_format = Format::from_ggml(id as u32, 1, 4, 1).expect("scales are floats");
    let groups = weights / usize::from(group) * scale_format.block_bytes();
    let fixture = AffineFixture {
        format,
        codes: file.take(weights * usize::from(bits) / 8),
        scales: file.take(groups),
        biases: file.take(groups),
        scale_format,
        weights: file.floats(weights),
    };
    assert!(file.0.is_empty(), "{format}: the fixture is longer than its counts say");
    fixture
}

/// Another toolchain's matrix and its weights.
pub struct RepackFixture {
    pub sizes: Vec<usize>,
    pub parts: Vec<Vec<u8>>,
    pub weights: Vec<f32>,
}

impl RepackFixture {
    pub fn read(name: &str) -> Self {
        let mut file = Bytes(read(&format!("repack_{name}.bin")));
        let sizes = (0..if name.starts_with("fp8") { 4 } else { 3 }).map(|_| file.u32()).collect::<Vec<_>>();
        let parts = file.u32();
        let lengths: Vec<usize> = (0..parts).map(|_| file.u32()).collect();
        let parts = lengths.into_iter().map(|length| file.take(length)).collect();
        let weights = file.floats(sizes[0] * sizes[1]);
        assert!(file.0.is_empty(), "{name}: the fixture is longer than its counts say");
        Self { sizes, parts, weights }
    }
}

/// mlx's relative RMS error in an affine format or a floating mode, and the weights that it quantised.
pub fn mlx_encode_fixture(name: &str) -> (f32, Vec<f32>) {
    let mut file = Bytes(read(&format!("{name}.encode.bin")));
    let error = file.floats(1)[0];
    let count = file.0.len() / 4;
    (error, file.floats(count))
}

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn take(&mut self, count: usize) -> Vec<u8> {
        self.0.drain(..count).collect()
    }

    fn u32(&mut self) -> usize {
        let bytes = self.take(4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        self.take(4 * count).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}
