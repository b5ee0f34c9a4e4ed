//! `cargo xtask snapshots`: the emitted projects of a few cases, compared with what is checked in.
//!
//! Rendered files are kept whole under `tests/snapshots/<case>/` with their true extension; files that are
//! copied verbatim or come from the checkpoint are one line each in `verbatim.sha256`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::forge::Forge;
use crate::{shared, shell};

/// Snapshot cases: a name, and the checkpoint relative to the repository.
pub const CASES: [(&str, &str); 2] = [("demo", crate::demo::CHECKPOINT), ("llama", "tests/fixtures/models/llama/hf")];

/// Files and folders of a project that are not rendered for it.
const VERBATIM: [&str; 5] = ["runtime/", "metal-sim/", "tokenizer.json", "chat_template.jinja", "Cargo.lock"];

/// Options of `cargo xtask snapshots`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Replace the snapshots by what is emitted now
    #[arg(long)]
    pub bless: bool,
}

/// Compares or, with `--bless`, replaces the snapshots.
///
/// # Errors
/// A difference (each file is named), or a project that cannot be generated.
pub fn main(options: &Options) -> Result<()> {
    let mut differences = Vec::new();
    for (name, project) in generate()? {
        let format = Command::new("cargo").current_dir(&project).args(["fmt", "--all", "--check", "--quiet"]).status();
        if !format.is_ok_and(|status| status.success()) {
            differences.push(format!("{name}: the emitted sources are not as rustfmt leaves them"));
        }
        let emitted = emitted(&project)?;
        let folder = shell::root().join("tests/snapshots").join(name);
        if options.bless {
            bless(&folder, &emitted)?;
            println!("blessed tests/snapshots/{name}: {} files", emitted.len());
        } else {
            differences.extend(compare(&folder, &emitted)?);
        }
    }
    if !differences.is_empty() {
        for difference in &differences {
            println!("{difference}");
        }
        bail!("{} snapshot files differ; look, then `cargo xtask snapshots --bless`", differences.len());
    }
    println!("snapshots: {} projects as checked in", CASES.len());
    Ok(())
}

/// Generates the projects of all cases; returns each with its folder.
///
/// # Errors
/// A project that cannot be generated.
pub fn generate() -> Result<Vec<(&'static str, PathBuf)>> {
    let forge = Forge::build()?;
    let folder = shell::scratch("snapshots")?;
    let generate = |(name, checkpoint): (&'static str, &str)| {
        let project = folder.join(name);
        // A project from an older layout may hold files that would be kept: start afresh.
        if project.exists() {
            fs::remove_dir_all(&project).with_context(|| format!("cannot remove {}", project.display()))?;
        }
        // Relative, so that no path of this machine can reach the output.
        let mut command = forge.command();
        command.current_dir(shell::root()).args(["gen", checkpoint, "--quiet", "--name", name, "-o"]);
        shell::run(command.arg(&project))?;
        shared::align(&project)?;
        Ok((name, project))
    };
    CASES.into_iter().map(generate).collect()
}

/// The text of each snapshot file of a project, by its path.
fn emitted(project: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut verbatim = String::new();
    for path in walk(project)? {
        let name = relative(project, &path);
        if name.starts_with(".forge/") || name.ends_with(".safetensors") {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if VERBATIM.iter().any(|prefix| name.starts_with(prefix)) {
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            verbatim.push_str(&format!("{digest}  {name}\n"));
        } else {
            let text = String::from_utf8(bytes).with_context(|| format!("{name} is no text"))?;
            files.insert(name, text);
        }
    }
    files.insert("verbatim.sha256".to_owned(), verbatim);
    Ok(files)
}

fn bless(folder: &Path, emitted: &BTreeMap<String, String>) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for (name, text) in emitted {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().context("a snapshot file has a parent")?)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A line for each file that differs, is missing or is left over.
fn compare(folder: &Path, emitted: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for (name, text) in emitted {
        let path = folder.join(name);
        let shown = relative(shell::root(), &path);
        match fs::read_to_string(&path) {
            Ok(found) if found == *text => {}
            Ok(found) => differences.push(format!("{shown}: {}", first_difference(&found, text))),
            Err(_) => differences.push(format!("{shown}: missing")),
        }
    }
    if folder.exists() {
        for path in walk(folder)? {
            if !emitted.contains_key(&relative(folder, &path)) {
                differences.push(format!("{}: no longer emitted", relative(shell::root(), &path)));
            }
        }
    }
    Ok(differences)
}

/// The first line in which two texts part.
fn first_difference(old: &str, new: &str) -> String {
    let (mut old, mut new) = (old.lines(), new.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                let show = |line: Option<&str>| line.map_or("end of file".to_owned(), |line| format!("{line:?}"));
                return format!("line {number}: {} is now {}", show(old), show(new));
            }
        }
    }
    "line endings differ".to_owned()
}

/// All files below `folder`, sorted.
pub fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// `path` below `folder`, with `/` between its parts.
pub fn relative(folder: &Path, path: &Path) -> String {
    let path = path.strip_prefix(folder).unwrap_or(path);
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn a_difference_names_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "line 2: \"b\" is now \"c\"");
        assert_eq!(first_difference("a\n", "a\nc\n"), "line 2: end of file is now \"c\"");
    }
}
