//! `cargo xtask tidy`: house rules that no compiler checks.

mod formats;
mod house;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use forge_plan::CacheType;
use metal_sim::msl::{Token, TokenKind, lex};

use crate::{book, shell};

/// A file longer than this says why in its first comment.
const LONGEST: usize = 600;

/// Checks every tracked or new file of the repository.
///
/// # Errors
/// A broken rule; each is printed with its file.
pub fn main() -> Result<()> {
    let listed = shell::capture(Command::new("git").current_dir(shell::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut files = Vec::new();
    for name in listed.lines() {
        // Binary files and files deleted but not yet committed have no lines to check.
        if let Ok(text) = fs::read_to_string(shell::root().join(name)) {
            files.push((name.to_owned(), text));
        }
    }
    let mut problems = Vec::new();
    for (name, text) in &files {
        problems.extend(check(name, text));
    }
    problems.extend(orphans(&files));
    problems.extend(house::check(&files));
    problems.extend(book::check(&files));
    problems.extend(formats::check(&files));
    problems.extend(refusals::check(&files));
    problems.extend(software_device(&files));
    problems.extend(unused_definitions(&files));
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("tidy: {} problems", problems.len());
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

/// What one file does wrong.
fn check(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let emitted = name.starts_with("tests/snapshots/");
    let source = name.ends_with(".rs") || name.ends_with(".metal");
    // A part of other templates opens in their middle.
    let part = name.ends_with(".part.rs");
    if name.ends_with(".rs") && !emitted && !part && !first_comment(text).starts_with("//!") {
        problems.push(format!("{name}: does not open with a //! comment"));
    }
    let lines = text.lines().count();
    if source && !emitted && lines > LONGEST && !says_why(first_comment(text)) {
        problems.push(format!("{name}: {lines} lines, and its first comment does not say why it is one file"));
    }
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        // This file has to name what it looks for.
        if name == "xtask/src/tidy.rs" {
            break;
        }
        if let Some(path) = machine_path(line) {
            problems.push(format!("{name}:{number}: a path of one machine: {path}"));
        }
        if source {
            if let Some(word) = unfinished(line) {
                problems.push(format!("{name}:{number}: unfinished: {word}"));
            }
            if line.contains("[allow(") && !line.contains("reason") && !text_follows(text, number) {
                problems.push(format!("{name}:{number}: an allow without a reason"));
            }
        }
        if source && line.trim_start().starts_with("#[ignore]") {
            problems.push(format!("{name}:{number}: an ignored test without a reason"));
        }
    }
    problems
}

/// The comment lines that a file opens with.
fn first_comment(text: &str) -> &str {
    let length = text
        .lines()
        .take_while(|line| line.starts_with("//") || line.starts_with('*') || line.starts_with("/*"))
        .map(|line| line.len() + 1)
        .sum::<usize>();
    &text[..length.min(text.len())]
}

fn says_why(comment: &str) -> bool {
    ["one file", "in one place", "because"].iter().any(|words| comment.contains(words))
}

/// A lint attribute split over lines has its reason on one of the next.
fn text_follows(text: &str, number: usize) -> bool {
    text.lines().skip(number).take(4).any(|line| line.trim_start().starts_with("reason"))
}

/// An absolute path that only exists on the machine of whoever wrote it.
fn machine_path(line: &str) -> Option<&str> {
    let roots = ["/work/", "/home/", "/root/", "/Users/", "/farm/"];
    roots.into_iter().find(|root| {
        line.match_indices(root).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || ".:_-*}>".contains(c))
        })
    })
}

fn unfinished(line: &str) -> Option<&'static str> {
    ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("].into_iter().find(|word| line.contains(word))
}

/// Formats without blocks, which have no file of their own.
const FLOATS: [&str; 3] = ["f32", "f16", "bf16"];
/// Widths of the codes of affine formats.
const AFFINE_BITS: [&str; 6] = ["2", "3", "4", "5", "6", "8"];

/// Templates that no Rust source, and no other template, names.
fn orphans(files: &[(String, String)]) -> Vec<String> {
    let sources: Vec<&String> = files
        .iter()
        .filter(|(name, _)| (name.starts_with("crates/") && name.ends_with(".rs")) || name.starts_with("templates/"))
        .map(|(_, text)| text)
        .collect();
    files
        .iter()
        .filter_map(|(name, _)| name.strip_prefix("templates/"))
        .filter(|name| {
            let path = Path::new(name);
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            // Kernel families are listed without their extension, those of formats are found by the format's name.
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let quoted = format!("\"{stem}\"");
            let needed = |text: &str| text.lines().any(|line| line.starts_with("// needs: ") && line.contains(&*stem));
            // Files that the name of a format, or the width of an affine one's codes, leads to.
            let of_format = stem.strip_prefix("gemv_").is_some_and(|format| {
                let of = |name: &str| format!("crates/forge-formats/src/formats/{name}");
                // Formats that differ in the size of their groups alone share a file.
                let paths = [of(format), of(format.rsplit_once("_g").map_or(format, |(name, _)| name)) + ".rs"];
                let asked = format!("of_format(\"{format}\")");
                FLOATS.contains(&format)
                    || files.iter().any(|(name, _)| name.starts_with(&paths[0]) || *name == paths[1])
                    || sources.iter().any(|text| text.contains(&asked))
            });
            let of_codes = stem.strip_prefix("codes_").is_some_and(|bits| AFFINE_BITS.contains(&bits));
            let of_cache = stem.strip_prefix("kv_").is_some_and(|kv| CacheType::named(kv).is_some());
            !of_format
                && !of_codes
                && !of_cache
                && !sources.iter().any(|text| text.contains(file.as_ref()) || text.contains(&quoted) || needed(text))
        })
        .map(|name| format!("templates/{name}: no source names it"))
        .collect()
}

/// Manifests that bring the software device to a Mac: those of emitted projects and of their runtime may name it only where
/// the target is another.
fn software_device(files: &[(String, String)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, text) in files {
        let emitted = name == "crates/forge-runtime/Cargo.toml"
            || name == "templates/project/Cargo.toml"
            || (name.starts_with("tests/snapshots/") && name.ends_with("/Cargo.toml"));
        let mut table = "";
        for line in text.lines().filter(|_| emitted) {
            if line.starts_with('[') {
                table = line;
            }
            let named = table.contains("metal-sim") || line.trim_start().starts_with("metal-sim");
            if named && !table.starts_with("[target.'cfg(not(target_os = \"macos\"))'.") {
                problems.push(format!("{name}: metal-sim is a dependency on macOS too: {table}"));
            }
        }
    }
    problems
}

/// Definitions in the emitted Metal sources of whole snapshots that no other text names: what no kernel calls is not emitted.
fn unused_definitions(files: &[(String, String)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| name.starts_with("tests/snapshots/")) {
        let Some(folder) = name.strip_suffix("kernels.metal") else { continue };
        // Its kernels call them too; `cargo xtask snapshots` has those that are not kept.
        let tuning = format!("{folder}tuning.metal");
        if let Some((_, tuning)) = files.iter().find(|(name, _)| *name == tuning) {
            problems.extend(unused(text, tuning).into_iter().map(|word| format!("{name}: no kernel uses {word}")));
        }
    }
    problems
}

/// What `kernels.metal` defines and neither it nor `tuning.metal`, which is compiled after it, uses.
pub fn unused<'a>(kernels: &'a str, tuning: &str) -> BTreeSet<&'a str> {
    let words = |text| lex(text).into_iter().filter(|token| token.kind == TokenKind::Identifier);
    let mut uses: BTreeMap<&str, isize> = BTreeMap::new();
    words(kernels).chain(words(tuning)).for_each(|word| *uses.entry(word.text).or_default() += 1);
    let defined = defined(kernels);
    defined.iter().for_each(|word| *uses.entry(word).or_default() -= 1);
    defined.into_iter().filter(|word| uses[word] <= 0).collect()
}

/// The functions, types and constants that a Metal source defines, its kernels apart.
fn defined(text: &str) -> Vec<&str> {
    let tokens: Vec<Token<'_>> = lex(text).into_iter().filter(Token::is_significant).collect();
    let at = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let mut names = Vec::new();
    let (mut depth, mut heading) = (0_usize, 0);
    for (index, token) in tokens.iter().enumerate() {
        let begins = || match at(index + 1) {
            "(" => {
                let mut open = 0_usize;
                let close = (index + 1..tokens.len()).find(|&next| {
                    open = (open + usize::from(at(next) == "(")) - usize::from(at(next) == ")");
                    open == 0
                });
                let is_kernel = (heading..index).any(|word| at(word) == "kernel");
                close.is_some_and(|close| at(close + 1) == "{") && !is_kernel
            }
            "{" => at(index.wrapping_sub(1)) == "struct",
            "=" | "[" => at(heading) == "constant",
            _ => false,
        };
        if depth == 0 && token.kind == TokenKind::Identifier && begins() {
            names.push(token.text);
        }
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(token.text, "}" | ";") {
            heading = index + 1;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{check, machine_path, orphans, software_device, unused_definitions};

    #[test]
    fn machine_paths_are_found_where_they_start() {
        assert_eq!(machine_path("see /home/someone/x"), Some("/home/"));
        assert_eq!(machine_path("GET https://example.org/home/page"), None);
        assert_eq!(machine_path("src/work/x.rs"), None);
    }

    #[test]
    fn long_files_need_a_reason() {
        let body = "fn f() {}\n".repeat(700);
        assert_eq!(check("a.rs", &format!("//! Things.\n{body}")).len(), 1);
        assert!(check("a.rs", &format!("//! Things, in one place.\n{body}")).is_empty());
    }

    #[test]
    fn templates_have_to_be_named() {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let files = [
            file("templates/msl/used.metal", ""),
            file("templates/msl/orphan.metal", ""),
            file("templates/msl/gemv_known.metal", ""),
            file("templates/msl/gemv_unknown.metal", ""),
            file("templates/msl/codes_7.metal", ""),
            file("templates/msl/kv_f16.metal", ""),
            file("templates/msl/kv_f64.metal", ""),
            file("crates/forge-formats/src/formats/known.rs", ""),
            file("crates/x/src/lib.rs", "include_str!(\"used.metal\")"),
        ];
        let orphan = |name: &str| format!("templates/msl/{name}.metal: no source names it");
        assert_eq!(orphans(&files), ["orphan", "gemv_unknown", "codes_7", "kv_f64"].map(orphan));
    }

    #[test]
    fn the_software_device_is_not_for_macs() {
        let manifest = |text: &str| software_device(&[("crates/forge-runtime/Cargo.toml".to_owned(), text.to_owned())]);
        let gated =
            "[target.'cfg(not(target_os = \"macos\"))'.dependencies]\nmetal-sim = { path = \"../metal-sim\" }\n";
        assert!(manifest(gated).is_empty());
        assert_eq!(manifest(&format!("{gated}[build-dependencies]\nmetal-sim = \"1\"\n")).len(), 1);
        assert_eq!(manifest("[dependencies.metal-sim]\npath = \"../metal-sim\"\n").len(), 2);
    }

    #[test]
    fn emitted_definitions_have_to_be_used() {
        let kernels = "// Calls unused().\nconstant float TABLE[2] = {1.0f, 2.0f};\nconstant uint UNUSED = 2;\n\
             struct Pair { float a; };\nstruct Lone { float a; };\n\
             template <uint N>\ninline float used(float x) { Pair p = {x}; return p.a * TABLE[1]; }\n\
             inline float unused(float x) { return used<1>(x); }\ninline float unused(uint x) { return 1.0f; }\n\
             inline float tried(float x) { return x; }\n\
             [[max_total_threads_per_threadgroup(32)]]\nkernel void run(device float* y [[buffer(0)]])\n{\n    *y = used<1>(2.0f);\n}\n";
        let file = |name: &str, text: &str| (format!("tests/snapshots/x/shaders/{name}"), text.to_owned());
        let files = [file("kernels.metal", kernels), file("tuning.metal", "kernel void other() { tried(1.0f); }\n")];
        let problem = |word: &str| format!("tests/snapshots/x/shaders/kernels.metal: no kernel uses {word}");
        assert_eq!(unused_definitions(&files), ["Lone", "UNUSED", "unused"].map(problem));
    }
}
