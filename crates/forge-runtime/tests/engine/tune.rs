//! Tuning on the software device: a right and a wrong variant of one kernel, which of them is chosen, and the file.

use crate::common;
use forge_runtime::gpu::{Gpu, KernelSpec, Source};
use forge_runtime::tune::*;
use forge_runtime::verify::*;
use forge_runtime::weights::Weights;

const fn spec(name: &'static str) -> KernelSpec {
    KernelSpec { name, threads: 1, threadgroup_bytes: 0 }
}

/// One threadgroup for all rows; then one for each, and with a product left out.
const TEXT: &str = "#include <metal_stdlib>
using namespace metal;
inline float product(device const float* weights, device const float* input, uint row, uint count) {
    float sum = 0.0f;
    for (uint i = 0; i < count; ++i) {
        sum += weights[row * 32 + i] * input[i];
    }
    return sum;
}
kernel void proj(device const float* weights [[buffer(0)]], device const float* input [[buffer(1)]],
                 device float* y [[buffer(2)]], device float* sums [[buffer(3)]]) {
    float square = 0.0f;
    for (uint row = 0; row < 8; ++row) {
        y[row] = product(weights, input, row, 32);
        square += y[row] * y[row];
    }
    sums[0] = square;
}
kernel void proj_right(device const float* weights [[buffer(0)]], device const float* input [[buffer(1)]],
                       device float* y [[buffer(2)]], device float* sums [[buffer(3)]],
                       uint row [[threadgroup_position_in_grid]]) {
    y[row] = product(weights, input, row, 32);
    sums[row] = y[row] * y[row];
}
kernel void proj_wrong(device const float* weights [[buffer(0)]], device const float* input [[buffer(1)]],
                       device float* y [[buffer(2)]], device float* sums [[buffer(3)]],
                       uint row [[threadgroup_position_in_grid]]) {
    y[row] = product(weights, input, row, 31);
    sums[row] = y[row] * y[row];
}
";

static SOURCE: Source = Source::new(TEXT, &[]);
static KERNELS: [KernelSpec; 1] = [spec("proj")];
static CHECKS: Checks = Checks {
    forge_version: "0",
    source: &SOURCE,
    slots: 1,
    kernels: &[CHECK],
    costs: &[],
    matrices: &[],
    tuning: &TUNING,
};

const CHECK: KernelCheck = KernelCheck {
    kernel: 0,
    layer: None,
    rows: &[1],
    mixed: false,
    grid: [Dim::Const(1); 3],
    operation: Operation::Project(Projection {
        matrices: &[Matrix { format: Format::F32, rows: 8, cols: 32 }],
        norm_eps: None,
        half_operands: false,
        epilogue: Epilogue::Store { softcap: None },
    }),
    arguments: &[
        Argument::read(Role::Weights, Data::Tensor("matrix")),
        Argument::read(Role::Input, Data::Words(32)),
        Argument::write(Role::Y, Data::Words(8)),
        Argument::write(Role::ResultSums, Data::Words(1)),
    ],
};

static TUNING: Tuning = Tuning { source: &SOURCE, kernels: &VARIANTS, shapes: &[SHAPE] };
static VARIANTS: [KernelSpec; 2] = [spec("proj_right"), spec("proj_wrong")];

const SHAPE: Shape = Shape {
    format: "F32",
    rows: 8,
    cols: 32,
    chosen: Geometry::new(8, 1, 1),
    kernels: &[0],
    variants: &[
        Variant { geometry: Geometry::new(1, 1, 1), kernels: &[Dispatched { kernel: 0, threadgroups: 8, sums: 8 }] },
        Variant { geometry: Geometry::new(2, 1, 1), kernels: &[Dispatched { kernel: 1, threadgroups: 8, sums: 8 }] },
    ],
};

#[test]
fn a_wrong_variant_is_found_and_not_chosen() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, info) = common::weights_file(folder.path(), &KERNELS);
    let weights = Weights::open(&path.into(), info).expect("the weights");
    let gpu = Gpu::open(&SOURCE, &KERNELS).unwrap_or_else(|error| panic!("{error}"));
    let kernels = gpu.compile(TUNING.source, TUNING.kernels).unwrap_or_else(|error| panic!("{error}"));
    let verifier = Verifier::new(&gpu, &CHECKS, info, &weights).expect("memory");
    let mut told = Vec::new();
    let faults = check_variants(&verifier, &TUNING, &kernels, &mut |name| told.push(name.to_owned()));
    assert_eq!(told, ["proj_right", "proj_wrong"]);
    assert_eq!(faults[0], None);
    assert!(faults[1].as_ref().is_some_and(|fault| fault.contains("beyond their bounds")), "{faults:?}");

    // A step that runs the kernel twice, with room for the one sum that it writes.
    let matrix = weights.tensor("matrix").expect("a matrix").clone();
    let mapped = gpu.import("weights", weights.map(), weights.largest()).expect("maps");
    let words = |words: u64| gpu.alloc("words", 4 * words).expect("memory").whole();
    let arguments = [mapped.slice(matrix.offset, matrix.bytes), words(32), words(8), words(1)];
    gpu.recorder().start();
    let mut commands = gpu.commands("step");
    for _ in 0..2 {
        commands.barrier();
        commands.dispatch(gpu.kernel(0), &arguments.each_ref(), [1, 1, 1]);
    }
    commands.commit().wait().expect("runs");
    let step = gpu.recorder().stop();
    let tuned = tune_shape(&gpu, &CHECKS, &TUNING.shapes[0], &kernels, &faults, &step).expect("runs");
    let geometries: Vec<Geometry> = tuned.tried.iter().map(|tried| tried.geometry).collect();
    assert_eq!(geometries, [Geometry::new(8, 1, 1), Geometry::new(1, 1, 1), Geometry::new(2, 1, 1)]);
    assert!(tuned.tried[..2].iter().all(|tried| tried.result.as_ref().is_ok_and(|&seconds| seconds > 0.0)));
    assert_eq!(tuned.tried[2].result.as_ref().err(), faults[1].as_ref());
    assert_ne!(tuned.best(), Geometry::new(2, 1, 1));
}

fn tuned(times: [Result<f64, &str>; 3]) -> Tuned {
    let shape = &TUNING.shapes[0];
    let geometries = [shape.chosen, shape.variants[0].geometry, shape.variants[1].geometry];
    let tried = geometries
        .into_iter()
        .zip(times)
        .map(|(geometry, result)| Tried { geometry, result: result.map_err(str::to_owned) });
    Tuned { shape, tried: tried.collect() }
}

#[test]
fn another_geometry_has_to_be_clearly_faster_and_right() {
    let best = |times| tuned(times).best().rows_per_simdgroup;
    assert_eq!(best([Ok(1.0), Ok(0.9), Ok(0.8)]), 2);
    assert_eq!(best([Ok(1.0), Ok(0.9), Err("wrong")]), 1);
    assert_eq!(best([Ok(1.0), Ok(0.99), Ok(2.0)]), 8, "within what times vary by");
    assert_eq!(best([Ok(1.0), Err("wrong"), Err("wrong")]), 8);
}

#[test]
fn the_file_has_each_shape_with_its_geometry() {
    let file = tuning_file("a device", "a model", "a checkpoint", &[tuned([Ok(3e-6), Ok(1.5e-6), Err("wrong")])]);
    let expected = serde_json::json!({
        "forge_tuning": 1, "device": "a device", "model": "a model", "source": "a checkpoint",
        "geometries": [{
            "format": "F32", "rows": 8, "cols": 32,
            "geometry": { "rows_per_simdgroup": 1, "simdgroups": 1, "split": 1 },
            "tried": [
                { "rows_per_simdgroup": 8, "simdgroups": 1, "split": 1, "microseconds": 3.0 },
                { "rows_per_simdgroup": 1, "simdgroups": 1, "split": 1, "microseconds": 1.5 },
                { "rows_per_simdgroup": 2, "simdgroups": 1, "split": 1, "fault": "wrong" },
            ],
        }],
    });
    assert_eq!(file, expected);
}
