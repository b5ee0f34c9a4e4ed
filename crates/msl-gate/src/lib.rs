//! The strict static gate for MSL: what Apple's compiler would reject and a C++ compiler would accept is rejected here,
//! with file and line, on a machine without Metal.
//!
//! Three readers see a file: checks on its tokens (`pointers`, `words`, `scope`, `kernels`), the rewriting that
//! the software device does, and clang in its C++ for OpenCL mode (`compiler`), where address spaces are part of types.
//! It compiles nothing for use and touches no files of the caller.

mod compiler;
mod kernels;
mod pointers;
mod scope;
mod text;
mod words;

use std::fmt;
use std::path::PathBuf;

use metal_sim::msl;

use crate::text::{Fault, Text};

/// What a file is checked against.
#[derive(Clone, Debug)]
pub struct GateOptions<'a> {
    /// The MSL version that the host asks for; default 3.0.
    pub language_version: (u32, u32),
    /// Threads per threadgroup that the host dispatches, by kernel. Kernels that are not named are not compared.
    pub threads: &'a [(&'a str, u32)],
}

impl Default for GateOptions<'_> {
    fn default() -> Self {
        Self { language_version: (3, 0), threads: &[] }
    }
}

/// Threads per threadgroup of each kernel, from the table in a generated project's `model.rs` or `tuning.rs`: lines that begin with
/// `KernelSpec { name: "NAME", threads: N,`.
pub fn dispatched_threads(model: &str) -> Vec<(&str, u32)> {
    let spec = |line| {
        let fields = str::trim(line).strip_prefix("KernelSpec { name: \"")?;
        let (name, rest) = fields.split_once("\", threads: ")?;
        Some((name, rest.split(',').next()?.parse().ok()?))
    };
    model.lines().filter_map(spec).collect()
}

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file's name as given.
    pub file: String,
    /// The line, from 1; 0 where the fault is the whole file's.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: error: {}", self.file, self.line, self.message)
    }
}

/// Why a file could not be checked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the names in the messages")]
pub enum Error {
    /// There is no clang.
    #[error(transparent)]
    Compiler(#[from] metal_sim::Error),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// clang failed without saying where in the file.
    #[error("{compiler} failed on {file}:\n{messages}")]
    CompilerFailed { compiler: String, file: String, messages: String },
}

/// Adds the first of `new` for each line that has no fault yet.
fn add_lines(found: &mut Vec<Fault>, new: Vec<Fault>) {
    for (line, message) in new {
        if !found.iter().any(|(other, _)| *other == line) {
            found.push((line, message));
        }
    }
}

/// All faults of an MSL file, by line; empty if it passes. `file_name` is the name in the diagnostics.
///
/// # Errors
/// Where there is no clang of version 16 or newer, or it cannot be run.
pub fn check(source: &str, file_name: &str, options: &GateOptions<'_>) -> Result<Vec<Diagnostic>, Error> {
    let text = Text::new(source);
    let mut found = Vec::new();
    found.extend(words::check(&text, options.language_version));
    found.extend(pointers::check(&text));
    found.extend(scope::check(&text));
    // the later readers trip over the same faults once more, in their own words
    match msl::rewrite(source, file_name) {
        Err(error) => add_lines(&mut found, vec![(error.line, error.kind.to_string())]),
        Ok(rewritten) => {
            found.extend(kernels::check(&rewritten.kernels, options.threads));
            add_lines(&mut found, compiler::check(&rewritten, file_name, options)?);
        }
    }
    found.sort();
    found.dedup();
    let file = |(line, message)| Diagnostic { file: file_name.to_owned(), line, message };
    Ok(found.into_iter().map(file).collect())
}
