//! `cargo xtask demo`: from the bundled checkpoint to a story on the terminal.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::forge::{Forge, build_project};
use crate::shell;

/// The bundled checkpoint, relative to the repository.
pub const CHECKPOINT: &str = "assets/demo/model.Q8_0.gguf";
/// What the story is to be about.
const PROMPT: &str = "Tell me a story about a fox and a lantern.";

/// Generates the demo project, builds it and lets it tell a story.
///
/// # Errors
/// Any step that fails.
pub fn main() -> Result<()> {
    println!("Generating a project from {CHECKPOINT} ...");
    let (project, program) = project()?;
    println!("The project is in {}. It says:\n", project.display());
    let mut command = Command::new(program);
    command.args(["generate", "--seed", "1", "--max-tokens", "300", PROMPT]);
    println!("> {PROMPT}\n");
    shell::run(&mut command)
}

/// Generates and builds the demo project; returns its folder and its executable.
///
/// # Errors
/// Any step that fails.
pub fn project() -> Result<(PathBuf, PathBuf)> {
    let project = shell::target_dir().join("demo");
    let forge = Forge::build()?;
    forge.must_generate(
        &shell::root().join(CHECKPOINT),
        &project,
        &["--name", "demo", "--bindings", "c,swift,python", "--force"],
    )?;
    println!("Building it (the first time takes some minutes) ...");
    let program = build_project(&project)?;
    Ok((project, program))
}
