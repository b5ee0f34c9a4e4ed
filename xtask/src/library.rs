//! `cargo xtask test --only library`: the demo project as other Rust code uses it, without what only its program needs, and as other languages do
//! (`bindings`).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{bindings, demo, shell};

/// Crates of the command line and the server.
const PROGRAM: [&str; 5] = ["axum", "clap", "hyper", "rustyline", "tokio"];
const PROMPT: &str = "One day, a little";

/// Builds the example and the documentation's examples of the demo project without its features, and its libraries for other languages; runs them
/// and compares their text with the program's.
///
/// # Errors
/// A crate that should not be there, an example that does not build, or another text.
pub fn main() -> Result<()> {
    let (project, program) = demo::project()?;
    let (whole, library) = (crates(&project, &[])?, crates(&project, &["--no-default-features"])?);
    for name in PROGRAM {
        ensure!(whole.contains(name), "the program does without {name}");
        ensure!(!library.contains(name), "the library needs {name}");
    }
    // The device of build scripts is this machine's in any case; what runs there is asked for.
    for (target, expected) in [("aarch64-apple-darwin", false), ("x86_64-unknown-linux-gnu", true)] {
        let found = crates(&project, &["--target", target])?.contains("metal-sim");
        ensure!(found == expected, "{target}: the software device is {}", if found { "there" } else { "missing" });
    }
    println!("{} crates with the program, {} without", whole.len(), library.len());
    let mut example = cargo(&project, "run");
    example.args(["--quiet", "--no-default-features", "--example", "library", "--", PROMPT]);
    let text = shell::capture(&mut example)?;
    let args = ["generate", "--raw", "--temperature", "0", "--max-tokens", "32", PROMPT];
    let expected = shell::capture(Command::new(program).args(args))?;
    ensure!(text == format!("{PROMPT}{expected}"), "the example says {text:?}, the program {expected:?}");
    print!("{text}");
    shell::run(cargo(&project, "test").args(["--quiet", "--no-default-features", "--doc"]))?;
    bindings::check(&project, PROMPT, &expected)
}

/// Names of the crates that are linked into what a project builds.
fn crates(project: &Path, args: &[&str]) -> Result<BTreeSet<String>> {
    let mut command = cargo(project, "tree");
    command.args(["--quiet", "--edges", "normal", "--prefix", "none", "--format", "{p}"]).args(args);
    let text = shell::capture(&mut command)?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// `cargo SUBCOMMAND` in a project that is built to be run a few times.
pub fn cargo(project: &Path, subcommand: &str) -> Command {
    let mut command = shell::cargo();
    command.current_dir(project).arg(subcommand);
    command.env("CARGO_TARGET_DIR", shell::projects_target_dir()).envs([shell::kernels_cache()]);
    // Other features are another build of most crates: no more of it than it takes to run a few times.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
}
