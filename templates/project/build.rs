//! Compiles `shaders/kernels.metal`: to a metallib where the Metal toolchain is installed (else the program compiles the
//! source when it starts), and for the software Metal device where there is no Metal. With the feature `embed`, has the linker make the
//! weights part of the program.

#[path = "build/embed.rs"]
mod embed;

use std::env;
use std::path::{Path, PathBuf};

const KERNELS: &str = "shaders/kernels.metal";

fn main() {
    println!("cargo::rerun-if-changed={KERNELS}");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let out = folder.join("kernels.compiled");
    let macos = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos");
    if macos {
        metal::compile(&out);
    } else {
        software::compile(&out);
    }
    if env::var_os("CARGO_FEATURE_EMBED").is_some() {
        embed::link("bins", Path::new(""), &folder, macos);
    }
}

/// `xcrun metal`, for macOS targets.
mod metal {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    // The same minimum for compiling and linking: without it the library is stamped with the SDK's version.
    const FLAGS: [&str; 2] = ["-std=metal3.0", "-mmacosx-version-min=13.0"];

    pub fn compile(out: &Path) {
        let air = out.with_extension("air");
        let metal = || {
            let mut command = Command::new("xcrun");
            command.args(["-sdk", "macosx", "metal"]);
            command
        };
        let compiled = run(metal().args(FLAGS).arg("-c").arg(super::KERNELS).arg("-o").arg(&air))
            && run(metal().args(&FLAGS[1..]).arg(&air).arg("-o").arg(out));
        if !compiled {
            // An empty file: the program compiles the source at start.
            fs::write(out, []).expect("OUT_DIR is writable");
        }
    }

    fn run(command: &mut Command) -> bool {
        command.output().is_ok_and(|output| output.status.success())
    }
}

/// The software Metal device, for every other target.
#[cfg(not(target_os = "macos"))]
mod software {
    use std::path::Path;
    use std::{env, fs, process};

    pub fn compile(out: &Path) {
        println!("cargo::rerun-if-env-changed=METAL_SIM_CXX");
        println!("cargo::rerun-if-env-changed=METAL_SIM_CHECKED");
        // Checked mode compiles the source anew when the program starts.
        if env::var("METAL_SIM_CHECKED").is_ok_and(|value| value == "1") {
            return fs::write(out, []).expect("OUT_DIR is writable");
        }
        let source = fs::read_to_string(super::KERNELS).expect("the project has its kernels");
        if let Err(error) = metal_sim::compile(&source, super::KERNELS, &metal_sim::CompileOptions::default(), out) {
            eprintln!("{error}");
            process::exit(1);
        }
    }
}

#[cfg(target_os = "macos")]
mod software {
    /// A Mac builds for Macs only.
    pub fn compile(_: &std::path::Path) {
        panic!("building for another system on a Mac is not supported");
    }
}
