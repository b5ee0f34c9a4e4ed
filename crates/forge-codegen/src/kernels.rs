//! The view of `kernels.metal`: every constant as finished text. Long, but one file because it is the view structs of
//! one template, and each function fills one of them.

use std::collections::BTreeSet;

use askama::Template;
use forge_frontend::graph::RopePairing;
use forge_plan::binding::{Binding, Extent};
use forge_plan::call::Position;
use forge_plan::families::{self, Epilogue, GEMM_ROWS, Gemm, Gemv, HeadNorm, RopeAppend, Tokens};
use forge_plan::{Family, Kernel, Plan};
use forge_spec::Format;

use crate::bindings::{comment, declaration};
use crate::calls::{activation, activation_value};
use crate::naming::{float, identifier, packed_name, wrap};
use crate::{calls, sources};

/// `shaders/kernels.metal`.
#[derive(Template)]
#[template(path = "msl/kernels.metal")]
pub struct KernelsFile<'a> {
    pub title: String,
    pub version: &'static str,
    pub source: &'a str,
    pub command: &'a str,
    /// The file holds variants for `tune`, which need what `kernels.metal` has.
    pub variants: bool,
    /// Words of a record of the step's parameters.
    pub step_params: Vec<String>,
    pub rope_tables: Vec<TableView>,
    pub families: Vec<&'static str>,
    pub formats: Vec<FormatView>,
    pub kernels: Vec<KernelView>,
}

/// A packed format, and the functions named after it.
pub struct FormatView {
    pub name: String,
    pub affine: Option<AffineView>,
}

/// Parameters of an affine format.
pub struct AffineView {
    pub bits: usize,
    pub group: usize,
    pub bf16: bool,
    pub zeros: bool,
}

/// A table of RoPE frequencies.
pub struct TableView {
    pub name: String,
    pub len: usize,
    pub lines: Vec<String>,
}

/// One kernel.
pub struct KernelView {
    pub name: String,
    pub comment: String,
    pub threads: u32,
    pub shared: usize,
    pub shared_type: &'static str,
    pub params: Vec<ParamView>,
    pub builtins: Vec<Builtin>,
    pub body: Body,
}

/// A buffer parameter.
pub struct ParamView {
    pub declaration: String,
    pub shape: String,
}

/// A position parameter.
#[derive(PartialEq)]
pub struct Builtin {
    pub declaration: &'static str,
    pub attribute: &'static str,
}

impl Builtin {
    pub fn new(declaration: &'static str, attribute: &'static str) -> Self {
        Self { declaration, attribute }
    }
}

/// What the kernel does.
pub enum Body {
    Call(String),
    Rope(RopeView),
    Gemv(Box<GemvView>),
    Gemm(GemmView),
}

pub struct RopeView {
    pub width: usize,
    pub head_dim: usize,
    /// Which position of the cache a row goes to.
    pub place: String,
    pub rotary: usize,
    pub interleaved: bool,
    pub table: String,
    pub magnitude: String,
    pub parts: Vec<RopePart>,
}

pub struct RopePart {
    pub start: usize,
    pub end: usize,
    pub heads: usize,
    pub cache: bool,
    pub target: &'static str,
    pub source: String,
    pub rotates: bool,
    pub norm: Option<RopeNorm>,
    /// Whether the norm is of the rotated head.
    pub norms_last: bool,
    /// Beta of a factor that grows with the position, or nothing, and the positions that share a factor.
    pub scale: String,
    pub scale_positions: usize,
}

impl RopePart {
    /// MSL type of the norm.
    pub fn norm_type(&self) -> &'static str {
        match &self.norm {
            None => "Unnormed",
            Some(norm) if norm.gamma.is_empty() && !norm.across => "Normed",
            Some(_) => "NormedByGamma",
        }
    }

    /// Name of what is applied to each element.
    pub fn norm_name(&self) -> &'static str {
        if self.scale.is_empty() { "norm" } else { "scaled" }
    }
}

pub struct RopeNorm {
    pub across: bool,
    pub count: usize,
    pub start: usize,
    pub eps: String,
    pub gamma: &'static str,
}

/// An argument with a row for each row of the step.
pub struct RowPointer {
    pub name: &'static str,
    pub width: usize,
}

pub struct GemvView {
    /// Arguments that a threadgroup moves on to its rows, where not all have the same.
    pub each: Vec<RowPointer>,
    pub nr: usize,
    pub half_nr: usize,
    /// Room for several tokens.
    pub many: bool,
    pub many_tokens: usize,
    /// The same as a template argument and as an argument, with their commas.
    pub tokens_constant: String,
    pub tokens: &'static str,
    /// Axes of the grid along which threadgroups have other output rows, and other tokens.
    pub group_axis: &'static str,
    pub token_axis: &'static str,
    /// Results of a simdgroup: rows times tokens.
    pub results: usize,
    /// Gate rows of one token to those of the next, and to its own up rows.
    pub token_results: usize,
    pub up_offset: usize,
    pub rows: usize,
    /// The function of a kernel with a table in threadgroup memory, and where the table begins.
    pub table: Option<&'static str>,
    pub table_offset: String,
    pub ks: usize,
    pub simdgroups: usize,
    pub rows_per_group: usize,
    pub simdgroup_rows: String,
    pub part: &'static str,
    pub cols: usize,
    pub end: usize,
    pub branches: bool,
    pub splits_k: bool,
    pub ends_here: bool,
    pub normed: bool,
    pub partials: usize,
    pub eps: String,
    pub bias: bool,
    /// What a result is multiplied by as its bias is added.
    pub bias_scale: &'static str,
    pub gated: bool,
    /// Where tokens' scales lie in threadgroup memory, behind a pointer and within an index; then sums of squares.
    pub scales_offset: String,
    pub scales_at: String,
    pub sums_offset: String,
    /// Of the kernel for one row: rows of a simdgroup, and simdgroups with rows of their own in a threadgroup.
    pub chunk_rows: usize,
    pub owners: usize,
    pub segments: Vec<SegmentView>,
    pub epilogue: GemvEnd,
}

pub struct SegmentView {
    pub format: String,
    pub weights: &'static str,
    pub rows: usize,
    pub nr: usize,
    pub split: usize,
    pub acc_offset: String,
    pub start_group: usize,
    pub end_group: usize,
    pub first_row: usize,
    pub end_row: usize,
    pub guard: bool,
}

pub enum GemvEnd {
    Store { softcap: String },
    StoreSums { partials: usize, groups: usize },
    Accumulate { factor: String },
    Residual { factor: String, partials: usize, groups: usize },
    Activated { activation: String },
    Gated { activation: String },
    GatedBy { activation: String },
}

pub struct GemmView {
    pub operand: &'static str,
    /// Whether rows of the input are multiplied by powers of two.
    pub scaled: bool,
    pub cols: usize,
    /// Weight rows of a threadgroup, of each matrix.
    pub tile_rows: usize,
    pub gated: bool,
    /// A matrix each, or gate and up together.
    pub products: Vec<ProductView>,
    /// Before the lines of a product, which is in braces where there are several.
    pub indent: &'static str,
}

/// A product over the threadgroups below `end_group` that are not the one's before.
pub struct ProductView {
    pub start_group: usize,
    pub end_group: usize,
    pub format: String,
    pub weights: &'static str,
    pub second_format: String,
    pub second: &'static str,
    /// Rows of the stored matrix.
    pub stack: usize,
    /// Rows of the product.
    pub rows: usize,
    /// Rows from gate to up in `second`.
    pub offset: usize,
    /// What takes the products.
    pub result: String,
}

const SEGMENT_NAMES: [&str; 3] = ["weights", "weights_1", "weights_2"];

impl<'a> KernelsFile<'a> {
    /// The view of a plan's kernels.
    pub fn new(plan: &'a Plan, title: String, source: &'a str, command: &'a str) -> Self {
        let formats = formats(plan);
        KernelsFile {
            title,
            version: env!("CARGO_PKG_VERSION"),
            source,
            command,
            variants: false,
            step_params: calls::step_params(),
            rope_tables: rope_tables(plan),
            families: used_sources(plan, &formats),
            formats,
            kernels: plan.kernels.iter().map(|kernel| kernel_view(kernel, plan)).collect(),
        }
    }

    /// `shaders/tuning.metal`: kernels that go with a plan's own.
    pub fn variants(
        plan: &Plan,
        kernels: impl Iterator<Item = &'a Kernel>,
        title: String,
        source: &'a str,
        command: &'a str,
    ) -> Self {
        KernelsFile {
            title,
            version: env!("CARGO_PKG_VERSION"),
            source,
            command,
            variants: true,
            step_params: Vec::new(),
            rope_tables: Vec::new(),
            families: Vec::new(),
            formats: Vec::new(),
            kernels: kernels.map(|kernel| kernel_view(kernel, plan)).collect(),
        }
    }
}

/// Name of a RoPE table.
fn table_name(plan: &Plan, index: usize) -> String {
    calls::rope_table(index, plan.rope_tables.len())
}

fn rope_tables(plan: &Plan) -> Vec<TableView> {
    plan.rope_tables
        .iter()
        .enumerate()
        .map(|(i, table)| TableView {
            name: table_name(plan, i),
            len: table.len(),
            lines: wrap(table.iter().map(|&f| float(f)), 112),
        })
        .collect()
}

/// Packed formats in use, by name.
fn formats(plan: &Plan) -> Vec<FormatView> {
    let formats: BTreeSet<Format> =
        plan.kernels.iter().flat_map(|kernel| kernel.family.matrices()).map(|matrix| matrix.format).collect();
    let view = |format| FormatView {
        name: packed_name(format),
        affine: match format {
            Format::Affine { bits, group, bf16, zeros } => Some(AffineView { bits, group, bf16, zeros }),
            _ => None,
        },
    };
    formats.into_iter().map(view).collect()
}

/// Sources of families, each after those that it needs. The first of them every file has.
const FAMILIES: [&str; 32] = [
    "activation",
    "rows",
    "embed",
    "norm",
    "embed_norm",
    "layer_norm",
    "activated",
    "xielu",
    "gemv_q1_0_sums",
    "gemv_tq1_0_sums",
    "gemv_iq1_s_sums",
    "gemv_iq1_m_sums",
    "gemv_iq2_xxs_shared",
    "rope",
    "layer_inputs",
    "short_conv",
    "gated_delta",
    "head_gate",
    "attention_decode",
    "row_scale",
    "product",
    "attention_tile",
    "latent_append",
    "latent_attention",
    "latent_heads",
    "gemm",
    "latent_tiles",
    "latent_expand",
    "route",
    "experts",
    "expert_tiles",
    "sample",
];

/// Sources in use, in an order in which each finds what it needs.
fn used_sources(plan: &Plan, formats: &[FormatView]) -> Vec<&'static str> {
    let mut list: Vec<&'static str> = Vec::new();
    let mut add = |text: &'static str| {
        if !list.contains(&text) {
            list.push(text);
        }
    };
    sources::with_needs("common").into_iter().for_each(&mut add);
    for format in formats {
        match &format.affine {
            Some(affine) => {
                sources::with_needs(&format!("codes_{}", affine.bits)).into_iter().for_each(&mut add);
                sources::of_format("affine").into_iter().for_each(&mut add);
            }
            None => sources::of_format(&format.name).into_iter().for_each(&mut add),
        }
    }
    sources::of_cache(plan.kv).into_iter().for_each(&mut add);
    let used = calls::sources(plan);
    let always = &FAMILIES[..4];
    let in_order = FAMILIES.iter().filter(|name| always.contains(name) || used.contains(name));
    in_order.flat_map(|name| sources::with_needs(name)).for_each(&mut add);
    list.iter().map(|text| text.trim_end()).collect()
}

fn kernel_view(kernel: &Kernel, plan: &Plan) -> KernelView {
    let params = kernel.bindings.iter();
    let params = params.map(|b| ParamView { declaration: declaration(b), shape: comment(b, kernel) }).collect();
    let (positions, body) = match kernel.family.body() {
        families::Body::Call(call) => {
            (calls::positions(&call), Body::Call(calls::statement(&call, plan.rope_tables.len())))
        }
        families::Body::RopeAppend(rope) => {
            (vec![Position::Group2, Position::Simdgroup, Position::Lane], Body::Rope(rope_view(rope, plan)))
        }
        families::Body::Gemv(gemv) => (
            vec![Position::Group, Position::Simdgroup, Position::Lane],
            Body::Gemv(Box::new(gemv_view(gemv, &kernel.bindings))),
        ),
        families::Body::Gemm(gemm) => {
            (vec![Position::Group2, Position::Simdgroup, Position::Lane], Body::Gemm(gemm_view(gemm)))
        }
    };
    let mut builtins = calls::builtins(&positions);
    if matches!(&kernel.family, Family::Gemv(gemv) if gemv.tokens != Tokens::One) {
        builtins[0] = Builtin::new("uint2 at", "threadgroup_position_in_grid");
    }
    KernelView {
        name: identifier(&kernel.name),
        comment: kernel.family.title(),
        threads: kernel.launch.threads,
        shared: (kernel.launch.threadgroup_bytes as usize).div_ceil(4),
        shared_type: if kernel.family.shared_integers() { "uint" } else { "float" },
        params,
        builtins,
        body,
    }
}

fn gemv_view(gemv: &Gemv, bindings: &[Binding]) -> GemvView {
    let g = gemv.geometry;
    let gated = matches!(gemv.epilogue, Epilogue::Gated(_));
    let nr = g.rows_per_simdgroup;
    let per_simdgroup = if gated { nr / 2 } else { nr };
    let rows_per_group = per_simdgroup * g.simdgroups / g.split_k;
    let simdgroup = if g.split_k > 1 { format!("simdgroup / {}", g.split_k) } else { "simdgroup".to_owned() };
    let groups = gemv.matrix_groups();
    let branches = !gated && gemv.matrices.len() > 1;
    let (mut start_group, mut first_row) = (0, 0);
    let segments = gemv.matrices.iter().enumerate().map(|(i, s)| {
        let count = if branches { groups[i] } else { groups.iter().sum() };
        let one_matrix = gated && gemv.matrices.len() == 1;
        let view = SegmentView {
            format: packed_name(s.format),
            weights: SEGMENT_NAMES[i],
            rows: s.rows,
            nr: if gated && !one_matrix { nr / 2 } else { nr },
            split: if one_matrix { gemv.rows / 2 } else { 0 },
            acc_offset: if gated && i > 0 { format!(" + {}", gemv.tokens.at_once() * nr / 2) } else { String::new() },
            start_group,
            end_group: start_group + count,
            first_row,
            end_row: first_row + s.rows,
            guard: (if gated { gemv.rows / 2 } else { s.rows }) % rows_per_group != 0,
        };
        first_row += s.rows;
        if branches {
            start_group += count;
        }
        view
    });
    let segments: Vec<SegmentView> = segments.collect();
    let sums_count = gemv.partial_sums();
    let needs_sums =
        matches!(gemv.epilogue, Epilogue::Store { partials: Some(_), .. } | Epilogue::Residual { next: Some(_), .. });
    let many = matches!(gemv.tokens, Tokens::Few(_));
    let results = nr * gemv.tokens.at_once();
    // Gate and up rows of one matrix lie together by token; of two matrices, all gate rows come first.
    let apart = gated && gemv.matrices.len() > 1;
    let (token_results, up_offset) = if apart { (nr / 2, results / 2) } else { (nr, nr / 2) };
    let [parts, scales, sums] = gemv.shared_floats();
    let table = (parts + scales + sums).next_multiple_of(4);
    let behind = |floats: usize| if floats > 0 { format!(" + {floats}") } else { String::new() };
    GemvView {
        each: if gemv.tokens == Tokens::One { Vec::new() } else { row_pointers(bindings, gemv.tokens.at_once()) },
        nr,
        half_nr: nr / 2,
        many,
        many_tokens: gemv.tokens.at_once(),
        tokens_constant: if many { format!(", {}", gemv.tokens.at_once()) } else { String::new() },
        tokens: if many { ", tokens" } else { "" },
        group_axis: if many { "y" } else { "x" },
        token_axis: if many { "x" } else { "y" },
        results,
        token_results,
        up_offset,
        rows: gemv.rows,
        table: gemv.table().map(|table| table.function),
        table_offset: behind(table),
        ks: g.split_k,
        simdgroups: g.simdgroups,
        rows_per_group,
        simdgroup_rows: if per_simdgroup == 1 { simdgroup } else { format!("{simdgroup} * {per_simdgroup}") },
        part: if g.split_k > 1 { SPLIT_PART[g.split_k.ilog2() as usize] } else { "0" },
        cols: gemv.cols,
        end: if gated { gemv.rows / 2 } else { gemv.rows },
        branches,
        splits_k: g.split_k > 1,
        ends_here: !needs_sums,
        normed: gemv.norm.is_some(),
        partials: gemv.norm.map_or(0, |norm| norm.partials),
        eps: gemv.norm.map_or_else(String::new, |norm| float(norm.eps)),
        bias: gemv.bias,
        bias_scale: if gemv.norm.is_some() { "scale" } else { "1.0f" },
        gated,
        scales_offset: behind(parts),
        scales_at: if parts > 0 { format!("{parts} + ") } else { String::new() },
        sums_offset: behind(parts + scales),
        chunk_rows: nr / gemv.chunks(),
        owners: gemv.one.simdgroups / gemv.one.split_k,
        segments,
        epilogue: match gemv.epilogue {
            Epilogue::Store { partials: Some(partials), .. } => GemvEnd::StoreSums { partials, groups: sums_count },
            Epilogue::Store { softcap, .. } => GemvEnd::Store { softcap: softcap.map_or_else(String::new, float) },
            Epilogue::Residual { factor, next: None } => GemvEnd::Accumulate { factor: float(factor) },
            Epilogue::Residual { factor, next: Some(next) } => {
                GemvEnd::Residual { factor: float(factor), partials: next.partials, groups: sums_count }
            }
            Epilogue::Activated(kind) => GemvEnd::Activated { activation: activation_value(kind) },
            Epilogue::Gated(kind) => GemvEnd::Gated { activation: activation(kind) },
            Epilogue::GatedBy(kind) => GemvEnd::GatedBy { activation: activation(kind) },
        },
    }
}

/// Arguments that have a row for each row of the step, of which a threadgroup takes so many.
fn row_pointers(bindings: &[Binding], rows: usize) -> Vec<RowPointer> {
    let pointer = |binding: &Binding| match &binding.extent {
        Extent::Rows(shape) => {
            Some(RowPointer { name: binding.role.name(), width: rows * shape.iter().product::<usize>() })
        }
        Extent::Fixed(_)
        | Extent::Positions(_)
        | Extent::Slots { .. }
        | Extent::State { .. }
        | Extent::LayerRows { .. }
        | Extent::Parts { .. } => None,
    };
    bindings.iter().filter_map(pointer).collect()
}

/// Which part of a row's columns a simdgroup takes, by the logarithm of how many share it.
const SPLIT_PART: [&str; 6] =
    ["0", "simdgroup % 2", "simdgroup % 4", "simdgroup % 8", "simdgroup % 16", "simdgroup % 32"];

fn gemm_view(gemm: &Gemm) -> GemmView {
    let gated = matches!(gemm.epilogue, Epilogue::Gated(_));
    let (mut start_group, mut first_row) = (0, 0);
    let mut products = Vec::new();
    // Where gate and up differ in format they are two matrices.
    let matrices = if gated { &gemm.matrices[..1] } else { &gemm.matrices[..] };
    let second = if gated { gemm.matrices.len() - 1 } else { 0 };
    for (i, (matrix, tiles)) in matrices.iter().zip(gemm.matrix_tiles()).enumerate() {
        let second = if gated { second } else { i };
        let rows = if gated { gemm.rows / 2 } else { matrix.rows };
        products.push(ProductView {
            start_group,
            end_group: start_group + tiles,
            format: packed_name(matrix.format),
            weights: SEGMENT_NAMES[i],
            second_format: packed_name(gemm.matrices[second].format),
            second: SEGMENT_NAMES[second],
            stack: matrix.rows,
            rows,
            offset: if gated && second == 0 { rows } else { 0 },
            result: tile_result(gemm, first_row),
        });
        first_row += rows;
        start_group += tiles;
    }
    let tile_rows = if gated { GEMM_ROWS / 2 } else { GEMM_ROWS };
    let (operand, scaled) = (calls::operand(gemm.operands), gemm.operands.are_scaled());
    let indent = if products.len() > 1 { "    " } else { "" };
    GemmView { operand, scaled, cols: gemm.cols, tile_rows, gated, products, indent }
}

/// What takes the products of rows from `first_row` on.
fn tile_result(gemm: &Gemm, first_row: usize) -> String {
    let from = |name: &str, start: String| match first_row {
        0 => format!("{name}{start}"),
        _ => format!("{name}{start} + {first_row}"),
    };
    let (rows, half) = (gemm.rows, gemm.rows / 2);
    let token = |name: &str, width: usize| from(name, format!(" + first_token * {width}"));
    let softcap = match gemm.epilogue {
        Epilogue::Store { softcap, .. } => softcap,
        Epilogue::Residual { .. } | Epilogue::Activated(_) | Epilogue::Gated(_) | Epilogue::GatedBy(_) => None,
    };
    let mut result = match gemm.epilogue {
        Epilogue::Store { .. } => format!("StoreTile<{rows}>{{{}}}", token("y", rows)),
        Epilogue::Residual { factor, .. } => format!("AddTile<{rows}>{{{}, {}}}", token("x", rows), float(factor)),
        Epilogue::Activated(kind) => {
            format!("activated_tile<{rows}>({}, {})", token("y", rows), activation_value(kind))
        }
        Epilogue::Gated(kind) => format!("GatedTile<{half}, {}>{{{}}}", activation(kind), token("y", half)),
        Epilogue::GatedBy(kind) => {
            let kind = activation(kind);
            format!("GatedByTile<{rows}, {kind}>{{{}, {}}}", token("y", rows), token("multiplier", rows))
        }
    };
    if let Some(cap) = softcap {
        result = format!("capped_tile({result}, {})", float(cap));
    }
    if gemm.bias {
        let split = if matches!(gemm.epilogue, Epilogue::Gated(_)) { half } else { 0 };
        result = format!("biased_tile<{split}>({result}, {})", from("bias", String::new()));
    }
    if gemm.operands.are_scaled() {
        result = format!("scaled_tile({result}, input_scales + first_token)");
    }
    result
}

/// The position in the cache of the row that is at `position` of its sequence.
fn place(rope: &RopeAppend) -> String {
    let within = rope.wrap.map_or_else(|| "position".to_owned(), |wrap| format!("position % {wrap}"));
    if rope.slots == 1 {
        return within;
    }
    format!("(ulong({}) + {within})", calls::slot_start("step[row].", rope.wrap))
}

fn rope_view(rope: &RopeAppend, plan: &Plan) -> RopeView {
    let (q, kv) = (rope.heads, rope.kv_heads);
    let norm = |norm: Option<HeadNorm>, heads: usize, first_head: usize, gamma: &'static str| {
        norm.map(|norm| RopeNorm {
            across: norm.norm.across_heads,
            count: if norm.norm.across_heads { heads * rope.head_dim } else { rope.head_dim },
            start: first_head * rope.head_dim,
            eps: float(norm.norm.eps),
            gamma: if norm.gamma { gamma } else { "" },
        })
    };
    let rotates = rope.rope.is_some();
    // Gates that stand between the queries stand before keys and values.
    let between = rope.gates.query_stride() > 1;
    let after_gates = if between { format!("source + {}", q * rope.head_dim) } else { "source".into() };
    let mut parts = vec![RopePart {
        start: 0,
        end: q,
        heads: q,
        cache: false,
        target: "q",
        source: if between { format!("source + head * {}", rope.head_dim) } else { "source".into() },
        rotates,
        norm: norm(rope.q_norm, q, 0, "q_gamma"),
        norms_last: rope.norms_last && rope.q_norm.is_some(),
        scale: rope.query_scale.map_or_else(String::new, |scale| float(scale.beta)),
        scale_positions: rope.query_scale.map_or(0, |scale| scale.original_context),
    }];
    if kv > 0 {
        let cache = |start, target, rotates, norm: Option<RopeNorm>| RopePart {
            start,
            end: start + kv,
            heads: kv,
            cache: true,
            target,
            source: after_gates.clone(),
            rotates,
            norms_last: rotates && rope.norms_last && norm.is_some(),
            norm,
            scale: String::new(),
            scale_positions: 0,
        };
        parts.push(cache(q, "keys", rotates, norm(rope.k_norm, kv, q, "k_gamma")));
        let values = cache(q + kv, "values", false, norm(rope.v_norm, kv, q + kv, "v_gamma"));
        let source = match rope.keys_as_values {
            true => format!("{after_gates} - {}", kv * rope.head_dim),
            false => values.source.clone(),
        };
        parts.push(RopePart { source, ..values });
    }
    RopeView {
        width: rope.width(),
        head_dim: rope.head_dim,
        place: place(rope),
        rotary: rope.rope.as_ref().map_or(0, |r| r.rotary_dim),
        interleaved: rope.rope.as_ref().is_some_and(|r| r.pairing == RopePairing::Interleaved),
        table: rope.table.map_or_else(String::new, |table| table_name(plan, table)),
        magnitude: float(rope.rope.as_ref().map_or(1.0, |r| r.magnitude)),
        parts,
    }
}
