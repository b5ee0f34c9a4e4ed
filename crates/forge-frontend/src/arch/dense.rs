//! The parts that dense decoders share: sizes, attention, gated feed-forward, embedding and head.

use serde_json::Value;

use super::builder::{BlockBuilder, GraphBuilder};
use crate::config::ModelConfig;
use crate::graph::{Activation, Attention, Block, KvSpec, PositionScale, Rope, StateSpec, ValueId};
use crate::source::{Dialect, Hparams, Key, Loaded, Part, integer, key};
use crate::{FrontendError, Refusal};

const WINDOW_PATTERN: Key = Key::new("attention.sliding_window_pattern", "sliding_window_pattern");

/// The sizes that every dense decoder has, validated.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    pub layers: usize,
    pub context: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub eps: f32,
}

impl Sizes {
    /// # Errors
    /// A key is missing or out of range, or a product that must divide does not.
    pub fn read(loaded: &Loaded) -> Result<Self, FrontendError> {
        Self::read_normed(loaded, key::EPS)
    }

    /// As [`Sizes::read`], with the norms' epsilon under a key of its own.
    pub fn read_normed(loaded: &Loaded, eps: Key) -> Result<Self, FrontendError> {
        Self::read_all(loaded, loaded.hparams.usize(key::INTERMEDIATE)?, None, eps)
    }

    /// As [`Sizes::read`], with the feed-forward width given, and the key/value heads where they are.
    pub fn read_with(loaded: &Loaded, intermediate: usize, kv_heads: Option<usize>) -> Result<Self, FrontendError> {
        Self::read_all(loaded, intermediate, kv_heads, key::EPS)
    }

    /// All of it given.
    pub fn read_all(
        loaded: &Loaded,
        intermediate: usize,
        kv_heads: Option<usize>,
        eps_key: Key,
    ) -> Result<Self, FrontendError> {
        let h = &loaded.hparams;
        let hidden = h.usize(key::HIDDEN)?;
        let heads = h.usize(key::HEADS)?;
        let kv_heads = match kv_heads {
            Some(kv_heads) => kv_heads,
            None => h.opt_usize(key::KV_HEADS)?.unwrap_or(heads),
        };
        h.divides(Refusal::HeadGroups, (key::HEADS, heads), (key::KV_HEADS, kv_heads))?;
        let head_dim = match h.opt_usize(key::HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None => {
                h.divides(Refusal::HeadWidth, (key::HIDDEN, hidden), (key::HEADS, heads))?;
                hidden / heads
            }
        };
        if !head_dim.is_multiple_of(2) {
            return Err(FrontendError::KeyValue {
                refusal: Refusal::OddHead,
                file: h.file.clone(),
                key: h.spelling(key::HEAD_DIM),
                expected: "an even size".to_owned(),
                found: head_dim.to_string(),
            });
        }
        if let Some(value_dim) = h.opt_usize(key::VALUE_DIM)?
            && value_dim != head_dim
        {
            return Err(h.unsupported(
                Refusal::ValueWidth,
                key::VALUE_DIM,
                format!("keys have {head_dim} elements per head and values must have as many"),
            ));
        }
        Self::of_heads(loaded, intermediate, [heads, kv_heads, head_dim], eps_key)
    }

    /// All but the heads' numbers and width, which are given.
    pub fn of_heads(
        loaded: &Loaded,
        intermediate: usize,
        [heads, kv_heads, head_dim]: [usize; 3],
        eps_key: Key,
    ) -> Result<Self, FrontendError> {
        let h = &loaded.hparams;
        let layers = layer_count(loaded)?;
        let hidden = h.usize(key::HIDDEN)?;
        let vocab = loaded.tensors.vocab_rows()?;
        if let Some(stated) = h.opt_usize(key::VOCAB)?
            && stated != vocab
        {
            return Err(h.invalid(
                Refusal::VocabRows,
                key::VOCAB,
                format!("{vocab}, the rows of {}", loaded.tensors.name("token_embd", None)),
            ));
        }
        let eps = h.f32(eps_key)?;
        if !(0.0..1.0).contains(&eps) {
            return Err(h.invalid(Refusal::Epsilon, eps_key, "a small positive number"));
        }
        Ok(Self {
            layers,
            context: h.usize(key::CONTEXT)?,
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            vocab,
            eps,
        })
    }

    pub fn config(&self, loaded: &Loaded) -> ModelConfig {
        ModelConfig {
            architecture: loaded.architecture.clone(),
            name: printable(&loaded.name),
            hidden_size: self.hidden,
            intermediate_size: self.intermediate,
            num_layers: self.layers,
            num_heads: self.heads,
            num_kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            vocab_size: self.vocab,
            trained_context: self.context,
        }
    }

    /// `1 / sqrt(head_dim)`.
    pub fn attention_scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }

    pub fn state(&self, window: Option<usize>) -> KvSpec {
        KvSpec { kv_heads: self.kv_heads, head_dim: self.head_dim, window }
    }
}

/// The number of layers. Every layer has tensors, so a damaged number is found before anything is made for each layer. The
/// last blocks of a GGUF may be for guessing further tokens (llama.cpp's "NextN"): they count, and are passed over.
pub(crate) fn layer_count(loaded: &Loaded) -> Result<usize, FrontendError> {
    let (blocks, tensors) = (loaded.hparams.usize(key::LAYERS)?, loaded.tensors.entries.len());
    let layers = blocks.saturating_sub(loaded.trailing_blocks()?);
    if layers > tensors {
        return Err(loaded.hparams.invalid(
            Refusal::LayerCount,
            key::LAYERS,
            format!("at most as many as the {tensors} tensors"),
        ));
    }
    Ok(layers)
}

/// A name as it may be shown on a terminal: on one line, without escape sequences, not endless.
fn printable(name: &str) -> String {
    const LONGEST: usize = 200;
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// Normalisation of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum QkNorm {
    None,
    /// Each head by itself (Qwen3, Gemma 3).
    Heads,
    /// The same without weights (Muse Glimmer).
    BareHeads,
    /// The same with weights, after the rotation (Hunyuan).
    RotatedHeads,
    /// All heads together (OLMo 2).
    Whole,
}

/// What an attention layer does between its input and its output projection.
#[derive(Debug, Clone)]
pub(crate) struct AttentionSpec {
    pub heads: usize,
    pub state: KvSpec,
    pub rope: Option<Rope>,
    pub attention: Attention,
    pub qk_norm: QkNorm,
    pub eps: f32,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has one.
    pub output_bias: bool,
}

/// Queries, keys and values as their projections leave them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Qkv {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    /// Gates of what attention results in.
    gate: Option<ValueId>,
}

/// Attention from its normalised input to the result of the output projection, `hidden` wide.
pub(crate) fn attention(b: &mut BlockBuilder, input: ValueId, hidden: usize, spec: &AttentionSpec) -> ValueId {
    let qkv = qkv(b, input, spec);
    attend(b, qkv, hidden, spec)
}

/// The projections that attention begins with.
pub(crate) fn qkv(b: &mut BlockBuilder, input: ValueId, spec: &AttentionSpec) -> Qkv {
    let head_dim = spec.state.head_dim;
    let kv_width = spec.state.kv_heads * head_dim;
    let q = b.linear("q", "attn_q", input, spec.heads * head_dim, spec.qkv_bias);
    let k = b.linear("k", "attn_k", input, kv_width, spec.qkv_bias);
    let v = b.linear("v", "attn_v", input, kv_width, spec.qkv_bias);
    Qkv { q, k, v, gate: None }
}

/// Attention whose result is gated; the queries' projection gives each head's gates after its queries.
pub(crate) fn gated_attention(b: &mut BlockBuilder, input: ValueId, hidden: usize, spec: &AttentionSpec) -> ValueId {
    let head_dim = spec.state.head_dim;
    let kv_width = spec.state.kv_heads * head_dim;
    let both = b.linear("q_and_gate", "attn_q", input, 2 * spec.heads * head_dim, spec.qkv_bias);
    let k = b.linear("k", "attn_k", input, kv_width, spec.qkv_bias);
    let v = b.linear("v", "attn_v", input, kv_width, spec.qkv_bias);
    let q = b.head_half("q", both, head_dim, false);
    let gate = b.head_half("gate", both, head_dim, true);
    attend(b, Qkv { q, k, v, gate: Some(gate) }, hidden, spec)
}

/// Attention whose result is gated, by a projection of its own.
pub(crate) fn attention_gated_apart(
    b: &mut BlockBuilder,
    input: ValueId,
    hidden: usize,
    spec: &AttentionSpec,
) -> ValueId {
    let qkv = qkv(b, input, spec);
    let gate = b.linear("attn_gate", "attn_gate", input, spec.heads * spec.state.head_dim, false);
    attend(b, Qkv { gate: Some(gate), ..qkv }, hidden, spec)
}

/// What follows them, to the result of the output projection.
pub(crate) fn attend(b: &mut BlockBuilder, qkv: Qkv, hidden: usize, spec: &AttentionSpec) -> ValueId {
    attend_scaled(b, qkv, hidden, spec, None)
}

/// The same with a factor on the queries that grows with their position.
pub(crate) fn attend_scaled(
    b: &mut BlockBuilder,
    qkv: Qkv,
    hidden: usize,
    spec: &AttentionSpec,
    query_scale: Option<PositionScale>,
) -> ValueId {
    attend_as(b, qkv, hidden, spec, query_scale, &[])
}

/// Attention in which each head has these numbers of its own, by argument and role of the weights.
pub(crate) fn attention_with(
    b: &mut BlockBuilder,
    input: ValueId,
    hidden: usize,
    spec: &AttentionSpec,
    per_head: &[(forge_spec::Role, &str)],
) -> ValueId {
    let qkv = qkv(b, input, spec);
    attend_as(b, qkv, hidden, spec, None, per_head)
}

fn attend_as(
    b: &mut BlockBuilder,
    qkv: Qkv,
    hidden: usize,
    spec: &AttentionSpec,
    query_scale: Option<PositionScale>,
    per_head: &[(forge_spec::Role, &str)],
) -> ValueId {
    let head_dim = spec.state.head_dim;
    let Qkv { mut q, mut k, v, gate } = qkv;
    match spec.qk_norm {
        QkNorm::None | QkNorm::RotatedHeads => {}
        QkNorm::Heads | QkNorm::BareHeads => (q, k) = head_norms(b, q, k, spec),
        QkNorm::Whole => {
            q = b.rms_norm("q_normed", "attn_q_norm", q, spec.eps);
            k = b.rms_norm("k_normed", "attn_k_norm", k, spec.eps);
        }
    }
    if let Some(rope) = &spec.rope {
        q = b.rope("q_rope", q, head_dim, rope);
        k = b.rope("k_rope", k, head_dim, rope);
    }
    if spec.qk_norm == QkNorm::RotatedHeads {
        (q, k) = head_norms(b, q, k, spec);
    }
    q = b.position_scale("q_scaled", q, query_scale);
    let state = b.state(StateSpec::Kv(spec.state));
    b.kv_append(state, k, v);
    let mut attn = b.attention("attn", q, state, spec.heads, spec.attention, per_head);
    if let Some(gate) = gate {
        attn = b.sigmoid_gate("attn_gated", attn, gate);
    }
    b.linear("attn_out", "attn_output", attn, hidden, spec.output_bias)
}

/// Norms of each head of queries and keys.
fn head_norms(b: &mut BlockBuilder, q: ValueId, k: ValueId, spec: &AttentionSpec) -> (ValueId, ValueId) {
    let head_dim = spec.state.head_dim;
    let role = |role| Some(role).filter(|_| spec.qk_norm != QkNorm::BareHeads);
    let q = b.head_norm("q_normed", role("attn_q_norm"), q, head_dim, spec.eps);
    let k = b.head_norm("k_normed", role("attn_k_norm"), k, head_dim, spec.eps);
    (q, k)
}

/// Gated feed-forward from its normalised input to the result of the down projection, `hidden` wide.
pub(crate) fn feed_forward(
    b: &mut BlockBuilder,
    input: ValueId,
    hidden: usize,
    intermediate: usize,
    activation: Activation,
    bias: bool,
) -> ValueId {
    let ffn = gated(b, input, intermediate, activation, bias);
    b.linear("ffn_out", "ffn_down", ffn, hidden, bias)
}

/// The two projections of a gated feed-forward and their product.
pub(crate) fn gated(
    b: &mut BlockBuilder,
    input: ValueId,
    intermediate: usize,
    activation: Activation,
    bias: bool,
) -> ValueId {
    let gate = b.linear("gate", "ffn_gate", input, intermediate, bias);
    let up = b.linear("up", "ffn_up", input, intermediate, bias);
    b.gated("ffn", gate, up, activation)
}

/// The embedding stage: row `token` of the table, times `scale`.
pub(crate) fn embed(sizes: &Sizes, scale: f32) -> Block {
    let mut b = BlockBuilder::new("embed");
    let x = b.embedding("x", "token_embd", sizes.vocab, sizes.hidden, scale);
    b.finish(x)
}

/// The head: final norm, projection to the vocabulary, a soft-cap where the model has one.
pub(crate) fn head(sizes: &Sizes, cap: Option<f32>) -> Block {
    head_normed_by(sizes, "output_norm", cap)
}

/// The same with the final norm in `norm`.
pub(crate) fn head_normed_by(sizes: &Sizes, norm: &str, cap: Option<f32>) -> Block {
    let mut b = BlockBuilder::new("head");
    let x = b.input("x", sizes.hidden);
    let normed = b.rms_norm("normed", norm, x, sizes.eps);
    let mut logits = b.linear("logits", "output", normed, sizes.vocab, false);
    logits = b.soft_cap("capped_logits", logits, cap);
    b.finish(logits)
}

/// Whether the head uses the embedding table. A GGUF leaves `output` out; a config.json says so, and its
/// architecture's `default` counts where it does not.
pub(crate) fn tied(loaded: &Loaded, default: bool) -> Result<bool, FrontendError> {
    let stored = loaded.tensors.has("output", None);
    if loaded.hparams.dialect == Dialect::Gguf {
        return Ok(!stored);
    }
    let tied = loaded.hparams.opt_bool(key::TIED)?.unwrap_or(default);
    if tied && stored {
        let name = loaded.tensors.name("output", None);
        loaded.tensors.ignore(|tensor| tensor == name);
    }
    Ok(tied)
}

/// Whether a role has a bias: what config.json says, else whether the first layer's tensor is there.
pub(crate) fn has_bias(loaded: &Loaded, said_by: Key, role: &str) -> Result<bool, FrontendError> {
    let said = loaded.hparams.opt_bool(said_by)?;
    Ok(said.unwrap_or_else(|| loaded.tensors.has(&format!("{role}_bias"), Some(0))))
}

/// The parts of a fused `attn_qkv`, weights and biases, where the checkpoint has one: GGUFs of any architecture may.
pub(crate) fn fused_qkv(loaded: &Loaded, sizes: &Sizes) -> Vec<Part> {
    if !loaded.tensors.has("attn_qkv", Some(0)) {
        return Vec::new();
    }
    let (q_rows, kv_rows) = (sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
    let part = |role, of, first_row| Part::run(role, of, first_row, q_rows + 2 * kv_rows);
    vec![
        part("attn_q", "attn_qkv", 0),
        part("attn_k", "attn_qkv", q_rows),
        part("attn_v", "attn_qkv", q_rows + kv_rows),
        part("attn_q_bias", "attn_qkv_bias", 0),
        part("attn_k_bias", "attn_qkv_bias", q_rows),
        part("attn_v_bias", "attn_qkv_bias", q_rows + kv_rows),
    ]
}

/// As [`has_bias`], of q, k and v, each by itself or fused.
pub(crate) fn has_qkv_bias(loaded: &Loaded, said_by: Key) -> Result<bool, FrontendError> {
    let fused = loaded.tensors.has("attn_qkv", Some(0));
    has_bias(loaded, said_by, if fused { "attn_qkv" } else { "attn_q" })
}

/// The feed-forward's non-linearity by config.json's name for it; `default` for a GGUF, which has no key for it.
pub(crate) fn activation(h: &Hparams, key: Key, default: Activation) -> Result<Activation, FrontendError> {
    match h.opt_str(key)? {
        None => Ok(default),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some("relu2") => Ok(Activation::ReluSquared),
        // What takes numbers of the layer has an architecture of its own.
        Some("xielu") if default == Activation::Xielu => Ok(default),
        Some(_) => {
            Err(h.unsupported(Refusal::Activation, key, "the activations are silu, gelu_pytorch_tanh and relu2"))
        }
    }
}

/// Which layers see a window. config.json lists the layers' types; a GGUF has a period or a list of flags; `default`
/// tells where neither does.
pub(crate) fn sliding_layers(
    loaded: &Loaded,
    layers: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, FrontendError> {
    let h = &loaded.hparams;
    let pattern = [key::LAYER_TYPES, WINDOW_PATTERN].into_iter().find(|&key| h.get(key).is_some());
    let Some(key) = pattern else { return Ok((0..layers).map(default).collect()) };
    // EXAONE's way of writing a period.
    if let Some(Value::String(letters)) = h.get(key)
        && !letters.is_empty()
        && letters.bytes().all(|letter| b"LG".contains(&letter))
    {
        return Ok(letters.bytes().cycle().take(layers).map(|letter| letter == b'L').collect());
    }
    let one_each = || h.invalid(Refusal::LayerKinds, key, format!("an array of {layers}, one per layer"));
    let kind = |value: &Value| match value {
        Value::Bool(sliding) => Ok(*sliding),
        Value::Number(_) => Ok(integer(value) != Some(0)),
        Value::String(name) if name == "sliding_attention" => Ok(true),
        Value::String(name) if name == "full_attention" => Ok(false),
        _ => Err(h.unsupported(Refusal::LayerKind, key, "layers are sliding_attention or full_attention")),
    };
    match h.get(key) {
        Some(Value::Array(kinds)) if kinds.len() == layers => kinds.iter().map(kind).collect(),
        Some(Value::Number(_)) => {
            let period = h.usize(key)?;
            Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(period)).collect())
        }
        _ => Err(one_each()),
    }
}

/// Names of the two kinds of layer of a model with windows; of a model with one kind, `layer`.
pub(crate) fn layer_name(sliding: &[bool], layer: usize) -> &'static str {
    match (sliding.contains(&true) && sliding.contains(&false), sliding[layer]) {
        (false, _) => "layer",
        (true, true) => "sliding_layer",
        (true, false) => "global_layer",
    }
}

/// A pre-norm layer: `x + attention(norm(x))`, then `x + ffn(norm(x))`, each branch times `residual`. The feed-forward is
/// gated, by this activation and with biases or not.
pub(crate) fn pre_norm_layer(
    name: &str,
    sizes: &Sizes,
    spec: &AttentionSpec,
    ffn: (Activation, bool),
    residual: f32,
) -> Block {
    pre_norm_layer_with(name, sizes, spec, residual, |b, input| {
        feed_forward(b, input, sizes.hidden, sizes.intermediate, ffn.0, ffn.1)
    })
}

/// The same with a feed-forward that `ffn` adds, from its normalised input to a result of its width.
pub(crate) fn pre_norm_layer_with(
    name: &str,
    sizes: &Sizes,
    spec: &AttentionSpec,
    residual: f32,
    ffn: impl FnOnce(&mut BlockBuilder, ValueId) -> ValueId,
) -> Block {
    pre_norm_branches(name, sizes, residual, |b, input| attention(b, input, sizes.hidden, spec), ffn)
}

/// The same with attention that `attend` adds.
pub(crate) fn pre_norm_branches(
    name: &str,
    sizes: &Sizes,
    residual: f32,
    attend: impl FnOnce(&mut BlockBuilder, ValueId) -> ValueId,
    ffn: impl FnOnce(&mut BlockBuilder, ValueId) -> ValueId,
) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let attn_in = b.rms_norm("attn_in", "attn_norm", x, sizes.eps);
    let mut attn = attend(&mut b, attn_in);
    attn = b.scale("attn_scaled", attn, residual);
    let x = b.add("x_attn", x, attn);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, sizes.eps);
    let mut out = ffn(&mut b, ffn_in);
    out = b.scale("ffn_scaled", out, residual);
    let x = b.add("x_ffn", x, out);
    b.finish(x)
}

/// A layer with norms after its branches: `x + norm(attention(x))`, then `x + norm(ffn(x))`.
pub(crate) fn post_norm_layer(name: &str, sizes: &Sizes, spec: &AttentionSpec, activation: Activation) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let attn = attention(&mut b, x, sizes.hidden, spec);
    let attn = b.rms_norm("attn_normed", "post_attn_norm", attn, sizes.eps);
    let x = b.add("x_attn", x, attn);
    let ffn = feed_forward(&mut b, x, sizes.hidden, sizes.intermediate, activation, false);
    let ffn = b.rms_norm("ffn_normed", "post_ffn_norm", ffn, sizes.eps);
    let x = b.add("x_ffn", x, ffn);
    b.finish(x)
}

/// A layer with a norm before and after each branch.
pub(crate) fn sandwich_layer(name: &str, sizes: &Sizes, spec: &AttentionSpec, activation: Activation) -> Block {
    let attend = |b: &mut BlockBuilder, input| attention(b, input, sizes.hidden, spec);
    sandwich_layer_with(name, sizes, sizes.eps, activation, attend)
}

/// The same with attention that `attend` adds, and norms after branches with an epsilon of their own.
pub(crate) fn sandwich_layer_with(
    name: &str,
    sizes: &Sizes,
    post_eps: f32,
    activation: Activation,
    attend: impl FnOnce(&mut BlockBuilder, ValueId) -> ValueId,
) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let attn_in = b.rms_norm("attn_in", "attn_norm", x, sizes.eps);
    let attn = attend(&mut b, attn_in);
    let attn = b.rms_norm("attn_normed", "post_attn_norm", attn, post_eps);
    let x = b.add("x_attn", x, attn);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, sizes.eps);
    let ffn = feed_forward(&mut b, ffn_in, sizes.hidden, sizes.intermediate, activation, false);
    let ffn = b.rms_norm("ffn_normed", "post_ffn_norm", ffn, post_eps);
    let x = b.add("x_ffn", x, ffn);
    b.finish(x)
}

/// Adds a layer with a KV cache of its own.
pub(crate) fn add_layer(graph: &mut GraphBuilder<'_>, block: Block) -> Result<(), FrontendError> {
    let states = block.state_slots.iter().map(|&spec| graph.state(spec)).collect();
    graph.layer(block, states)
}
