//! `cargo xtask cross-check`: emitted projects built for macOS.
//!
//! On a Mac that is the native build. On Debian x86-64 a compiler with a standard library for
//! `aarch64-apple-darwin` is set up once under the target directory (`xtask/macos/setup.sh`): everything is
//! type-checked, linted and linked against stubs of the Apple libraries; nothing can run. A project with a C library is built with its weights
//! in it and in the program, whose place is read from what the linker made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::test::Outcome;
use crate::{embed, shell, snapshots};

const TARGET: &str = "aarch64-apple-darwin";

/// Options of `cargo xtask cross-check`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A generated project; the snapshot projects unless given
    project: Option<PathBuf>,
}

/// Checks the given project, or those of the snapshots.
///
/// # Errors
/// A project that does not build for macOS.
pub fn main(options: &Options) -> Result<ExitCode> {
    let outcome = match &options.project {
        Some(project) => {
            let project = project.canonicalize().with_context(|| format!("cannot open {}", project.display()))?;
            check(&[project])?
        }
        None => snapshots()?,
    };
    if let Outcome::Skipped(reason) = outcome {
        println!("skipped: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the projects of the snapshots.
///
/// # Errors
/// A project that does not build for macOS.
pub fn snapshots() -> Result<Outcome> {
    let projects: Vec<PathBuf> = snapshots::generate()?.into_iter().map(|(_, project)| project).collect();
    check(&projects)
}

fn check(projects: &[PathBuf]) -> Result<Outcome> {
    let toolchain = if cfg!(target_os = "macos") {
        Toolchain::Native
    } else {
        match unavailable() {
            // Continuous integration runs where the packages are: there, their absence is an error.
            Some(reason) if shell::in_ci() => bail!("{reason}"),
            Some(reason) => return Ok(Outcome::Skipped(reason)),
            None => Toolchain::Cross(set_up()?),
        }
    };
    for project in projects {
        let name = project.file_name().unwrap_or_default().to_string_lossy();
        toolchain.build(project).with_context(|| format!("{name}: build for {TARGET}"))?;
        println!("{name}: linted and linked for {TARGET}");
        if let Some(features) = Embedding::of(project)? {
            for file in features.files(&toolchain.folder()) {
                let place =
                    embed::place(&fs::read(&file).with_context(|| file.display().to_string())?, &features.weights)?;
                println!("{name}: {}: {place}", file.file_name().unwrap_or_default().to_string_lossy());
            }
        }
    }
    println!("cross-check: {} projects", projects.len());
    Ok(Outcome::Passed)
}

/// A project of which the weights are built in.
struct Embedding {
    /// Its package.
    name: String,
    weights: Vec<u8>,
}

impl Embedding {
    /// Those projects that have a C library.
    fn of(project: &Path) -> Result<Option<Self>> {
        if !project.join("bindings/c").is_dir() {
            return Ok(None);
        }
        let manifest = fs::read_to_string(project.join("Cargo.toml"))?;
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let weights = fs::read(project.join("weights.safetensors"))?;
        Ok(Some(Self { name: name.context("the project has no name")?.to_owned(), weights }))
    }

    /// Packages and features to build.
    fn arguments(&self) -> Vec<String> {
        let name = &self.name;
        let features = format!("{name}/embed,{name}-c/embed");
        vec!["--package".into(), name.clone(), "--package".into(), format!("{name}-c"), "--features".into(), features]
    }

    /// What has the weights in it.
    fn files(&self, folder: &Path) -> [PathBuf; 2] {
        let library = format!("lib{}_c.dylib", self.name.replace('-', "_"));
        [folder.join(&self.name), folder.join(library)]
    }
}

enum Toolchain {
    /// This is a Mac.
    Native,
    /// Variables that make cargo build for macOS.
    Cross(Vec<(String, String)>),
}

/// Where projects for macOS are built on other systems.
fn cross_target_dir() -> PathBuf {
    shell::target_dir().join("projects-macos")
}

impl Toolchain {
    /// Where programs and libraries are.
    fn folder(&self) -> PathBuf {
        match self {
            Self::Native => shell::projects_target_dir().join("debug"),
            Self::Cross(_) => cross_target_dir().join(TARGET).join("debug"),
        }
    }

    /// Type-checks, lints and links a project.
    fn build(&self, project: &Path) -> Result<()> {
        let what = Embedding::of(project)?.map(|embedding| embedding.arguments()).unwrap_or_default();
        let Self::Cross(variables) = self else {
            shell::run(cargo(project, "clippy").args(&what).args(["--", "-D", "warnings"]))?;
            return shell::run(cargo(project, "build").args(&what));
        };
        let rustc = variables.iter().find(|(name, _)| name == "RUSTC");
        let rustc = rustc.map(|(_, value)| Path::new(value)).context("RUSTC is not set")?;
        let mut command = cargo(project, "build");
        command
            .args(what)
            .args(["--target", TARGET])
            .env("CARGO_TARGET_DIR", cross_target_dir())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            // What `cargo clippy` does, with the driver that belongs to the private compiler; it links as well.
            .env("RUSTC_WORKSPACE_WRAPPER", rustc.with_file_name("clippy-driver"))
            .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
        shell::run(&mut command)
    }
}

/// `cargo SUBCOMMAND` for a project that is built but not run: unoptimised, without debug information.
fn cargo(project: &Path, subcommand: &str) -> Command {
    let mut command = shell::cargo();
    command
        .current_dir(project)
        .args([subcommand, "--quiet"])
        .env("CARGO_TARGET_DIR", shell::projects_target_dir())
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_STRIP", "false");
    command
}

/// Why the cross compiler cannot be had here, in one line.
fn unavailable() -> Option<String> {
    if set_up_before() {
        return None;
    }
    let needs = "the macOS build needs Debian 12 on x86-64 with root, rustup, python3 and pip";
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some(needs.to_owned());
    }
    let root = shell::capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let tools = ["apt-get", "rustc", "python3"].iter().all(|tool| shell::which(tool).is_some());
    if !root || !tools {
        return Some(needs.to_owned());
    }
    let known = || {
        shell::capture(Command::new("apt-cache").args(["policy", "rustc-web"]))
            .is_ok_and(|policy| policy.contains("Candidate:") && !policy.contains("Candidate: (none)"))
    };
    if known() {
        return None;
    }
    // A fresh machine has no package lists yet.
    let updated = shell::run(Command::new("apt-get").args(["update", "-qq"])).is_ok();
    (!updated || !known()).then(|| "this system has no package rustc-web (Debian 12 has it)".to_owned())
}

fn prefix() -> PathBuf {
    shell::target_dir().join("macos")
}

fn set_up_before() -> bool {
    prefix().join("env").is_file()
}

/// The cross compiler's variables; it is set up first where that has not been done.
fn set_up() -> Result<Vec<(String, String)>> {
    if !set_up_before() {
        println!("setting up a compiler for {TARGET} (about a minute, 450 MB)");
        let script = shell::root().join("xtask/macos/setup.sh");
        shell::run(Command::new("bash").arg(script).arg(prefix()))?;
    }
    let path = prefix().join("env");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().flat_map(assignments).collect())
}

/// The assignments of a line `export A=b C="d e"`.
fn assignments(line: &str) -> Vec<(String, String)> {
    let mut rest = line.strip_prefix("export ").unwrap_or(line).trim();
    let mut found = Vec::new();
    while let Some((name, value)) = rest.split_once('=') {
        let (value, tail) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_once(' ').unwrap_or((value, "")),
        };
        found.push((name.to_owned(), value.to_owned()));
        rest = tail.trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::assignments;

    #[test]
    fn assignments_of_the_environment_file() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(assignments("export A=/b/c D=e"), [pair("A", "/b/c"), pair("D", "e")]);
        assert_eq!(assignments("export A=\"-x -y\""), [pair("A", "-x -y")]);
    }
}
