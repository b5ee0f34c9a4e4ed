//! What a checkpoint holds, whether or not it can be loaded, and everything that keeps it from that.

use std::collections::BTreeMap;
use std::path::Path;

use crate::FrontendError;
use crate::Warning;
use crate::arch;
use crate::load::Container;
use crate::source::{Loaded, Stored};

/// A checkpoint from its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// `GGUF v3`, `Hugging Face folder` or `MLX folder`.
    pub kind: String,
    /// The checkpoint's word for its architecture.
    pub architecture: String,
    /// The model's name.
    pub name: String,
    /// Tensors by stored type, the most frequent first.
    pub formats: Vec<FormatCount>,
    /// Why it cannot be loaded, one line each; empty when it can.
    pub problems: Vec<String>,
    /// What its owner should know beside that.
    pub warnings: Vec<Warning>,
}

/// How much of a checkpoint is stored in one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatCount {
    /// The type's name: `Q4_K`, `BF16`, `IQ2_XS`, `F8_E4M3`.
    pub format: String,
    /// Tensors of it.
    pub tensors: usize,
    /// The first of them, by name.
    pub first: String,
    /// Whether Forge reads the type.
    pub supported: bool,
}

/// Looks at a checkpoint without loading it.
///
/// # Errors
/// Files that cannot be read as a checkpoint at all.
pub fn survey(path: &Path) -> Result<Survey, FrontendError> {
    let container = Container::open(path)?;
    let (mut loaded, kind) = container.read()?;
    let formats = formats(&loaded);
    let unread = formats.iter().filter(|count| !count.supported).map(|count| {
        format!("{} is not supported: {} tensors, {} the first", count.format, count.tensors, count.first)
    });
    let unread: Vec<String> = unread.collect();
    let mut problems = Vec::new();
    match arch::family(&loaded.hparams, &loaded.architecture) {
        Err(error) => problems.extend([error.to_string()].into_iter().chain(unread)),
        Ok(family) => match arch::build(&mut loaded, family) {
            Ok(_) => {}
            // The build stops at the first such tensor; this names every type.
            Err(FrontendError::TensorFormat { .. } | FrontendError::TensorType { .. }) if !unread.is_empty() => {
                problems.extend(unread);
            }
            Err(error) => problems.push(error.to_string()),
        },
    }
    let mut warnings = loaded.warnings.into_inner();
    match container.assets() {
        Ok(mut assets) => warnings.extend(container.warnings(&mut assets, None)),
        Err(error) => problems.push(error.to_string()),
    }
    Ok(Survey { kind, architecture: loaded.architecture, name: loaded.name, formats, problems, warnings })
}

fn formats(loaded: &Loaded) -> Vec<FormatCount> {
    let mut counts: BTreeMap<String, FormatCount> = BTreeMap::new();
    for (name, entry) in &loaded.tensors.entries {
        let format = entry.stored_name();
        let supported = match entry.stored {
            Stored::Rows(..)
            | Stored::Affine { .. }
            | Stored::Apart { .. }
            | Stored::Factored { .. }
            | Stored::Repack { .. } => true,
            Stored::Refused(_) | Stored::Foreign(_) => false,
        };
        let count = counts.entry(format.clone()).or_insert_with(|| FormatCount {
            format,
            tensors: 0,
            first: name.clone(),
            supported,
        });
        count.tensors += 1;
    }
    let mut counts: Vec<FormatCount> = counts.into_values().collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.tensors));
    counts
}
