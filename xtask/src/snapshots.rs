//! `cargo xtask snapshots`: the emitted projects of a few cases, compared with what is checked in.
//!
//! Rendered files are kept whole under `tests/snapshots/<case>/` with their true extension; files that are
//! copied verbatim or come from the checkpoint are one line each in `verbatim.sha256`. Cases that show one trait of a model
//! each keep what depends on it: schedule, checks, kernels. `tests/snapshots/plans` has `forge inspect --plan` of every
//! small checkpoint, and of one as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::forge::Forge;
use crate::{shared, shell, tidy};

/// Cases of which everything is kept: a name, and the checkpoint relative to the repository.
pub const CASES: [(&str, &str); 2] = [("demo", crate::demo::CHECKPOINT), ("llama", "tests/fixtures/models/llama/hf")];

/// Folder of the tiny checkpoints, one for each trait of an architecture.
const TINY: &str = "crates/forge-frontend/tests/fixtures/tiny";

/// Cases of which the [`SOURCES`] are kept, for what the whole ones do not have.
pub const SOURCE_CASES: [(&str, &str); 22] = [
    // Two kinds of layers, post-norms, soft-caps, windows.
    ("gemma2", "crates/forge-frontend/tests/fixtures/tiny/gemma2/hf"),
    // QK norms, two rotations.
    ("gemma3", "crates/forge-frontend/tests/fixtures/tiny/gemma3/hf"),
    // Shared caches, the layers' own inputs.
    ("gemma4", "crates/forge-frontend/tests/fixtures/tiny/gemma4/hf"),
    ("gemma4-keys-as-values", "crates/forge-frontend/tests/fixtures/tiny/gemma4-keys-as-values/hf"),
    // Projections of the stream as it is, norms across heads.
    ("olmo2", "crates/forge-frontend/tests/fixtures/tiny/olmo2/hf"),
    // Biases, windows that wrap.
    ("qwen2-window-long", "crates/forge-frontend/tests/fixtures/tiny/qwen2-window-long/hf"),
    // Layers without rotation.
    ("smollm3", "crates/forge-frontend/tests/fixtures/tiny/smollm3/hf"),
    // Partial rotation, fused tensors.
    ("phi3", "crates/forge-frontend/tests/fixtures/tiny/phi3/hf"),
    // Norms that subtract a mean, a feed-forward without a gate, biases everywhere.
    ("starcoder2", "crates/forge-frontend/tests/fixtures/tiny/starcoder2/hf"),
    // Branches side by side, neighbouring pairs, windows and layers without rotation.
    ("cohere2", "crates/forge-frontend/tests/fixtures/tiny/cohere2/hf"),
    // An activation with numbers of the layer.
    ("apertus", "crates/forge-frontend/tests/fixtures/tiny/apertus/hf"),
    // Norms after the rotation.
    ("hunyuan-dense", "crates/forge-frontend/tests/fixtures/tiny/hunyuan-dense/hf"),
    // Queries that grow with their position.
    ("ministral3", "crates/forge-frontend/tests/fixtures/tiny/ministral3/hf"),
    // Experts, one of them for every token.
    ("qwen2-moe", "crates/forge-frontend/tests/fixtures/tiny/qwen2-moe/hf"),
    // Experts with biases, sinks, a clamped activation, windows that take turns.
    ("gpt-oss", "crates/forge-frontend/tests/fixtures/tiny/gpt-oss/hf"),
    // Short convolutions and their state beside caches.
    ("lfm2", "crates/forge-frontend/tests/fixtures/tiny/lfm2/hf"),
    // An embedding through a norm, norms of heads without weights, gates behind the values.
    ("muse-glimmer", "crates/forge-frontend/tests/fixtures/tiny/muse-glimmer/hf"),
    // The gated delta rule, gated attention.
    ("qwen35", "crates/forge-frontend/tests/fixtures/tiny/qwen35/hf"),
    // Attention over latents, experts in groups.
    ("deepseek-v3", "crates/forge-frontend/tests/fixtures/tiny/deepseek-v3/hf"),
    // Keys and values of all heads, which long tiles make of latents.
    ("deepseek-v2-wide", "crates/forge-frontend/tests/fixtures/tiny/deepseek-v2-wide/hf"),
    // Formats that differ within a projection and from layer to layer.
    ("mixed", "tests/fixtures/models/formats-gguf/model.MIXED.gguf"),
    ("affine", "tests/fixtures/models/formats-mlx/mlx"),
];

/// What is kept of a case that shows one trait.
const SOURCES: [&str; 3] = ["src/model.rs", "src/checks.rs", "shaders/kernels.metal"];

/// Files and folders of a project that are not rendered for it.
const VERBATIM: [&str; 10] = [
    "runtime/",
    "metal-sim/",
    "bindings/c/src/",
    "bindings/c/include/",
    "bindings/c/story.c",
    "bindings/python/model.py",
    "bindings/swift/",
    "tokenizer.json",
    "chat_template.jinja",
    "Cargo.lock",
];

/// The tiny checkpoint whose plan is kept as JSON too: attention, recurrent layers and experts are in it.
const JSON_PLAN: &str = "qwen35-moe";

/// Options of the whole cases: one of them has libraries for every language.
const BINDINGS: &str = "c,swift,python";

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
    let forge = Forge::build()?;
    let projects = CASES.map(|case| (case, true)).into_iter().chain(SOURCE_CASES.map(|case| (case, false)));
    for (case @ (name, _), whole) in projects {
        let project = generate_case(&forge, case)?;
        let format = Command::new("cargo").current_dir(&project).args(["fmt", "--all", "--check", "--quiet"]).status();
        if !format.is_ok_and(|status| status.success()) {
            differences.push(format!("{name}: the emitted sources are not as rustfmt leaves them"));
        }
        let mut emitted = emitted(&project)?;
        let text = |file: &str| emitted.get(file).map_or("", String::as_str);
        let unused = tidy::unused(text("shaders/kernels.metal"), text("shaders/tuning.metal"));
        differences.extend(unused.into_iter().map(|word| format!("{name}: no kernel uses {word}")));
        if !whole {
            emitted.retain(|file, _| SOURCES.contains(&file.as_str()));
        }
        differences.extend(keep(options, name, &emitted)?);
    }
    let plans = plans(&forge)?;
    differences.extend(keep(options, "plans", &plans)?);
    if !differences.is_empty() {
        for difference in &differences {
            println!("{difference}");
        }
        bail!("{} snapshot files differ; look, then `cargo xtask snapshots --bless`", differences.len());
    }
    println!("snapshots: {} projects and {} plans as checked in", CASES.len() + SOURCE_CASES.len(), plans.len());
    Ok(())
}

/// Blesses a folder of snapshots, or tells how it differs.
fn keep(options: &Options, name: &str, emitted: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let folder = shell::root().join("tests/snapshots").join(name);
    if !options.bless {
        return compare(&folder, emitted);
    }
    bless(&folder, emitted)?;
    println!("blessed tests/snapshots/{name}: {} files", emitted.len());
    Ok(Vec::new())
}

/// `forge inspect --plan` of every small checkpoint, by the name of its file, and of one with `--json`.
fn plans(forge: &Forge) -> Result<BTreeMap<String, String>> {
    let tiny = fs::read_dir(shell::root().join(TINY)).with_context(|| format!("cannot read {TINY}"))?;
    let tiny = tiny.map(|entry| Ok(format!("{TINY}/{}/hf", entry?.file_name().to_string_lossy())));
    let tiny: Vec<String> = tiny.collect::<Result<_>>()?;
    let cases = CASES.iter().chain(&SOURCE_CASES).map(|(_, checkpoint)| (*checkpoint).to_owned());
    let mut plans = BTreeMap::new();
    for checkpoint in tiny.into_iter().chain(cases) {
        let named = checkpoint.trim_end_matches("/hf").rsplit('/').next().unwrap_or(&checkpoint).to_owned();
        let mut command = forge.command();
        command.current_dir(shell::root()).args(["inspect", "--plan", &checkpoint]);
        plans.insert(format!("{named}.txt"), shell::capture(&mut command)?);
        if named == JSON_PLAN {
            plans.insert(format!("{named}.json"), shell::capture(command.arg("--json"))?);
        }
    }
    Ok(plans)
}

/// Generates the projects of all whole cases; returns each with its folder.
///
/// # Errors
/// A project that cannot be generated.
pub fn generate() -> Result<Vec<(&'static str, PathBuf)>> {
    let forge = Forge::build()?;
    CASES.into_iter().map(|case| Ok((case.0, generate_case(&forge, case)?))).collect()
}

/// Generates the project of one case; returns its folder.
fn generate_case(forge: &Forge, (name, checkpoint): (&str, &str)) -> Result<PathBuf> {
    let project = shell::scratch("snapshots")?.join(name);
    // A project from an older layout may hold files that would be kept: start afresh.
    if project.exists() {
        fs::remove_dir_all(&project).with_context(|| format!("cannot remove {}", project.display()))?;
    }
    // Relative, so that no path of this machine can reach the output.
    let mut command = forge.command();
    command.current_dir(shell::root()).args(["gen", checkpoint, "--quiet", "--name", name]);
    if name == CASES[0].0 {
        command.args(["--bindings", BINDINGS]);
    }
    shell::run(command.arg("-o").arg(&project))?;
    shared::align(&project)?;
    Ok(project)
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
