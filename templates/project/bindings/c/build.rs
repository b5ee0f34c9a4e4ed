//! With the feature `embed`, has the linker make the weights part of the shared library.

#[path = "../../build/embed.rs"]
mod embed;

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_EMBED").is_some() {
        let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let macos = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos");
        embed::link("cdylib", Path::new("../.."), &folder, macos);
    }
}
