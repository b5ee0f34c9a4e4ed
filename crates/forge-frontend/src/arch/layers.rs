//! Layers of dense decoders whose norms, order of branches and feed-forward vary: LayerNorms, blocks whose branches stand
//! side by side, feed-forwards without a gate.

use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, Sizes};
use crate::graph::{Activation, Block, Graph, ValueId};
use crate::source::{Key, Loaded};
use crate::{FrontendError, Refusal};

/// What norms a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowNorm {
    /// The root of the mean of squares.
    Rms,
    /// The row less its mean, then as above.
    Layer {
        /// Whether a vector is added.
        bias: bool,
    },
}

impl RowNorm {
    fn apply(self, b: &mut BlockBuilder, name: &str, role: &str, x: ValueId, eps: f32) -> ValueId {
        match self {
            Self::Rms => b.rms_norm(name, role, x, eps),
            Self::Layer { bias } => b.layer_norm(name, role, x, eps, bias),
        }
    }
}

/// How attention and feed-forward follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Branches {
    /// The feed-forward reads the residual stream after attention, through a norm of its own.
    InTurn,
    /// Both read the stream through one norm, and are added to it (GPT-J).
    SideBySide,
}

/// A layer with norms before its branches.
#[derive(Debug, Clone)]
pub(crate) struct LayerSpec<'a> {
    pub sizes: &'a Sizes,
    pub attention: &'a AttentionSpec,
    pub norm: RowNorm,
    pub branches: Branches,
    /// Whether the feed-forward's activation is a gate.
    pub gated: bool,
    pub activation: Activation,
    /// Whether the feed-forward's projections have biases.
    pub ffn_bias: bool,
}

/// The layer. Of branches side by side all that reads the stream comes before either is added to it.
pub(crate) fn layer(name: &str, spec: &LayerSpec<'_>) -> Block {
    let LayerSpec { sizes, attention, norm, .. } = *spec;
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let attn_in = norm.apply(&mut b, "attn_in", "attn_norm", x, sizes.eps);
    let (x, ffn) = match spec.branches {
        Branches::InTurn => {
            let attn = dense::attention(&mut b, attn_in, sizes.hidden, attention);
            let x = b.add("x_attn", x, attn);
            let ffn_in = norm.apply(&mut b, "ffn_in", "ffn_norm", x, sizes.eps);
            (x, activated(&mut b, ffn_in, spec))
        }
        Branches::SideBySide => {
            let qkv = dense::qkv(&mut b, attn_in, attention);
            let ffn = activated(&mut b, attn_in, spec);
            let attn = dense::attend(&mut b, qkv, sizes.hidden, attention);
            (b.add("x_attn", x, attn), ffn)
        }
    };
    let out = b.linear("ffn_out", "ffn_down", ffn, sizes.hidden, spec.ffn_bias);
    let x = b.add("x_ffn", x, out);
    b.finish(x)
}

/// The feed-forward up to its down projection.
fn activated(b: &mut BlockBuilder, input: ValueId, spec: &LayerSpec<'_>) -> ValueId {
    let width = spec.sizes.intermediate;
    if spec.gated {
        return dense::gated(b, input, width, spec.activation, spec.ffn_bias);
    }
    let up = b.linear("up", "ffn_up", input, width, spec.ffn_bias);
    b.activation("ffn", up, spec.activation)
}

/// The head: final norm and projection to the vocabulary, with biases where `bias`.
pub(crate) fn head(sizes: &Sizes, norm: RowNorm, bias: bool) -> Block {
    let mut b = BlockBuilder::new("head");
    let x = b.input("x", sizes.hidden);
    let normed = norm.apply(&mut b, "normed", "output_norm", x, sizes.eps);
    let logits = b.linear("logits", "output", normed, sizes.vocab, bias);
    b.finish(logits)
}

/// The graph of a model whose layers are all alike; its head has a bias where `head_bias`.
pub(crate) fn graph(
    loaded: &Loaded,
    spec: &LayerSpec<'_>,
    tied: bool,
    head_bias: bool,
) -> Result<Graph, FrontendError> {
    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, spec.sizes);
    graph_of(graph, loaded, spec, tied, head_bias)
}

/// The same from a builder that knows more of the checkpoint.
pub(crate) fn graph_of(
    mut graph: GraphBuilder<'_>,
    loaded: &Loaded,
    spec: &LayerSpec<'_>,
    tied: bool,
    head_bias: bool,
) -> Result<Graph, FrontendError> {
    let sizes = spec.sizes;
    let embed = graph.stage(dense::embed(sizes, 1.0), tied)?;
    for _ in 0..sizes.layers {
        dense::add_layer(&mut graph, layer("layer", spec))?;
    }
    let head = graph.stage(head(sizes, spec.norm, head_bias), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Refuses LayerNorms of each head of q and k, which a config.json says by `said_by` and a GGUF by its tensors.
pub(crate) fn refuse_head_layer_norms(loaded: &Loaded, said_by: Key) -> Result<(), FrontendError> {
    let h = &loaded.hparams;
    let tensor = loaded.tensors.name("attn_q_norm", Some(0));
    let stored = loaded.tensors.entries.get(&tensor);
    let (file, key, found) = match (h.opt_bool(said_by)?, stored) {
        (Some(true), _) => (h.file.clone(), h.spelling(said_by), "true".to_owned()),
        (_, Some(entry)) => (entry.file.clone(), format!("tensor {tensor}"), entry.stored_name()),
        _ => return Ok(()),
    };
    Err(FrontendError::UnsupportedFeature {
        refusal: Refusal::HeadLayerNorms,
        file,
        key,
        found,
        reason: "norms of each head of q and k that subtract a mean are not built".to_owned(),
    })
}
