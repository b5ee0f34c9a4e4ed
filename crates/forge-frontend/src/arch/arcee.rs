//! Arcee (AFM): Llama's layers with a feed-forward of squared ReLU, without a gate.

use super::Family;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::layers::{self, Branches, LayerSpec, RowNorm};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Loaded, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["arcee"],
    hf: &[("arcee", r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "hidden_act": "relu2"}"#)],
    roles: &[],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(&loaded.hparams, key::ACTIVATION, Activation::ReluSquared)?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        // The converter reorders q and k as it does Llama's.
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Interleaved, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?,
        output_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?,
    };
    let layer = LayerSpec {
        sizes: &sizes,
        attention: &spec,
        norm: RowNorm::Rms,
        branches: Branches::InTurn,
        gated: false,
        activation,
        ffn_bias: dense::has_bias(loaded, key::MLP_BIAS, "ffn_up")?,
    };
    let tied = dense::tied(loaded, false)?;
    layers::graph(loaded, &layer, tied, false)
}
