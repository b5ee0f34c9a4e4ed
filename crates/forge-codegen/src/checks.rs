//! The view of `src/checks.rs`: each kernel's operation, sizes and arguments as data for `verify`.
//!
//! A kernel that several layers run is checked with one layer's weights, from the middle of those that run it.

use askama::Template;
use forge_frontend::graph::RopePairing;
use forge_plan::attention::{MAX_PARTS, PART_POSITIONS, UNSPLIT_POSITIONS};
use forge_plan::formula::{Formula, Linear};
use forge_plan::kernel::{AttentionKernel, Embed, Epilogue, FEW_TOKENS, Family};
use forge_plan::plan::{Arg, Choice, Dim, Step};
use forge_plan::{KernelId, Plan};
use forge_spec::{Attention, Cost, Data, Operation, Projection, Split, Vocabulary};

use crate::literal::{Literal, table_name};
use crate::naming::{variant, wrap};

/// Numbers of rows that prefill kernels are tried with: less than a tile of anything, ragged, whole, one more.
const ROWS: [usize; 4] = [1, 7, 64, 65];
/// The same for kernels of short tiles.
const FEW_ROWS: [usize; 4] = [1, 2, 7, FEW_TOKENS];

/// `src/checks.rs`.
#[derive(Template)]
#[template(path = "project/checks.rs")]
pub struct ChecksFile<'a> {
    pub title: &'a str,
    pub version: &'static str,
    pub source: &'a str,
    pub tables: Vec<TableView>,
    pub checks: Vec<CheckView<'a>>,
    pub costs: Vec<CostView<'a>>,
}

/// What a kernel moves and computes.
pub struct CostView<'a> {
    pub name: &'a str,
    pub cost: String,
}

/// A table of RoPE frequencies.
pub struct TableView {
    pub name: String,
    pub len: usize,
    pub lines: Vec<String>,
}

/// One kernel; every field but the name is a Rust expression.
pub struct CheckView<'a> {
    pub name: &'a str,
    pub kernel: KernelId,
    pub layer: String,
    pub rows: String,
    pub grid: String,
    pub operation: String,
    pub arguments: Vec<ArgumentView>,
}

/// One argument of a kernel.
pub struct ArgumentView {
    pub access: &'static str,
    pub role: String,
    pub data: String,
}

/// A step that runs a kernel, and where.
struct Place<'a> {
    step: &'a Step,
    grid: &'a [Dim; 3],
    layer: Option<usize>,
    prefill: bool,
}

impl<'a> ChecksFile<'a> {
    /// The view of a plan's kernels.
    pub fn new(plan: &'a Plan, title: &'a str, source: &'a str) -> Self {
        // Costs and checks go by the kernel's index, so that none may be left out.
        let places = (0..plan.kernels.len()).map(|id| {
            let name = &plan.kernels[id].name;
            (id, place(plan, id).unwrap_or_else(|| panic!("{name} is in no schedule")))
        });
        ChecksFile {
            title,
            version: env!("CARGO_PKG_VERSION"),
            source,
            tables: plan.rope_tables.iter().enumerate().map(|(i, table)| rope_table(i, table)).collect(),
            checks: places.clone().map(|(id, place)| check(plan, id, &place)).collect(),
            costs: places.map(|(id, place)| cost(plan, id, &place)).collect(),
        }
    }
}

fn rope_table(index: usize, table: &[f32]) -> TableView {
    TableView {
        name: table_name(index),
        len: table.len(),
        lines: wrap(table.iter().map(|value| format!("{value:?}")), 112),
    }
}

/// Where the schedules run a kernel.
fn place<'a>(plan: &'a Plan, id: KernelId) -> Option<Place<'a>> {
    let mut found: Option<Place<'a>> = None;
    for (schedule, prefill) in [(&plan.decode, false), (&plan.prefill, true)] {
        let mut add = |(step, grid), layer| {
            let place = found.get_or_insert(Place { step, grid, layer, prefill });
            // A kernel of both paths is dispatched as prefill does it, which takes any number of rows.
            if prefill && !place.prefill {
                *place = Place { step, grid, layer, prefill };
            }
        };
        // A step's kernel, and the one it has for few tokens.
        let variants = |step: &'a Step| {
            let few = step.few.as_ref().map(|few| (step, few.kernel, &few.grid));
            std::iter::once((step, step.kernel, &step.grid)).chain(few)
        };
        let stages = [&schedule.embed, &schedule.head, &schedule.sample];
        for (step, kernel, grid) in stages.into_iter().flatten().flat_map(variants) {
            if kernel == Choice::Fixed(id) {
                add((step, grid), None);
            }
        }
        for (block, steps) in schedule.blocks.iter().enumerate() {
            for (step, kernel, grid) in steps.iter().flat_map(variants) {
                let runs = |layer: usize| match kernel {
                    Choice::Fixed(kernel) => kernel == id,
                    Choice::PerLayer(table) => plan.tables[table].kernels[layer] == id,
                };
                let layers: Vec<usize> =
                    (0..plan.layers.len()).filter(|&i| plan.layers[i].block == block && runs(i)).collect();
                if let Some(&layer) = layers.get(layers.len() / 2) {
                    add((step, grid), Some(layer));
                }
            }
        }
    }
    found
}

fn check<'a>(plan: &'a Plan, id: KernelId, place: &Place<'a>) -> CheckView<'a> {
    let kernel = &plan.kernels[id];
    let rows: Vec<String> = if place.prefill {
        let rows = if matches!(&kernel.family, Family::Gemv(_)) { FEW_ROWS } else { ROWS };
        rows.into_iter().filter(|&rows| rows <= plan.prefill_tile).map(|rows| rows.to_string()).collect()
    } else {
        vec!["1".into()]
    };
    let arguments = kernel.bindings.iter().zip(&place.step.args);
    CheckView {
        name: &kernel.name,
        kernel: id,
        layer: place.layer.map_or_else(|| "None".into(), |layer| format!("Some({layer})")),
        rows: rows.join(", "),
        grid: place.grid.literal(&plan.rope_tables),
        operation: operation(&kernel.family, &plan.rope_tables).literal(&plan.rope_tables),
        arguments: arguments
            .map(|(binding, arg)| ArgumentView {
                access: match binding.access {
                    forge_plan::kernel::Access::Read => "read",
                    forge_plan::kernel::Access::Write => "write",
                    forge_plan::kernel::Access::ReadWrite => "update",
                },
                role: variant(binding.name),
                data: data(plan, &kernel.family, binding.name, arg, place.layer),
            })
            .collect(),
    }
}

fn cost<'a>(plan: &'a Plan, id: KernelId, place: &Place<'a>) -> CostView<'a> {
    let kernel = &plan.kernels[id];
    let Formula { bytes, flops } = Formula::of(kernel, place.grid);
    let terms = |l: Linear| [l.fixed, l.per_row, l.per_tile, l.per_position, l.per_part];
    CostView { name: &kernel.name, cost: Cost { bytes: terms(bytes), flops: terms(flops) }.literal(&plan.rope_tables) }
}

/// Where an argument comes from, or how large it is.
fn data(plan: &Plan, family: &Family, name: &str, arg: &Arg, layer: Option<usize>) -> String {
    let of_layer = |layer: usize, name: &str| format!("layers.{layer}.{name}");
    let tensor = match arg {
        Arg::Layer(field) => Some(of_layer(layer.unwrap_or(0), field)),
        Arg::Model(field) => Some(field.clone()),
        Arg::NextGamma => {
            let next = layer.map_or(0, |layer| layer + 1);
            Some(match &plan.first_norm {
                Some(norm) if next < plan.layers.len() => of_layer(next, norm),
                _ => plan.final_norm.clone(),
            })
        }
        _ => None,
    };
    let data = match (arg, &tensor) {
        (_, Some(tensor)) => Data::Tensor(tensor),
        (Arg::Keys(_) | Arg::Values(_), _) => Data::Cache(words(family, name)),
        (Arg::Params, _) => Data::Params,
        _ => Data::Words(words(family, name)),
    };
    data.literal(&plan.rope_tables)
}

/// Elements per row of the argument `name`, or per position of a cache.
fn words(family: &Family, name: &str) -> usize {
    let next = |next: Option<forge_plan::kernel::NextNorm>| next.map_or(0, |next| next.partials);
    match family {
        Family::Embed(embed) => match name {
            "tokens" => 1,
            "sums" => next(embed.next),
            _ => embed.table.cols,
        },
        Family::LayerInputs(inputs) => match name {
            "tokens" => 1,
            _ => inputs.layers * inputs.width,
        },
        Family::Gemv(gemv) => match (name, gemv.epilogue) {
            ("input", _) => gemv.cols,
            ("input_sums", _) => gemv.norm.map_or(0, |norm| norm.partials),
            ("result_sums", Epilogue::Store { partials, .. }) => partials.unwrap_or(0),
            ("sums", Epilogue::Residual { next: after, .. }) => next(after),
            (_, Epilogue::Gated(_)) => gemv.rows / 2,
            _ => gemv.rows,
        },
        Family::Gemm(gemm) => match (name, gemm.epilogue) {
            ("input", _) => gemm.cols,
            (_, Epilogue::Gated(_)) => gemm.rows / 2,
            _ => gemm.rows,
        },
        Family::RopeAppend(rope) => match name {
            "qkv" => rope.width(),
            "q" => rope.heads * rope.head_dim,
            _ => rope.kv_heads * rope.head_dim,
        },
        Family::AttentionTile(a) | Family::AttentionDecode(a) => match name {
            "keys" | "values" => a.kv_heads * a.head_dim,
            _ => a.heads * a.head_dim,
        },
        Family::AttentionPart(a) => match name {
            "keys" | "values" => a.kv_heads * a.head_dim,
            "q" => a.heads * a.head_dim,
            _ => MAX_PARTS * a.part_floats(),
        },
        Family::AttentionCombine(a) => match name {
            "parts" => MAX_PARTS * a.part_floats(),
            _ => a.heads * a.head_dim,
        },
        Family::RmsNorm(norm) => norm.width,
        Family::PostNorm(norm) => match name {
            "result_sums" => norm.partials.unwrap_or(0),
            "sums" => next(norm.next),
            _ => norm.width,
        },
        Family::SampleBest(s) | Family::SampleCollect(s) | Family::SampleDraw(s) => match name {
            "logits" => s.vocab,
            "seen" => s.vocab.div_ceil(32),
            "best" => 2 * s.groups,
            "candidates" => 3 * s.vocab,
            _ => 1,
        },
    }
}

/// What a kernel computes.
fn operation<'a>(family: &'a Family, tables: &'a [Vec<f32>]) -> Operation<'a> {
    match family {
        Family::Embed(Embed { table, scale, .. }) => Operation::Embed { table: *table, scale: *scale },
        Family::LayerInputs(i) => {
            Operation::LayerInputs { table: i.table, layers: i.layers, eps: i.eps, scale: i.scale, factor: i.factor }
        }
        Family::Gemv(g) => Operation::Project(Projection {
            matrices: &g.matrices,
            norm_eps: g.norm.map(|norm| norm.eps),
            half_operands: false,
            epilogue: epilogue(g.epilogue),
        }),
        Family::Gemm(g) => Operation::Project(Projection {
            matrices: &g.matrices,
            norm_eps: None,
            half_operands: g.half_tiles,
            epilogue: epilogue(g.epilogue),
        }),
        Family::RopeAppend(r) => Operation::RopeAppend(forge_spec::RopeAppend {
            heads: r.heads,
            kv_heads: r.kv_heads,
            head_dim: r.head_dim,
            keys_as_values: r.keys_as_values,
            norms: [r.q_norm, r.k_norm, r.v_norm].map(|norm| norm.map(|norm| norm.norm)),
            inv_freq: r.table.map_or(&[], |table| tables[table].as_slice()),
            interleaved: r.rope.as_ref().is_some_and(|rope| rope.pairing == RopePairing::Interleaved),
            magnitude: r.rope.as_ref().map_or(1.0, |rope| rope.magnitude),
            cache: r.kv,
            wrap: r.wrap,
        }),
        Family::AttentionTile(a) => attention(a, a.operand_bytes() == 2, None),
        Family::AttentionDecode(a) => attention(a, false, None),
        Family::AttentionPart(a) => attention(a, false, Some(split(a))),
        Family::AttentionCombine(a) => {
            Operation::AttentionCombine { heads: a.heads, head_dim: a.head_dim, split: split(a) }
        }
        Family::RmsNorm(norm) => Operation::RmsNorm { width: norm.width, eps: norm.eps },
        Family::PostNorm(norm) => Operation::PostNorm { width: norm.width, eps: norm.eps, factor: norm.factor },
        Family::SampleBest(s) => Operation::SampleBest(vocabulary(s)),
        Family::SampleCollect(s) => Operation::SampleCollect(vocabulary(s)),
        Family::SampleDraw(s) => Operation::SampleDraw(vocabulary(s)),
    }
}

fn vocabulary(sample: &forge_plan::kernel::Sample) -> Vocabulary {
    Vocabulary { tokens: sample.vocab, groups: sample.groups }
}

fn epilogue(epilogue: Epilogue) -> forge_spec::Epilogue {
    match epilogue {
        Epilogue::Store { softcap, .. } => forge_spec::Epilogue::Store { softcap },
        Epilogue::Residual { factor, .. } => forge_spec::Epilogue::Residual { factor },
        Epilogue::Gated(activation) => forge_spec::Epilogue::Gated(activation),
        Epilogue::GatedBy(activation) => forge_spec::Epilogue::GatedBy(activation),
    }
}

fn attention(a: &AttentionKernel, half_operands: bool, split: Option<Split>) -> Operation<'static> {
    Operation::Attention(Attention {
        heads: a.heads,
        kv_heads: a.kv_heads,
        head_dim: a.head_dim,
        scale: a.attention.scale,
        softcap: a.attention.softcap,
        window: a.attention.window,
        cache: a.kv,
        wrap: a.wrap,
        half_operands,
        split,
    })
}

/// How a long context is cut into parts.
fn split(a: &AttentionKernel) -> Split {
    Split { above: UNSPLIT_POSITIONS, positions: PART_POSITIONS, most: MAX_PARTS, window: a.attention.window }
}
