//! The Swift package of the demo project without a Mac: the recipe of its README is run with stand-ins for what only a Mac has, so that
//! every name in it is one that is emitted; clang reads the module that Swift imports; the wrapper is type-checked where there is a
//! compiler.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// Stands for a Mac's `cargo build`: it gives the library that this machine has built, where the package is one of the project's.
const CARGO: &str = r#"
cargo() {
    [ "$*" = "build --release --package $PACKAGE --target aarch64-apple-darwin" ] || { echo "cargo $*" >&2; exit 1; }
    mkdir -p target/aarch64-apple-darwin/release
    cp "$LIBRARY" target/aarch64-apple-darwin/release
}
"#;
/// Stands for Xcode: it takes a library and its headers, and gives a folder of that name, which must not be there.
const XCODEBUILD: &str = r#"
xcodebuild() {
    [ "$1 $2 $4 $6" = "-create-xcframework -library -headers -output" ] && [ $# = 7 ] || { echo "xcodebuild $*" >&2; exit 1; }
    [ -f "$3" ] && [ -d "$5" ] && [ ! -e "$7" ] || { echo "xcodebuild: $3, $5 or $7" >&2; exit 1; }
    mkdir -p "$7/macos-arm64"
    cp "$3" "$7/macos-arm64"
    cp -R "$5" "$7/macos-arm64/Headers"
}
"#;

/// Runs the recipe, reads the module, checks the wrapper. `library` is the static library of the project, `compiler` a clang.
///
/// # Errors
/// A name that does not fit, a module that clang does not take, a wrapper that does not compile.
pub fn check(project: &Path, library: &Path, compiler: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let readme = fs::read_to_string(project.join("bindings/README.md"))?;
    let framework = run(&recipe(&readme)?, project, library, folder.path())?;
    let headers = framework.join("macos-arm64/Headers");
    module(&headers, compiler, folder.path())?;
    let package = fs::read_to_string(project.join("bindings/swift/Package.swift"))?;
    let name = framework.file_name().context("a framework has a name")?.to_string_lossy();
    targets(&package, &name, &project.join("bindings/swift"))?;
    println!("the recipe of the XCFramework makes {name}; clang takes its module");
    typecheck(&project.join("bindings/swift"), &headers)
}

/// The commands of the README's section on Swift: its first block.
fn recipe(readme: &str) -> Result<String> {
    let section = readme.split_once("\n## Swift\n").context("the README has no Swift")?.1;
    let lines =
        section.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| line.starts_with("    "));
    let commands: Vec<&str> = lines.map(|line| &line[4..]).collect();
    ensure!(commands.iter().any(|line| line.starts_with("xcodebuild ")), "no recipe of an XCFramework: {commands:?}");
    Ok(commands.join("\n"))
}

/// Runs it in a folder with the project's bindings; the framework that it makes.
fn run(recipe: &str, project: &Path, library: &Path, folder: &Path) -> Result<PathBuf> {
    let manifest = fs::read_to_string(project.join("bindings/c/Cargo.toml"))?;
    let package = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let swift = folder.join("bindings/swift");
    for (from, name) in [("bindings/c/include", "forge.h"), ("bindings/swift", "module.modulemap")] {
        fs::create_dir_all(folder.join(from))?;
        fs::copy(project.join(from).join(name), folder.join(from).join(name)).with_context(|| name.to_owned())?;
    }
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &format!("{CARGO}{XCODEBUILD}{recipe}")]).current_dir(folder);
    command.env("PACKAGE", package.context("the C library has no name")?).env("LIBRARY", library);
    shell::capture(&mut command)?;
    let made: Vec<PathBuf> = fs::read_dir(&swift)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let framework = made.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "xcframework"));
    framework.context("the recipe makes no XCFramework in bindings/swift")
}

/// What Swift imports is a module of clang's.
fn module(headers: &Path, compiler: &Path, folder: &Path) -> Result<()> {
    let source = folder.join("module.c");
    fs::write(
        &source,
        "#pragma clang module import CForge\nForgeOptions options(void) { return forge_options_default(); }\n",
    )?;
    let mut command = Command::new(compiler);
    command.args(["-x", "c", "-fsyntax-only", "-Wall", "-Werror", "-fmodules", "-fimplicit-module-maps"]);
    command.arg(format!("-fmodules-cache-path={}", folder.join("cache").display()));
    shell::capture(command.arg("-I").arg(headers).arg(&source)).map(drop)
}

/// The manifest's targets are the framework and a folder of sources that import it.
fn targets(package: &str, framework: &str, swift: &Path) -> Result<()> {
    let module = framework.trim_end_matches(".xcframework");
    let binary = format!(".binaryTarget(name: \"{module}\", path: \"{framework}\")");
    ensure!(package.contains(&binary), "Package.swift has no {binary}");
    ensure!(
        package.contains(&format!("dependencies: [\"{module}\"]")),
        "no target of Package.swift depends on {module}"
    );
    let mut imports = BTreeSet::new();
    for entry in fs::read_dir(swift.join("Sources/Forge"))? {
        let text = fs::read_to_string(entry?.path())?;
        imports.extend(text.lines().filter_map(|line| Some(line.strip_prefix("import ")?.to_owned())));
    }
    ensure!(imports.contains(module), "the sources import {imports:?}, not {module}");
    Ok(())
}

/// The Swift wrapper, where there is a compiler.
fn typecheck(swift: &Path, headers: &Path) -> Result<()> {
    let Some(swiftc) = shell::which("swiftc") else {
        println!("no swiftc: the Swift package is as in its snapshot, and was not compiled");
        return Ok(());
    };
    let mut command = Command::new(swiftc);
    command.args(["-typecheck", "-warnings-as-errors", "-strict-concurrency=complete", "-I"]).arg(headers);
    match shell::run(command.arg(swift.join("Sources/Forge/Model.swift"))) {
        Ok(()) => Ok(()),
        Err(error) => bail!("the Swift wrapper: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = include_str!("../../templates/project/bindings/README.md");
    const PACKAGE: &str = include_str!("../../templates/project/bindings/swift/Package.swift");

    /// A project of the files that the recipe needs.
    fn project(folder: &Path) -> PathBuf {
        let root = shell::root();
        for (from, to) in [
            ("crates/forge-capi/include/forge.h", "bindings/c/include/forge.h"),
            ("templates/project/bindings/swift/module.modulemap", "bindings/swift/module.modulemap"),
            ("templates/project/bindings/swift/Model.swift", "bindings/swift/Sources/Forge/Model.swift"),
        ] {
            let to = folder.join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root.join(from), to).unwrap();
        }
        fs::write(folder.join("bindings/c/Cargo.toml"), "[package]\nname = \"demo-c\"\n").unwrap();
        fs::write(folder.join("libdemo_c.a"), "").unwrap();
        folder.to_owned()
    }

    #[test]
    fn names_of_the_recipe_are_held_to_what_is_emitted() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        let readme = README.replace("/*{ name }*/", "demo").replace("/*{ library }*/", "demo");
        let recipe = recipe(&readme).unwrap();
        let library = project.join("libdemo_c.a");
        let made = |recipe: &str| run(recipe, &project, &library, tempfile::tempdir().unwrap().path());
        assert!(made(&recipe).unwrap().ends_with("bindings/swift/CForge.xcframework"));
        for (name, wrong) in [
            ("--package demo-c", "--package demo_c"),
            ("/libdemo_c.a", "/libdemo-c.a"),
            ("include/forge.h", "forge.h"),
            ("swift/module.modulemap", "swift/CForge.modulemap"),
            ("-headers", "-header"),
            ("bindings/swift/CForge", "bindings/CForge"),
        ] {
            assert!(recipe.contains(name), "{name}");
            assert!(made(&recipe.replace(name, wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_are_the_framework_and_its_users() {
        let folder = tempfile::tempdir().unwrap();
        let swift = project(folder.path()).join("bindings/swift");
        targets(PACKAGE, "CForge.xcframework", &swift).unwrap();
        assert!(targets(PACKAGE, "Forge.xcframework", &swift).is_err());
        assert!(targets(&PACKAGE.replace("[\"CForge\"]", "[]"), "CForge.xcframework", &swift).is_err());
        fs::write(swift.join("Sources/Forge/Model.swift"), "import Foundation\n").unwrap();
        assert!(targets(PACKAGE, "CForge.xcframework", &swift).is_err());
    }
}
