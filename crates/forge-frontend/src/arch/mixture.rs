//! Feed-forwards that are mixtures of experts: their keys, which layers have one, and what it computes.

use serde_json::Value;

use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, Sizes};
use crate::graph::{Activation, Graph, GroupScore, Groups, Routing, Scores, ValueId};
use crate::source::{Dialect, Hparams, Key, Loaded, integer};
use crate::{FrontendError, Refusal};

/// Experts of a token.
pub(super) const CHOSEN: Key = Key::new("expert_used_count", "num_experts_per_tok");
/// Width of an expert.
pub(super) const WIDTH: Key = Key::new("expert_feed_forward_length", "moe_intermediate_size");
/// Width of the shared expert.
pub(super) const SHARED_WIDTH: Key = Key::new("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
/// Layers that have no mixture, where a folder lists them.
pub(super) const DENSE_LAYERS: Key = Key::new("", "mlp_only_layers");
/// That only every so many layers has one.
pub(super) const SPARSE_STEP: Key = Key::new("", "decoder_sparse_step");
const SCALE: Key = Key::new("expert_weights_scale", "routed_scaling_factor");
const NORMALISED: Key = Key::new("expert_weights_norm", "norm_topk_prob");
const GROUPS: Key = Key::new("expert_group_count", "n_group");
const CHOSEN_GROUPS: Key = Key::new("expert_group_used_count", "topk_group");
const GATING: Key = Key::new("expert_gating_func", "");

/// A mixture.
#[derive(Debug, Clone)]
pub(super) struct Mixture {
    pub routing: Routing,
    /// Whether a vector is added to the scores for the choice.
    pub selection_bias: bool,
    /// Width of an expert.
    pub width: usize,
    pub activation: Activation,
    pub shared: Option<Shared>,
}

/// An expert that every token takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub width: usize,
    /// Whether its result is multiplied by a sigmoid of the input.
    pub gated: bool,
}

/// What a family's router does where no key says otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Router {
    /// The key that counts the experts.
    pub experts: Key,
    pub scores: Scores,
    /// Whether the weights of the chosen experts sum to 1, where neither a key says nor the scores do.
    pub normalised: bool,
    /// Added to the sum that they are divided by.
    pub normalised_by: f32,
    /// What a group of experts is judged by.
    pub groups: GroupScore,
}

impl Router {
    /// The rule, from a checkpoint's keys.
    pub fn read(self, h: &Hparams) -> Result<Routing, FrontendError> {
        let (experts, chosen) = (h.usize(self.experts)?, h.usize(CHOSEN)?);
        if chosen > experts {
            return Err(h.invalid(Refusal::ExpertCount, CHOSEN, format!("at most the {experts} experts")));
        }
        within(h, self.experts, experts, Routing::MOST_EXPERTS)?;
        within(h, CHOSEN, chosen, Routing::MOST_CHOSEN)?;
        let scores = match h.get(GATING).map(integer) {
            // 0: a converter that knows no other function.
            None | Some(Some(0)) => self.scores,
            Some(Some(1)) => Scores::Softmax,
            Some(Some(2)) => Scores::Sigmoid,
            Some(Some(3)) => Scores::SoftmaxOfChosen,
            Some(_) => {
                return Err(h.unsupported(
                    Refusal::GatingFunction,
                    GATING,
                    "scores are softmax (1), sigmoid (2) or softmax of the chosen (3)",
                ));
            }
        };
        let normalised = h.opt_bool(NORMALISED)?.unwrap_or(self.normalised);
        let scale = h.opt_f32(SCALE)?.filter(|&scale| scale != 0.0).unwrap_or(1.0);
        let groups = self.groups(h, experts, chosen)?;
        // Of a softmax the sum over all experts cancels.
        let (scores, normalised) = match (scores, normalised) {
            (Scores::Softmax | Scores::SoftmaxOfChosen, true) if groups.is_none() => (Scores::SoftmaxOfChosen, None),
            (Scores::SoftmaxOfChosen, _) => (scores, None),
            (Scores::Softmax | Scores::Sigmoid, true) => (scores, Some(self.normalised_by)),
            (Scores::Softmax | Scores::Sigmoid, false) => (scores, None),
        };
        Ok(Routing { experts, chosen, scores, groups, normalised, scale })
    }

    fn groups(self, h: &Hparams, experts: usize, chosen: usize) -> Result<Option<Groups>, FrontendError> {
        let count = h.opt_usize(GROUPS)?.unwrap_or(1);
        let kept = h.opt_usize(CHOSEN_GROUPS)?.unwrap_or(count);
        h.divides(Refusal::ExpertGroups, (self.experts, experts), (GROUPS, count))?;
        within(h, GROUPS, count, Routing::MOST_GROUPS)?;
        if kept > count {
            return Err(h.invalid(Refusal::GroupCount, CHOSEN_GROUPS, format!("at most the {count} groups")));
        }
        if experts / count * kept < chosen {
            let needed = format!("groups of at least {chosen} experts");
            return Err(h.invalid(Refusal::GroupExperts, CHOSEN_GROUPS, needed));
        }
        Ok((kept < count).then_some(Groups { count, chosen: kept, judged_by: self.groups }))
    }
}

/// Refuses more than kernels have room for.
fn within(h: &Hparams, key: Key, found: usize, most: usize) -> Result<(), FrontendError> {
    if found > most {
        return Err(h.unsupported(Refusal::ExpertLimit, key, format!("up to {most} are built")));
    }
    Ok(())
}

/// Which layers have a mixture: in a GGUF those with experts, in a folder those that its keys do not leave out. `first`
/// counts dense layers at the start, `step` tells that only every so many layers is one, `dense` lists dense ones.
pub(super) fn layers(
    loaded: &Loaded,
    count: usize,
    first: usize,
    step: usize,
    dense: Key,
) -> Result<Vec<bool>, FrontendError> {
    if loaded.hparams.dialect == Dialect::Gguf {
        return Ok((0..count).map(|layer| loaded.tensors.has_experts(layer)).collect());
    }
    let h = &loaded.hparams;
    let listed = match h.get(dense) {
        None => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(integer).collect(),
        Some(_) => vec![None],
    };
    if listed.contains(&None) {
        return Err(h.invalid(Refusal::DenseLayers, dense, "a list of layers"));
    }
    let is_mixture =
        |layer: usize| layer >= first && (layer + 1).is_multiple_of(step) && !listed.contains(&Some(layer as i64));
    Ok((0..count).map(is_mixture).collect())
}

/// Name of a layer, by whether it has a mixture, where some have and some have not.
pub(super) fn layer_name(mixtures: &[bool], layer: usize) -> &'static str {
    if mixtures[layer] || !mixtures.contains(&true) { "layer" } else { "dense_layer" }
}

impl Mixture {
    /// From the normalised input to the sum of what the experts make of it.
    pub fn add(&self, b: &mut BlockBuilder, input: ValueId) -> ValueId {
        self.add_with(b, input, false)
    }

    /// The same where the router and the experts have biases, if `biases`.
    pub fn add_with(&self, b: &mut BlockBuilder, input: ValueId, biases: bool) -> ValueId {
        let hidden = b.width(input);
        let logits = b.linear("router_logits", "router", input, self.routing.experts, biases);
        let weights = b.route("expert_weights", "selection", logits, self.routing, self.selection_bias);
        let routed = b.experts("routed", input, weights, self.width, self.activation, biases);
        let Some(Shared { width, gated }) = self.shared else { return routed };
        let gate = b.linear("shared_gate", "shared_gate", input, width, false);
        let up = b.linear("shared_up", "shared_up", input, width, false);
        let ffn = b.gated("shared_ffn", gate, up, self.activation);
        let mut shared = b.linear("shared_out", "shared_down", ffn, hidden, false);
        if gated {
            let gate = b.linear("shared_expert_gate", "shared_router", input, 1, false);
            shared = b.sigmoid_gate("shared_gated", shared, gate);
        }
        b.add("experts_out", routed, shared)
    }
}

/// The graph of a model whose layers are alike but for their feed-forward: a mixture, or in those that `mixtures` leaves out a
/// gated one. Its head is tied or not.
pub(super) fn graph(
    loaded: &Loaded,
    sizes: &Sizes,
    attention: &AttentionSpec,
    (mixture, mixtures): (&Mixture, &[bool]),
    tied: bool,
) -> Result<Graph, FrontendError> {
    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, sizes);
    let embed = graph.stage(dense::embed(sizes, 1.0), tied)?;
    for layer in 0..sizes.layers {
        let name = layer_name(mixtures, layer);
        let block = match mixtures[layer] {
            true => dense::pre_norm_layer_with(name, sizes, attention, 1.0, |b, input| mixture.add(b, input)),
            false => dense::pre_norm_layer(name, sizes, attention, (mixture.activation, false), 1.0),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
