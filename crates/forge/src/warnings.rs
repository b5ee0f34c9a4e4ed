//! The one place for what a user should know: lines on a checkpoint, which `gen` shows and `inspect` lists, and on the folder
//! that `gen` writes.

use std::path::Path;

use forge_frontend::Warning;

/// The warnings as lines, each once, in the order in which they were found.
pub(crate) fn warnings(found: &[Warning]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for warning in found {
        let line = warning.to_string();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The line on a file of the project that a person had edited, and that is now beside it as a copy.
pub(crate) fn edited(project: &Path, file: &Path, copy: &Path) -> String {
    format!(
        "{}: was edited by hand and is replaced; your version is {}",
        project.join(file).display(),
        project.join(copy).display()
    )
}
