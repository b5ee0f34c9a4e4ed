//! `forge check`: a project's kernels through the static gate, a short run and every kernel's comparison with a reference,
//! both in the software Metal device's checked mode (on a Mac: on its GPU), in one table.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use msl_gate::GateOptions;

use crate::cli::{CheckArgs, GenArgs};
use crate::{Error, generate, interrupt};

/// Beyond this many bytes of weights a run of the whole model in checked mode takes too long to do unasked.
const LARGE: u64 = 1 << 30;
/// Tokens of the checked run: a whole tile with logits and a ragged one.
const TOKENS: u32 = 70;
/// Beginning of the message about a missing compiler, which the project's build script prints.
const NO_COMPILER: &str = "kernels cannot be compiled";

/// What a line of the table says.
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// Checks what `args` name.
///
/// # Errors
/// A checkpoint that cannot be generated from, a project that does not build, tools that are missing, and
/// [`Error::Checks`] when a check fails.
pub fn run(args: &CheckArgs) -> Result<(), Error> {
    if is_project(&args.path) {
        return check(&args.path, args.full);
    }
    let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
    let output = folder.path().join("checked");
    generate::run(&GenArgs {
        checkpoint: args.path.clone(),
        offline: args.offline,
        output: output.clone(),
        name: None,
        context: args.context,
        kv: args.kv,
        slots: args.slots,
        tile: None,
        quantize: None,
        imatrix: None,
        measure: None,
        measure_tokens: 0,
        tuning: None,
        embed: false,
        bindings: Vec::new(),
        force: false,
        quiet: true,
    })?;
    check(&output, args.full)
}

/// Whether the folder is a generated project rather than a checkpoint.
fn is_project(path: &Path) -> bool {
    path.join("shaders/kernels.metal").is_file() && path.join("src/model.rs").is_file()
}

fn check(project: &Path, full: bool) -> Result<(), Error> {
    let gate = gate(project)?;
    interrupt::check()?;
    anstream::eprintln!("building {}", project.display());
    let program = build(project)?;
    let checked = checked_run(project, &program, full)?;
    let place = if cfg!(target_os = "macos") { "on the GPU" } else { "in checked mode" };
    let lines = [
        ("kernels.metal through the static gate".to_owned(), gate),
        (format!("prefill of {TOKENS} tokens and decode, {place}"), checked),
    ];
    let compared = compare(project, &program, &lines)?;
    let mut failed = usize::from(!compared);
    for (name, verdict) in &lines {
        match verdict {
            Verdict::Passed => {}
            Verdict::Failed(reason) => {
                failed += 1;
                anstream::println!("\n{name}:\n{reason}");
            }
            Verdict::Skipped(reason) => anstream::println!("\n{name}: {reason}"),
        }
    }
    if failed > 0 { Err(Error::Checks { failed }) } else { Ok(()) }
}

/// The static gate on the emitted kernels.
fn gate(project: &Path) -> Result<Verdict, Error> {
    let read = |name: &str| {
        let path = project.join(name);
        fs::read_to_string(&path).map_err(Error::io(&path))
    };
    let (mut source, mut tables) = (read("shaders/kernels.metal")?, read("src/model.rs")?);
    let check = |source: &str, file: &str, tables: &str| {
        let threads = msl_gate::dispatched_threads(tables);
        msl_gate::check(source, file, &GateOptions { threads: &threads, ..GateOptions::default() })
    };
    let mut faults = check(&source, "shaders/kernels.metal", &tables)?;
    if faults.is_empty() && project.join("shaders/tuning.metal").is_file() {
        source += &read("shaders/tuning.metal")?;
        tables += &read("src/tuning.rs")?;
        faults = check(&source, "shaders/tuning.metal after kernels.metal", &tables)?;
    }
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Ok(if lines.is_empty() { Verdict::Passed } else { Verdict::Failed(lines.join("\n")) })
}

/// Builds the project; the program's path.
pub(crate) fn build(project: &Path) -> Result<PathBuf, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(["build", "--release", "--message-format=json-render-diagnostics"])
        .current_dir(project)
        .output()
        .map_err(|source| Error::Cargo { cargo: cargo.to_string_lossy().into_owned(), source })?;
    interrupt::check()?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        let reason = match messages.lines().find(|line| line.contains(NO_COMPILER)) {
            Some(line) => line.trim().to_owned(),
            None => {
                anstream::eprintln!("{}", messages.trim_end());
                "cargo's messages are above".to_owned()
            }
        };
        return Err(Error::Build { project: project.to_owned(), reason });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    let reason = || "cargo names no program that it built".to_owned();
    let built = messages.lines().filter_map(executable).next_back();
    built.ok_or_else(|| Error::Build { project: project.to_owned(), reason: reason() })
}

/// The program, in checked mode, with the project's own weights.
fn program(project: &Path, program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("METAL_SIM_CHECKED", "1").stdin(Stdio::null());
    // The program may have been built into a folder that several projects share.
    command.arg("--weights").arg(project);
    command
}

/// A short prefill and decode of the whole model.
fn checked_run(project: &Path, path: &Path, full: bool) -> Result<Verdict, Error> {
    let weights = project.join("weights.safetensors");
    let bytes = fs::metadata(&weights).map_err(Error::io(&weights))?.len();
    if bytes > LARGE && !full && !cfg!(target_os = "macos") {
        return Ok(Verdict::Skipped(
            "it would run the whole model, which takes long at this size; --full does it".into(),
        ));
    }
    let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
    let logits = folder.path().join("logits.safetensors").to_string_lossy().into_owned();
    let ids: Vec<String> = (0..TOKENS).map(|id| id.to_string()).collect();
    let steps: [&[&str]; 2] = [
        &["logits", "--ids", &ids.join(","), "--output", &logits],
        &["generate", "--raw", "--max-tokens", "3", "Once upon a time"],
    ];
    for step in steps {
        let output = program(project, path, step).output().map_err(Error::io(path))?;
        interrupt::check()?;
        if !output.status.success() {
            return Ok(Verdict::Failed(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()));
        }
    }
    Ok(Verdict::Passed)
}

/// Shows the report of `verify` with `lines` in its table; whether every kernel passed.
fn compare(project: &Path, path: &Path, lines: &[(String, Verdict)]) -> Result<bool, Error> {
    let mut child = program(project, path, &["verify"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(path))?;
    let stdout = child.stdout.take().map(BufReader::new);
    let mut table = false;
    for line in stdout.into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(Error::io(path))?;
        anstream::println!("{line}");
        // The columns before the last are the kernels'.
        if !table && line.starts_with("kernel ") && line.ends_with("result") {
            table = true;
            let width = line.len() - "result".len();
            for (name, verdict) in lines {
                anstream::println!("{name:width$}{}", verdict.word());
            }
        }
    }
    let output = child.wait_with_output().map_err(Error::io(path))?;
    interrupt::check()?;
    if !table {
        let reason = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(Error::Verify { project: project.to_owned(), reason });
    }
    Ok(output.status.success())
}
