//! `Cargo.toml` of the generated project and of its copies of the runtime and of the software device.

use crate::verbatim::WORKSPACE_MANIFEST;

/// The manifest of a project called `package`; its weights are part of the program unless told otherwise where `embed`. Its workspace has the C
/// library where `c`.
pub fn project(package: &str, library: &str, description: &str, embed: bool, c: bool) -> String {
    let default = if embed { r#""cli", "server", "embed""# } else { r#""cli", "server""# };
    format!(
        include_str!("../../../templates/project/Cargo.toml"),
        default = default,
        members = if c { "\nmembers = [\"bindings/c\"]" } else { "" },
        package = package,
        library = library,
        description = description,
    )
}

/// The manifest of the project's C library.
pub fn c_library(package: &str, library: &str, description: &str) -> String {
    format!(
        include_str!("../../../templates/project/bindings/c/Cargo.toml"),
        package = package,
        library = library,
        description = description,
    )
}

/// The manifest of one of this workspace's crates without what it inherits from the workspace, lints and tests.
pub fn copied(manifest: &str) -> String {
    let mut text = String::new();
    let mut skip = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            skip = line == "[lints]" || line.starts_with("[dev-dependencies") || line.starts_with("[[");
        }
        if skip {
            continue;
        }
        let inherited = line.split_once(".workspace = true").map(|(key, _)| key);
        let inherited = inherited.or_else(|| line.split_once(" = { workspace = true }").map(|(key, _)| key));
        match inherited {
            Some(key) => {
                if let Some(value) = workspace_value(key.trim()) {
                    text.push_str(&value);
                    text.push('\n');
                }
            }
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// The line `key = ...` of the workspace's package or dependency table.
fn workspace_value(key: &str) -> Option<String> {
    let tables = WORKSPACE_MANIFEST.split_once("[workspace.package]")?.1.split("[workspace.lints").next()?;
    tables.lines().find(|line| line.split('=').next().is_some_and(|name| name.trim() == key)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbatim::{METAL_SIM_MANIFEST, RUNTIME_MANIFEST};

    #[test]
    fn copied_manifests_stand_on_their_own() {
        for (manifest, dependency) in [(RUNTIME_MANIFEST, "clap = {"), (METAL_SIM_MANIFEST, "libloading = ")] {
            let copied = copied(manifest);
            for part in ["workspace", "[lints]", "[dev-dependencies]", "[["] {
                assert!(!copied.contains(part), "{part} in\n{copied}");
            }
            for part in ["[package]\n", "version = \"0", "edition = \"2024\"", "[dependencies]\n", dependency] {
                assert!(copied.contains(part), "{part} not in\n{copied}");
            }
        }
        assert!(copied(RUNTIME_MANIFEST).contains("\n[features]\ndefault = [\"cli\", \"server\"]\n"));
    }
}
