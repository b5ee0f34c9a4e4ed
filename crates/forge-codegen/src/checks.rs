//! The view of `src/checks.rs`: each kernel's operation, sizes and arguments as data for `verify`.
//!
//! A kernel that several layers run is checked with one layer's weights, from the middle of those that run it.

use askama::Template;
use forge_formats::Format;
use forge_frontend::graph::{Activation, RopePairing};
use forge_plan::attention::{MAX_PARTS, PART_POSITIONS, UNSPLIT_POSITIONS};
use forge_plan::formula::{Formula, Linear};
use forge_plan::kernel::{Access, AttentionKernel, Embed, Epilogue, FEW_TOKENS, Family, RopeAppend, Segment};
use forge_plan::plan::{Arg, Choice, Dim, Step};
use forge_plan::{KernelId, KvFormat, Plan};

use crate::naming::{grouped, variant, wrap};

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

/// What a kernel moves and computes, as text.
pub struct CostView<'a> {
    pub name: &'a str,
    pub bytes: String,
    pub flops: String,
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

fn table_name(index: usize) -> String {
    format!("INV_FREQ_{index}")
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
        grid: place.grid.iter().map(dim).collect::<Vec<_>>().join(", "),
        operation: operation(&kernel.family),
        arguments: arguments
            .map(|(binding, arg)| ArgumentView {
                access: match binding.access {
                    Access::Read => "read",
                    Access::Write => "write",
                    Access::ReadWrite => "update",
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
    let text = |l: Linear| [l.fixed, l.per_row, l.per_tile, l.per_position, l.per_part].map(grouped).join(", ");
    CostView { name: &kernel.name, bytes: text(bytes), flops: text(flops) }
}

fn dim(dim: &Dim) -> String {
    match dim {
        Dim::Const(count) => format!("Dim::Const({count})"),
        Dim::Rows => "Dim::Rows".into(),
        Dim::RowTiles(rows) => format!("Dim::RowTiles({rows})"),
        Dim::Parts => "Dim::Parts".into(),
    }
}

/// Where an argument comes from, or how large it is.
fn data(plan: &Plan, family: &Family, name: &str, arg: &Arg, layer: Option<usize>) -> String {
    let tensor = |name: &str| format!("Data::Tensor(\"{name}\")");
    let of_layer = |layer: usize, name: &str| tensor(&format!("layers.{layer}.{name}"));
    match arg {
        Arg::Layer(field) => of_layer(layer.unwrap_or(0), field),
        Arg::Model(field) => tensor(field),
        Arg::NextGamma => {
            let next = layer.map_or(0, |layer| layer + 1);
            match &plan.first_norm {
                Some(norm) if next < plan.layers.len() => of_layer(next, norm),
                _ => tensor(&plan.final_norm),
            }
        }
        Arg::Keys(_) | Arg::Values(_) => format!("Data::Cache({})", words(family, name)),
        Arg::Params => "Data::Params".into(),
        Arg::Buffer(_) | Arg::LayerPart { .. } | Arg::Tokens | Arg::Logits | Arg::Sampler(_) | Arg::Chosen => {
            format!("Data::Words({})", words(family, name))
        }
    }
}

/// Elements per row of the argument `name`, or per position of a cache.
fn words(family: &Family, name: &str) -> usize {
    let next = |next: Option<forge_plan::kernel::NextNorm>| next.map_or(0, |next| next.partials);
    match family {
        Family::Embed(embed) => match name {
            "tokens" => 1,
            "sums" => next(embed.next),
            _ => embed.hidden,
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

/// What a kernel computes, as an `Operation` of the runtime.
fn operation(family: &Family) -> String {
    match family {
        Family::Embed(Embed { format, bf16_scales, vocab, hidden, scale, .. }) => {
            let table = matrix(*format, *bf16_scales, *vocab, *hidden);
            format!("Operation::Embed {{ table: {table}, scale: {scale:?} }}")
        }
        Family::LayerInputs(i) => {
            let table = matrix(i.format, i.bf16_scales, i.vocab, i.layers * i.width);
            format!(
                "Operation::LayerInputs {{ table: {table}, layers: {}, eps: {:?}, scale: {:?}, factor: {:?} }}",
                i.layers, i.eps, i.scale, i.factor
            )
        }
        Family::Gemv(g) => project(&g.segments, g.cols, g.norm.map(|norm| norm.eps), false, g.epilogue),
        Family::Gemm(g) => project(&g.segments, g.cols, None, g.half_tiles, g.epilogue),
        Family::RopeAppend(rope) => rope_append(rope),
        Family::AttentionTile(a) => attention(a, a.operand_bytes() == 2, false),
        Family::AttentionDecode(a) => attention(a, false, false),
        Family::AttentionPart(a) => attention(a, false, true),
        Family::AttentionCombine(a) => format!(
            "Operation::AttentionCombine {{ heads: {}, head_dim: {}, split: {} }}",
            a.heads,
            a.head_dim,
            split(a)
        ),
        Family::RmsNorm(norm) => format!("Operation::RmsNorm {{ width: {}, eps: {:?} }}", norm.width, norm.eps),
        Family::PostNorm(norm) => {
            format!("Operation::PostNorm {{ width: {}, eps: {:?}, factor: {:?} }}", norm.width, norm.eps, norm.factor)
        }
        Family::SampleBest(s) => format!("Operation::SampleBest({})", vocabulary(s)),
        Family::SampleCollect(s) => format!("Operation::SampleCollect({})", vocabulary(s)),
        Family::SampleDraw(s) => format!("Operation::SampleDraw({})", vocabulary(s)),
    }
}

fn vocabulary(sample: &forge_plan::kernel::Sample) -> String {
    format!("Vocabulary {{ tokens: {}, groups: {} }}", sample.vocab, sample.groups)
}

fn matrix(format: Format, bf16_scales: bool, rows: usize, cols: usize) -> String {
    let format = match format {
        Format::Affine { bits, group } => format!("Affine {{ bits: {bits}, group: {group}, bf16: {bf16_scales} }}"),
        // The runtime's formats are called as these.
        other => format!("{other:?}"),
    };
    format!("Matrix {{ format: Format::{format}, rows: {rows}, cols: {cols} }}")
}

fn project(segments: &[Segment], cols: usize, norm_eps: Option<f32>, half: bool, epilogue: Epilogue) -> String {
    let matrices: Vec<String> = segments.iter().map(|s| matrix(s.format, s.bf16_scales, s.rows, cols)).collect();
    let epilogue = match epilogue {
        Epilogue::Store { softcap, .. } => format!("Store {{ softcap: {softcap:?} }}"),
        Epilogue::Residual { factor, .. } => format!("Residual {{ factor: {factor:?} }}"),
        Epilogue::Gated(kind) => format!("Gated({})", activation(kind)),
        Epilogue::GatedBy(kind) => format!("GatedBy({})", activation(kind)),
    };
    format!(
        "Operation::Project(Projection {{\n            matrices: &[{}],\n            norm_eps: {norm_eps:?},\n            \
         half_operands: {half},\n            epilogue: Epilogue::{epilogue},\n        }})",
        matrices.join(", ")
    )
}

fn activation(kind: Activation) -> &'static str {
    match kind {
        Activation::Silu => "Activation::Silu",
        Activation::GeluTanh => "Activation::GeluTanh",
    }
}

fn cache(kv: KvFormat) -> &'static str {
    match kv {
        KvFormat::F16 => "CacheType::F16",
        KvFormat::F32 => "CacheType::F32",
    }
}

fn rope_append(rope: &RopeAppend) -> String {
    let norms: Vec<String> = [rope.q_norm, rope.k_norm, rope.v_norm]
        .into_iter()
        .map(|norm| {
            norm.map_or_else(
                || "None".into(),
                |n| format!("Some(HeadNorm {{ eps: {:?}, across_heads: {} }})", n.eps, n.across_heads),
            )
        })
        .collect();
    let inv_freq = rope.table.map_or_else(|| "&[]".into(), |table| format!("&{}", table_name(table)));
    let interleaved = rope.rope.as_ref().is_some_and(|rope| rope.pairing == RopePairing::Interleaved);
    format!(
        "Operation::RopeAppend(RopeAppend {{\n            heads: {}, kv_heads: {}, head_dim: {}, keys_as_values: {},\n            \
         norms: [{}],\n            inv_freq: {inv_freq}, interleaved: {interleaved}, magnitude: {:?},\n            \
         cache: {}, wrap: {:?},\n        }})",
        rope.heads,
        rope.kv_heads,
        rope.head_dim,
        rope.keys_as_values,
        norms.join(", "),
        rope.rope.as_ref().map_or(1.0, |rope| rope.magnitude),
        cache(rope.kv),
        rope.wrap
    )
}

fn attention(a: &AttentionKernel, half: bool, splits: bool) -> String {
    let split = if splits { format!("Some({})", split(a)) } else { "None".into() };
    format!(
        "Operation::Attention(Attention {{\n            heads: {}, kv_heads: {}, head_dim: {},\n            \
         scale: {:?}, softcap: {:?}, window: {:?},\n            cache: {}, wrap: {:?},\n            \
         half_operands: {half}, split: {split},\n        }})",
        a.heads,
        a.kv_heads,
        a.head_dim,
        a.attention.scale,
        a.attention.softcap,
        a.attention.window,
        cache(a.kv),
        a.wrap
    )
}

/// How a long context is cut into parts.
fn split(a: &AttentionKernel) -> String {
    format!(
        "Split {{ above: {UNSPLIT_POSITIONS}, positions: {PART_POSITIONS}, most: {MAX_PARTS}, window: {:?} }}",
        a.attention.window
    )
}
