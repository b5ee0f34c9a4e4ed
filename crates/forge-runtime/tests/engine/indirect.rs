//! Dispatches whose threadgroups are in a buffer: encoded, recorded and run again, and verified.

use crate::common;
use forge_runtime::gpu::{Buffer, Gpu, KernelSpec, Source, pool};
use forge_runtime::profile::time;
use forge_runtime::verify::*;
use forge_runtime::weights::Weights;

const TEXT: &str = "#include <metal_stdlib>
using namespace metal;
// The numbers of the rows that are not empty, and one threadgroup for each of them.
kernel void list_rows(device const uint* lengths [[buffer(0)]], device uint* rows [[buffer(1)]],
                      device uint* counts [[buffer(2)]]) {
    uint count = 0;
    for (uint row = 0; row < 16; ++row) {
        if (lengths[row] > 0) {
            rows[count++] = row;
        }
    }
    counts[0] = count;
    counts[1] = 1;
    counts[2] = 1;
}
kernel void double_rows(device const uint* rows [[buffer(0)]], device float* x [[buffer(1)]],
                        uint group [[threadgroup_position_in_grid]], uint i [[thread_position_in_threadgroup]]) {
    x[rows[group] * 32 + i] *= 2.0f;
}
kernel void rms_norm(device const float* x [[buffer(0)]], device const float* gamma [[buffer(1)]],
                     device float* y [[buffer(2)]], uint row [[threadgroup_position_in_grid]]) {
    float squares = 0.0f;
    for (uint i = 0; i < 32; ++i) {
        squares += x[row * 32 + i] * x[row * 32 + i];
    }
    float scale = rsqrt(squares / 32.0f + 1.0e-5f);
    for (uint i = 0; i < 32; ++i) {
        y[row * 32 + i] = x[row * 32 + i] * scale * gamma[i];
    }
}
";

static SOURCE: Source = Source::new(TEXT, &[]);
static SPECS: [KernelSpec; 3] = [
    KernelSpec { name: "list_rows", threads: 1, threadgroup_bytes: 0 },
    KernelSpec { name: "double_rows", threads: 32, threadgroup_bytes: 0 },
    KernelSpec { name: "rms_norm", threads: 1, threadgroup_bytes: 0 },
];

/// Buffers of the pair of kernels, and what has become of each of the 16 rows.
struct Rows {
    gpu: Gpu,
    lengths: Buffer,
    rows: Buffer,
    counts: Buffer,
    x: Buffer,
}

impl Rows {
    fn new() -> Self {
        let gpu = Gpu::open(&SOURCE, &SPECS).unwrap_or_else(|error| panic!("{error}"));
        let words = |label, count: u64| gpu.alloc(label, 4 * count).expect("memory");
        let (lengths, rows, counts, x) = (words("lengths", 16), words("rows", 16), words("counts", 8), words("x", 512));
        x.write(0, &[1f32; 512]);
        Self { gpu, lengths, rows, counts, x }
    }

    fn run(&self, lengths: [u32; 16]) {
        self.lengths.write(0, &lengths);
        let counts = self.counts.slice(8, 12);
        let pending = pool(|| {
            let mut commands = self.gpu.commands("rows");
            let lists = [&self.lengths.whole(), &self.rows.whole(), &counts];
            commands.dispatch(self.gpu.kernel(0), &lists, [1, 1, 1]);
            commands.barrier();
            let rows = [&self.rows.whole(), &self.x.whole()];
            commands.dispatch_indirect(self.gpu.kernel(1), &rows, &counts, [16, 1, 1]);
            commands.commit()
        });
        pending.wait().expect("runs");
    }

    /// The first element of each row, once its others were found to be the same.
    fn factors(&self) -> Vec<f32> {
        let mut x = [0f32; 512];
        self.x.read(0, &mut x);
        let rows = x.chunks(32).map(|row| {
            assert!(row.iter().all(|value| *value == row[0]));
            row[0]
        });
        rows.collect()
    }
}

fn lengths(of: impl Fn(usize) -> bool) -> [u32; 16] {
    std::array::from_fn(|row| u32::from(of(row)))
}

#[test]
fn as_many_threadgroups_run_as_the_dispatch_before_wrote() {
    let rows = Rows::new();
    rows.run(lengths(|row| row % 3 == 0));
    assert_eq!(rows.factors(), (0..16).map(|row| if row % 3 == 0 { 2.0 } else { 1.0 }).collect::<Vec<f32>>());
    rows.run(lengths(|_| false));
    assert_eq!(rows.factors().iter().sum::<f32>(), 22.0, "nothing runs");
    rows.run(lengths(|_| true));
    assert_eq!(rows.factors().iter().sum::<f32>(), 44.0);
}

#[test]
fn recorded_dispatches_run_again_with_the_counts_of_then() {
    let rows = Rows::new();
    rows.gpu.recorder().start();
    rows.run(lengths(|row| row < 2));
    let recorded = rows.gpu.recorder().stop();
    assert_eq!(recorded.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    let [list, double] = &recorded[0][..] else { panic!("two dispatches") };
    assert!(list.counts.is_none() && double.barrier);
    let counts = double.counts.as_ref().expect("an indirect dispatch");
    assert_eq!((counts.offset(), counts.bytes(), double.threadgroups), (8, 12, [16, 1, 1]));
    // The second alone, as `profile` runs it: on the rows of the list, and on none once the counts say so.
    time(&rows.gpu, &[vec![double]]).expect("runs");
    let after = rows.factors();
    assert!(after[0] > 2.0 && after[0] == after[1] && after[2..] == [1.0; 14], "{after:?}");
    rows.counts.write(8, &[0u32]);
    time(&rows.gpu, &[vec![double]]).expect("runs");
    assert_eq!(rows.factors(), after);
}

const fn norm(most: usize) -> KernelCheck {
    const ARGUMENTS: &[Argument<'static>] = &[
        Argument::read(Role::X, Data::Words(32)),
        Argument::read(Role::Gamma, Data::Tensor("gamma")),
        Argument::write(Role::Y, Data::Words(32)),
    ];
    KernelCheck {
        kernel: 2,
        layer: None,
        rows: &[1, 7],
        mixed: false,
        grid: [Dim::Indirect { per_row: 1, most }, Dim::Const(1), Dim::Const(1)],
        operation: Operation::RmsNorm { width: 32, eps: 1e-5 },
        arguments: ARGUMENTS,
    }
}

static NORMS: [KernelCheck; 2] = [norm(100), norm(6)];
static CHECKS: Checks = Checks {
    forge_version: "0",
    source: &SOURCE,
    slots: 1,
    kernels: &NORMS,
    costs: &[],
    matrices: &[],
    tuning: &common::NO_TUNING,
};

/// `verify` dispatches such a kernel as the program does, over the largest grid of a step of that many rows; a grid that is
/// too small for them is a fault.
#[test]
fn verify_fills_in_the_largest_grid() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, info) = common::weights_file(folder.path(), &SPECS);
    let weights = Weights::open(&path.into(), info).expect("the weights");
    let gpu = Gpu::open(&SOURCE, &SPECS).unwrap_or_else(|error| panic!("{error}"));
    let verifier = Verifier::new(&gpu, &CHECKS, info, &weights).expect("memory");
    let run = |check: &KernelCheck| {
        gpu.recorder().start();
        let faulty: Vec<bool> = verifier.run(check).map(|outcome| outcome.fault.is_some()).collect();
        let recorded = gpu.recorder().stop();
        let dispatches = recorded.iter().flatten();
        (faulty, dispatches.map(|d| (d.threadgroups[0], d.counts.is_some())).collect::<Vec<_>>())
    };
    let (faulty, dispatches) = run(&NORMS[0]);
    assert!(faulty.len() >= 2 && !faulty.contains(&true), "{faulty:?}");
    assert!(dispatches.contains(&(1, true)) && dispatches.contains(&(7, true)), "{dispatches:?}");
    let (faulty, dispatches) = run(&NORMS[1]);
    assert!(faulty.contains(&true) && faulty.contains(&false), "seven rows are wrong, and one is right: {faulty:?}");
    assert!(dispatches.contains(&(6, true)), "{dispatches:?}");
}
