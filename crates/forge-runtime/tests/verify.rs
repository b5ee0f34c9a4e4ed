//! The references of `verify`: packed weights against the formats' own decoders, and small kernels, right and wrong, on the
//! software device.

mod common;

use forge_formats::{AffineRow, Format as Stored, Layout, Packer, SourceRows, decode_affine, decode_row};
use forge_runtime::gpu::{Gpu, KernelSpec, Source};
use forge_runtime::verify::packed::{Packed, Weight};
use forge_runtime::verify::*;
use forge_runtime::weights::Weights;

/// xorshift64: bytes without a pattern.
struct Bytes(u64);

impl Iterator for Bytes {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some((self.0 >> 32) as u8)
    }
}

fn packed_format(format: Stored) -> Format {
    match format {
        Stored::F32 => Format::F32,
        Stored::F16 => Format::F16,
        Stored::BF16 => Format::BF16,
        Stored::Q8_0 => Format::Q8_0,
        Stored::Q4_0 => Format::Q4_0,
        Stored::Q4_1 => Format::Q4_1,
        Stored::Q5_0 => Format::Q5_0,
        Stored::Q5_1 => Format::Q5_1,
        Stored::Q2K => Format::Q2K,
        Stored::Q3K => Format::Q3K,
        Stored::Q4K => Format::Q4K,
        Stored::Q5K => Format::Q5K,
        Stored::Q6K => Format::Q6K,
        Stored::Iq4Nl => Format::Iq4Nl,
        Stored::Mxfp4 => Format::Mxfp4,
        Stored::Q1_0 => Format::Q1_0,
        Stored::Tq2_0G128 => Format::Tq2_0G128,
        Stored::Affine { bits, group } => Format::Affine { bits: bits.into(), group: group.into(), bf16: false },
    }
}

/// Packs rows and compares every weight read back with what they decode to.
fn compare(format: Stored, rows: usize, cols: usize, source: SourceRows<'_>, decoded: &[f32]) {
    let layout = Layout::new(format, rows, cols).expect("whole blocks");
    let mut bytes = vec![0; layout.len() as usize];
    let write = |at: u64, data: &[u8]| bytes[at as usize..at as usize + data.len()].copy_from_slice(data);
    Packer::new(layout).pack(0, source, write).expect("packs");
    let packed = Packed { bytes: &bytes, format: packed_format(format), rows, cols };
    let mut row = vec![Weight::default(); cols];
    for (r, decoded) in decoded.chunks_exact(cols).enumerate() {
        packed.row(r, &mut row);
        for (col, (found, &expected)) in row.iter().zip(decoded).enumerate() {
            let error = (found.value - f64::from(expected)).abs();
            assert!(found.magnitude >= found.value.abs() * 0.999_999, "{format} [{r}, {col}]: {found:?}");
            assert!(
                error <= 3e-7 * found.magnitude + 1e-40,
                "{format} [{r}, {col}] of {cols}: {found:?}, not {expected}"
            );
        }
    }
}

#[test]
fn packed_weights_decode_as_their_formats_do() {
    let mut random = Bytes(0x0123_4567_89AB_CDEF);
    for format in Stored::all() {
        let block = format.block_elements();
        // Whole groups of tiles, what is left of them, and partial tiles.
        for cols in [256 * 4, 256 * 7, 256 * 3 + 128, 256 * 9, 128].map(|cols: usize| cols.next_multiple_of(block)) {
            let rows = 3;
            let mut decoded = vec![0.0_f32; rows * cols];
            if let Stored::Affine { bits, group } = format {
                let groups = cols / usize::from(group);
                let codes: Vec<u8> = random.by_ref().take(rows * cols * usize::from(bits) / 8).collect();
                let mut halves = || -> Vec<u8> {
                    (0..rows * groups)
                        .flat_map(|_| [random.next().unwrap(), 0x20 | random.next().unwrap() & 15])
                        .collect()
                };
                let (scales, biases) = (halves(), halves());
                for (r, out) in decoded.chunks_exact_mut(cols).enumerate() {
                    let row = AffineRow {
                        format,
                        codes: &codes[r * codes.len() / rows..][..codes.len() / rows],
                        scales: &scales[r * groups * 2..][..groups * 2],
                        biases: &biases[r * groups * 2..][..groups * 2],
                        scale_format: Stored::F16,
                    };
                    decode_affine(&row, out).expect("decodes");
                }
                let source = SourceRows::Affine { codes: &codes, scales: &scales, biases: &biases };
                compare(format, rows, cols, source, &decoded);
                continue;
            }
            let mut blocks = Vec::new();
            for out in decoded.chunks_exact_mut(block) {
                // Scales that are not finite are not what is tested.
                let bytes = loop {
                    let bytes: Vec<u8> = random.by_ref().take(format.block_bytes()).collect();
                    decode_row(format, &bytes, out).expect("decodes");
                    if out.iter().all(|weight| weight.abs() < 1e30 && (*weight == 0.0 || weight.abs() > 1e-30)) {
                        break bytes;
                    }
                };
                blocks.extend(bytes);
            }
            compare(format, rows, cols, SourceRows::Blocks(&blocks), &decoded);
        }
    }
}

/// Plain kernels of one thread each: what the references say, in MSL.
const KERNELS: &str = include_str!("fixtures/plain_kernels.metal");

const fn spec(name: &'static str) -> KernelSpec {
    KernelSpec { name, threads: 1, threadgroup_bytes: 0 }
}

static KERNEL_TABLE: [KernelSpec; 4] = [spec("rms_norm"), spec("gate_up"), spec("attention"), spec("rope_append")];

const GAMMA: Argument = Argument::read(Role::Gamma, Data::Tensor("gamma"));

static CHECKS: [KernelCheck; 4] = [
    KernelCheck {
        kernel: 0,
        layer: None,
        rows: &[1, 7],
        grid: [Dim::Rows, Dim::Const(1), Dim::Const(1)],
        operation: Operation::RmsNorm { width: 32, eps: 1e-5 },
        arguments: &[Argument::read(Role::X, Data::Words(32)), GAMMA, Argument::write(Role::Y, Data::Words(32))],
    },
    KernelCheck {
        kernel: 1,
        layer: None,
        rows: &[1, 7],
        grid: [Dim::Rows, Dim::Const(1), Dim::Const(1)],
        operation: Operation::Project(Projection {
            matrices: &[Matrix { format: Format::F32, rows: 8, cols: 32 }],
            norm_eps: None,
            half_operands: false,
            epilogue: Epilogue::Gated(Activation::Silu),
        }),
        arguments: &[
            Argument::read(Role::Weights, Data::Tensor("matrix")),
            Argument::read(Role::Input, Data::Words(32)),
            Argument::write(Role::Y, Data::Words(4)),
        ],
    },
    KernelCheck {
        kernel: 2,
        layer: None,
        rows: &[1, 7],
        grid: [Dim::Rows, Dim::Const(4), Dim::Const(1)],
        operation: Operation::Attention(Attention {
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            scale: 0.25,
            softcap: Some(20.0),
            window: Some(24),
            cache: CacheType::F16,
            wrap: Some(40),
            half_operands: false,
            split: None,
        }),
        arguments: &[
            Argument::read(Role::Q, Data::Words(32)),
            Argument::read(Role::Keys, Data::Cache(16)),
            Argument::read(Role::Values, Data::Cache(16)),
            Argument::write(Role::Y, Data::Words(32)),
            Argument::read(Role::Step, Data::Params),
        ],
    },
    KernelCheck {
        kernel: 3,
        layer: None,
        rows: &[1, 7],
        grid: [Dim::Rows, Dim::Const(1), Dim::Const(1)],
        operation: Operation::RopeAppend(RopeAppend {
            keys_as_values: false,
            heads: 2,
            kv_heads: 1,
            head_dim: 8,
            norms: [None, None, None],
            inv_freq: &[1.0, 0.1, 0.01],
            interleaved: false,
            magnitude: 1.0,
            cache: CacheType::F32,
            wrap: None,
        }),
        arguments: &[
            Argument::read(Role::Qkv, Data::Words(32)),
            Argument::write(Role::Q, Data::Words(16)),
            Argument::write(Role::Keys, Data::Cache(8)),
            Argument::write(Role::Values, Data::Cache(8)),
            Argument::read(Role::Step, Data::Params),
        ],
    },
];

/// Names of the kernels that fail, with what is said of them.
fn failing(metal: &'static str) -> Vec<(&'static str, String)> {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, info) = common::weights_file(folder.path(), &KERNEL_TABLE);
    let weights = Weights::open(&path, info).expect("the weights");
    let checks = Checks {
        forge_version: "0",
        source: Box::leak(Box::new(Source::new(metal, &[]))),
        kernels: &CHECKS,
        costs: &[],
        tuning: &common::NO_TUNING,
    };
    let gpu = Gpu::open(checks.source, info.kernels).expect("a device");
    let verifier = Verifier::new(&gpu, &checks, info, &weights).expect("memory");
    let mut failing = Vec::new();
    for check in verifier.checks() {
        let faults = verifier.run(check).filter_map(|outcome| outcome.fault);
        failing.extend(faults.map(|fault| (verifier.name(check), fault)).take(1));
    }
    failing
}

#[test]
fn right_kernels_pass() {
    assert_eq!(failing(KERNELS), []);
}

#[test]
fn each_fault_is_found_in_its_kernel() {
    let faults = [
        // The epsilon.
        ("1.0e-5f", "1.1e-3f", "rms_norm"),
        // One product of 32 left out, in one row.
        ("* input[i]", "* (row == 7 && i == 31 ? 0.0f : input[i])", "gate_up"),
        ("exp(-gate)", "exp(-1.001f * gate)", "gate_up"),
        // A window that is one too long, and a cache that wraps one too early.
        ("+ 24 > position", "+ 25 > position", "attention"),
        ("% 40", "% 39", "attention"),
        // An append to the wrong slot, and a pair that turns the other way.
        ("position * 8", "(position + 1) * 8", "rope_append"),
        ("x * s + y * c", "y * c - x * s", "rope_append"),
    ];
    for (right, wrong, kernel) in faults {
        let metal: &'static str = KERNELS.replacen(right, wrong, 1).leak();
        assert_ne!(metal, KERNELS, "{right} is in the kernels");
        let found = failing(metal);
        assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [kernel], "{wrong}: {found:?}");
    }
}
