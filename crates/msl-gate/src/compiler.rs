//! clang as a reader: C++ for OpenCL against a `metal_stdlib` of declarations. Its errors are ours, with MSL's words; its
//! LLVM IR tells recursion and threadgroup memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use metal_sim::msl::Rewritten;

use crate::text::Fault;
use crate::{Error, GateOptions};

const FLAGS: &[&str] = &[
    "-x",
    "cl",
    "-cl-std=clc++2021",
    "--target=spir64-unknown-unknown",
    "-cl-no-stdinc",
    "-cl-single-precision-constant",
    "-cl-ext=-all,+cl_khr_fp16,+__cl_clang_non_portable_kernel_param_types,-__opencl_c_generic_address_space",
    "-S",
    "-emit-llvm",
    "-O0",
    "-Xclang",
    "-disable-llvm-passes",
    "-gline-tables-only",
    "-ferror-limit=0",
    "-fno-caret-diagnostics",
    "-I.",
    "-Wno-everything",
    "-Werror=return-type",
    "-Werror=global-constructors",
];

const PARTIAL_HEADERS: [&str; 13] = [
    "metal_atomic",
    "metal_common",
    "metal_compute",
    "metal_geometric",
    "metal_integer",
    "metal_limits",
    "metal_math",
    "metal_matrix",
    "metal_relational",
    "metal_simdgroup",
    "metal_simdgroup_matrix",
    "metal_type_traits",
    "metal_types",
];

/// Threadgroup memory of an Apple GPU in bytes ("Metal Feature Set Tables").
const THREADGROUP_BYTES: u64 = 32768;

/// The name that the file has for clang.
const FILE: &str = "kernels.metal";

/// clang's message in the words of MSL.
fn in_msl(message: &str) -> String {
    const WORDS: [(&str, &str); 7] = [
        ("__global", "device"),
        ("__local", "threadgroup"),
        ("__private", "thread"),
        ("__constant", "constant"),
        ("__kernel", "kernel"),
        ("msl_atomic", "atomic"),
        ("OpenCL", "MSL"),
    ];
    WORDS.iter().fold(message.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A message of clang's: `FILE:LINE:COLUMN: KIND: TEXT`.
fn message(line: &str) -> Option<(&str, u32, &str, &str)> {
    let mut parts = line.splitn(4, ':');
    let (file, number) = (parts.next()?, parts.next()?.parse().ok()?);
    let (kind, text) = parts.nth(1)?.trim().split_once(": ")?;
    Some((file, number, kind, text))
}

/// The errors in clang's messages that are the file's: those in a header belong to the note that leads back to it.
fn faults(messages: &str) -> Vec<Fault> {
    let mut found: Vec<Fault> = Vec::new();
    let mut waiting: Option<String> = None;
    let mut candidates = false;
    for (file, line, kind, text) in messages.lines().filter_map(message) {
        let here = file == FILE;
        if matches!(kind, "error" | "fatal error") {
            // of an assertion only what it says
            let text = if text.starts_with("static assertion failed") {
                text.split_once("': ").map_or(text, |(_, said)| said)
            } else {
                text
            };
            waiting = (!here).then(|| in_msl(text));
            candidates = here && text.starts_with("no matching");
            if here {
                found.push((line, in_msl(text)));
            }
        } else if kind == "note" {
            if here && let Some(error) = waiting.take() {
                found.push((line, error));
            }
            if candidates
                && let Some((_, reason)) = text.split_once("not viable: ")
                && let Some((_, error)) = found.last_mut()
            {
                *error += &format!(": {}", in_msl(reason));
                candidates = false;
            }
        }
    }
    found
}

/// A function in LLVM IR: its source name and line, what it calls, its threadgroup memory.
#[derive(Default)]
struct Function<'a> {
    debug: &'a str,
    kernel: bool,
    calls: BTreeSet<&'a str>,
    threadgroup_bytes: u64,
}

/// The name after the first `@` of a `define` or `call`.
fn symbol(line: &str) -> Option<&str> {
    let rest = &line[line.find('@')? + 1..];
    Some(rest[..rest.find('(')?].trim_matches('"'))
}

/// Bytes of `msl::threadgroup_bytes<BYTES>`, mangled (Itanium C++ ABI: `ILm128EE`).
fn threadgroup_bytes(symbol: &str) -> Option<u64> {
    let rest = symbol.strip_prefix("_ZN3msl17threadgroup_bytesILm")?;
    rest[..rest.find('E')?].parse().ok()
}

fn functions(ir: &str) -> BTreeMap<&str, Function<'_>> {
    let mut all = BTreeMap::new();
    let mut current = None;
    for line in ir.lines() {
        if line.starts_with("define ") {
            current = symbol(line);
            let debug = line.split("!dbg ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
            let function = Function { debug, kernel: line.contains("spir_kernel"), ..Function::default() };
            all.extend(current.map(|name| (name, function)));
        } else if line == "}" {
            current = None;
        } else if let Some(function) = current.and_then(|name| all.get_mut(name))
            && let Some(call) = line.find("call ").and_then(|at| symbol(&line[at..]))
        {
            match threadgroup_bytes(call) {
                Some(bytes) => function.threadgroup_bytes += bytes.next_multiple_of(16),
                None => {
                    function.calls.insert(call);
                }
            }
        }
    }
    all
}

/// The source name and line of a function from its debug record.
fn source<'a>(ir: &'a str, debug: &str) -> (&'a str, u32) {
    let record = ir.lines().find(|line| line.strip_prefix(debug).is_some_and(|rest| rest.starts_with(" = ")));
    let field = |key: &str| {
        let record = record?;
        let rest = &record[record.find(key)? + key.len()..];
        Some(rest[..rest.find([',', ')'])?].trim_matches('"'))
    };
    let line = field("line: ").and_then(|line| line.parse().ok()).unwrap_or(0);
    (field("name: ").unwrap_or_default(), line)
}

fn reaches<'a>(all: &BTreeMap<&'a str, Function<'a>>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> =
        all.get(from).map(|function| function.calls.iter().copied().collect()).unwrap_or_default();
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            open.extend(all.get(name).into_iter().flat_map(|function| function.calls.iter().copied()));
        }
    }
    false
}

fn ir_faults(ir: &str) -> Vec<Fault> {
    let all = functions(ir);
    let mut found = Vec::new();
    for (symbol, function) in &all {
        if function.kernel && function.threadgroup_bytes > THREADGROUP_BYTES {
            let (name, line) = source(ir, function.debug);
            found.push((
                line,
                format!(
                    "kernel {name}: {} bytes of threadgroup memory, but a threadgroup has {THREADGROUP_BYTES}",
                    function.threadgroup_bytes
                ),
            ));
        }
        if reaches(&all, symbol, symbol) {
            let (name, line) = source(ir, function.debug);
            found.push((line, format!("{name} calls itself; recursion does not exist in every MSL compiler")));
        }
    }
    found
}

/// Assertions on `[[max_total_threads_per_threadgroup]]`, each on its kernel's line.
fn thread_assertions(rewritten: &Rewritten, options: &GateOptions<'_>) -> String {
    let mut text = String::new();
    for kernel in &rewritten.kernels {
        let Some(declared) = &kernel.max_threads else { continue };
        let (name, line) = (&kernel.name, kernel.line);
        let mut require = |condition: String, message: String| {
            text += &format!("#line {line} \"{FILE}\"\nstatic_assert({condition}, \"kernel {name}: {message}\");\n");
        };
        require(
            format!("({declared}) >= 1 && ({declared}) <= 1024"),
            format!("max_total_threads_per_threadgroup({declared}) is outside of 1..1024"),
        );
        for (_, threads) in options.threads.iter().filter(|(other, _)| other == name) {
            require(
                format!("({declared}) == {threads}"),
                format!(
                    "declares max_total_threads_per_threadgroup({declared}), but the host dispatches {threads} threads"
                ),
            );
        }
    }
    text
}

/// Faults that clang finds.
pub(crate) fn check(rewritten: &Rewritten, file_name: &str, options: &GateOptions<'_>) -> Result<Vec<Fault>, Error> {
    let compiler = metal_sim::compiler()?;
    let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).map_err(|source| Error::Io { path, source })
    };
    write("metal_stdlib", include_str!("../include/metal_stdlib"))?;
    for name in PARTIAL_HEADERS {
        write(name, "#include <metal_stdlib>\n")?;
    }
    let (major, minor) = options.language_version;
    let text = format!(
        "#define __METAL_VERSION__ {}\n#include <metal_stdlib>\n#line 1 \"{FILE}\"\n{}\n{}",
        major * 100 + minor * 10,
        rewritten.body,
        thread_assertions(rewritten, options)
    );
    write("kernels.cl", &text)?;
    let output = Command::new(&compiler)
        .current_dir(folder.path())
        .args(FLAGS)
        .args(["kernels.cl", "-o", "kernels.ll"])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Io { path: (&compiler).into(), source })?;
    let messages = String::from_utf8_lossy(&output.stderr);
    let found = faults(&messages);
    if !output.status.success() {
        if found.is_empty() {
            return Err(Error::CompilerFailed {
                compiler: compiler.to_string_lossy().into_owned(),
                file: file_name.to_owned(),
                messages: messages.into_owned(),
            });
        }
        return Ok(found);
    }
    let path = folder.path().join("kernels.ll");
    let ir = fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
    Ok(ir_faults(&ir))
}
