//! The one place that collects what a user should know of a checkpoint: `gen` shows these lines, and `inspect` lists them.

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
