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
    // Of these snapshots no tuning.metal is kept.
    let mut sources_only = Vec::new();
    if paths.is_empty() {
        let snapshots = shell::root().join("tests/snapshots");
        sources_only.extend(snapshots::SOURCE_CASES.map(|(name, _)| snapshots.join(name)));
        paths.extend(snapshots::CASES.map(|(name, _)| snapshots.join(name)));
        paths.extend_from_slice(&sources_only);
        paths.push(shell::root().join("crates/forge-runtime/src/profile/copy.metal"));
    }
    let (mut faults, mut kernels) = (0, 0);
    let mut check = |source: &str, name: &str, tables: &str| -> Result<()> {
        let threads = msl_gate::dispatched_threads(tables);
        let found = msl_gate::check(source, name, &GateOptions { threads: &threads, ..GateOptions::default() })?;
        for fault in &found {
            println!("{fault}");
        }
        faults += found.len();
        kernels += threads.len();
        Ok(())
    };
    for path in &paths {
        let read = |file: &Path| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
        let name = |file: &Path| snapshots::relative(shell::root(), file);
        if !path.is_dir() {
            check(&read(path)?, &name(path), "")?;
            continue;
        }
        let table = |file: &str| -> Result<String> {
            let text = read(&path.join("src").join(file))?;
            if msl_gate::dispatched_threads(&text).is_empty() {
                bail!("{}: no table of kernels in {file}", path.display());
            }
            Ok(text)
        };
        let file = path.join("shaders/kernels.metal");
        let source = read(&file)?;
        check(&source, &name(&file), &table("model.rs")?)?;
        if sources_only.contains(path) {
            continue;
        }
        // The variants call what kernels.metal has, and are compiled after it.
        let tuning = path.join("shaders/tuning.metal");
        check(&(source + &read(&tuning)?), &format!("{} after kernels.metal", name(&tuning)), &table("tuning.rs")?)?;
    }
    if faults > 0 {
        bail!("check-msl: {faults} faults");
    }
    println!("check-msl: {} files, {kernels} kernels", paths.len());
    Ok(())
}
