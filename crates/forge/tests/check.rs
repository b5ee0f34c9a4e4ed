//! `forge check` where it cannot check; `cargo xtask test --only check` shows that it finds a wrong kernel.

mod common;

use common::{Scratch, forge, generate, gguf, stderr};

#[test]
fn a_missing_cargo_is_said() {
    let scratch = Scratch::new();
    let project = scratch.join("checked");
    assert!(generate(&gguf(), &project, &["--quiet"]).status.success());
    let output = forge().arg("check").arg(&project).env("CARGO", "/nowhere/cargo").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/cargo cannot be run"), "{}", stderr(&output));
}
