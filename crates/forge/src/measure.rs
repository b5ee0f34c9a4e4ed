//! `forge gen --measure`: the perplexity of a text, and the KL divergence from the source at each of its tokens.
//!
//! What is measured is what is generated: the project of the checkpoint as it is and the project of the quantised one are built, and their
//! `perplexity` commands run the text, on the GPU where there is one, else on the software device. So the figures have all that
//! a user's runs have, kernels and half tiles included. Both are built in one folder, where all that models share is compiled once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use forge_codegen::Project;
use serde::Deserialize;

use crate::{Error, check, interrupt};

/// A project and its weights.
pub struct Side<'a> {
    /// The project's files.
    pub project: &'a Project,
    /// Its weights file.
    pub weights: &'a Path,
}

/// What to measure with.
pub struct Text<'a> {
    /// The file.
    pub path: &'a Path,
    /// At most so many tokens of it.
    pub tokens: usize,
    /// Say nothing.
    pub quiet: bool,
}

/// What `perplexity --json` prints.
#[derive(Debug, Deserialize, PartialEq)]
struct Measured {
    tokens: usize,
    window: usize,
    perplexity: f64,
    perplexity_error: f64,
    against: Option<Against>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Against {
    kl_mean: f64,
    kl_mean_error: f64,
    kl_99: f64,
    kl_max: f64,
    same_top: f64,
}

impl Text<'_> {
    /// Builds both projects and runs the text through them; the report's lines.
    ///
    /// # Errors
    /// A project that does not build, no cargo, a program that fails.
    pub fn measure(&self, source: &Side<'_>, result: &Side<'_>) -> Result<String, Error> {
        let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
        let file = folder.path().join("source.safetensors");
        let mut sides = Vec::new();
        for (side, name, option) in [(source, "source", "--save"), (result, "result", "--against")] {
            self.say(&format!("measuring: building the {name}'s program"));
            let program = built(side.project, folder.path(), name)?;
            self.say(&format!("measuring: the text through the {name}"));
            sides.push(self.run(&program, side.weights, option, &file)?);
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Ok(lines(&name, &sides[0], &sides[1]))
    }

    fn say(&self, what: &str) {
        if !self.quiet {
            anstream::eprintln!("{what}");
        }
    }

    fn run(&self, program: &Path, weights: &Path, option: &str, file: &Path) -> Result<Measured, Error> {
        let mut command = Command::new(program);
        command.arg("perplexity").arg(self.path).args(["--json", "--tokens", &self.tokens.to_string()]);
        command.arg(option).arg(file).arg("--weights").arg(weights).stdin(Stdio::null());
        // Its progress and its errors are for the user; without a terminal errors are in ours.
        command.stderr(if self.quiet { Stdio::piped() } else { Stdio::inherit() });
        let output = command.stdout(Stdio::piped()).spawn().and_then(|child| child.wait_with_output());
        let output = output.map_err(Error::io(program))?;
        interrupt::check()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim_end().lines().next_back().unwrap_or("its messages are above").to_owned();
        if !output.status.success() {
            return Err(Error::Measure { reason: last });
        }
        serde_json::from_slice(&output.stdout).map_err(|error| Error::Measure { reason: error.to_string() })
    }
}

/// Builds a project in a folder that several follow one another in, and gives its program a place of its own.
fn built(project: &Project, folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let place = folder.join("project");
    write(&place, &project.files)?;
    let program = folder.join(name);
    let built = check::build(&place)?;
    fs::copy(&built, &program).map_err(Error::io(&program))?;
    Ok(program)
}

/// Writes the files that are not there as they are: what is not written is not compiled again.
fn write(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<(), Error> {
    for (name, bytes) in files {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        fs::write(&path, bytes).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// How the part of the report begins that says what was measured.
const BEGINNING: &str = "measured on ";

fn lines(text: &str, source: &Measured, result: &Measured) -> String {
    let device = if cfg!(target_os = "macos") { "the GPU" } else { "the software Metal device" };
    let (tokens, window) = (result.tokens, result.window);
    let mut lines = format!("{BEGINNING}{tokens} tokens of {text}, in windows of {window}, on {device}\n");
    let perplexity = |side: &Measured| format!("{:.4} ± {:.4}", side.perplexity, side.perplexity_error);
    let _ = writeln!(lines, "perplexity: {} of the source, {} of the result", perplexity(source), perplexity(result));
    if let Some(Against { kl_mean, kl_mean_error, kl_99, kl_max, same_top }) = &result.against {
        let _ = writeln!(
            lines,
            "KL divergence from the source: mean {kl_mean:.5} ± {kl_mean_error:.5} nats a token, 99% {kl_99:.5}, largest {kl_max:.5}; \
             the same token is the most probable at {:.2}%",
            100.0 * same_top
        );
    }
    lines
}

/// A report without what was measured, for one that is kept.
pub fn without(report: &str) -> String {
    report.lines().take_while(|line| !line.starts_with(BEGINNING)).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_said_and_can_be_taken_out() {
        let source = r#"{"tokens":20,"window":8,"perplexity":5.5,"perplexity_error":0.25,"against":null}"#;
        let result = r#"{"tokens":20,"window":8,"perplexity":5.75,"perplexity_error":0.5,"against":{"perplexity":5.5,
            "kl_mean":0.01,"kl_mean_error":0.002,"kl_99":0.1,"kl_max":0.2,"same_top":0.95}}"#;
        let [source, result] = [source, result].map(|json| serde_json::from_str::<Measured>(json).expect("JSON"));
        let measured = lines("a.txt", &source, &result);
        assert!(measured.starts_with("measured on 20 tokens of a.txt, in windows of 8, on "), "{measured}");
        assert!(measured.contains("5.5000 ± 0.2500 of the source, 5.7500 ± 0.5000 of the result"), "{measured}");
        let kl = "mean 0.01000 ± 0.00200 nats a token, 99% 0.10000, largest 0.20000; the same token is the most probable at 95.00%";
        assert!(measured.contains(kl), "{measured}");
        assert_eq!(without(&format!("one\n\ntwo\n{measured}")), "one\n\ntwo\n");
    }
}
