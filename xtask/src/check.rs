//! `cargo xtask test --only check`: `forge check` passes the demo project, and fails one with a wrong kernel, which it names.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::forge::Forge;
use crate::{demo, shell};

/// SiLU, and the same with a constant that is a little off.
const FAULT: (&str, &str) = ("x / (1.0f +", "x / (1.001f +");
/// The projection that gates with it.
const FAULTY: &str = "gate_up_proj";

/// Checks the project, then a copy with the fault.
///
/// # Errors
/// A check that fails on the project, or that does not find the fault in its kernel alone.
pub fn main() -> Result<()> {
    let forge = Forge::build()?;
    forge.must_check(&demo::project()?.0)?;
    let wrong = shell::scratch("check")?.join("wrong");
    forge.must_generate(&shell::root().join(demo::CHECKPOINT), &wrong, &["--name", "wrong", "--force"])?;
    let file = wrong.join("shaders/kernels.metal");
    let kernels = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (right, fault) = FAULT;
    ensure!(kernels.contains(right), "the kernels have no {right}");
    fs::write(&file, kernels.replacen(right, fault, 1))?;
    let output = forge.check(&wrong)?;
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(1), "a wrong kernel passes\n{table}{errors}");
    let failed: Vec<&str> = table.lines().filter(|line| line.ends_with("FAILED")).collect();
    let named = failed.iter().all(|line| line.starts_with(FAULTY));
    ensure!(!failed.is_empty() && named, "not {FAULTY} alone is named\n{table}{errors}");
    ensure!(errors.ends_with("error: 1 of 3 checks failed\n"), "another error\n{errors}");
    println!("check: a wrong {FAULTY} is found in {} kernels, and nothing else is", failed.len());
    Ok(())
}
