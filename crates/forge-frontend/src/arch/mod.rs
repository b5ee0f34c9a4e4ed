//! Architecture families: one file each, building a graph from neutral hyper-parameters and tensors.

mod builder;
mod dense;
mod llama;

use crate::FrontendError;
use crate::graph::Graph;
use crate::source::{Dialect, Loaded, Role};

/// A family of architectures that one builder covers.
pub(crate) struct Family {
    /// Values of `general.architecture`.
    pub gguf: &'static [&'static str],
    /// Values of `model_type`, of the text model where there are several.
    pub hf: &'static [&'static str],
    /// Tensor names that differ from the common ones.
    pub roles: &'static [Role],
    pub build: fn(&Loaded) -> Result<Graph, FrontendError>,
}

const FAMILIES: &[Family] = &[llama::FAMILY];

/// The names of the supported architectures in a dialect, sorted.
fn supported(dialect: Dialect) -> Vec<&'static str> {
    let names = |family: &Family| match dialect {
        Dialect::Gguf => family.gguf,
        Dialect::HuggingFace => family.hf,
    };
    let mut all: Vec<_> = FAMILIES.iter().flat_map(names).copied().collect();
    all.sort_unstable();
    all
}

/// The family of an architecture's name.
///
/// # Errors
/// An unknown name, with those that are known.
pub(crate) fn family(dialect: Dialect, file: &str, architecture: &str) -> Result<&'static Family, FrontendError> {
    let names = |family: &&Family| match dialect {
        Dialect::Gguf => family.gguf.contains(&architecture),
        Dialect::HuggingFace => family.hf.contains(&architecture),
    };
    FAMILIES.iter().find(names).ok_or_else(|| FrontendError::UnknownArchitecture {
        file: file.to_owned(),
        found: architecture.to_owned(),
        supported: supported(dialect).join(", "),
    })
}

/// Builds the graph, and refuses a checkpoint with tensors that it does not read.
pub(crate) fn build(loaded: &Loaded, family: &Family) -> Result<Graph, FrontendError> {
    let graph = (family.build)(loaded)?;
    loaded.tensors.ignore(is_without_effect);
    match loaded.tensors.unread() {
        None => Ok(graph),
        Some((tensor, entry)) => Err(FrontendError::UnreadTensor {
            file: entry.file.clone(),
            tensor: tensor.clone(),
            architecture: loaded.architecture.clone(),
        }),
    }
}

/// Tensors that old converters left in: frequencies and masks, which follow from the configuration.
fn is_without_effect(tensor: &str) -> bool {
    const SUFFIXES: [&str; 4] =
        ["rotary_emb.inv_freq", "attn_rot_embd", "attn_rot_embd.weight", "attention.masked_bias"];
    SUFFIXES.iter().any(|suffix| tensor.ends_with(suffix))
}
