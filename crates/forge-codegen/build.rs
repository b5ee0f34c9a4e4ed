//! Lists the files that are copied verbatim into every generated project (the runtime, the software device, the C interface), and the
//! Metal sources, by name.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let crates = here.join("..").canonicalize()?;
    let mut text = String::new();
    let folders = [
        ("RUNTIME", "forge-runtime/src"),
        ("METAL_SIM", "metal-sim/src"),
        ("METAL_SIM_CPP", "metal-sim/cpp"),
        ("CAPI", "forge-capi/src"),
    ];
    for (name, folder) in folders {
        let root = crates.join(folder);
        println!("cargo::rerun-if-changed={}", root.display());
        let mut files = Vec::new();
        walk(&root, &mut files)?;
        files.sort();
        let _ = writeln!(text, "pub static {name}: &[(&str, &[u8])] = &[");
        for file in files {
            let relative = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
            let _ = writeln!(text, "    ({relative:?}, include_bytes!({:?})),", file.display().to_string());
        }
        text.push_str("];\n");
    }
    fs::write(out.join("verbatim.rs"), text)?;
    fs::write(out.join("msl.rs"), metal_sources(&here.join("../../templates/msl").canonicalize()?)?)
}

/// A table of all `.metal` files of a folder.
fn metal_sources(folder: &Path) -> io::Result<String> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    files.sort();
    let mut text = String::from("static MSL: &[(&str, &str)] = &[\n");
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let _ = writeln!(text, "    ({name:?}, include_str!({:?})),", file.display().to_string());
    }
    text.push_str("];\n");
    Ok(text)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
