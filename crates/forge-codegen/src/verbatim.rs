//! Files that go into every project unchanged.

#![allow(missing_docs, reason = "generated tables of file contents")]

include!(concat!(env!("OUT_DIR"), "/verbatim.rs"));

/// The manifest of the runtime.
pub const RUNTIME_MANIFEST: &str = include_str!("../../forge-runtime/Cargo.toml");
/// The manifest of the software device.
pub const METAL_SIM_MANIFEST: &str = include_str!("../../metal-sim/Cargo.toml");
/// The workspace's manifest, for what the two inherit.
pub const WORKSPACE_MANIFEST: &str = include_str!("../../../Cargo.toml");
/// Formatting of emitted sources.
pub const RUSTFMT: &str = include_str!("../../../rustfmt.toml");
/// Build script of a generated project.
pub const BUILD_RS: &str = include_str!("../../../templates/project/build.rs");
/// What build scripts of a generated project share.
pub const BUILD_EMBED_RS: &str = include_str!("../../../templates/project/build/embed.rs");
