//! StableLM: LayerNorms, a gated feed-forward, partial rotation; branches in turn or side by side.

use super::Family;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::layers::{self, Branches, LayerSpec, RowNorm};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Dialect, Key, Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["stablelm"],
    hf: &[("stablelm", r#"{"layer_norm_eps": 1e-5, "max_position_embeddings": 4096, "partial_rotary_factor": 0.25}"#)],
    roles: &[Role::new("attn_q_norm", "attn_q_norm", "self_attn.q_layernorm.norms.0")],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const QKV_BIAS: Key = Key::new("", "use_qkv_bias");
    const QK_NORM: Key = Key::new("", "qk_layernorm");
    let h = &loaded.hparams;
    let sizes = Sizes::read_normed(loaded, key::LAYER_NORM_EPS)?;
    layers::refuse_head_layer_norms(loaded, QK_NORM)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, QKV_BIAS)?,
        output_bias: false,
    };
    let layer = LayerSpec {
        sizes: &sizes,
        attention: &spec,
        norm: RowNorm::Layer { bias: true },
        branches: branches(loaded)?,
        gated: true,
        activation,
        ffn_bias: false,
    };
    let tied = dense::tied(loaded, false)?;
    layers::graph(loaded, &layer, tied, false)
}

/// A config.json says it. A GGUF's `use_parallel_residual` is true also where converters found no such key, so that there
/// it is the missing norm of the feed-forward that tells, as in llama.cpp.
fn branches(loaded: &Loaded) -> Result<Branches, FrontendError> {
    const PARALLEL: Key = Key::new("", "use_parallel_residual");
    let side_by_side = match loaded.hparams.dialect {
        Dialect::Gguf => !loaded.tensors.has("ffn_norm", Some(0)),
        Dialect::HuggingFace => loaded.hparams.opt_bool(PARALLEL)?.unwrap_or(false),
    };
    Ok(if side_by_side { Branches::SideBySide } else { Branches::InTurn })
}
