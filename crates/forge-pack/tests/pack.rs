//! Packing small plans: the container, the bytes, the digests, and what happens when something is wrong.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use forge_formats::{AffineRow, Deviation, EncodedAffine, Format, Layout, Packer, SourceRows};
use forge_formats::{decode_affine, decode_row, encode_affine, encode_row};
use forge_frontend::ModelConfig;
use forge_frontend::graph::{Block, FileRange, Graph, Source as WeightSource, Stage, Weight};
use forge_pack::{Header, PackError, Packed, Packing, Source};
use forge_plan::pack::{PackPart, PackPlan, PackedTensor};
use safetensors::{Dtype, SafeTensors};

/// One file in memory.
struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn bytes(&self, range: &FileRange) -> &[u8] {
        &self.0[range.range.start as usize..range.range.end as usize]
    }
}

struct Model {
    graph: Graph,
    plan: PackPlan,
    bytes: Bytes,
}

impl Model {
    fn new() -> Self {
        let stage = || Stage { block: Block::default(), weights: Vec::new() };
        let config = ModelConfig {
            architecture: "test".into(),
            name: "test".into(),
            hidden_size: 64,
            intermediate_size: 64,
            num_layers: 1,
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 64,
            vocab_size: 64,
            trained_context: 64,
        };
        let graph = Graph {
            config,
            weights: Vec::new(),
            states: Vec::new(),
            embed: stage(),
            blocks: Vec::new(),
            layers: Vec::new(),
            head: stage(),
        };
        Self { graph, plan: PackPlan::default(), bytes: Bytes(Vec::new()) }
    }

    /// A weight with bytes that differ everywhere.
    fn weight(&mut self, tensor: &str, format: Format, rows: usize, cols: usize, offset: f32) -> usize {
        let start = self.bytes.0.len();
        let len = rows * format.row_bytes(cols).unwrap();
        if format == Format::F32 {
            self.bytes.0.extend((0..rows * cols).flat_map(|i| (i as f32).to_le_bytes()));
        } else {
            self.bytes.0.extend((0..len).map(|i| (i * 31 + i / 251) as u8));
        }
        let range = FileRange { file: 0, range: start as u64..(start + len) as u64 };
        self.graph.weights.push(Weight {
            tensor: tensor.into(),
            role: tensor.into(),
            layer: None,
            rows,
            cols,
            format,
            source: WeightSource::Rows(range),
            offset,
            factor: 1.0,
            negated_exp: false,
            max_abs: None,
        });
        self.graph.weights.len() - 1
    }

    fn tensor(&mut self, name: &str, format: Format, rows: usize, cols: usize, parts: &[PackPart]) {
        self.plan.tensors.push(PackedTensor {
            name: name.into(),
            layer: None,
            field: 0,
            format,
            rows,
            cols,
            parts: parts.to_vec(),
        });
    }

    fn pack(&self, path: &Path, cancel: &AtomicBool, progress: impl FnMut(u64)) -> Result<Packed, PackError> {
        let packing = Packing { plan: &self.plan, graph: &self.graph, source: &self.bytes, cancel };
        packing.pack(path, progress)
    }
}

/// Two stacked Q8_0 matrices of many jobs, a vector with an offset and a hole, and an F16 matrix.
fn model() -> Model {
    let mut model = Model::new();
    let q = model.weight("q", Format::Q8_0, 3000, 2048, 0.0);
    let k = model.weight("k", Format::Q8_0, 1001, 2048, 0.0);
    let norm = model.weight("norm", Format::F32, 1, 5, 1.0);
    let head = model.weight("head", Format::F16, 7, 40, 0.0);
    model.tensor("qk", Format::Q8_0, 4001, 2048, &[PackPart::Weight(q), PackPart::Weight(k)]);
    model.tensor("norm", Format::F32, 1, 8, &[PackPart::Zeros(3), PackPart::Weight(norm)]);
    model.tensor("head", Format::F16, 7, 40, &[PackPart::Weight(head)]);
    model
}

#[test]
fn the_file_is_safetensors_with_aligned_tensors_in_device_layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let model = model();
    let mut seen = Vec::new();
    let packed = model.pack(&path, &AtomicBool::new(false), |bytes| seen.push(bytes)).unwrap();

    let file = fs::read(&path).unwrap();
    let header = Header::new(&model.plan);
    assert_eq!(packed.bytes, file.len() as u64);
    assert_eq!(header.file_bytes, packed.bytes);
    assert_eq!(header.bytes, file[..header.bytes.len()]);
    assert_eq!(header.bytes.len() % 16384, 0);
    assert_eq!(file.len() % 16384, 0);
    assert!(header.offsets.iter().all(|offset| offset % 256 == 0));
    assert_eq!(header.digest(), packed.header_sha256);
    let digest = blake3::hash(&file).to_hex().to_string();
    assert_eq!(digest, packed.blake3);
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&packed.bytes));

    let tensors = SafeTensors::deserialize(&file).unwrap();
    let norm = tensors.tensor("norm").unwrap();
    assert_eq!((norm.dtype(), norm.shape()), (Dtype::F32, &[8][..]));
    let elements: Vec<f32> =
        norm.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(elements, [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let head = tensors.tensor("head").unwrap();
    assert_eq!((head.dtype(), head.shape()), (Dtype::F16, &[7, 40][..]));

    let qk = tensors.tensor("qk").unwrap();
    let layout = Layout::new(Format::Q8_0, 4001, 2048).unwrap();
    let mut expected = vec![0; layout.len() as usize];
    let bytes = 4001 * Format::Q8_0.row_bytes(2048).unwrap();
    let mut put = |at: u64, bytes: &[u8]| expected[at as usize..][..bytes.len()].copy_from_slice(bytes);
    Packer::new(layout).pack(0, SourceRows::Blocks(&model.bytes.0[..bytes]), &mut put).unwrap();
    assert_eq!((qk.dtype(), qk.shape()), (Dtype::U8, &[expected.len()][..]));
    assert!(qk.data() == expected, "stacked rows differ from the same rows packed at once");
}

/// A float matrix of many jobs and the encoder's own rows, packed at once.
#[test]
fn quantized_rows_are_those_of_the_encoder() {
    const ROWS: usize = 1500;
    const COLS: usize = 1280;
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4K, Format::Affine { bits: 4, group: 64 }] {
        for from in [Format::F32, Format::F16, Format::BF16] {
            let weights: Vec<f32> = (0..ROWS * COLS).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) / 4096.0).collect();
            let mut stored = vec![0; ROWS * from.row_bytes(COLS).unwrap()];
            encode_row(from, &weights, &mut stored).unwrap();
            let mut model = Model::new();
            let id = model.weight("w", from, ROWS, COLS, 0.0);
            model.bytes.0.clone_from(&stored);
            let weight = &mut model.graph.weights[id];
            let WeightSource::Rows(rows) = weight.source.clone() else { unreachable!() };
            weight.source = WeightSource::Quantize { floats: Box::new(WeightSource::Rows(rows)), from };
            weight.format = format;
            model.tensor("w", format, ROWS, COLS, &[PackPart::Weight(id)]);

            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("weights.safetensors");
            let packed = model.pack(&path, &AtomicBool::new(false), |_| {}).unwrap();
            let again = model.pack(&folder.path().join("again"), &AtomicBool::new(false), |_| {}).unwrap();
            assert_eq!(packed, again, "packing twice");

            let layout = Layout::new(format, ROWS, COLS).unwrap();
            let mut expected = vec![0; layout.len() as usize];
            let mut deviation = Deviation::default();
            let mut packer = Packer::new(layout);
            let (mut row, mut back) = (vec![0.0; COLS], vec![0.0; COLS]);
            for (index, bytes) in stored.chunks(stored.len() / ROWS).enumerate() {
                decode_row(from, bytes, &mut row).unwrap();
                let put = |at: u64, bytes: &[u8]| expected[at as usize..][..bytes.len()].copy_from_slice(bytes);
                if matches!(format, Format::Affine { .. }) {
                    let EncodedAffine { codes, scales, biases } = encode_affine(format, Format::F16, &row).unwrap();
                    let (codes, scales, biases) = (&codes[..], &scales[..], &biases[..]);
                    let parts = AffineRow { format, codes, scales, biases, scale_format: Format::F16, zeros: false };
                    decode_affine(&parts, &mut back).unwrap();
                    packer.pack(index, SourceRows::Affine { codes, scales, biases }, put).unwrap();
                } else {
                    let mut blocks = vec![0; format.row_bytes(COLS).unwrap()];
                    encode_row(format, &row, &mut blocks).unwrap();
                    decode_row(format, &blocks, &mut back).unwrap();
                    packer.pack(index, SourceRows::Blocks(&blocks), put).unwrap();
                }
                deviation.add(&row, &back);
            }
            let file = fs::read(&path).unwrap();
            let tensors = SafeTensors::deserialize(&file).unwrap();
            assert!(tensors.tensor("w").unwrap().data() == expected, "{from} to {format}");
            let found = &packed.deviations[&id];
            assert_eq!(found.max_abs(), deviation.max_abs(), "{from} to {format}");
            let relative = found.relative_rms() / deviation.relative_rms();
            assert!((relative - 1.0).abs() < 1e-9, "{from} to {format}: {relative}");
            assert!(packed.deviations.len() == 1 && found.relative_rms() > 1e-4);
        }
    }
}

#[test]
fn a_weight_that_cannot_be_quantized_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let id = model.weight("blk.0.up", Format::F32, 2, 32, 0.0);
    model.bytes.0[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let weight = &mut model.graph.weights[id];
    let WeightSource::Rows(rows) = weight.source.clone() else { unreachable!() };
    weight.source = WeightSource::Quantize { floats: Box::new(WeightSource::Rows(rows)), from: Format::F32 };
    weight.format = Format::Q8_0;
    model.tensor("up", Format::Q8_0, 2, 32, &[PackPart::Weight(id)]);
    let error = model.pack(&folder.path().join("w"), &AtomicBool::new(false), |_| {}).unwrap_err();
    assert!(matches!(error, PackError::Format { .. }), "{error:?}");
    assert_eq!(error.to_string(), "tensor blk.0.up: weight NaN cannot be stored as Q8_0");
}

/// Bytes whose first reader raises a flag, as an interrupt in the middle of packing does.
struct Interrupting<'a>(&'a Bytes, &'a AtomicBool);

impl Source for Interrupting<'_> {
    fn bytes(&self, range: &FileRange) -> &[u8] {
        self.1.store(true, Ordering::Relaxed);
        self.0.bytes(range)
    }
}

#[test]
fn a_raised_flag_ends_packing() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let cancel = AtomicBool::new(false);
    let source = Interrupting(&model.bytes, &cancel);
    let packing = Packing { plan: &model.plan, graph: &model.graph, source: &source, cancel: &cancel };
    let mut seen = 0;
    let result = packing.pack(&folder.path().join("w"), |bytes| seen = bytes);
    assert!(matches!(result, Err(PackError::Cancelled)), "{result:?}");
    assert!(seen < Header::new(&model.plan).file_bytes, "all was packed");
}

#[test]
fn a_weight_that_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let wide = model.weight("blk.0.wide", Format::F16, 4, 32, 0.0);
    model.tensor("wide", Format::F16, 4, 16, &[PackPart::Weight(wide)]);
    let error = model.pack(&folder.path().join("w"), &AtomicBool::new(false), |_| {}).unwrap_err();
    assert!(matches!(error, PackError::Mixed { .. }), "{error:?}");
    assert_eq!(error.to_string(), "tensor blk.0.wide: expected rows of 16 F16, found 32 F16");

    let mut model = Model::new();
    let short = model.weight("blk.0.short", Format::F16, 4, 32, 0.0);
    let WeightSource::Rows(range) = &mut model.graph.weights[short].source else { unreachable!() };
    range.range.end -= 1;
    model.tensor("short", Format::F16, 4, 32, &[PackPart::Weight(short)]);
    let error = model.pack(&folder.path().join("short"), &AtomicBool::new(false), |_| {}).unwrap_err();
    assert!(matches!(error, PackError::Length { .. }), "{error:?}");
    assert_eq!(error.to_string(), "tensor blk.0.short: expected 256 bytes, found 255");
}

#[test]
fn more_than_any_disk_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    model.tensor("huge", Format::F32, 1 << 30, 1 << 24, &[]);
    let path = folder.path().join("w");
    let error = model.pack(&path, &AtomicBool::new(false), |_| {}).unwrap_err();
    assert!(matches!(error, PackError::NoSpace { needed, .. } if needed >= 1 << 56), "{error:?}");
    assert!(error.to_string().starts_with(&format!("{}: packing needs ", path.display())), "{error}");
    assert!(!path.exists());
}

#[test]
fn an_existing_file_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    fs::write(&path, "mine").unwrap();
    let error = model().pack(&path, &AtomicBool::new(false), |_| {}).unwrap_err();
    assert!(matches!(error, PackError::Io { action: "create", .. }), "{error:?}");
    assert!(error.to_string().contains("cannot create"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}
