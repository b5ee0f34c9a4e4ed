//! `cargo xtask bench gpu`: what a checkpoint's project would run in decode, as specs for `bench-msl-cuda`, which times
//! Metal kernels compiled as CUDA on an NVIDIA GPU.
//!
//! The folder gets `src/kernels.metal` as it is emitted, and a spec per weight format with every projection's kernel, its
//! arguments, grid and threads as the plan has them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use forge_codegen::{RenderOptions, render};
use forge_formats::Format;
use forge_plan::binding::Binding;
use forge_plan::costs::{self, StepSize};
use forge_plan::families::{Epilogue, FEW_TOKENS, Gemv, Tokens};
use forge_plan::{Family, Kernel, PlanOptions, plan};
use forge_spec::Param;
use serde_json::{Value, json};

/// A function of Metal's that the bench's translation does not have; the sampling kernels use it.
const MULHI: &str = "inline uint mulhi(uint a, uint b) { return uint((ulong(a) * b) >> 32); }";

/// Writes the folder for `checkpoint`.
///
/// # Errors
/// A checkpoint without a plan, a folder that cannot be written.
pub fn write(checkpoint: &Path, out: &Path) -> Result<()> {
    let loaded = forge_frontend::load(checkpoint)?;
    let plan = plan(&loaded.graph, &PlanOptions::default())?;
    let options = RenderOptions {
        name: "bench".into(),
        source: "bench".into(),
        command: "forge gen".into(),
        ..Default::default()
    };
    let project = render(&plan, &loaded.graph, &loaded.assets, &options)?;
    let (sources, specs) = (out.join("src"), out.join("specs"));
    fs::create_dir_all(&sources)?;
    fs::create_dir_all(&specs)?;
    fs::write(sources.join("kernels.metal"), &project.files[Path::new("shaders/kernels.metal")])?;
    let mut cases: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut shapes = Vec::new();
    for kernel in &plan.kernels {
        let Family::Gemv(gemv) = &kernel.family else { continue };
        let [matrix] = gemv.matrices.as_slice() else {
            println!("{}: left out, its matrices have different formats", kernel.name);
            continue;
        };
        let format = forge_plan::stored(matrix.format);
        cases.entry(format_name(format)).or_default().push(case(kernel, gemv, format));
        shapes.push(format!("{}x{}", gemv.rows, gemv.cols));
    }
    // An input norm of 1: the sum of squares is bound to zeros, so 1 / sqrt(0 + 1).
    let unscaled = json!([[r"(input_sums, )[0-9.e+-]+f(, lane\))", r"\g<1>1.0f\2"]]);
    for (format, kernels) in &cases {
        let spec = json!({
            "source": [{ "text": MULHI }, { "file": "kernels.metal", "sub": unscaled }],
            "kernels": kernels,
        });
        let path = specs.join(format!("{format}.json"));
        fs::write(&path, serde_json::to_vec_pretty(&spec)?).with_context(|| path.display().to_string())?;
    }
    shapes.sort();
    shapes.dedup();
    println!(
        "wrote {} kernels to {}; build.py --shapes {}",
        cases.values().flatten().count(),
        out.display(),
        shapes.join(",")
    );
    Ok(())
}

/// The name that `tests/gpu-bench/packed.py` makes weights under.
fn format_name(format: Format) -> String {
    match format {
        Format::Affine { bits, group } => format!("affine{bits}_{group}"),
        other => forge_plan::format_name(other),
    }
}

fn case(kernel: &Kernel, gemv: &Gemv, format: Format) -> Value {
    let args: Vec<Value> = kernel.bindings.iter().enumerate().map(|(i, b)| argument(i, b, gemv)).collect();
    let g = gemv.geometry;
    let rows = step_rows(gemv);
    json!({
        "id": format!("forge/{} r{} sg{} ks{}", kernel.name, g.rows_per_simdgroup, g.simdgroups, g.split_k),
        "op": "gemv",
        "format": format!("forge_{}", format_name(format)),
        "when": format!("rows == {} and cols == {}", gemv.rows, gemv.cols),
        "note": if checked(gemv) { "" } else { "timed only: the result is no plain product" },
        "launches": [{
            "kernel": kernel.name,
            "args": args,
            "grid": costs::dispatch(kernel, StepSize { rows, position: 0, slots: 1 }).grid,
            "tg": [kernel.launch.threads, 1, 1],
        }],
    })
}

/// Whether the kernel's result is the product that the bench compares with.
fn checked(gemv: &Gemv) -> bool {
    gemv.tokens == Tokens::One && matches!(gemv.epilogue, Epilogue::Store { softcap: None, .. })
}

/// Rows of the step that a kernel is timed with.
fn step_rows(gemv: &Gemv) -> usize {
    match gemv.tokens {
        Tokens::One => 1,
        Tokens::Few(2) => 2,
        Tokens::Few(_) | Tokens::Each => FEW_TOKENS,
    }
}

/// What the bench binds: weights, input and result of the product, zeros to read, scratch to write.
fn argument(index: usize, binding: &Binding, gemv: &Gemv) -> Value {
    let rows = step_rows(gemv);
    let bytes = gemv.rows.max(gemv.cols) * rows * 4;
    match binding.role.name() {
        "weights" => json!("w"),
        "input" if rows == 1 => json!("x"),
        "y" if checked(gemv) => json!("y"),
        "step" => {
            // Position 0, as many rows as there is room for; the first of their records.
            let word = |param: &Param| json!(["u32", if *param == Param::Rows { rows } else { 0 }.to_string()]);
            json!({ "struct": Param::ALL.iter().map(word).collect::<Vec<_>>() })
        }
        _ if binding.access.reads() => json!(format!("zero{index}:{bytes}")),
        _ => json!(format!("tmp{index}:{bytes}")),
    }
}
