//! Every format's part of `kernels.metal` on the software device, checked, against the format's decoder: products with one
//! token and with several, and single weights, over groups of 4, 2 and 1 tiles.

#[path = "../../forge-plan/tests/common/mod.rs"]
mod common;

use std::path::Path;

use common::Sizes;
use forge_codegen::{RenderOptions, render};
use forge_formats::{Format, Layout, Packer, SourceRows, decode_row};
use forge_frontend::{Assets, GenerationConfig};
use forge_plan::{PlanOptions, format_name, plan};
use metal_sim::{Binding, Buffer, CompileOptions, Device, Library};

const ROWS: usize = 6;
const COLS: usize = 7 * 256;
const TOKENS: usize = 3;

/// Kernels of two rows a threadgroup, and of a row of weights.
const KERNELS: &str = r"
kernel void one_token(device const uchar* weights [[buffer(0)]], device const float* x [[buffer(1)]],
                      device float* y [[buffer(2)]], uint group [[threadgroup_position_in_grid]],
                      uint lane [[thread_index_in_simdgroup]]) {
    float acc[2];
    gemv_NAME<ROWS, COLS, 2, 1, 0>(weights, x, 2 * group, 0, lane, acc);
    if (lane < 2) {
        y[2 * group + lane] = acc[lane];
    }
}

kernel void few_tokens(device const uchar* weights [[buffer(0)]], device const float* x [[buffer(1)]],
                       device float* y [[buffer(2)]], uint group [[threadgroup_position_in_grid]],
                       uint lane [[thread_index_in_simdgroup]]) {
    float acc[2 * TOKENS];
    gemv_NAME<ROWS, COLS, 2, 1, 0, TOKENS>(weights, x, 2 * group, 0, lane, acc, TOKENS);
    if (lane < 2 * TOKENS) {
        y[lane / 2 * ROWS + 2 * group + lane % 2] = acc[lane];
    }
}

kernel void single_weights(device const uchar* weights [[buffer(0)]], device const float* x [[buffer(1)]],
                           device float* y [[buffer(2)]], uint group [[threadgroup_position_in_grid]],
                           uint thread_index [[thread_index_in_threadgroup]]) {
    const uint col = 4 * thread_index;
    *(device float4*)(y + group * COLS + col) = load4_NAME<ROWS, COLS>(weights, group, col);
}
";

/// What a project's `kernels.metal` has before its kernels, and the three above.
fn source(format: Format) -> String {
    let sizes =
        Sizes { hidden: COLS, ffn: 256, heads: 4, kv_heads: 4, head_dim: 64, vocab: 256, layers: 1, context: 512 };
    let graph = common::llama(sizes, format);
    let plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
    let assets = Assets {
        tokenizer_json: b"{}".to_vec(),
        chat_template: None,
        other_templates: Vec::new(),
        generation: GenerationConfig::default(),
    };
    let options = RenderOptions {
        name: "model".into(),
        source: "model.gguf".into(),
        command: "forge gen".into(),
        ..Default::default()
    };
    let project = render(&plan, &graph, &assets, &options).expect("templates render");
    let text = std::str::from_utf8(&project.files[Path::new("shaders/kernels.metal")]).expect("UTF-8");
    let shared = &text[..text.find("[[max_total_threads_per_threadgroup").expect("has kernels")];
    let sizes = format!("constant constexpr uint ROWS = {ROWS}, COLS = {COLS}, TOKENS = {TOKENS};\n");
    format!("{shared}{sizes}{}", KERNELS.replace("NAME", &format_name(format)))
}

/// Numbers between -1 and 1.
fn noise(count: usize, state: &mut u32) -> Vec<f32> {
    let mut next = || {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Random blocks of weights of at most 10,000 and none that is subnormal, stored, and what they decode to.
fn matrix(format: Format, state: &mut u32) -> (Vec<u8>, Vec<f32>) {
    let mut weights = vec![0.0; ROWS * COLS];
    let mut stored = Vec::new();
    for out in weights.chunks_exact_mut(format.block_elements()) {
        let block = loop {
            let block: Vec<u8> = noise(format.block_bytes(), state).iter().map(|v| (v * 128.0 + 128.0) as u8).collect();
            decode_row(format, &block, out).expect("a block");
            if out.iter().all(|weight| *weight == 0.0 || (1e-30..=1e4).contains(&weight.abs())) {
                break block;
            }
        };
        stored.extend(block);
    }
    (stored, weights)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Runs a kernel over the weights and the input; what it writes comes back.
fn run(library: &Library, name: &str, data: [&[u8]; 2], results: usize, groups: usize, threads: usize) -> Vec<f32> {
    let device = Device::new(0);
    let buffers = [device.buffer("weights", data[0].len()), device.buffer("x", data[1].len())];
    buffers.iter().zip(data).for_each(|(buffer, data)| buffer.write(0, data));
    let y = device.buffer("y", 4 * results);
    let bindings: Vec<Binding<'_>> = buffers.iter().chain([&y]).map(Buffer::whole).collect();
    let mut commands = device.command_buffer("test");
    let kernel = library.kernel(name).expect("is in the file");
    commands.dispatch(&kernel, &bindings, [groups as u32, 1, 1], [threads as u32, 1, 1]);
    commands.commit().wait().unwrap_or_else(|error| panic!("{error}"));
    let mut result = vec![0; 4 * results];
    y.read(0, &mut result);
    result.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn check(format: Format) {
    let mut state = 7;
    let (stored, mut weights) = matrix(format, &mut state);
    // Another for each row, of three magnitudes.
    let factors: Vec<f32> = (0..ROWS).map(|row| [0.75, 3.7e-3, 11.0][row % 3] * (1.0 + row as f32)).collect();
    let (blocks, rows);
    if format.has_row_factors() {
        let scaled = weights.chunks_exact_mut(COLS).zip(&factors);
        scaled.for_each(|(row, factor)| row.iter_mut().for_each(|weight| *weight *= factor));
        blocks = SourceRows::Blocks(&stored);
        rows = SourceRows::Factored { rows: &blocks, factors: &factors };
    } else {
        rows = SourceRows::Blocks(&stored);
    }
    let x = noise(TOKENS * COLS, &mut state);
    let layout = Layout::new(format, ROWS, COLS).expect("whole blocks");
    let mut packed = vec![0; layout.len() as usize];
    Packer::new(layout)
        .pack(0, rows, |at, bytes| packed[at as usize..][..bytes.len()].copy_from_slice(bytes))
        .expect("whole rows");
    let library = Library::from_source(&source(format), "kernels.metal", &CompileOptions { checked: true })
        .unwrap_or_else(|error| panic!("{format}: {error}"));
    let data = [packed.as_slice(), &bytes(&x)];
    let mut first: Option<Vec<f32>> = None;
    for (name, tokens) in [("one_token", 1), ("few_tokens", TOKENS)] {
        let y = run(&library, name, data, tokens * ROWS, ROWS / 2, 32);
        // The first token has the same bits whoever stands beside it.
        assert_eq!(y[..ROWS], first.get_or_insert_with(|| y.clone())[..], "{format}, {name}");
        for (token, (y, x)) in y.chunks_exact(ROWS).zip(x.chunks_exact(COLS)).enumerate() {
            for (row, (found, weights)) in y.iter().zip(weights.chunks_exact(COLS)).enumerate() {
                let terms = || weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let (sum, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                let difference = (f64::from(*found) - sum).abs();
                assert!(difference <= 1e-5 * size, "{format}, {name}: {found}, not {sum}, token {token}, row {row}");
            }
        }
    }
    let found = run(&library, "single_weights", data, ROWS * COLS, ROWS, COLS / 4);
    let block = format.block_elements();
    for (i, (found, expected)) in found.chunks_exact(block).zip(weights.chunks_exact(block)).enumerate() {
        let most = expected.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
        for (j, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-6 * most,
                "{format}: {found}, not {expected}, block {i}, weight {j}"
            );
        }
    }
}

#[test]
fn every_format_of_ggml_multiplies_and_reads_as_it_decodes() {
    for format in Format::all().filter(|format| !format.is_float() && format.ggml_id().is_some()) {
        check(format);
    }
}

#[test]
fn formats_of_other_toolchains_multiply_and_read_as_they_decode() {
    let block = |format: &Format| format.ggml_id().is_none() && !matches!(format, Format::Affine { .. });
    for format in Format::all().filter(block) {
        check(format);
    }
}

/// The scales of MXFP4 at both ends: those of 0 and 1 are 2^-127, which is subnormal, and 2^-126.
#[test]
fn the_smallest_and_largest_scales_of_mxfp4() {
    let format = Format::Mxfp4;
    let mut stored = Vec::new();
    for block in 0..ROWS * COLS / 32 {
        stored.push([0, 1, 2, 127, 254][block % 5]);
        // Levels up to 1.5, of either sign.
        stored.extend((0..16).map(|i| (((block + i) as u8 % 4) + 8 * (i as u8 % 2)) * 17));
    }
    let mut weights = vec![0.0; ROWS * COLS];
    for (row, out) in stored.chunks_exact(COLS / 32 * 17).zip(weights.chunks_exact_mut(COLS)) {
        decode_row(format, row, out).expect("a row");
    }
    let layout = Layout::new(format, ROWS, COLS).expect("whole blocks");
    let mut packed = vec![0; layout.len() as usize];
    Packer::new(layout)
        .pack(0, SourceRows::Blocks(&stored), |at, bytes| packed[at as usize..][..bytes.len()].copy_from_slice(bytes))
        .expect("whole rows");
    let library = Library::from_source(&source(format), "kernels.metal", &CompileOptions { checked: true })
        .unwrap_or_else(|error| panic!("{error}"));
    let x = bytes(&vec![0.0; TOKENS * COLS]);
    let found = run(&library, "single_weights", [packed.as_slice(), &x], ROWS * COLS, ROWS, COLS / 4);
    for (i, (found, expected)) in found.iter().zip(&weights).enumerate() {
        assert_eq!(found, expected, "weight {i}");
    }
    assert!(weights.iter().any(|weight| weight.is_subnormal()));
    // A row of the smallest alone, so that their sum is seen.
    let smallest: Vec<u8> = stored.chunks_exact(17).flat_map(|block| [&[0], &block[1..]].concat()).collect();
    let mut weights = vec![0.0; ROWS * COLS];
    for (row, out) in smallest.chunks_exact(COLS / 32 * 17).zip(weights.chunks_exact_mut(COLS)) {
        decode_row(format, row, out).expect("a row");
    }
    let layout = Layout::new(format, ROWS, COLS).expect("whole blocks");
    Packer::new(layout)
        .pack(0, SourceRows::Blocks(&smallest), |at, bytes| packed[at as usize..][..bytes.len()].copy_from_slice(bytes))
        .expect("whole rows");
    let x: Vec<f32> = (0..COLS).map(|i| [1e10, 3e10, 2e10][i % 3]).collect();
    let found = run(&library, "one_token", [packed.as_slice(), &bytes(&x)], ROWS, ROWS / 2, 32);
    for (found, weights) in found.iter().zip(weights.chunks_exact(COLS)) {
        let terms = || weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let (sum, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
        assert!((f64::from(*found) - sum).abs() <= 1e-5 * size && size > 0.0, "{found}, not {sum}");
    }
}
