//! `cargo xtask check-msl`: emitted kernels through the strict MSL gate, with the thread counts that their hosts dispatch.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use msl_gate::GateOptions;

use crate::{clang, shell, snapshots};

/// Options of `cargo xtask check-msl`.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Generated projects, or MSL files; the snapshots unless given
    paths: Vec<PathBuf>,
}

/// Checks every file; each fault is printed with its line.
///
/// # Errors
/// A fault, or a compiler that is missing.
pub fn main(options: &Options) -> Result<()> {
    clang::ensure()?;
    let mut paths = options.paths.clone();
    if paths.is_empty() {
        let snapshots = shell::root().join("tests/snapshots");
        paths.extend(snapshots::CASES.map(|(name, _)| snapshots.join(name)));
    }
    let (mut faults, mut kernels) = (0, 0);
    for path in &paths {
        let (file, threads) = if path.is_dir() {
            (path.join("shaders/kernels.metal"), dispatched(&path.join("src/model.rs"))?)
        } else {
            (path.clone(), Vec::new())
        };
        let source = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = snapshots::relative(shell::root(), &file);
        let threads: Vec<(&str, u32)> = threads.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let found = msl_gate::check(&source, &name, &GateOptions { threads: &threads, ..GateOptions::default() })?;
        for fault in &found {
            println!("{fault}");
        }
        faults += found.len();
        kernels += threads.len();
    }
    if faults > 0 {
        bail!("check-msl: {faults} faults");
    }
    println!("check-msl: {} files, {kernels} kernels", paths.len());
    Ok(())
}

/// Threads per threadgroup of each kernel, from the table in `model.rs`.
fn dispatched(model: &Path) -> Result<Vec<(String, u32)>> {
    let text = fs::read_to_string(model).with_context(|| format!("cannot read {}", model.display()))?;
    let field = |line: &str, name: &str| {
        let value = line.split_once(name)?.1;
        Some(value.split([',', '}']).next()?.trim().trim_matches('"').to_owned())
    };
    let specs = text.lines().filter(|line| line.contains("KernelSpec {"));
    let found: Vec<(String, u32)> =
        specs.filter_map(|line| Some((field(line, "name:")?, field(line, "threads:")?.parse().ok()?))).collect();
    if found.is_empty() {
        bail!("{}: no table of kernels", model.display());
    }
    Ok(found)
}
