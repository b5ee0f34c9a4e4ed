//! The gated delta rule's emitted kernels over a long text: the state after 4,096 tokens against a recurrence in f64.

#[path = "../../forge-plan/tests/common/mod.rs"]
mod common;

use std::path::Path;

use common::Sizes;
use forge_codegen::{RenderOptions, render};
use forge_formats::Format;
use forge_frontend::graph::GatedDelta;
use forge_frontend::{Assets, GenerationConfig};
use forge_plan::{Plan, PlanOptions, plan};
use forge_spec::{Role, StepParams};
use metal_sim::{Binding, Buffer, CompileOptions, Device, Library};

const DELTA: GatedDelta =
    GatedDelta { key_heads: 1, value_heads: 2, key_dim: 64, value_dim: 64, taps: 4, tiled_heads: false, eps: 1e-6 };
const TOKENS: usize = 4096;
/// Tokens of a tile.
const TILE: usize = 256;
/// Tokens at the end that run one by one.
const SINGLE: usize = 64;

/// A plan whose layers have the delta rule, and its `kernels.metal`.
fn emitted() -> (Plan, String) {
    let sizes =
        Sizes { hidden: 64, ffn: 64, heads: 2, kv_heads: 1, head_dim: 32, vocab: 64, layers: 1, context: TOKENS };
    let graph = common::delta(sizes, DELTA, None, Format::F32);
    let plan = plan(&graph, &PlanOptions::default()).expect("has a plan");
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

/// Numbers between -1 and 1.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// What the rule is made of: rows of q, k, v, z, b, a, and the layer's vectors.
struct Given {
    rows: Vec<f32>,
    taps: Vec<f32>,
    decay: Vec<f32>,
    time_bias: Vec<f32>,
    gamma: Vec<f32>,
}

fn given() -> Given {
    Given {
        rows: noise(TOKENS * DELTA.row_width(), 1),
        taps: noise(DELTA.channels() * DELTA.taps, 2),
        // One head forgets within a few tokens, the other hardly.
        decay: vec![-0.9, -0.002],
        time_bias: vec![0.3, -0.4],
        gamma: noise(DELTA.value_dim, 3),
    }
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The state of every head, `[values, keys]`, after all tokens, in f64.
fn recurrence(given: &Given) -> Vec<Vec<f64>> {
    let GatedDelta { key_dim, value_dim, value_heads, taps, .. } = DELTA;
    let (channels, width) = (DELTA.channels(), DELTA.row_width());
    let row = |token: usize| &given.rows[token * width..][..width];
    let mut states = vec![vec![0.0_f64; value_dim * key_dim]; value_heads];
    for token in 0..TOKENS {
        let mixed: Vec<f64> = (0..channels)
            .map(|channel| {
                let product = |tap: usize| {
                    let source = (token + tap + 1).checked_sub(taps)?;
                    Some(f64::from(given.taps[channel * taps + tap]) * f64::from(row(source)[channel]))
                };
                silu((0..taps).filter_map(product).sum())
            })
            .collect();
        let key = &mixed[key_dim..2 * key_dim];
        let length = (key.iter().map(|k| k * k).sum::<f64>() + 1e-6).sqrt();
        for (head, state) in states.iter_mut().enumerate() {
            let gates = &row(token)[channels + value_heads * value_dim..];
            let write = 1.0 / (1.0 + f64::from(-gates[head]).exp());
            let time = f64::from(gates[value_heads + head]) + f64::from(given.time_bias[head]);
            let keep = (f64::from(given.decay[head]) * time.exp().ln_1p()).exp();
            let values = &mixed[2 * key_dim + head * value_dim..][..value_dim];
            for (line, value) in state.chunks_exact_mut(key_dim).zip(values) {
                line.iter_mut().for_each(|s| *s *= keep);
                let held: f64 = line.iter().zip(key).map(|(s, k)| s * k / length).sum();
                let change = write * (value - held);
                line.iter_mut().zip(key).for_each(|(s, k)| *s += change * k / length);
            }
        }
    }
    states
}

#[test]
fn a_state_after_4096_tokens() {
    let (plan, text) = emitted();
    let given = given();
    let library = Library::from_source(&text, "kernels.metal", &CompileOptions { checked: false });
    let library = library.unwrap_or_else(|error| panic!("{error}"));
    let device = Device::new(0);
    let head_state = DELTA.head_state();
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let buffer = |name: &str, contents: &[u8]| {
        let buffer = device.buffer(name, contents.len());
        buffer.write(0, contents);
        buffer
    };
    let state = buffer("state", &bytes(&vec![f32::NAN; 2 * DELTA.value_heads * head_state]));
    let mut position = 0;
    while position < TOKENS {
        let rows = if position < TOKENS - SINGLE { TILE.min(TOKENS - SINGLE - position) } else { 1 };
        let name = if rows == 1 { "delta_rule" } else { "delta_rule_tile" };
        let kernel = plan.kernels.iter().find(|kernel| kernel.name == name).expect("is planned");
        let width = DELTA.row_width();
        let params = (0..rows).flat_map(|row| {
            StepParams { position: (position + row) as u32, rows: rows as u32, ..StepParams::default() }.words()
        });
        let own = |role: Role| match role {
            Role::Input => bytes(&given.rows[position * width..][..rows * width]),
            Role::Taps => bytes(&given.taps),
            Role::Decay => bytes(&given.decay),
            Role::TimeBias => bytes(&given.time_bias),
            Role::Gamma => bytes(&given.gamma),
            Role::Y => vec![0; 4 * rows * DELTA.value_heads * DELTA.value_dim],
            Role::Step => params.clone().flat_map(u32::to_le_bytes).collect(),
            other => panic!("{other:?} is no argument of the delta rule"),
        };
        let of_step = kernel.bindings.iter().filter(|binding| binding.role != Role::State);
        let of_step: Vec<(Role, Buffer)> =
            of_step.map(|binding| (binding.role, buffer(binding.role.name(), &own(binding.role)))).collect();
        let bound = |role: Role| of_step.iter().find(|(own, _)| *own == role).map_or(&state, |(_, buffer)| buffer);
        let bindings: Vec<Binding<'_>> = kernel.bindings.iter().map(|binding| bound(binding.role).whole()).collect();
        let mut commands = device.command_buffer("test");
        let function = library.kernel(&kernel.name).expect("is in the file");
        commands.dispatch(&function, &bindings, [DELTA.value_heads as u32, 1, 1], [kernel.launch.threads, 1, 1]);
        commands.commit().wait().unwrap_or_else(|error| panic!("{error}"));
        position += rows;
    }
    let mut found = vec![0; 4 * 2 * DELTA.value_heads * head_state];
    state.read(0, &mut found);
    let found: Vec<f32> =
        found.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
    // Position 4095 leaves the second copy.
    let last = &found[DELTA.value_heads * head_state..];
    for (head, expected) in recurrence(&given).iter().enumerate() {
        let own = &last[head * head_state..][..expected.len()];
        let size = expected.iter().map(|s| s * s).sum::<f64>().sqrt();
        let difference = own.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
        println!("head {head}: {:.1e} of {size:.2}", difference / size);
        assert!(size > 0.1 && difference <= 1e-5 * size, "head {head}: {difference} of {size}");
    }
}
