//! The demo project from other languages: its C library built, used and misused by a C program (`crates/forge-capi/tests/c/check.c`), compiled as
//! C and as C++, with AddressSanitizer and under valgrind; its example, linked with either library; its wheel installed and used; its Swift package
//! (`swift`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{embed, library, shell, swift};

/// What a program is compiled with, beside its standard.
const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];
/// What the static library needs on Linux, as `--print native-static-libs` says.
const NATIVE: [&str; 4] = ["-lstdc++", "-lm", "-lpthread", "-ldl"];
/// The first tokens of the text that everything here comes to.
const TOKENS: &str = "24";

/// Builds and runs all of it. `text` is what the project's program says after `prompt`.
///
/// # Errors
/// Anything that does not compile, fails, or says another text.
pub fn check(project: &Path, prompt: &str, text: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let built = build(project, &[])?;
    exports(&built.shared)?;
    let header = project.join("bindings/c/include");
    let source = shell::root().join("crates/forge-capi/tests/c/check.c");
    let compilers = [("gcc", "c", "c11"), ("clang", "c", "c99"), ("g++", "c++", "c++17"), ("clang++", "c++", "c++11")];
    for (name, language, standard) in compilers {
        let Some(compiler) = compiler(name) else { bail!("there is no {name}") };
        let program = folder.path().join(name);
        let compile = |library: &Path, args: &[&str]| {
            let mut command = Command::new(&compiler);
            command.args(STRICT).args(args).args(["-x", language, &format!("-std={standard}")]).arg(&source);
            // Strict C11 hides what threads need.
            command.args(["-D_POSIX_C_SOURCE=200809L", "-pthread", "-x", "none"]).arg(library).arg("-I").arg(&header);
            shell::run(command.arg(beside(library)).arg("-o").arg(&program))
        };
        compile(&built.shared, &[])?;
        // Once as it is is once less than with more eyes on it.
        if name == "gcc" {
            compile(&built.shared, &["-fsanitize=address,undefined"])?;
            let said = shell::capture(Command::new(&program).arg(project).args([TOKENS, prompt]))?;
            let said = said.trim_end_matches('\n');
            ensure!(!said.is_empty() && text.starts_with(said), "check.c says {said:?} instead of {text:?}");
            println!("check.c, sanitized: {said:?}");
            // Kernels of the software device switch stacks, which valgrind does not follow: here the model is a hash function.
            compile(&stand_in()?, &[])?;
            // Templates are rendered by threads with stacks that take it half a minute.
            shell::capture(valgrind(&program).arg(project).args(["8", prompt, "--no-chats"]))?;
        }
    }
    story(project, prompt, text, &built.fixed, &NATIVE, Some(project), folder.path())?;
    swift::check(project, &built.fixed, &compiler("clang").context("there is no clang")?)?;

    let built = build(project, &["--features", "embed"])?;
    let weights = std::fs::read(project.join("weights.safetensors"))?;
    println!("{}", embed::place(&std::fs::read(&built.shared)?, &weights)?);
    story(project, prompt, text, &built.shared, &[], None, folder.path())?;
    wheel(project, prompt, text, &built.shared, folder.path())
}

/// The libraries of a project.
struct Built {
    shared: PathBuf,
    fixed: PathBuf,
}

fn build(project: &Path, features: &[&str]) -> Result<Built> {
    shell::run(library::cargo(project, "build").args(["--quiet", "--package", "demo-c"]).args(features))?;
    let folder = shell::projects_target_dir().join("debug");
    let shared = folder.join(format!("{}demo_c{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
    Ok(Built { shared, fixed: folder.join("libdemo_c.a") })
}

/// The C library of the model that tests have instead of a project's.
fn stand_in() -> Result<PathBuf> {
    let mut command = shell::cargo();
    shell::run(command.args(["rustc", "--quiet", "--package", "forge-capi", "--lib", "--crate-type", "cdylib"]))?;
    let name = format!("{}forge_capi{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    Ok(shell::target_dir().join("debug").join(name))
}

/// Has a program look for a shared library where it is.
fn beside(library: &Path) -> String {
    format!("-Wl,-rpath,{}", library.parent().unwrap_or(library).display())
}

/// The shared library gives away nothing but its interface.
fn exports(shared: &Path) -> Result<()> {
    let symbols = shell::capture(Command::new("nm").args(["-D", "--defined-only"]).arg(shared))?;
    let names: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let foreign: Vec<&&str> = names.iter().filter(|name| !name.starts_with("forge_")).collect();
    ensure!(names.len() > 10 && foreign.is_empty(), "{} exports {names:?}", shared.display());
    println!("{} functions in {}", names.len(), shared.display());
    Ok(())
}

/// A compiler, or the newest of its name with a version.
fn compiler(name: &str) -> Option<PathBuf> {
    shell::which(name).or_else(|| (14..=22).rev().find_map(|version| shell::which(&format!("{name}-{version}"))))
}

/// A program under valgrind where there is one, which CI is to have; errors and leaks make it fail.
fn valgrind(program: &Path) -> Command {
    let Some(valgrind) = shell::which("valgrind") else {
        println!("no valgrind: without it");
        return Command::new(program);
    };
    let mut command = Command::new(valgrind);
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
    // What lives as long as the program and is pointed into is none.
    command.arg("--show-leak-kinds=definite");
    command.args(["--fair-sched=yes"]).arg(program);
    command
}

/// The example, linked with a library and run; it finds the weights in `weights`, or in the library.
fn story(
    project: &Path,
    prompt: &str,
    text: &str,
    library: &Path,
    native: &[&str],
    weights: Option<&Path>,
    folder: &Path,
) -> Result<()> {
    let program = folder.join("story");
    let c = project.join("bindings/c");
    let mut command = Command::new(compiler("gcc").context("there is no gcc")?);
    command.args(STRICT).arg("-std=c99").arg(c.join("story.c")).arg(library).arg("-I").arg(c.join("include"));
    command.args(native).arg("-o").arg(&program);
    shell::run(command.arg(beside(library)))?;
    let mut command = Command::new(&program);
    command.arg(prompt).envs(weights.map(|weights| ("FORGE_WEIGHTS", weights)));
    let said = shell::capture(&mut command)?;
    ensure!(said == format!("{prompt}{text}"), "story.c says {said:?}");
    println!("story.c, with {}", library.display());
    Ok(())
}

/// The wheel: made, installed apart and used.
fn wheel(project: &Path, prompt: &str, text: &str, shared: &Path, folder: &Path) -> Result<()> {
    let python = || Command::new("python3");
    let dist = folder.join("dist");
    let mut command = python();
    command.arg(project.join("bindings/python/wheel.py")).arg(shared).arg("-o").arg(&dist);
    let wheel = shell::capture(&mut command)?;
    let installed = folder.join("installed");
    let mut command = python();
    command.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target"]);
    shell::run(command.arg(&installed).arg(wheel.trim()).env("PIP_ROOT_USER_ACTION", "ignore"))?;
    let script = shell::root().join("tests/python/bindings.py");
    let mut command = python();
    command.arg(script).args([prompt, text.trim_end_matches('\n')]).env("PYTHONPATH", &installed);
    shell::run(command.current_dir(folder))
}
