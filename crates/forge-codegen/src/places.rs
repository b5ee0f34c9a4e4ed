//! Names and comments of buffers in emitted sources.

use forge_plan::Plan;
use forge_plan::plan::{Arg, FieldId, Place, SamplerBuffer};

/// The field's name.
pub fn name(place: Place) -> &'static str {
    match place {
        Place::Stream => "x",
        Place::Scaled => "scaled",
        Place::Sums => "sums",
        Place::Normed => "normed",
        Place::Qkv => "qkv",
        Place::QueryLatent => "q_latent",
        Place::HeadQueries => "q_heads",
        Place::Queries => "q",
        Place::HeadKeys => "keys",
        Place::HeadValues => "values",
        Place::Attention => "attn",
        Place::AttentionLatents => "attn_latents",
        Place::AttentionParts => "attn_parts",
        Place::Gated => "act",
        Place::MixerInput => "mixer_in",
        Place::Mixed => "mixed",
        Place::LayerInputs => "layer_inputs",
        Place::LayerModel => "per_layer_model",
        Place::LayerGate => "per_layer_gate",
        Place::Projected => "projected",
        Place::ProjectedSums => "projected_sums",
        Place::InputScales => "input_scales",
        Place::Branch => "dense_out",
        Place::Threadgroups => "threadgroups",
        Place::RouterLogits => "router_logits",
        Place::Experts => "experts",
        Place::ExpertWeights => "expert_weights",
        Place::Pairs => "pairs",
        Place::Tiles => "tiles",
        Place::ExpertResults => "expert_results",
    }
}

/// What it holds.
pub fn comment(place: Place) -> &'static str {
    match place {
        Place::Stream => "the residual stream",
        Place::Scaled => "x times the next norm's gamma",
        Place::Sums => "partial sums of x^2",
        Place::Normed => "the normed residual stream",
        Place::Qkv => "queries, keys and values, before RoPE",
        Place::QueryLatent => "the normed latent of queries",
        Place::HeadQueries => "queries made of it, before RoPE",
        Place::Queries => "queries after RoPE",
        Place::HeadKeys => "keys of all heads, made of latents",
        Place::HeadValues => "values of all heads, made of latents",
        Place::Attention => "attention's result",
        Place::AttentionLatents => "a latent for each head, of which its result is made",
        Place::AttentionParts => "attention's results by part of the context",
        Place::Gated => "the gated activation",
        Place::MixerInput => "what a recurrent step works on",
        Place::Mixed => "what it leaves",
        Place::LayerInputs => "every layer's own input",
        Place::LayerModel => "the embedding projected to the layers' own inputs",
        Place::LayerGate => "a layer's own input, gated",
        Place::Projected => "a projection before its norm",
        Place::ProjectedSums => "partial sums of its squares",
        Place::InputScales => "powers of two that take rows into the range of halves",
        Place::Branch => "the dense feed-forward beside experts, before its norm",
        Place::RouterLogits => "the router's logits",
        Place::Experts => "each row's experts",
        Place::ExpertWeights => "their weights",
        Place::Pairs => "rows and experts, in order of the experts",
        Place::Tiles => "tiles of those: expert, first pair, pairs",
        Place::ExpertResults => "the results of each row's experts",
        Place::Threadgroups => "threadgroups of indirect dispatches, three words each",
    }
}

/// The field's name of a buffer of the sampler.
pub fn sampler(buffer: SamplerBuffer) -> &'static str {
    match buffer {
        SamplerBuffer::Seen => "seen",
        SamplerBuffer::LogitBias => "logit_bias",
        SamplerBuffer::Times => "times",
        SamplerBuffer::Allowed => "allowed",
        SamplerBuffer::Best => "best",
        SamplerBuffer::Count => "count",
        SamplerBuffer::Candidates => "candidates",
        SamplerBuffer::NextToken => "next_token",
    }
}

/// What an argument of a step stands for where `layer` runs it: a tensor of the weights file (`layers.0.qkv_proj`), a part of a state
/// by its number in [`Plan::states`] (`states.0.keys`), or a buffer as the project's sources call it (`x`).
pub fn argument(plan: &Plan, arg: Arg, layer: Option<usize>) -> String {
    let of_layer = |layer: usize, field: FieldId| format!("layers.{layer}.{}", plan.layer_fields[field].name);
    let own = layer.unwrap_or(0);
    let state = |slot: usize, part: &str| format!("states.{}.{part}", plan.layers[own].states[slot]);
    match arg {
        Arg::Layer(field) => of_layer(own, field),
        Arg::Model(field) => plan.model_fields[field].name.clone(),
        Arg::NextGamma => {
            let next = layer.map_or(0, |layer| layer + 1);
            match plan.first_norm {
                Some(norm) if next < plan.layers.len() => of_layer(next, norm),
                _ => plan.model_fields[plan.final_norm].name.clone(),
            }
        }
        Arg::Keys(slot) => state(slot, "keys"),
        Arg::Values(slot) => state(slot, "values"),
        Arg::Latents(slot) => state(slot, "latents"),
        Arg::State(slot) => state(slot, "state"),
        Arg::Buffer(place) | Arg::LayerPart { place, .. } => name(place).to_owned(),
        Arg::Params => "step".to_owned(),
        Arg::Logits => "logits".to_owned(),
        Arg::Sampler(buffer) => format!("sampler.{}", sampler(buffer)),
        Arg::Chosen => "chosen".to_owned(),
    }
}
