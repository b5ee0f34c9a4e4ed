//! Paths of the workspace and running other programs: every subprocess of xtask starts here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root of the repository")
}

/// Where build products go: `CARGO_TARGET_DIR`, else `target/` of the repository.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The target directory that all generated projects share, so that their dependencies build once.
pub fn projects_target_dir() -> PathBuf {
    target_dir().join("projects")
}

/// Where the software device keeps compiled kernels, for programs that compile those of one project again and again.
pub fn kernels_cache() -> (&'static str, PathBuf) {
    ("METAL_SIM_CACHE", target_dir().join("kernels"))
}

/// A folder below the target directory, created when missing.
///
/// # Errors
/// A folder that cannot be created.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let dir = target_dir().join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// `cargo` as the one that runs this command.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// True under continuous integration, where a step may not skip itself.
pub fn in_ci() -> bool {
    ["CI", "FORGE_CI"]
        .iter()
        .filter_map(std::env::var_os)
        .any(|value| !value.is_empty() && value != "0" && value != "false")
}

/// The first executable called `name` on `PATH`.
pub fn which(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The command line as a person would type it.
pub fn display(command: &Command) -> String {
    let quote = |part: &OsStr| {
        let part = part.to_string_lossy();
        if !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "-_./=:,+@%".contains(c)) {
            part.into_owned()
        } else {
            format!("'{}'", part.replace('\'', r"'\''"))
        }
    };
    std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with the terminal's own output.
///
/// # Errors
/// A program that cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null());
    let status = once_written(|| command.status()).with_context(|| format!("cannot run {}", display(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", display(command));
    }
    Ok(())
}

/// Runs `command` and collects what it prints, whether it succeeds or not.
///
/// # Errors
/// A program that cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null());
    once_written(|| command.output()).with_context(|| format!("cannot run {}", display(command)))
}

/// Starts a program that may have been copied a moment ago. Where another thread started a process meanwhile, that one has the
/// copy open for writing until it becomes another program, and the system refuses to run it.
fn once_written<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..100 {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
    start()
}

/// Runs `command` and returns its standard output.
///
/// # Errors
/// A program that cannot be started or does not succeed; the error carries what it wrote to stderr.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{} failed ({})\n{}",
            display(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", display(command)))
}
