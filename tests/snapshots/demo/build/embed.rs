//! The weights, for the linker of a program or a shared library, which maps the file and copies it once: with a gigabyte it takes 8 seconds
//! where the assembler's `.incbin` takes 45 and 4.5 GB of memory.

use std::path::Path;
use std::{env, fs, process};

const WEIGHTS: &str = "weights.safetensors";
/// Where macOS finds it.
const SEGMENT: &str = "__WEIGHTS";
/// Where others do: on pages of their own, the largest that there are (Apple silicon's), behind everything else, so that nothing of
/// the program is moved out of the reach of its instructions.
const SCRIPT: &str = "SECTIONS { .weights : ALIGN(16384) { forge_weights = .; KEEP(*weights.safetensors(.data)) } } INSERT AFTER .bss;\n";

/// Has the linker take in the weights of `project`, a path from the folder of the package that is built. `what` is built of it: `bins`, `cdylib`.
pub fn link(what: &str, project: &Path, out: &Path, macos: bool) {
    let package = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let path = Path::new(&package).join(project).join(WEIGHTS);
    let fail = |path: &Path, error| -> ! {
        eprintln!("the weights cannot be made part of it: {}: {error}", path.display());
        process::exit(1);
    };
    let bytes = match fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) => fail(&path, error),
    };
    let record = path.with_extension("safetensors.b3");
    let digest = fs::read_to_string(&record).unwrap_or_else(|error| fail(&record, error));
    println!("cargo::rustc-env=FORGE_WEIGHTS_BYTES={bytes}");
    println!("cargo::rustc-env=FORGE_WEIGHTS_RECORD={}", digest.trim_end());
    for path in [&path, &record] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let path = path.to_str().expect("a path that cargo can print");
    let arguments: Vec<&str> = if macos {
        // A segment of its own begins on a page.
        vec!["-sectcreate", SEGMENT, "__weights", path, "-segprot", SEGMENT, "r", "r"]
    } else {
        vec!["-Wl,--format=binary", path, "-Wl,--format=default"]
    };
    for argument in arguments {
        println!("cargo::rustc-link-arg-{what}={argument}");
    }
    if !macos {
        let script = out.join("weights.ld");
        fs::write(&script, SCRIPT).expect("OUT_DIR is writable");
        println!("cargo::rustc-link-arg-{what}=-Wl,-T,{}", script.display());
    }
}
