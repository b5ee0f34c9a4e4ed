//! Granite (dense): Llama's layers with factors on embeddings, attention scores, branches and logits.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::mixture::{Mixture, Router};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, GroupScore, RopePairing, Scores};
use crate::source::{Key, Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["granite"],
    hf: &[(
        "granite",
        r#"{"rms_norm_eps": 1e-6, "embedding_multiplier": 1.0, "attention_multiplier": 1.0, "residual_multiplier": 1.0,
            "logits_scaling": 1.0}"#,
    )],
    roles: &[],
    build: |loaded| build(loaded, None),
};

/// The mixture of Granite 3: its experts are stacked in folders, too.
pub(super) const MIXTURE: Family = Family {
    gguf: &["granitemoe"],
    hf: &[(
        "granitemoe",
        r#"{"rms_norm_eps": 1e-6, "embedding_multiplier": 1.0, "attention_multiplier": 1.0, "residual_multiplier": 1.0,
            "logits_scaling": 1.0, "max_position_embeddings": 2048, "num_local_experts": 8, "num_experts_per_tok": 2,
            "intermediate_size": 11008}"#,
    )],
    roles: &[Role::new("router", "ffn_gate_inp", "block_sparse_moe.router.layer")],
    build: |loaded| {
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
        build(loaded, Some(&mixture))
    },
};

fn build(loaded: &Loaded, mixture: Option<&Mixture>) -> Result<Graph, FrontendError> {
    const EMBEDDING: Key = Key::new("embedding_scale", "embedding_multiplier");
    const ATTENTION: Key = Key::new("attention.scale", "attention_multiplier");
    const RESIDUAL: Key = Key::new("residual_scale", "residual_multiplier");
    const LOGITS: Key = Key::new("logit_scale", "logits_scaling");
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    // A GGUF leaves out a factor of 1, and the attention's where it is the usual one.
    let attention_scale = h.opt_f32(ATTENTION)?.filter(|&scale| scale != 0.0).unwrap_or(sizes.attention_scale());
    let factor = |key: Key| Ok::<f32, FrontendError>(h.opt_f32(key)?.filter(|&factor| factor != 0.0).unwrap_or(1.0));
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        // The converter reorders q and k as it does Llama's.
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Interleaved, RopeLayers::All)?),
        attention: Attention { scale: attention_scale, window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?,
        output_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?,
    };
    let mlp_bias = dense::has_bias(loaded, key::MLP_BIAS, "ffn_gate")?;
    let residual = factor(RESIDUAL)?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    let embed = graph.stage(dense::embed(&sizes, factor(EMBEDDING)?), tied)?;
    for _ in 0..sizes.layers {
        let block = match mixture {
            Some(mixture) => {
                dense::pre_norm_layer_with("layer", &sizes, &spec, residual, |b, input| mixture.add(b, input))
            }
            None => dense::pre_norm_layer("layer", &sizes, &spec, (activation, mlp_bias), residual),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    // A factor on the logits is one on the vector that they are projected from.
    graph.scale_vector("output_norm", 1.0 / factor(LOGITS)?);
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
