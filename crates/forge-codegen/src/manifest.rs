//! `Cargo.toml` of the generated project and of its copy of the software device.

use crate::verbatim::{METAL_SIM_MANIFEST, RUNTIME_MANIFEST, WORKSPACE_MANIFEST};

/// The manifest of a project called `package`: the runtime's dependency tables, and the software device where it runs.
pub fn project(package: &str, library: &str, description: &str) -> String {
    let tables = RUNTIME_MANIFEST.split_once("[dependencies]").map_or("", |(_, tables)| tables);
    let tables = tables.split("\n[dev-dependencies]").next().unwrap_or(tables).replace("../metal-sim", "metal-sim");
    format!(
        include_str!("../../../templates/project/Cargo.toml"),
        package = package,
        library = library,
        description = description,
        dependencies = tables.trim_end(),
    )
}

/// The software device's manifest without what it inherits from this workspace.
pub fn metal_sim() -> String {
    let mut text = String::new();
    let mut skip = false;
    for line in METAL_SIM_MANIFEST.lines() {
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
