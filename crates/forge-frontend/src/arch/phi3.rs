//! Phi-3, Phi-3.5 and Phi-4: q, k and v in one tensor, gate and up in another, longrope and partial rotation.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::Warning;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Loaded, Part, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["phi3"],
    hf: &[(
        "phi3",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096}"#,
    )],
    roles: &[],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let window = h.window()?;
    let rope = loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?;
    if let Some(long) = &rope.long {
        loaded.warn(Warning::LongFactors { file: h.file.clone(), above: long.above, context: sizes.context });
    }
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(window),
        rope: Some(rope),
        attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: false,
        output_bias: false,
    };
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = parts(&sizes);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for _ in 0..sizes.layers {
        let block = dense::pre_norm_layer("layer", &sizes, &spec, (activation, false), 1.0);
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Where q, k, v, gate and up lie in the fused tensors.
fn parts(sizes: &Sizes) -> Vec<Part> {
    let q_rows = sizes.heads * sizes.head_dim;
    let kv_rows = sizes.kv_heads * sizes.head_dim;
    let qkv = |role, first_row| Part::run(role, "attn_qkv", first_row, q_rows + 2 * kv_rows);
    let gate_up = |role, first_row| Part::run(role, "ffn_gate_up", first_row, 2 * sizes.intermediate);
    vec![
        qkv("attn_q", 0),
        qkv("attn_k", q_rows),
        qkv("attn_v", q_rows + kv_rows),
        gate_up("ffn_gate", 0),
        gate_up("ffn_up", sizes.intermediate),
    ]
}
