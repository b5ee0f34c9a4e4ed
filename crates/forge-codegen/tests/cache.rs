//! What the append to a cache in blocks leaves, byte for byte: the codes and scales that an encoder of GGUF's blocks makes.

#[path = "../../forge-plan/tests/common/mod.rs"]
mod common;

use std::path::Path;

use common::Sizes;
use forge_codegen::{RenderOptions, render};
use forge_formats::{Format, encode_row};
use forge_frontend::{Assets, GenerationConfig};
use forge_plan::{CacheType, Kernel, Plan, PlanOptions, plan};
use forge_spec::{Role, StepParams};
use metal_sim::{Binding, Buffer, CompileOptions, Device, Library};

const HEADS: usize = 2;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const WIDTH: usize = KV_HEADS * HEAD_DIM;
/// What fills up eight bytes after codes and scales.
const FILL: usize = 4;
const POISON: u8 = 0xAB;

/// A plan with a cache of that type and its `kernels.metal`.
fn emitted(kv: CacheType) -> (Plan, String) {
    let sizes = Sizes {
        hidden: 64,
        ffn: 64,
        heads: HEADS * KV_HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        vocab: 64,
        layers: 1,
        context: 64,
    };
    let graph = common::llama(sizes, Format::F32);
    let plan = plan(&graph, &PlanOptions { kv, ..PlanOptions::default() }).expect("has a plan");
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
    let text = project.files[Path::new("shaders/kernels.metal")].clone();
    (plan, String::from_utf8(text).expect("UTF-8"))
}

/// Rows of keys (and of values): halves that a rounded code has to go away from zero for, zeros, numbers that are hardly any,
/// and noise.
fn rows(count: usize, seed: u32) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let mut element = |row: usize, at: usize| match (row, at / 32) {
        // Scale 1: codes are rounded from halves and whole numbers.
        (0, 0) => [127.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 63.5, -126.5][at % 9],
        (0, 1) => 0.0,
        (0, 2) => 1e-30 * at as f32,
        (0, 3) => -1e-9 * at as f32,
        (_, block) => noise() * 10.0_f32.powi(block as i32 - 3),
    };
    (0..count).map(|row| (0..WIDTH).map(|at| element(row, at)).collect()).collect()
}

/// Codes, then scales, of a row as a cache of that type has them.
fn encoded(kv: CacheType, row: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let format = if kv == CacheType::Q8_0 { Format::Q8_0 } else { Format::Q4_0 };
    let mut blocks = vec![0; format.row_bytes(row.len()).expect("whole blocks")];
    encode_row(format, row, &mut blocks).expect("is finite");
    let size = blocks.len() / (row.len() / 32);
    let blocks = blocks.chunks_exact(size);
    // GGUF has element i of the first half and of the second in a byte, the cache has neighbours.
    let codes = |block: &[u8]| match format {
        Format::Q8_0 => block.to_vec(),
        _ => {
            let codes: Vec<u8> = block.iter().map(|byte| byte % 16).chain(block.iter().map(|byte| byte / 16)).collect();
            codes.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect()
        }
    };
    (
        blocks.clone().flat_map(|block| codes(&block[2..])).collect(),
        blocks.flat_map(|block| block[..2].to_vec()).collect(),
    )
}

/// Runs the append over `qkv` from `position` on and returns the cache of values and that of keys.
fn append(kernel: &Kernel, text: &str, qkv: &[f32], rows: usize, position: usize, bytes: usize) -> [Vec<u8>; 2] {
    let library = Library::from_source(text, "kernels.metal", &CompileOptions { checked: true });
    let library = library.unwrap_or_else(|error| panic!("{error}"));
    let device = Device::new(0);
    let contents = |role: Role| match role {
        Role::Qkv => qkv.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Role::Q => vec![0; 4 * rows * HEADS * KV_HEADS * HEAD_DIM],
        Role::Keys | Role::Values => vec![POISON; bytes],
        Role::Step => (0..rows)
            .flat_map(|row| {
                let position = (position + row) as u32;
                StepParams { position, rows: rows as u32, ..StepParams::default() }.words()
            })
            .flat_map(u32::to_le_bytes)
            .collect(),
        other => panic!("{other:?} is no argument of an append"),
    };
    let buffers: Vec<(Role, Buffer)> = kernel
        .bindings
        .iter()
        .map(|binding| {
            let contents: Vec<u8> = contents(binding.role);
            let buffer = device.buffer(binding.role.name(), contents.len());
            buffer.write(0, &contents);
            (binding.role, buffer)
        })
        .collect();
    let bindings: Vec<Binding<'_>> = buffers.iter().map(|(_, buffer)| buffer.whole()).collect();
    let mut commands = device.command_buffer("test");
    let groups = ((HEADS * KV_HEADS + 2 * KV_HEADS) as u32).div_ceil(4);
    let function = library.kernel(&kernel.name).expect("is in the file");
    commands.dispatch(&function, &bindings, [groups, rows as u32, 1], [kernel.launch.threads, 1, 1]);
    commands.commit().wait().unwrap_or_else(|error| panic!("{error}"));
    [Role::Values, Role::Keys].map(|role| {
        let (_, buffer) = buffers.iter().find(|(other, _)| *other == role).expect("is bound");
        let mut bytes = vec![0; buffer.len()];
        buffer.read(0, &mut bytes);
        bytes
    })
}

/// Appends rows to a cache of that type and compares with the encoder.
fn holds_the_blocks_of_an_encoder(kv: CacheType) {
    let (plan, text) = emitted(kv);
    let stride = kv.stride(WIDTH);
    let kernel = plan.kernels.iter().find(|kernel| kernel.name == "rope_append").expect("is planned");
    let (keys, values) = (rows(3, 1), rows(3, 2));
    let queries = vec![0.25; HEADS * KV_HEADS * HEAD_DIM];
    let qkv = |row: usize| [&queries, &keys[row], &values[row]].into_iter().flatten().copied().collect::<Vec<f32>>();
    let compare = |found: &[u8], row: &[f32]| {
        let (codes, scales) = encoded(kv, row);
        assert_eq!(codes.len() + scales.len() + FILL, stride);
        assert_eq!(found[..codes.len()], codes);
        assert_eq!(found[codes.len()..][..scales.len()], scales);
    };

    // At position 0 keys are as they were.
    let found = append(kernel, &text, &qkv(0), 1, 0, 2 * stride);
    for (found, row) in found.iter().zip([&values[0], &keys[0]]) {
        compare(found, row);
        assert!(found[stride - FILL..].iter().all(|&byte| byte == POISON), "{found:?}");
    }

    // Several rows, further on; only values are not rotated.
    let [found, _] = append(kernel, &text, &[qkv(0), qkv(1), qkv(2)].concat(), 3, 2, 5 * stride);
    for (row, found) in values.iter().zip(found.chunks_exact(stride).skip(2)) {
        compare(found, row);
    }
    assert!(found[..2 * stride].iter().all(|&byte| byte == POISON));
}

#[test]
fn a_q8_0_cache_holds_the_blocks_of_an_encoder() {
    holds_the_blocks_of_an_encoder(CacheType::Q8_0);
}

#[test]
fn a_q4_0_cache_holds_the_blocks_of_an_encoder() {
    holds_the_blocks_of_an_encoder(CacheType::Q4_0);
}
