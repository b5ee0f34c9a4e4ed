//! Architecture families: one file each, building a graph from neutral hyper-parameters and tensors.

mod apertus;
mod arcee;
mod builder;
mod cohere;
mod deepseek;
mod dense;
mod ernie4_5;
mod exaone4;
mod gemma;
mod gemma4;
mod glm4;
mod glm4_moe;
mod gpt_oss;
mod granite;
mod hunyuan;
mod hybrid;
mod layers;
mod lfm2;
mod llama;
mod ministral;
mod mixtral;
mod mixture;
mod muse_glimmer;
mod olmo2;
mod olmoe;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen35;
mod qwen_moe;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

use serde_json::Value;

use crate::graph::Graph;
use crate::source::{Dialect, Hparams, Key, Loaded, Role, integer};
use crate::{FrontendError, Refusal};

/// A family of architectures that one builder covers.
pub(crate) struct Family {
    /// Values of `general.architecture`.
    pub gguf: &'static [&'static str],
    /// Values of `model_type`, of the text model where there are several, each with what transformers' configuration
    /// class takes for keys that a config.json leaves out (a JSON object).
    pub hf: &'static [(&'static str, &'static str)],
    /// Tensor names that differ from the common ones.
    pub roles: &'static [Role],
    pub build: fn(&Loaded) -> Result<Graph, FrontendError>,
}

const FAMILIES: &[Family] = &[
    apertus::FAMILY,
    arcee::FAMILY,
    cohere::COHERE,
    cohere::COHERE2,
    ernie4_5::FAMILY,
    exaone4::FAMILY,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3,
    gemma4::DENSE,
    glm4::FAMILY,
    granite::FAMILY,
    hunyuan::FAMILY,
    lfm2::DENSE,
    llama::FAMILY,
    ministral::MINISTRAL,
    ministral::MINISTRAL3,
    muse_glimmer::FAMILY,
    olmo2::FAMILY,
    phi::FAMILY,
    phi3::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen35::DENSE,
    seed_oss::FAMILY,
    smollm3::FAMILY,
    stablelm::FAMILY,
    starcoder2::FAMILY,
];

/// Mixtures of experts. A GGUF may call one by the name of a dense family.
static MIXTURES: &[Family] = &[
    deepseek::FAMILY,
    gemma4::MIXTURE,
    glm4_moe::FAMILY,
    gpt_oss::FAMILY,
    granite::MIXTURE,
    lfm2::MIXTURE,
    mixtral::FAMILY,
    olmoe::FAMILY,
    qwen35::MIXTURE,
    qwen35::NEXT,
    qwen_moe::QWEN2,
    qwen_moe::QWEN3,
    qwen_moe::QWEN3_VL,
];

/// Architectures that people have and that are not built, by their names in either dialect, with the reason.
const NOT_BUILT: &[(&[&str], &str)] = &[
    (&["gemma3n", "gemma3n_text"], "its alternating updates (AltUp) and learned augmented residuals are not built"),
    (&["phimoe"], "its router, which chooses by a threshold, is not built"),
];

/// Keys that count the experts of a mixture, under every name they have had.
const EXPERTS: [Key; 5] = [
    Key::new("expert_count", "num_experts"),
    Key::new("", "num_local_experts"),
    Key::new("", "n_routed_experts"),
    Key::new("", "moe_num_experts"),
    Key::new("", "enable_moe_block"),
];
const NO_MIXTURES: &str = "this architecture's mixture of experts is not built";

/// The key that says that there are experts.
fn counts_experts(h: &Hparams) -> Option<Key> {
    // One expert is none: Hunyuan's dense models say so.
    let counts = |value: &Value| value.as_bool() == Some(true) || integer(value).is_some_and(|count| count > 1);
    EXPERTS.into_iter().find(|&key| h.get(key).is_some_and(counts))
}

/// Refuses the weights of experts, which a configuration may tell nothing of.
fn refuse_expert_weights(loaded: &Loaded) -> Result<(), FrontendError> {
    const PARTS: [&str; 4] = [".experts.", ".switch_mlp.", "_exps.", ".block_sparse_moe."];
    match loaded.tensors.entries.iter().find(|(name, _)| PARTS.iter().any(|part| name.contains(part))) {
        Some((name, entry)) => Err(FrontendError::UnsupportedFeature {
            refusal: Refusal::ExpertWeights,
            file: entry.file.clone(),
            key: format!("tensor {name}"),
            found: entry.stored_name(),
            reason: NO_MIXTURES.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The names of the supported architectures in a dialect, sorted.
fn supported(dialect: Dialect) -> Vec<&'static str> {
    let names = |family: &'static Family| match dialect {
        Dialect::Gguf => family.gguf.to_vec(),
        Dialect::HuggingFace => family.hf.iter().map(|(name, _)| *name).collect(),
    };
    let mut all: Vec<_> = FAMILIES.iter().chain(MIXTURES).flat_map(names).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The family of an architecture's name.
///
/// # Errors
/// An unknown name, with those that are known, or a mixture of experts of a family that has none.
pub(crate) fn family(h: &Hparams, architecture: &str) -> Result<&'static Family, FrontendError> {
    let (dialect, file) = (h.dialect, &h.file);
    let names = |family: &&Family| match dialect {
        Dialect::Gguf => family.gguf.contains(&architecture),
        Dialect::HuggingFace => family.hf.iter().any(|(name, _)| *name == architecture),
    };
    if let Some((_, reason)) = NOT_BUILT.iter().find(|(names, _)| names.contains(&architecture)) {
        return Err(FrontendError::UnsupportedFeature {
            refusal: Refusal::NotBuilt,
            file: file.clone(),
            key: match dialect {
                Dialect::Gguf => "general.architecture",
                Dialect::HuggingFace => "model_type",
            }
            .to_owned(),
            found: format!("{architecture:?}"),
            reason: (*reason).to_owned(),
        });
    }
    let dense = FAMILIES.iter().find(names);
    match (counts_experts(h), MIXTURES.iter().find(names)) {
        (Some(_), Some(mixture)) => return Ok(mixture),
        (Some(key), None) => return Err(h.unsupported(Refusal::Experts, key, NO_MIXTURES)),
        // Keys that a family's defaults have may be left out.
        (None, Some(mixture)) if dense.is_none() => return Ok(mixture),
        (None, _) => {}
    }
    dense.ok_or_else(|| FrontendError::UnknownArchitecture {
        file: file.clone(),
        found: architecture.to_owned(),
        supported: supported(dialect).join(", "),
    })
}

/// Builds the graph, and refuses a checkpoint with tensors that it does not read.
pub(crate) fn build(loaded: &mut Loaded, family: &Family) -> Result<Graph, FrontendError> {
    loaded.tensors.roles = family.roles;
    loaded.tensors.join_factors(&loaded.files)?;
    if loaded.hparams.dialect == Dialect::HuggingFace {
        let defaults = family.hf.iter().find(|(name, _)| *name == loaded.architecture).map_or("{}", |(_, json)| json);
        // Newer transformers write one family's experts under another's name: it goes before a default under the own one.
        let counted = counts_experts(&loaded.hparams).and_then(|key| loaded.hparams.get(key).cloned());
        if let Some(count @ Value::Number(_)) = counted {
            for key in EXPERTS.iter().filter(|key| key.hf.contains("experts")) {
                loaded.hparams.values.entry(key.hf).or_insert_with(|| count.clone());
            }
        }
        // Gemma's name for it.
        if let Some(chosen) = loaded.hparams.get(Key::new("", "top_k_experts")).cloned() {
            loaded.hparams.values.entry(mixture::CHOSEN.hf).or_insert(chosen);
        }
        loaded.hparams.fill_in(defaults);
    }
    if !MIXTURES.iter().any(|mixture| std::ptr::eq(mixture, family)) {
        refuse_expert_weights(loaded)?;
    }
    let graph = (family.build)(loaded)?;
    loaded.tensors.ignore(is_without_effect);
    loaded.ignore_other_towers();
    loaded.ignore_predictors(graph.config.num_layers)?;
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
