//! The `forge` command as a user runs it, and the projects it generates.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{clang, shared, shell, snapshots};

/// A project's kernels.
const KERNELS: &str = "shaders/kernels.metal";

/// A built `forge`.
#[derive(Debug)]
pub struct Forge {
    program: PathBuf,
}

/// What came of `forge gen`.
#[derive(Debug)]
pub enum Generated {
    /// The project is there.
    Done,
    /// Forge says that it does not support the checkpoint yet, and why.
    Unsupported(String),
}

impl Forge {
    /// Builds `forge` with the development profile.
    ///
    /// # Errors
    /// A failed build.
    pub fn build() -> Result<Self> {
        Self::with_profile("dev")
    }

    /// Builds `forge` with the named profile.
    ///
    /// # Errors
    /// A failed build.
    pub fn with_profile(profile: &str) -> Result<Self> {
        let mut command = shell::cargo();
        command.args(["build", "--quiet", "--package", "forge", "--profile", profile]);
        Ok(Self { program: build(&mut command, Warnings::Allow)? })
    }

    /// The executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `forge` with `args`.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// `forge gen CHECKPOINT -o PROJECT --quiet ARGS`.
    ///
    /// # Errors
    /// Any failure but an unsupported checkpoint.
    pub fn generate(&self, checkpoint: &Path, project: &Path, args: &[&str]) -> Result<Generated> {
        let mut command = self.command();
        command.arg("gen").arg(checkpoint).arg("-o").arg(project).arg("--quiet").args(args);
        let output = shell::output(&mut command)?;
        if output.status.success() {
            let _one = one_at_a_time();
            shared::align(project)?;
            return Ok(Generated::Done);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Warnings may come before.
        match stderr.lines().last().and_then(|line| line.strip_prefix("error: unsupported: ")) {
            Some(reason) => Ok(Generated::Unsupported(reason.to_owned())),
            None => bail!("{}: {}", shell::display(&command), stderr.trim_end()),
        }
    }

    /// Like [`Forge::generate`], where the checkpoint has to be supported.
    ///
    /// # Errors
    /// Any failure.
    pub fn must_generate(&self, checkpoint: &Path, project: &Path, args: &[&str]) -> Result<()> {
        match self.generate(checkpoint, project, args)? {
            Generated::Done => Ok(()),
            Generated::Unsupported(reason) => bail!("{}: {reason}", checkpoint.display()),
        }
    }

    /// `forge check PROJECT`, with its table on the terminal.
    ///
    /// # Errors
    /// A check that fails.
    pub fn must_check(&self, project: &Path) -> Result<()> {
        shell::run(&mut self.check_command(project)?)
    }

    /// `forge check PROJECT`, with what it prints.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn check(&self, project: &Path) -> Result<Output> {
        shell::output(&mut self.check_command(project)?)
    }

    fn check_command(&self, project: &Path) -> Result<Command> {
        clang::ensure()?;
        touch_after_another(project)?;
        let mut command = self.command();
        command.arg("check").arg(project).env("CARGO_TARGET_DIR", shell::projects_target_dir());
        command.envs([shell::kernels_cache()]);
        Ok(command)
    }
}

/// The value of `pub const NAME: usize = VALUE;` in an emitted `model.rs`.
///
/// # Errors
/// It has none.
pub fn constant(model: &str, name: &str) -> Result<usize> {
    let start = format!("const {name}: usize = ");
    let digits =
        |line: &str| Some(line.trim_start_matches("pub ").strip_prefix(&start)?.strip_suffix(';')?.replace('_', ""));
    let value = model.lines().find_map(|line| digits(line)?.parse().ok());
    value.with_context(|| format!("model.rs has no {name}"))
}

/// Held by whoever writes into the target directory that generated projects share.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do about the compiler's warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warnings {
    Allow,
    Deny,
}

/// Builds a generated project for this machine in release mode, with the shared target directory; returns its
/// executable. A warning is an error: emitted projects compile without any.
///
/// # Errors
/// A failed build or a warning.
pub fn build_project(project: &Path) -> Result<PathBuf> {
    let _one = one_at_a_time();
    build_with_features(project, &[])
}

/// Like [`build_project`], for one of several projects that are built by threads side by side: its executable is `program`, which the
/// next build leaves alone. Kernels, which take longest, are compiled beside other builds, for each of `modes`.
///
/// # Errors
/// Kernels that do not compile, a failed build or a warning.
pub fn build_beside_others(project: &Path, modes: &[Mode], program: &Path) -> Result<()> {
    clang::ensure()?;
    let source = std::fs::read_to_string(project.join(KERNELS)).with_context(|| KERNELS.to_owned())?;
    let (_, cache) = shell::kernels_cache();
    for mode in modes {
        // Under the names that build script and program have for them.
        let (name, checked) = match mode {
            Mode::Fast => (KERNELS, false),
            Mode::Checked => ("kernels.metal", true),
        };
        let out = tempfile::NamedTempFile::new()?;
        metal_sim::compile_in(Some(&cache), &source, name, &metal_sim::CompileOptions { checked }, out.path())?;
    }
    let _one = one_at_a_time();
    // What is a project's own says which kernels to run, and nothing that has to be fast: it is compiled three times as fast.
    let plain = format!("profile.release.package.{}.opt-level=0", package_name(project)?);
    // A program that runs checked alone has no other kernels.
    let checked = if modes.contains(&Mode::Fast) { "0" } else { "1" };
    let built = build_with(project, &["--config", &plain], &[("METAL_SIM_CHECKED", checked)])?;
    std::fs::copy(&built, program).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(())
}

/// How a program runs its kernels on the software device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As fast as may be.
    Fast,
    /// With `METAL_SIM_CHECKED=1`.
    Checked,
}

/// What a project's manifest calls it.
fn package_name(project: &Path) -> Result<String> {
    let manifest = std::fs::read_to_string(project.join("Cargo.toml"))?;
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    name.map(str::to_owned).with_context(|| format!("{}: no name in Cargo.toml", project.display()))
}

/// Like [`build_project`], with the weights as part of the program.
///
/// # Errors
/// A failed build or a warning.
pub fn build_embedded(project: &Path) -> Result<PathBuf> {
    let _one = one_at_a_time();
    build_with_features(project, &["--features", "embed"])
}

/// Like [`build_project`], with the feature that lets an NVIDIA GPU be the device.
///
/// # Errors
/// A failed build or a warning.
pub fn build_for_nvidia(project: &Path) -> Result<PathBuf> {
    let _one = one_at_a_time();
    build_with_features(project, &["--features", "cuda"])
}

fn build_with_features(project: &Path, args: &[&str]) -> Result<PathBuf> {
    build_with(project, args, &[])
}

fn build_with(project: &Path, args: &[&str], environment: &[(&str, &str)]) -> Result<PathBuf> {
    clang::ensure()?;
    touch_after_another(project)?;
    let mut command = shell::cargo();
    command
        .current_dir(project)
        .args(["build", "--release", "--quiet"])
        .args(args)
        .env("CARGO_TARGET_DIR", shell::projects_target_dir())
        .envs([shell::kernels_cache()])
        .envs(environment.iter().copied());
    build(&mut command, Warnings::Deny)
}

/// Gives a project's own files the present time where the one built last was another: in a target directory that projects share, Cargo
/// takes all of them for one, and what is older than that one's build for unchanged.
fn touch_after_another(project: &Path) -> Result<()> {
    let note = shell::scratch("projects")?.join("last-built");
    let name = project.as_os_str().as_encoded_bytes();
    if std::fs::read(&note).is_ok_and(|last| last == name) {
        return Ok(());
    }
    for folder in ["src", "shaders"] {
        for file in snapshots::walk(&project.join(folder))? {
            File::options().write(true).open(&file)?.set_modified(SystemTime::now())?;
        }
    }
    std::fs::write(&note, name).with_context(|| note.display().to_string())
}

/// Runs a `cargo` command that builds and returns the executable it made.
///
/// # Errors
/// A failed build.
pub fn executable(command: &mut Command) -> Result<PathBuf> {
    build(command, Warnings::Allow)
}

/// Runs a `cargo build` and returns the executable it made.
fn build(command: &mut Command, warnings: Warnings) -> Result<PathBuf> {
    command.arg("--message-format=json-render-diagnostics");
    let output = shell::output(command)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} failed\n{}", shell::display(command), stderr.trim_end());
    }
    if warnings == Warnings::Deny && stderr.lines().any(|line| line.starts_with("warning")) {
        bail!("{} warns\n{}", shell::display(command), stderr.trim_end());
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .with_context(|| format!("{} made no executable", shell::display(command)))
}
