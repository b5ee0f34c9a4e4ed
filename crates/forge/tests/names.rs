//! Names that people give to projects: whatever they are, Cargo takes the project, and the user is told of a change.
//!
//! Projects are rendered through the library, one for every name. Their manifests are the emitted ones, in one workspace so
//! that Cargo is asked once; sources that no manifest looks into are left out.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Scratch, forge, gguf, stderr};
use forge_codegen::{RenderOptions, package_name, render};
use forge_plan::{PlanOptions, plan};
use serde_json::Value;

/// Names of the reference: The Rust Reference, keywords (strict, reserved and weak).
const KEYWORDS: &str = "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match \
    mod move mut pub ref return self Self static struct super trait true type unsafe use where while abstract become box do \
    final gen macro override priv try typeof unsized virtual yield auto default macro_rules raw safe union test";

/// Names that `cargo new` refuses or warns of, primitive types, modules of a project, and tools.
const RESERVED: &str = "build deps examples incremental core std alloc proc_macro proc-macro test bin src target debug release \
    package doc main lib runtime model checks tuning shaders con prn aux nul com0 com1 com9 lpt1 lpt9 CON Nul u8 str bool \
    f32 char usize cli assets memory clippy rustfmt miri rustdoc diagnostic cargo rustc c m pthread System objc metal a";

/// What else people type.
const ODD: &[&str] = &[
    "", "-", "--", "...", "7", "7b", "0x", "模型", "Größe", "é", "a b", "a/b", "ä-ö-ü", "x\"y", "x\\y", "-v", "_",
    "😀", "Ⅷ", "ﬁ",
];

fn lock_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock")
}

/// Names of the packages in a lock file.
fn packages(lock: &Path) -> Vec<String> {
    let lock = fs::read_to_string(lock).unwrap();
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.map(str::to_owned).collect()
}

/// Every given name, and the manifest of its project.
fn manifests() -> Vec<(String, String, String)> {
    let checkpoint = forge_frontend::load(&gguf()).unwrap();
    let plan = plan(&checkpoint.graph, &PlanOptions::default()).unwrap();
    let mut texts: BTreeSet<String> =
        KEYWORDS.split_whitespace().chain(RESERVED.split_whitespace()).map(Into::into).collect();
    texts.extend(ODD.iter().map(|text| (*text).to_owned()));
    texts.extend([
        "x".repeat(200),
        "9".repeat(200),
        "é".repeat(200),
        format!("{}-{}", "y".repeat(63), "z".repeat(136)),
    ]);
    texts.extend(
        packages(&lock_file()).into_iter().flat_map(|name| [name.replace('-', "_"), name.to_uppercase(), name]),
    );
    let mut manifests = Vec::new();
    // Many texts come to the same name.
    let mut projects: BTreeMap<String, (String, String)> = BTreeMap::new();
    for text in texts {
        let name = package_name(&text).name;
        let (manifest, main) = projects.entry(name.clone()).or_insert_with(|| {
            let options = RenderOptions {
                name: name.clone(),
                source: "model.gguf".into(),
                command: "forge gen".into(),
                ..Default::default()
            };
            let project = render(&plan, &checkpoint.graph, &checkpoint.assets, &options).unwrap();
            let file = |path: &str| String::from_utf8(project.files[Path::new(path)].clone()).unwrap();
            (file("Cargo.toml"), file("src/main.rs"))
        });
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{text:?}: {manifest}");
        // What the program imports would stand for what it is imported from.
        let library = name.replace('-', "_");
        let imports = main.lines().filter_map(|line| line.strip_prefix(&format!("use {library}::"))?.strip_suffix(';'));
        let imports: Vec<&str> = imports.map(|path| path.rsplit("::").next().unwrap()).collect();
        assert!(imports.len() >= 5 && !imports.contains(&library.as_str()), "{text:?}: {imports:?}");
        manifests.push((text, name, manifest.clone()));
    }
    manifests
}

/// Runs Cargo without the network and without a word of complaint.
#[track_caller]
fn cargo(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO")).current_dir(folder).args(arguments).arg("--offline").output().unwrap();
    let messages = stderr(&output);
    assert!(output.status.success() && !messages.contains("warning"), "cargo {arguments:?}: {messages}");
    output.stdout
}

fn write_sources(project: &Path, library: &str) {
    fs::create_dir_all(project.join("src")).unwrap();
    fs::write(project.join("src/lib.rs"), "").unwrap();
    fs::write(project.join("src/main.rs"), format!("use {library} as _;\nfn main() {{}}\n")).unwrap();
    fs::write(project.join("build.rs"), "fn main() {}\n").unwrap();
}

#[test]
fn cargo_takes_a_project_of_any_name() {
    let scratch = Scratch::new();
    let folder = scratch.path();
    let mut members = BTreeSet::new();
    let manifests = manifests();
    for (text, name, manifest) in &manifests {
        let library = name.replace('-', "_");
        assert!(manifest.contains(&format!("[lib]\nname = \"{library}\"\n")), "{text:?}: {manifest}");
        if members.insert(name.clone()) {
            let project = folder.join("projects").join(name);
            write_sources(&project, &library);
            // Dependencies, and the features that turn on theirs, are the same in all and come below.
            let (own, _) = manifest.split_once("[dependencies]").expect("a table of dependencies");
            let (head, rest) = own.split_once("[features]").expect("a table of features");
            let (_, targets) = rest.split_once("[lib]").expect("a library");
            let own = format!("{head}[lib]{targets}").replace("[workspace]\n", "");
            let own = own.replace("required-features = [\"cli\"]\n", "");
            fs::write(project.join("Cargo.toml"), own).unwrap();
        }
    }
    fs::write(folder.join("Cargo.toml"), "[workspace]\nmembers = [\"projects/*\"]\nresolver = \"3\"\n").unwrap();
    let metadata: Value =
        serde_json::from_slice(&cargo(folder, &["metadata", "--no-deps", "--format-version=1"])).unwrap();
    assert_eq!(metadata["packages"].as_array().unwrap().len(), members.len());
    // Compiler and linker take the names too: those that are nearest to trouble.
    let longest = members.iter().max_by_key(|name| name.len()).unwrap();
    cargo(folder, &["build", "--quiet", "-p", "model-build", "-p", "model-std", "-p", longest]);

    // A project that is whole, and its lock file: no name is that of a package in it.
    let project = folder.join("whole");
    write_sources(&project, "llama");
    let (_, name, manifest) = manifests.iter().find(|(text, ..)| text == "serde").unwrap();
    assert_eq!(name, "model-serde");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let mut whole = manifest.clone();
    for (copied, original) in [("metal-sim", "metal-sim"), ("runtime", "forge-runtime")] {
        let path = crates.join(original);
        assert!(whole.contains(&format!("path = \"{copied}\"")), "{whole}");
        whole = whole.replace(&format!("path = \"{copied}\""), &format!("path = {path:?}"));
    }
    fs::write(project.join("Cargo.toml"), whole).unwrap();
    fs::write(project.join("Cargo.lock"), fs::read_to_string(lock_file()).unwrap()).unwrap();
    let host = String::from_utf8(Command::new("rustc").arg("-vV").output().unwrap().stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    cargo(&project, &["metadata", "--format-version=1", "--filter-platform", host]);
    let locked = packages(&project.join("Cargo.lock"));
    assert!(locked.len() > 100, "{locked:?}");
    for package in locked.iter().filter(|package| *package != name) {
        assert!(!members.contains(&package.replace('_', "-")), "{package} is a dependency's name");
        assert_ne!(&package_name(package).name, package);
    }
}

#[test]
fn the_user_is_told_of_another_name() {
    let scratch = Scratch::new();
    let run = |folder: &str, arguments: &[&str]| {
        let output =
            forge().arg("gen").arg(gguf()).arg("-o").arg(scratch.join(folder)).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = run("build", &[]);
    assert!(told.contains("called model-build: Cargo keeps a folder of the name"), "{told}");
    let told = run("other", &["--name", "serde_json"]);
    assert!(told.contains("called model-serde-json: ") && told.contains("depends on has the name"), "{told}");
    assert!(!run("fine", &[]).contains("called"), "a name that stays is no news");
}
