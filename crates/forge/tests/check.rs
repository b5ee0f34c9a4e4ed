//! `forge check`: a project that is right passes, one with a deliberately wrong kernel fails and the kernel is named.

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{Scratch, forge, generate, gguf, stderr};

/// `forge check PROJECT`, built beside what other projects of the tests were built from.
fn check(project: &Path) -> Output {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../projects");
    forge().arg("check").arg(project).env("CARGO_TARGET_DIR", built).output().unwrap()
}

#[test]
fn a_wrong_kernel_is_named() {
    let scratch = Scratch::new();
    let project = scratch.join("checked");
    assert!(generate(&gguf(), &project, &["--quiet"]).status.success());
    let output = check(&project);
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{table}{}", stderr(&output));
    assert!(table.contains("static gate") && !table.contains("FAILED"), "{table}");

    // SiLU with a constant that is a little off, in the files that gate and feed forward.
    let file = project.join("shaders/kernels.metal");
    let kernels = fs::read_to_string(&file).unwrap();
    let wrong = kernels.replacen("x / (1.0f +", "x / (1.001f +", 1);
    assert_ne!(kernels, wrong);
    fs::write(&file, wrong).unwrap();
    let output = check(&project);
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{table}{}", stderr(&output));
    let failed: Vec<&str> = table.lines().filter(|line| line.ends_with("FAILED")).collect();
    assert!(!failed.is_empty() && failed.iter().all(|line| line.starts_with("gate_up_proj")), "{table}");
    assert!(stderr(&output).ends_with("error: 1 of 3 checks failed\n"), "{}", stderr(&output));
}

#[test]
fn a_missing_cargo_is_said() {
    let scratch = Scratch::new();
    let project = scratch.join("checked");
    assert!(generate(&gguf(), &project, &["--quiet"]).status.success());
    let output = forge().arg("check").arg(&project).env("CARGO", "/nowhere/cargo").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/cargo cannot be run"), "{}", stderr(&output));
}
