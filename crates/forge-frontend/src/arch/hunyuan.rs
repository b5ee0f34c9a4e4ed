//! Hunyuan (dense): Llama's layers with norms of each head of q and k after the rotation, whose base is stretched once and for
//! all.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["hunyuan-dense"],
    hf: &[("hunyuan_v1_dense", r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 2048}"#)],
    roles: &[
        Role::new("attn_q_norm", "attn_q_norm", "self_attn.query_layernorm"),
        Role::new("attn_k_norm", "attn_k_norm", "self_attn.key_layernorm"),
    ],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(&loaded.hparams, key::ACTIVATION, Activation::Silu)?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::Stretched)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::RotatedHeads,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?,
        output_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?,
    };
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for _ in 0..sizes.layers {
        dense::add_layer(&mut graph, dense::pre_norm_layer("layer", &sizes, &spec, (activation, false), 1.0))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
