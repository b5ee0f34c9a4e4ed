//! The view of `src/model.rs`.

use askama::Template;
use forge_plan::attention::{PART_POSITIONS, UNSPLIT_POSITIONS};
use forge_plan::binding::Element;
use forge_plan::families::FEW_TOKENS;
use forge_plan::memory;
use forge_plan::plan::{Arg, BufferPlan, CacheType, Field, StatePlan, When};
use forge_plan::{Family, Kernel, Plan};

use crate::naming::{constant, grouped, identifier, model_identifier, plain, variant, wrap};
use crate::places;
use crate::steps::{StepView, block_splits, grids_differ, prefill_dispatches, sees, signature, splits, steps};

/// Most tokens in a tile whose every row gets logits.
const LOGITS_TILE: usize = 64;
/// Context that is allocated unless the user asks for another.
const DEFAULT_CONTEXT: usize = 8192;
/// Width of emitted lines.
pub(crate) const LINE: usize = 120;

/// `src/model.rs`.
#[derive(Template)]
#[template(path = "project/model.rs")]
pub struct ModelFile<'a> {
    pub title: String,
    pub version: &'static str,
    pub source: &'a str,
    pub name: &'a str,
    pub architecture: String,
    pub layers: usize,
    pub hidden: String,
    pub vocab: String,
    pub context: String,
    pub default_context: String,
    pub prefill_tile: usize,
    pub logits_tile: usize,
    pub few_rows: usize,
    pub slots: usize,
    /// Whether a projection's kernels for one row and for several have different grids.
    pub grids_by_rows: bool,
    /// Positions by which a sequence can be cut back, as a Rust expression.
    pub rewind: String,
    pub prefill_layers: usize,
    pub parameters: String,
    pub weights_bytes: String,
    pub weights_header_sha256: String,
    pub kv_bytes_per_token: String,
    pub activation_bytes: String,
    pub activation_bytes_per_token: String,
    pub recurrent_bytes: String,
    pub kv: &'static str,
    pub decode_dispatches: usize,
    pub kernels: Vec<KernelRow>,
    pub tables: Vec<TableRow>,
    pub blocks: Vec<BlockView>,
    pub block_lines: Vec<String>,
    pub layer_fields: Vec<FieldView>,
    /// Whether some of those are only in some of the layers.
    pub optional_fields: bool,
    pub model_fields: Vec<FieldView>,
    pub decode_buffers: Vec<BufferView>,
    pub prefill_buffers: Vec<BufferView>,
    pub caches: usize,
    pub cache_lines: Vec<String>,
    pub cache_of_layer: Vec<String>,
    pub latents: usize,
    pub latent_lines: Vec<String>,
    pub latents_of_layer: Vec<String>,
    pub recurrent: usize,
    pub recurrent_lines: Vec<String>,
    pub state_of_layer: Vec<String>,
    /// Whether a step of a decoded token prepares the norm that follows its block.
    pub next_gamma: bool,
    pub first_norm: Option<String>,
    pub final_norm: String,
    pub decode_embed: Vec<StepView>,
    pub decode_head: Vec<StepView>,
    pub splits: bool,
    pub encode_signature: String,
    pub unsplit_positions: usize,
    pub part_positions: usize,
    pub max_parts: usize,
    pub decode_sample: Vec<StepView>,
    pub sample_groups: usize,
    /// Words of the buffer for their best keys and ids.
    pub sample_words: usize,
    pub prefill_embed: Vec<StepView>,
    /// Elements of a layer's part of the layers' own inputs; none where layers have none.
    pub layer_input: Option<usize>,
    pub prefill_head: Vec<StepView>,
    /// The last layer that writes a state; none where tiles run to their end in any case.
    /// Whether tiles need to know how many positions they see.
    pub sees: bool,
    pub last_state: Option<usize>,
}

pub struct KernelRow {
    pub constant: String,
    pub name: String,
    pub threads: u32,
    pub threadgroup_bytes: u32,
}

pub struct TableRow {
    pub name: String,
    pub lines: Vec<String>,
}

pub struct BlockView {
    pub name: String,
    pub variant: String,
    pub title: String,
    pub caches: Vec<CacheView>,
    pub decode: Vec<StepView>,
    pub decode_dispatches: usize,
    /// Whether its attention splits long contexts.
    pub splits: bool,
    pub split_dispatches: usize,
    pub decode_signature: String,
    pub prefill: Vec<StepView>,
    /// Dispatches of a tile: of how many rows each way.
    pub prefill_dispatches: String,
    /// Whether its tiles need to know how many positions they see.
    pub sees: bool,
    /// Whether a tile whose logits nobody asks for ends within it.
    pub ends: bool,
}

pub struct CacheView {
    pub name: String,
    /// The model's field.
    pub of: &'static str,
    pub index: String,
}

pub struct FieldView {
    pub name: String,
    /// The tensor's name within its layer or the model, as a Rust literal.
    pub tensor: String,
    pub comment: String,
    /// Whether only some of the layers have it.
    pub optional: bool,
}

pub struct BufferView {
    pub name: String,
    pub width: usize,
    /// Bytes of each position that it holds, where it does not hold rows.
    pub position_bytes: Option<usize>,
    pub element: &'static str,
    pub comment: String,
}

/// What the plan does not know: names and the packed file.
pub struct Facts<'a> {
    pub title: String,
    pub source: &'a str,
    pub name: &'a str,
    pub parameters: u64,
    pub weights_bytes: u64,
    pub weights_header_sha256: String,
}

impl<'a> ModelFile<'a> {
    /// The view of a plan.
    pub fn new(plan: &'a Plan, facts: Facts<'a>) -> Self {
        let (prefill_embed, prefill_head) = (steps(plan, plan.prefill.embed()), steps(plan, plan.prefill.head()));
        let table = |name: String, items: Vec<String>| TableRow { name, lines: wrap(items, LINE - 4) };
        ModelFile {
            version: env!("CARGO_PKG_VERSION"),
            title: facts.title,
            source: facts.source,
            name: facts.name,
            architecture: plain(&plan.config.architecture),
            layers: plan.layers.len(),
            hidden: grouped(plan.config.hidden_size as u64),
            vocab: grouped(plan.config.vocab_size as u64),
            context: grouped(plan.context as u64),
            default_context: grouped(plan.context.min(DEFAULT_CONTEXT) as u64),
            prefill_tile: plan.prefill_tile,
            logits_tile: LOGITS_TILE.min(plan.prefill_tile),
            few_rows: FEW_TOKENS,
            slots: plan.slots,
            rewind: memory::rewind(plan).map_or_else(|| "None".to_owned(), |count| format!("Some({count})")),
            prefill_layers: plan.prefill_layers,
            parameters: grouped(facts.parameters),
            weights_bytes: grouped(facts.weights_bytes),
            weights_header_sha256: facts.weights_header_sha256,
            kv_bytes_per_token: grouped(memory::kv_bytes_per_token(plan)),
            activation_bytes: grouped(memory::activation_bytes(plan) + memory::windowed_bytes(plan)),
            activation_bytes_per_token: grouped(memory::activation_bytes_per_token(plan)),
            recurrent_bytes: grouped(memory::recurrent_bytes(plan)),
            kv: plan.kv.name(),
            decode_dispatches: decode_dispatches(plan),
            kernels: plan.kernels.iter().map(KernelRow::new).collect(),
            tables: plan
                .tables
                .iter()
                .map(|t| {
                    let items = t.kernels.iter().map(|&id| format!("kernel::{}", constant(&plan.kernels[id].name)));
                    table(constant(&t.name), items.collect())
                })
                .collect(),
            blocks: blocks(plan),
            block_lines: wrap(
                plan.layers.iter().map(|layer| format!("Block::{}", variant(&plan.blocks[layer.block]))),
                LINE - 4,
            ),
            layer_fields: fields(by_slot(&plan.layer_fields), identifier),
            optional_fields: plan.layer_fields.iter().any(|field| field.optional),
            model_fields: fields(&plan.model_fields, model_identifier),
            decode_buffers: buffers(&plan.decode_buffers, plan.kv),
            prefill_buffers: buffers(&plan.prefill_buffers, plan.kv),
            caches: plan.states.iter().filter_map(StatePlan::kv).count(),
            cache_lines: wrap(
                plan.states.iter().filter_map(StatePlan::kv).map(|cache| {
                    let capacity = cache.capacity.map_or_else(|| "CONTEXT".to_owned(), |c| c.to_string());
                    format!("({}, {capacity})", cache.position_stride(plan.kv))
                }),
                LINE - 4,
            ),
            cache_of_layer: of_layers(plan, Kind::Kv),
            latents: plan.states.iter().filter_map(StatePlan::latents).count(),
            latent_lines: wrap(
                plan.states.iter().filter_map(StatePlan::latents).map(|width| grouped(plan.kv.stride(width) as u64)),
                LINE - 4,
            ),
            latents_of_layer: of_layers(plan, Kind::Latents),
            recurrent: plan.states.iter().filter(|state| state.is_recurrent()).count(),
            recurrent_lines: wrap(plan.states.iter().filter_map(recurrent_width), LINE - 4),
            state_of_layer: of_layers(plan, Kind::Recurrent),
            next_gamma: prepares_next(plan),
            first_norm: plan.first_norm.map(|field| identifier(&plan.layer_fields[field].name)),
            final_norm: model_identifier(&plan.model_fields[plan.final_norm].name),
            decode_embed: steps(plan, plan.decode.embed()),
            decode_head: steps(plan, plan.decode.head()),
            splits: splits(plan),
            encode_signature: signature(
                "encode_step",
                &["pass: &mut Commands", "rows: u32", "params: &Slice"],
                splits(plan),
            ),
            unsplit_positions: UNSPLIT_POSITIONS,
            part_positions: PART_POSITIONS,
            max_parts: plan.kernels.iter().find_map(|kernel| kernel.family.split()).map_or(1, |split| split.most),
            decode_sample: steps(plan, plan.decode.sample()),
            sample_groups: sample_groups(plan),
            sample_words: 2 * sample_groups(plan),
            grids_by_rows: plan.decode.steps().any(|step| grids_differ(plan, step)),
            prefill_embed,
            layer_input: layer_input(plan),
            prefill_head,
            sees: (0..plan.blocks.len()).any(|block| sees(plan, block)),
            last_state: plan.last_state().map(|end| end.layer),
        }
    }
}

/// Dispatches of one decode step.
pub fn decode_dispatches(plan: &Plan) -> usize {
    let steps = |block: usize| plan.decode.blocks()[block].iter().filter(|step| step.when != When::Split).count();
    let layers: usize = plan.layers.iter().map(|layer| steps(layer.block)).sum();
    plan.decode.embed().len() + layers + plan.decode.head().len() + plan.decode.sample().len()
}

/// Whether a step of a decoded token prepares the norm that follows its block.
fn prepares_next(plan: &Plan) -> bool {
    plan.decode.steps().any(|step| step.args.values().any(|arg| *arg == Arg::NextGamma))
}

/// Threadgroups that share the vocabulary when a token is chosen.
fn sample_groups(plan: &Plan) -> usize {
    plan.kernels
        .iter()
        .find_map(|k| if let Family::SampleBest(s) = &k.family { Some(s.0.groups) } else { None })
        .unwrap_or(1)
}

impl KernelRow {
    /// The row of a kernel.
    pub fn new(kernel: &Kernel) -> Self {
        Self {
            constant: constant(&kernel.name),
            name: identifier(&kernel.name),
            threads: kernel.launch.threads,
            threadgroup_bytes: kernel.launch.threadgroup_bytes,
        }
    }
}

fn fields<'a>(fields: impl IntoIterator<Item = &'a Field>, name: fn(&str) -> String) -> Vec<FieldView> {
    let view = |f: &Field| FieldView {
        name: name(&f.name),
        tensor: format!("{:?}", f.name),
        comment: f.comment.clone(),
        optional: f.optional,
    };
    fields.into_iter().map(view).collect()
}

/// Fields in the order of the block's slots.
fn by_slot(fields: &[Field]) -> Vec<&Field> {
    let mut sorted: Vec<&Field> = fields.iter().collect();
    sorted.sort_by_key(|field| field.order);
    sorted
}

/// Elements of a layer's part of the layers' own inputs.
fn layer_input(plan: &Plan) -> Option<usize> {
    let mut args = plan.decode.blocks().iter().flatten().flat_map(|step| step.args.values());
    args.find_map(|arg| if let Arg::LayerPart { width, .. } = arg { Some(*width) } else { None })
}

/// Buffers by name.
fn buffers(buffers: &[BufferPlan], kv: CacheType) -> Vec<BufferView> {
    let view = |b: &BufferPlan| {
        let element = b.place.element(kv);
        BufferView {
            name: places::name(b.place).to_owned(),
            width: b.width,
            position_bytes: b.place.holds_positions().then(|| kv.bytes(b.width)),
            element: match element {
                Element::U32 => "u32",
                Element::Cache(kv) => kv.name(),
                _ => "f32",
            },
            comment: places::comment(b.place).to_owned(),
        }
    };
    let mut views: Vec<BufferView> = buffers.iter().map(view).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

fn blocks(plan: &Plan) -> Vec<BlockView> {
    plan.blocks
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let layers: Vec<_> = plan.layers.iter().enumerate().filter(|(_, l)| l.block == index).collect();
            let caches = layers.first().map_or(0, |(_, layer)| layer.states.len());
            let end = plan.last_state().filter(|end| plan.layers[end.layer].block == index);
            let mut prefill = steps(plan, &plan.prefill.blocks()[index]);
            if let Some(end) = end {
                prefill[end.steps - 1].ends = true;
            }
            let title = if plan.blocks.len() == 1 {
                "One layer".into()
            } else {
                format!("A {}", plain(&name.replace('_', " ")))
            };
            BlockView {
                variant: variant(name),
                title,
                caches: (0..caches)
                    .map(|slot| {
                        let kind = Kind::of(&plan.states[layers[0].1.states[slot]]);
                        let own = layers.iter().all(|(i, layer)| index_of_kind(plan, layer.states[slot]) == *i);
                        CacheView {
                            name: kind.name(slot),
                            of: kind.field(),
                            index: if own { "i" } else { kind.of_layer() }.into(),
                        }
                    })
                    .collect(),
                decode: steps(plan, &plan.decode.blocks()[index]),
                decode_dispatches: plan.decode.blocks()[index].iter().filter(|s| s.when != When::Split).count(),
                splits: block_splits(plan, index),
                split_dispatches: plan.decode.blocks()[index].iter().filter(|s| s.when != When::OnePart).count(),
                decode_signature: {
                    let next = prepares_next(plan).then_some("next_gamma: &Slice");
                    let first = ["pass: &mut Commands", "i: usize", "rows: u32"];
                    let params = first.into_iter().chain(next).chain(["params: &Slice"]);
                    signature(
                        &format!("step_{}", identifier(name)),
                        &params.collect::<Vec<_>>(),
                        block_splits(plan, index),
                    )
                },
                prefill,
                prefill_dispatches: prefill_dispatches(plan, index),
                sees: sees(plan, index),
                ends: end.is_some(),
                name: identifier(name),
            }
        })
        .collect()
}

/// Kinds of states, as a project holds them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kv,
    Latents,
    Recurrent,
}

impl Kind {
    fn of(state: &StatePlan) -> Self {
        match state {
            StatePlan::Kv(_) => Self::Kv,
            StatePlan::Latent(_) => Self::Latents,
            StatePlan::Recurrent { .. } => Self::Recurrent,
        }
    }

    /// The model's field.
    fn field(self) -> &'static str {
        match self {
            Self::Kv => "caches",
            Self::Latents => "latents",
            Self::Recurrent => "states",
        }
    }

    /// Which of them a layer has, where not each has the one of its number.
    fn of_layer(self) -> &'static str {
        match self {
            Self::Kv => "CACHE_OF_LAYER[i]",
            Self::Latents => "LATENTS_OF_LAYER[i]",
            Self::Recurrent => "STATE_OF_LAYER[i]",
        }
    }

    /// That of a state slot in a layer's steps.
    pub(crate) fn name(self, slot: usize) -> String {
        let stem = match self {
            Self::Kv => "cache",
            Self::Latents => "latents",
            Self::Recurrent => "state",
        };
        if slot == 0 { stem.into() } else { format!("{stem}_{slot}") }
    }
}

/// A state's place among those of its kind.
fn index_of_kind(plan: &Plan, state: usize) -> usize {
    let kind = Kind::of(&plan.states[state]);
    plan.states[..state].iter().filter(|other| Kind::of(other) == kind).count()
}

/// States of a kind by layer, where not each layer has the one of its number; 0 for a layer without.
fn of_layers(plan: &Plan, kind: Kind) -> Vec<String> {
    let own = |layer: usize| -> Vec<usize> {
        let states = plan.layers[layer].states.iter().filter(|&&state| Kind::of(&plan.states[state]) == kind);
        states.map(|&state| index_of_kind(plan, state)).collect()
    };
    let lists: Vec<Vec<usize>> = (0..plan.layers.len()).map(own).collect();
    if lists.iter().enumerate().all(|(layer, states)| states.iter().all(|&state| state == layer)) {
        return Vec::new();
    }
    wrap(lists.iter().map(|states| states.first().copied().unwrap_or(0).to_string()), LINE - 4)
}

/// Elements of a copy of a recurrent state.
fn recurrent_width(state: &StatePlan) -> Option<String> {
    match state {
        StatePlan::Kv(_) | StatePlan::Latent(_) => None,
        StatePlan::Recurrent { width } => Some(grouped(*width as u64)),
    }
}
