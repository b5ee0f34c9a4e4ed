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
        paths.push(shell::root().join("crates/forge-runtime/src/profile/copy.metal"));
    }
    let (mut faults, mut kernels) = (0, 0);
    for path in &paths {
        let read = |file: &Path| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
        let (file, model) = if path.is_dir() {
            (path.join("shaders/kernels.metal"), read(&path.join("src/model.rs"))?)
        } else {
            (path.clone(), String::new())
        };
        let threads = msl_gate::dispatched_threads(&model);
        if path.is_dir() && threads.is_empty() {
            bail!("{}: no table of kernels in model.rs", path.display());
        }
        let source = read(&file)?;
        let name = snapshots::relative(shell::root(), &file);
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
