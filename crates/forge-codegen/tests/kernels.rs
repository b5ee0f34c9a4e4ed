//! Emitted kernels on the software device, checked: what no small checkpoint reaches, and what matrix-matrix kernels
//! read and do.

#[path = "../../forge-plan/tests/common/mod.rs"]
mod common;
#[path = "../../forge-plan/tests/common/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Mixture, Sizes};
use forge_codegen::{RenderOptions, render};
use forge_formats::{Format, Layout, Packer, SourceRows, decode_row};
use forge_frontend::{Assets, GenerationConfig, Graph};
use forge_plan::costs::{StepSize, dispatch};
use forge_plan::families::ExpertsUpTile;
use forge_plan::linear::Linear;
use forge_plan::{Family, Kernel, Plan, PlanOptions, plan};
use forge_spec::{Dim, StepParams};
use metal_sim::{Binding, Buffer, CompileOptions, Device, DispatchCounters, Library};
use random::Random;

/// A plan and its `kernels.metal`.
fn emitted(sizes: Sizes, format: Format) -> (Plan, String) {
    rendered(&common::llama(sizes, format))
}

fn rendered(graph: &Graph) -> (Plan, String) {
    let plan = plan(graph, &PlanOptions::default()).expect("the model has a plan");
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
    let project = render(&plan, graph, &assets, &options).expect("templates render");
    let text = &project.files[Path::new("shaders/kernels.metal")];
    (plan, String::from_utf8(text.clone()).expect("UTF-8"))
}

/// The file without other kernels than these, which would only take time to compile.
fn only(text: &str, names: &[&str]) -> String {
    const HEAD: &str = "[[max_total_threads_per_threadgroup";
    let (shared, kernels) = text.split_at(text.find(HEAD).expect("has kernels"));
    let is_one = |kernel: &&str| names.iter().any(|name| kernel.contains(&format!("kernel void {name}(")));
    let kept: Vec<String> = kernels.split(HEAD).filter(is_one).map(|kernel| format!("{HEAD}{kernel}")).collect();
    assert_eq!(kept.len(), names.len(), "{names:?} are emitted");
    format!("{shared}{}", kept.concat())
}

/// The kernel of this name.
fn planned<'a>(plan: &'a Plan, name: &str) -> &'a Kernel {
    plan.kernels.iter().find(|kernel| kernel.name == name).expect("is planned")
}

/// Numbers between -1 and 1.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Random blocks of a format that has half scales in each, as stored and packed.
fn blocks(format: Format, rows: usize, cols: usize) -> (Vec<u8>, Vec<u8>) {
    let len = rows * format.row_bytes(cols).expect("whole blocks");
    let mut stored: Vec<u8> = noise(len, 3).iter().map(|v| (v * 128.0 + 128.0) as u8).collect();
    let scales: &[usize] = match format {
        Format::Tq1_0 => &[52],
        // Four bits each of four half words.
        Format::Iq1M => &[54],
        // Of values and of what is taken from them.
        Format::Q4K => &[0, 2],
        Format::Q6K => &[208],
        _ => &[0],
    };
    for block in stored.chunks_exact_mut(format.block_bytes()) {
        // A half between 1/64 and 1/32, of IQ1_M up to 1/2.
        scales.iter().for_each(|scale| block[scale + 1] = 0x24);
    }
    let layout = Layout::new(format, rows, cols).expect("whole blocks");
    let mut packed = vec![0; layout.len() as usize];
    Packer::new(layout)
        .pack(0, SourceRows::Blocks(&stored), |at, bytes| packed[at as usize..][..bytes.len()].copy_from_slice(bytes))
        .expect("whole rows");
    (stored, packed)
}

/// The kernel, compiled for checked mode.
fn compile(text: &str, kernel: &Kernel) -> Library {
    let library =
        Library::from_source(&only(text, &[&kernel.name]), "kernels.metal", &CompileOptions { checked: true });
    library.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs one dispatch over bindings with these contents; the one called `y` comes back.
fn run(library: &Library, kernel: &Kernel, data: &[Vec<u8>], groups: [usize; 2]) -> (Vec<f32>, DispatchCounters) {
    let device = Device::new(0);
    let fill = |(binding, data): (&forge_plan::binding::Binding, &Vec<u8>)| {
        let buffer = device.buffer(binding.role.name(), data.len());
        if binding.access.reads() {
            buffer.write(0, data);
        }
        buffer
    };
    let buffers: Vec<Buffer> = kernel.bindings.iter().zip(data).map(fill).collect();
    let bindings: Vec<Binding<'_>> = buffers.iter().map(Buffer::whole).collect();
    let mut commands = device.command_buffer("test");
    let function = library.kernel(&kernel.name).expect("is in the file");
    let groups = [groups[0] as u32, groups[1] as u32, 1];
    commands.dispatch(&function, &bindings, groups, [kernel.launch.threads, 1, 1]);
    let timing = commands.commit().wait().unwrap_or_else(|error| panic!("{error}"));
    let y = kernel.bindings.iter().position(|binding| binding.role.name() == "y").expect("has a result");
    (floats(&buffers[y]), timing.counters.into_iter().next().expect("one dispatch"))
}

fn floats(buffer: &Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read(0, &mut bytes);
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// W x in double precision.
fn product(format: Format, stored: &[u8], cols: usize, x: &[f32]) -> Vec<f64> {
    let mut row = vec![0.0; cols];
    stored
        .chunks_exact(format.row_bytes(cols).expect("whole blocks"))
        .map(|stored| {
            decode_row(format, stored, &mut row).expect("whole blocks");
            row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum()
        })
        .collect()
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= 1e-5 * size, "row {row}: {found} instead of {expected}");
    }
}

/// Many rows: tables in threadgroup memory, over groups of 4, 2 and 1 tiles (of Q1_0 a partial one too), and with simdgroups that have no
/// rows. The formats of IQ1_S's grid have TQ1_0's way through gate and up.
#[test]
fn tables_of_many_rows() {
    for format in [Format::Q1_0, Format::Tq1_0, Format::Iq1S, Format::Iq1M, Format::Iq2Xxs] {
        let heads = if format == Format::Q1_0 { 15 } else { 14 };
        check_tables(format, Sizes { hidden: 128 * heads, ffn: 4352, heads, kv_heads: heads, ..WIDE });
    }
}

const WIDE: Sizes =
    Sizes { hidden: 0, ffn: 0, heads: 0, kv_heads: 0, head_dim: 128, vocab: 8200, layers: 1, context: 512 };

fn check_tables(format: Format, sizes: Sizes) {
    let (plan, text) = emitted(sizes, format);
    let grid = matches!(format, Format::Iq1S | Format::Iq1M);
    for name in if grid { &["lm_head"][..] } else { &["lm_head", "gate_up_proj"] } {
        let kernel = planned(&plan, name);
        let Family::Gemv(gemv) = &kernel.family else { panic!("{name} is a matrix-vector kernel") };
        assert!(gemv.table().is_some(), "{format} {name}");
        let (stored, packed) = blocks(format, gemv.rows, gemv.cols);
        let x = noise(gemv.cols, 5);
        let norm = gemv.norm.expect("a norm");
        let mut sums = vec![0.0; norm.partials];
        sums[0] = x.iter().map(|x| x * x).sum();
        let scale = 1.0 / (f64::from(sums[0]) / gemv.cols as f64 + f64::from(norm.eps)).sqrt();
        let y: Vec<f64> = product(format, &stored, gemv.cols, &x).iter().map(|y| y * scale).collect();
        let expected = if *name == "lm_head" {
            y
        } else {
            let (gate, up) = y.split_at(gemv.rows / 2);
            gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
        };
        let cost = dispatch(kernel, StepSize { rows: 1, position: 0, slots: 1 });
        let step = vec![0; StepParams::BYTES];
        let data = [packed, bytes(&x), bytes(&sums), vec![0; expected.len() * 4], step];
        let (found, counters) = run(&compile(&text, kernel), kernel, &data, [gemv.threadgroups(), 1]);
        assert_close(&found, &expected);
        if *name == "lm_head" {
            // Two rows of a step have a threadgroup each, and the bits of one row.
            let two = planned(&plan, "lm_head_two");
            let params = StepParams { rows: 2, ..StepParams::default() };
            let step: Vec<u8> = params.words().iter().flat_map(|word| word.to_le_bytes()).collect();
            let other: Vec<f32> = x.iter().rev().copied().collect();
            let rows = |first: &[u8], second: &[u8]| [first, second].concat();
            let data = [
                data[0].clone(),
                rows(&bytes(&other), &data[1]),
                rows(&data[2], &data[2]),
                vec![0; 2 * expected.len() * 4],
                step.repeat(2),
            ];
            let (both, _) = run(&compile(&text, two), two, &data, [gemv.threadgroups(), 2]);
            assert_eq!(bytes(&both[expected.len()..]), bytes(&found), "{format}: the second row");
        }
        assert_eq!(counters.bindings[0].unique_bytes_read, cost.bindings[0].read, "{format} {name}: weights");
        assert_eq!(counters.bindings[1].bytes_read, cost.bindings[1].requested, "{format} {name}: input");
    }
}

/// What a matrix-matrix kernel does for each product of two numbers, as the software device counts it; the figures are
/// in docs/performance.md.
#[test]
fn every_weight_is_read_once_per_tile_of_64_tokens() {
    let sizes =
        Sizes { hidden: 256, ffn: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 256, layers: 1, context: 512 };
    println!(
        "format, tokens: bytes of weights a weight and tile; of input; barriers; 8x8 products a product; threadgroup bytes read and written a product"
    );
    // Four weights at a time: their codes (where they have 4 bits, half of the word read) and their block's scale.
    for (format, weight_bytes) in [(Format::F16, 2.0), (Format::Q8_0, 1.5), (Format::Q4_0, 1.5)] {
        let (plan, text) = emitted(sizes, format);
        let kernel = planned(&plan, "qkv_proj_tile");
        let Family::Gemm(gemm) = &kernel.family else { panic!("a matrix-matrix kernel") };
        let library = compile(&text, kernel);
        let weights = gemm.rows * gemm.cols;
        let packed = match format {
            Format::F16 => vec![0x24; weights * 2],
            _ => blocks(format, gemm.rows, gemm.cols).1,
        };
        for (tokens, tiles) in [(1_usize, 1_usize), (32, 1), (33, 1), (64, 1), (65, 2), (128, 2)] {
            let params = StepParams { rows: tokens as u32, ..StepParams::default() };
            let params: Vec<u8> = params.words().iter().flat_map(|word| word.to_le_bytes()).collect();
            let data = [packed.clone(), bytes(&noise(tokens * gemm.cols, 7)), vec![0; tokens * gemm.rows * 4], params];
            let (_, counters) = run(&library, kernel, &data, [gemm.row_tiles(), tiles]);
            let read = counters.bindings[0].bytes_read as f64 / (weights * tiles) as f64;
            assert!((read - weight_bytes).abs() < 1e-9, "{format}, {tokens} tokens: {read} bytes a weight and tile");
            // An 8x8 product is 512 products: none is done twice, and tokens are taken by 32.
            let products = (tokens.next_multiple_of(32) * weights) as u64;
            assert_eq!(counters.matrix_operations * 512, products, "{format}, {tokens} tokens");
            let shared = [counters.threadgroup_bytes_read, counters.threadgroup_bytes_written];
            let shared = shared.map(|bytes| bytes as f64 / products as f64);
            if tokens % 64 == 0 {
                assert_eq!(shared, [0.140625, 0.078125], "{format}, {tokens} tokens: threadgroup bytes");
            }
            println!(
                "{format}, {tokens}: {read}; {}; 1/{}; 1/{}; {}; {}",
                counters.bindings[1].bytes_read as f64 / (weights * tiles) as f64,
                products / counters.barriers,
                products / counters.matrix_operations,
                shared[0],
                shared[1]
            );
        }
    }
}

/// Rows, and the least share of products that are useful with so many.
type Runs = &'static [(usize, f64)];

/// Of the products of experts' tiles most are of rows that chose the expert: counted by the device, with rows that choose at random.
/// The grid is as large as `sort_experts` says, and each of its threadgroups has rows.
#[test]
fn tiles_of_experts_multiply_little_for_nothing() {
    const NAMES: [&str; 2] = ["sort_experts", "expert_gate_up_tile"];
    let sizes = Sizes { hidden: 64, ffn: 64, heads: 4, kv_heads: 2, head_dim: 16, vocab: 64, layers: 1, context: 512 };
    // A whole tile of Qwen3-30B-A3B and of OLMoE has 16 and 32 rows an expert, a
    // short prompt of Mixtral as many.
    let cases: [(usize, usize, Runs); 3] =
        [(128, 8, &[(256, 0.75)]), (64, 8, &[(256, 0.85)]), (8, 2, &[(64, 0.75), (128, 0.85), (256, 0.9)])];
    for (experts, chosen, runs) in cases {
        let mixture = Mixture { experts, chosen, width: 64, shared: 0 };
        let (plan, text) = rendered(&common::mixture(sizes, mixture, Format::F16));
        let library = Library::from_source(&only(&text, &NAMES), "kernels.metal", &CompileOptions { checked: true });
        let library = library.unwrap_or_else(|error| panic!("{error}"));
        let kernels = NAMES.map(|name| planned(&plan, name));
        let Family::ExpertsUpTile(ExpertsUpTile { tile, .. }) = kernels[1].family else { panic!("tiles of experts") };
        let mut random = Random::new(experts as u64);
        for &(rows, least) in runs {
            let ids = choices(&mut random, mixture, rows);
            let counters = run_experts(&library, kernels, &ids, rows);
            let tiles = |expert: u32| ids.iter().filter(|&&id| id == expert).count().div_ceil(tile);
            let tiles = (0..experts as u32).map(tiles).sum::<usize>() as u32;
            assert_eq!(counters.threadgroups, [2, tiles, 1], "none without rows");
            let useful = (ids.len() * 2 * 64 * 64 / 512) as f64 / counters.matrix_operations as f64;
            println!("{} rows an expert, tiles of {tile}: {useful:.2} of the products are useful", ids.len() / experts);
            assert!((least..=1.0).contains(&useful), "{experts} experts, {rows} rows: {useful}");
        }
    }
}

/// The experts of each row, each at most once.
fn choices(random: &mut Random, mixture: Mixture, rows: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    for _ in 0..rows {
        let mut all: Vec<u32> = (0..mixture.experts as u32).collect();
        ids.extend((0..mixture.chosen).map(|_| all.swap_remove(random.below(all.len()))));
    }
    ids
}

/// What the second kernel, of tiles of experts, does with rows that chose these, behind the first, which puts them in order.
fn run_experts(library: &Library, kernels: [&Kernel; 2], ids: &[u32], rows: usize) -> DispatchCounters {
    let contents = BTreeMap::from([
        ("experts", words(ids)),
        // Ones: a stack of 128 experts at most, and inputs.
        ("weights", [0x00, 0x3c].repeat(128 * 128 * 64)),
        ("input", bytes(&vec![1.0; rows * 64])),
    ]);
    run_chain(library, &kernels, contents, rows).1
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Bytes of a buffer that is written for so many rows.
fn size_of(binding: &forge_plan::binding::Binding, rows: usize) -> usize {
    let Linear { fixed, per_row, .. } = binding.bytes();
    fixed as usize + per_row as usize * rows
}

/// Kernels one after the other, over buffers that have the names of their bindings and, where none are given, nothing in them.
/// Gives what the last has made, and what it did. A grid of tiles of experts is as large as `sort_experts` says.
fn run_chain(
    library: &Library,
    kernels: &[&Kernel],
    mut contents: BTreeMap<&'static str, Vec<u8>>,
    rows: usize,
) -> (Vec<f32>, DispatchCounters) {
    let device = Device::new(0);
    contents.insert("step", words(&StepParams { rows: rows as u32, ..StepParams::default() }.words()));
    let mut buffers = BTreeMap::new();
    for binding in kernels.iter().flat_map(|kernel| &kernel.bindings) {
        let name = binding.role.name();
        buffers.entry(name).or_insert_with(|| match contents.get(name) {
            Some(data) => {
                let buffer = device.buffer(name, data.len());
                buffer.write(0, data);
                buffer
            }
            None => device.buffer(name, size_of(binding, rows)),
        });
    }
    let mut commands = device.command_buffer("experts");
    for kernel in kernels {
        let function = library.kernel(&kernel.name).expect("is in the file");
        let bound: Vec<Binding<'_>> =
            kernel.bindings.iter().map(|binding| buffers[binding.role.name()].whole()).collect();
        let mut indirect = None;
        let grid = kernel.launch.grid.map(|dim| match dim {
            Dim::Const(count) => count as u32,
            Dim::Rows => rows as u32,
            Dim::Indirect { per_row, most } => *indirect.insert((per_row * rows).min(most) as u32),
            Dim::RowTiles(_) | Dim::PositionTiles(_) | Dim::Parts => panic!("{dim:?} around tiles of experts"),
        });
        let threads = [kernel.launch.threads, 1, 1];
        match indirect {
            // The counts of up tiles, behind which are those of down tiles.
            Some(_) => {
                let offset = if kernel.name == "expert_down_tile" { 12 } else { 0 };
                let counts = Binding { buffer: &buffers["threadgroups"], offset, len: 12 };
                commands.dispatch_indirect(&function, &bound, counts, grid, threads);
            }
            None => commands.dispatch(&function, &bound, grid, threads),
        }
        commands.barrier();
    }
    let timing = commands.commit().wait().unwrap_or_else(|error| panic!("{error}"));
    (floats(&buffers["y"]), timing.counters.into_iter().last().expect("a dispatch"))
}

/// Down projections of experts hold their inputs, which no norm bounds, as halves: rows far beyond the half range and rows that
/// halves would round to zero are as exact as others, and each belongs to the right expert.
#[test]
fn down_tiles_of_experts_scale_their_rows() {
    const NAMES: [&str; 3] = ["sort_experts", "expert_down_scales", "expert_down_tile"];
    const WIDTH: usize = 512;
    const HIDDEN: usize = 64;
    let mixture = Mixture { experts: 5, chosen: 2, width: WIDTH, shared: 0 };
    let sizes =
        Sizes { hidden: HIDDEN, ffn: WIDTH, heads: 4, kv_heads: 2, head_dim: 16, vocab: 64, layers: 1, context: 512 };
    for format in [Format::Q8_0, Format::Q4K, Format::Q6K] {
        let mut graph = common::mixture(sizes, mixture, Format::F16);
        graph.weights.iter_mut().filter(|w| w.cols == WIDTH).for_each(|w| w.format = format);
        let (plan, text) = rendered(&graph);
        let library = Library::from_source(&only(&text, &NAMES), "kernels.metal", &CompileOptions { checked: true });
        let library = library.unwrap_or_else(|error| panic!("{error}"));
        let kernels = NAMES.map(|name| planned(&plan, name));
        let (stored, packed) = blocks(format, mixture.experts * HIDDEN, WIDTH);
        let mut random = Random::new(7);
        // Fewer than a tile has, a whole tile and more of one expert.
        for rows in [3, 70] {
            let ids = choices(&mut random, mixture, rows);
            let sizes = [1e-20f32, 1e-6, 1.0, 1e6, 1e30].iter().cycle();
            let input: Vec<f32> = noise(ids.len() * WIDTH, rows as u32)
                .chunks_exact(WIDTH)
                .zip(sizes)
                .flat_map(|(row, size)| row.iter().map(|v| v * size).collect::<Vec<_>>())
                .collect();
            let contents =
                BTreeMap::from([("experts", words(&ids)), ("weights", packed.clone()), ("input", bytes(&input))]);
            let (y, _) = run_chain(&library, &kernels, contents, rows);
            let of_expert = stored.len() / mixture.experts;
            for (pair, (x, &id)) in input.chunks_exact(WIDTH).zip(&ids).enumerate() {
                let expected = product(format, &stored[id as usize * of_expert..][..of_expert], WIDTH, x);
                let found = &y[pair * HIDDEN..][..HIDDEN];
                let size = expected.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
                for (found, expected) in found.iter().zip(&expected) {
                    // Halves have eleven bits, and sums of 512 terms lose less than one term's error.
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(difference <= 1e-3 * size, "{format:?}, pair {pair}: {found} instead of {expected}");
                }
            }
        }
    }
}
