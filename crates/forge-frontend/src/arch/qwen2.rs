//! Qwen2 and Qwen2.5: Llama's layers with biases on q, k and v.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::mixture::{self, Mixture};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Key, Loaded, RopeLayers, Stack, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["qwen2"],
    hf: &[("qwen2", r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "max_window_layers": 28}"#)],
    roles: &[],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    build_qwen(loaded, QkNorm::None, true, false)
}

/// Qwen2 and Qwen3 alike.
pub(super) fn build_qwen(
    loaded: &Loaded,
    qk_norm: QkNorm,
    qkv_bias: bool,
    output_bias: bool,
) -> Result<Graph, FrontendError> {
    build_with(loaded, &Sizes::read(loaded)?, None, qk_norm, [qkv_bias, output_bias], &[])
}

/// The same with a mixture in some layers. Windows, where a configuration has them, begin at `max_window_layers`; the biases
/// are those of q, k and v, and of attention's output; `stacks` are the family's own ways to store experts.
pub(super) fn build_with(
    loaded: &Loaded,
    sizes: &Sizes,
    mixture: Option<(&Mixture, &[bool])>,
    qk_norm: QkNorm,
    [qkv_bias, output_bias]: [bool; 2],
    stacks: &'static [Stack],
) -> Result<Graph, FrontendError> {
    const USE_WINDOW: Key = Key::new("", "use_sliding_window");
    const MAX_WINDOW_LAYERS: Key = Key::new("", "max_window_layers");
    let h = &loaded.hparams;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let window = if h.opt_bool(USE_WINDOW)? == Some(true) { h.window()? } else { None };
    let first_sliding = match window {
        Some(_) => h.opt_usize(MAX_WINDOW_LAYERS)?.unwrap_or(0),
        None => sizes.layers,
    };
    let sliding = match window {
        Some(_) => dense::sliding_layers(loaded, sizes.layers, |layer| layer >= first_sliding)?,
        None => vec![false; sizes.layers],
    };
    let rope = loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.stacks = stacks;
    let embed = graph.stage(dense::embed(sizes, 1.0), tied)?;
    for layer in 0..sizes.layers {
        let window = window.filter(|_| sliding[layer]);
        let spec = AttentionSpec {
            heads: sizes.heads,
            state: sizes.state(window),
            rope: Some(rope.clone()),
            attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
            qk_norm,
            eps: sizes.eps,
            qkv_bias,
            output_bias,
        };
        let block = match mixture {
            Some((mixture, layers)) if layers[layer] => {
                let name = mixture::layer_name(layers, layer);
                dense::pre_norm_layer_with(name, sizes, &spec, 1.0, |b, input| mixture.add(b, input))
            }
            mixture => {
                let name = mixture.map(|(_, layers)| mixture::layer_name(layers, layer));
                let name = name.unwrap_or(dense::layer_name(&sliding, layer));
                dense::pre_norm_layer(name, sizes, &spec, (activation, false), 1.0)
            }
        };
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
