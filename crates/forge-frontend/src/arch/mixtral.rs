//! Mixtral: Llama's layers with a mixture of experts in each. Its GGUFs call themselves `llama`.

use super::mixture::{Mixture, Router};
use super::{Family, dense, llama};
use crate::FrontendError;
use crate::graph::{Activation, Graph, GroupScore, Scores};
use crate::source::{Key, Loaded, Role, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["llama"],
    hf: &[(
        "mixtral",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8,
            "intermediate_size": 14336, "num_local_experts": 8, "num_experts_per_tok": 2, "rope_theta": 1000000.0}"#,
    )],
    roles: &[Role::new("router", "ffn_gate_inp", "block_sparse_moe.gate")],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let router = Router {
        experts: Key::new("expert_count", "num_local_experts"),
        scores: Scores::SoftmaxOfChosen,
        normalised: true,
        normalised_by: 0.0,
        groups: GroupScore::BestTwo,
    };
    let mixture = Mixture {
        routing: router.read(h)?,
        selection_bias: false,
        width: h.usize(key::INTERMEDIATE)?,
        activation: dense::activation(h, key::ACTIVATION, Activation::Silu)?,
        shared: None,
    };
    llama::build_with(loaded, Some(&mixture))
}
