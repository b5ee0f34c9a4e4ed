//! `cargo xtask gpu`: what a machine with an NVIDIA GPU needs, and no Rust, no network and no Metal, to run emitted projects
//! whole: programs built with the feature `cuda`, weights and references of cases, headers of weights files of true sizes,
//! which are filled there, the software device's GPU tests, and `run.py`, which runs everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use forge_codegen::{RenderOptions, render};
use forge_pack::Header;
use forge_plan::{PlanOptions, plan};
use serde_json::{Value, json};

use crate::bench::gguf::{self, Mix, Sizes};
use crate::cases::{self, Variant};
use crate::forge::{Forge, Generated, build_for_nvidia};
use crate::{demo, shell};

/// Options of `cargo xtask gpu`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The archive to write, `gpu.tar.xz`
    out: PathBuf,
    /// Folder of case folders (repeatable) [default: the demo and tests/fixtures/models]
    #[arg(long, value_name = "DIR")]
    cases: Vec<PathBuf>,
    /// Only checkpoints of this format: hf, mlx, F16, Q8_0, ... (repeatable)
    #[arg(long, value_name = "FORMAT")]
    format: Vec<String>,
    /// Only the model of true size of this name (repeatable); `none` for none
    #[arg(long, value_name = "NAME")]
    size: Vec<String>,
    /// A checkpoint whose weights are a hole in its file, to be filled there (repeatable)
    #[arg(long, value_name = "PATH")]
    hollow: Vec<PathBuf>,
}

/// Layers of the models of true size.
const LAYERS: u64 = 32;

/// A Llama of eight billion weights.
const fn llama_8b(mix: Mix) -> Sizes {
    Sizes { hidden: 4096, intermediate: 14336, heads: 32, kv_heads: 8, vocab: 128_256, context: 8192, head: true, mix }
}

/// Name, sizes, and sequences side by side: a program of several is measured as a server.
const SIZES: [(&str, Sizes, usize); 7] = [
    ("llama-8b-q8_0", llama_8b(Mix::Q8), 1),
    ("llama-8b-q4_0", llama_8b(Mix::Q4), 1),
    ("llama-8b-q4_k_m", llama_8b(Mix::Q4KM), 1),
    ("serve-8b-q8_0", llama_8b(Mix::Q8), SLOTS),
    ("serve-8b-q4_0", llama_8b(Mix::Q4), SLOTS),
    ("serve-8b-q4_k_m", llama_8b(Mix::Q4KM), SLOTS),
    ("serve-8b-f16", llama_8b(Mix::F16), SLOTS),
];

/// Sequences of a case's program, so that rows side by side are compared with the same rows alone.
const CASE_SLOTS: &str = "4";

/// Sequences of a server, and positions of each.
const SLOTS: usize = 8;
const SERVED_CONTEXT: usize = 2048;

/// How the archive is packed: the programs have most of their code in common, so that `xz` is to see back beyond one of them.
const PACKING: &str = "--lzma2=preset=3,dict=192MiB";

/// Builds everything and writes the archive.
///
/// # Errors
/// A checkpoint that is not supported, a build that fails, a folder that cannot be written.
pub fn main(options: &Options) -> Result<()> {
    let scratch = tempfile::tempdir_in(shell::scratch("gpu")?)?;
    let folder = scratch.path().join("gpu");
    fs::create_dir_all(&folder)?;
    let forge = Forge::build()?;
    let root = shell::root();
    let folders = if options.cases.is_empty() {
        let demo = root.join(demo::CHECKPOINT);
        vec![demo.parent().unwrap_or(root).to_owned(), root.join("tests/fixtures/models")]
    } else {
        options.cases.clone()
    };
    let mut listed = Vec::new();
    for case in folders.iter().map(|folder| cases::discover(folder)).collect::<Result<Vec<_>>>()?.iter().flatten() {
        for checkpoint in &case.checkpoints {
            if !options.format.is_empty() && !options.format.contains(&checkpoint.label) {
                continue;
            }
            // the first way is the strictest
            let Some(variant) = Variant::all(case, checkpoint, &[], None)?.into_iter().next() else { continue };
            let name = format!("{}-{}", case.name, checkpoint.label);
            println!("{name}");
            let project = shell::scratch("gpu")?.join("project");
            let context = cases::context(case)?;
            let mut args = vec!["--kv", variant.kv, "--slots", CASE_SLOTS, "--name", "program", "--force"];
            if let Some(context) = &context {
                args.extend(["--context", context]);
            }
            if let Generated::Unsupported(reason) = forge.generate(&checkpoint.path, &project, &args)? {
                println!("{name}: unsupported: {reason}");
                continue;
            }
            let to = folder.join(&name);
            put_program(&project, &to)?;
            copy(&project.join("weights.safetensors"), &to.join("weights.safetensors"))?;
            copy(&case.path.join("reference.safetensors"), &to.join("reference.safetensors"))?;
            listed.push(json!({ "name": name, "label": checkpoint.label, "bound": variant.bound }));
        }
    }
    let mut sizes = Vec::new();
    for (name, size, slots) in SIZES {
        if options.size.is_empty() || options.size.iter().any(|chosen| chosen == name) {
            println!("{name}");
            let checkpoint = scratch.path().join("hollow.gguf");
            gguf::write_hollow(&checkpoint, &size, LAYERS)?;
            sizes.push(true_size(name, &checkpoint, slots, &folder.join(name))?);
        }
    }
    for path in &options.hollow {
        let name = path.file_stem().and_then(|name| name.to_str()).context("a path without a name")?;
        println!("{name}");
        sizes.push(true_size(name, path, 1, &folder.join(name))?);
    }
    put_tests(&folder)?;
    copy(&root.join("tests/gpu/run.py"), &folder.join("run.py"))?;
    let manifest = json!({ "cases": listed, "sizes": sizes });
    fs::write(folder.join("manifest.json"), serde_json::to_vec_pretty(&manifest)?)?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(scratch.path()).arg("-cJf").arg(&options.out).arg("gpu");
    shell::run(tar.env("XZ_OPT", PACKING))?;
    println!("wrote {} ({} bytes)", options.out.display(), fs::metadata(&options.out)?.len());
    println!("there: tar -xJf gpu.tar.xz && python3 gpu/run.py OUT");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Builds a project and puts its program, without symbols, into `folder`.
fn put_program(project: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let program = folder.join("program");
    copy(&build_for_nvidia(project)?, &program)?;
    shell::run(Command::new("strip").arg(&program))
}

/// The software device's tests that need a GPU.
fn put_tests(folder: &Path) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["test", "--quiet", "--package", "metal-sim", "--features", "cuda", "--test", "cuda", "--no-run"]);
    let program = folder.join("metal-sim-tests");
    copy(&crate::forge::executable(&mut command)?, &program)?;
    shell::run(Command::new("strip").arg(&program))
}

/// The program of a model of true size, and the header of its weights file.
fn true_size(name: &str, checkpoint: &Path, slots: usize, folder: &Path) -> Result<Value> {
    let loaded = forge_frontend::load(checkpoint)?;
    let context = (slots > 1).then_some(SERVED_CONTEXT);
    let plan = plan(&loaded.graph, &PlanOptions { slots, context, ..PlanOptions::default() })?;
    let options = RenderOptions {
        name: "program".into(),
        source: name.to_owned(),
        command: "forge gen".into(),
        ..Default::default()
    };
    let project = render(&plan, &loaded.graph, &loaded.assets, &options)?;
    let place = shell::scratch("gpu")?.join(name);
    for (path, bytes) in &project.files {
        let path = place.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&place))?;
        // what is the same is not built again
        if fs::read(&path).ok().as_ref() != Some(bytes) {
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        }
    }
    put_program(&place, folder)?;
    let header = Header::new(&plan.weights);
    fs::write(folder.join("header.bin"), &header.bytes)?;
    Ok(json!({ "name": name, "bytes": header.file_bytes, "slots": slots, "vocab": plan.config.vocab_size }))
}
