//! Attention sinks from the graph to the emitted program: a tiny model of full and windowed layers is given a score without a
//! value per head and layer, and the program's logits are those of the plain interpreter, in tiles and one by one, while the
//! context is whole and when it is split.

#[path = "../../forge-frontend/tests/cases/interpreter.rs"]
mod interpreter;
#[path = "../../forge-frontend/tests/cases/latent.rs"]
mod latent;
#[path = "../../forge-frontend/tests/cases/mixture.rs"]
mod mixture;
#[path = "../../forge-frontend/tests/cases/recurrent.rs"]
mod recurrent;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use forge_codegen::{RenderOptions, render};
use forge_formats::Format;
use forge_frontend::checkpoint::{MappedFile, SafetensorsSet};
use forge_frontend::graph::{FileRange, Op, Slot, Source, Weight};
use forge_frontend::{Checkpoint, load};
use forge_pack::Packing;
use forge_plan::{CacheType, PlanOptions, plan};

/// Decode attention splits a context of more than 256 positions.
const TOKENS: usize = 300;
const BOUND: f32 = 1e-3;

/// A checkpoint whose layers are of two kinds, full and of a window of eight positions.
fn checkpoint() -> Checkpoint {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../forge-frontend/tests/fixtures/tiny");
    load(&fixtures.join("qwen2-window-long/hf")).expect("the fixture loads")
}

/// Gives every layer sinks from `file`, `[layers, heads]` f32.
fn add_sinks(checkpoint: &mut Checkpoint, file: &Path) {
    let mut values = Vec::new();
    let graph = &mut checkpoint.graph;
    let mut widths = Vec::new();
    for block in &mut graph.blocks {
        let slot = block.slots.len();
        for node in &mut block.nodes {
            if let Op::Attention { heads, sinks, .. } = &mut node.op {
                *sinks = Some(slot);
                widths.push(*heads);
            }
        }
        let cols = *widths.last().expect("attention");
        block.slots.push(Slot { role: "attn_sinks".into(), rows: 1, cols });
    }
    for (index, layer) in graph.layers.iter_mut().enumerate() {
        let heads = widths[layer.block];
        let start = values.len() as u64;
        // Some above all scores, some below.
        let own = (0..heads).map(|head| 4.0 * ((7 * index + 3 * head + 1) as f32).sin());
        values.extend(own.flat_map(f32::to_le_bytes));
        graph.weights.push(Weight {
            tensor: format!("layers.{index}.sinks"),
            role: "attn_sinks".into(),
            layer: Some(index),
            rows: 1,
            cols: heads,
            format: Format::F32,
            source: Source::Rows(FileRange { file: checkpoint.files.len(), range: start..values.len() as u64 }),
            offset: 0.0,
            factor: 1.0,
            negated_exp: false,
            max_abs: Some(4.0),
        });
        layer.weights.push(graph.weights.len() - 1);
    }
    fs::write(file, values).unwrap();
    checkpoint.files.push(MappedFile::open(file).unwrap());
}

/// The project of a checkpoint, built.
fn build(checkpoint: &Checkpoint, project: &Path) -> PathBuf {
    let options = PlanOptions { kv: CacheType::F32, ..PlanOptions::default() };
    let plan = plan(&checkpoint.graph, &options).unwrap();
    let options =
        RenderOptions { name: "sinks".into(), source: "hf".into(), command: String::new(), ..Default::default() };
    let rendered = render(&plan, &checkpoint.graph, &checkpoint.assets, &options).unwrap();
    for (path, bytes) in &rendered.files {
        let path = project.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let cancel = AtomicBool::new(false);
    let packing = Packing { plan: &plan.weights, graph: &checkpoint.graph, source: checkpoint, cancel: &cancel };
    packing.pack(&project.join("weights.safetensors"), |_| ()).unwrap();
    // Beside what other projects of the tests were built from.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../projects");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(project).args(["build", "--release", "--quiet"]).env("CARGO_TARGET_DIR", &target);
    let output = cargo.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let program = project.join("program");
    fs::copy(target.join("release/sinks"), &program).unwrap();
    program
}

/// What the program prints, in checked mode.
fn run(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).env("METAL_SIM_CHECKED", "1").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    // `f32::max` would pass over what is not a number.
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most: f32, difference| if difference.is_nan() { f32::INFINITY } else { most.max(difference) })
}

#[test]
fn a_program_with_attention_sinks_gives_the_logits_of_the_interpreter() {
    let scratch = tempfile::tempdir().unwrap();
    let mut checkpoint = checkpoint();
    let tokens: Vec<u32> = (0..TOKENS as u32).map(|at| (at * 37 + 11) % 88).collect();
    let without = interpreter::logits(&checkpoint, &tokens).concat();
    add_sinks(&mut checkpoint, &scratch.path().join("sinks"));
    let expected = interpreter::logits(&checkpoint, &tokens).concat();
    let effect = largest_difference(&without, &expected);
    println!("the sinks move logits by {effect:.2e}");
    assert!(effect > 100.0 * BOUND, "the sinks move logits by {effect:.2e}");

    let program = build(&checkpoint, &scratch.path().join("project"));
    let ids = tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let file = scratch.path().join("logits.safetensors");
    for flags in [&[][..], &["--decode"]] {
        let args = [&["logits", "--ids", &ids, "-o", file.to_str().unwrap()], flags].concat();
        run(&program, &args);
        let set = SafetensorsSet::open_file(&file).unwrap();
        let bytes = set.data(&set.tensors()["logits"]).chunks_exact(4);
        let found: Vec<f32> = bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let largest = largest_difference(&found, &expected);
        println!("{flags:?}: largest difference {largest:.2e}");
        assert!(largest <= BOUND, "{flags:?}: largest difference {largest:.2e}");
    }
    // Every kernel against its own reference.
    let table = run(&program, &["verify"]);
    for kernel in ["attention_tile", "attention_part", "attention_combine"] {
        assert!(table.contains(kernel), "{table}");
    }
}
