//! OLMoE: a mixture of experts in every layer, norms over the whole width of q and k.

use super::Family;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::mixture::{self, Mixture, Router};
use crate::graph::{Activation, Attention, Graph, GroupScore, RopePairing, Scores};
use crate::source::{Key, Loaded, Role, RopeLayers, key};
use crate::{FrontendError, Refusal};

pub(super) const FAMILY: Family = Family {
    gguf: &["olmoe"],
    hf: &[(
        "olmoe",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "intermediate_size": 2048, "num_experts": 64,
            "num_experts_per_tok": 8, "norm_topk_prob": false}"#,
    )],
    roles: &[Role::new("router", "ffn_gate_inp", "mlp.gate")],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const CLIP: Key = Key::new("attention.clamp_kqv", "clip_qkv");
    let h = &loaded.hparams;
    if h.opt_f32(CLIP)?.is_some_and(|clip| clip > 0.0) {
        return Err(h.unsupported(Refusal::ClippedQkv, CLIP, "queries, keys and values are not clipped"));
    }
    let router = Router {
        experts: Key::new("expert_count", "num_experts"),
        scores: Scores::Softmax,
        normalised: false,
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
    let sizes = Sizes::read(loaded)?;
    let bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?;
    let attention = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::Whole,
        eps: sizes.eps,
        qkv_bias: bias,
        output_bias: bias,
    };
    let mixtures = vec![true; sizes.layers];
    mixture::graph(loaded, &sizes, &attention, (&mixture, &mixtures), dense::tied(loaded, false)?)
}
