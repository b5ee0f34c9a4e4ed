//! The kernel table: one entry per distinct family, size and format, named by role.

use forge_formats::Format;

use crate::attention;
use crate::kernel::{
    Access, AttentionKernel, Binding, Embed, Epilogue, Family, GEMM_ROWS, GEMM_TOKENS, Gemm, Gemv, Kernel, KernelId,
    LayerInputs, Matrix, PostNorm, RmsNorm, RopeAppend, Sample,
};
use crate::packed::{describe, stored};
use crate::plan::CacheType;

/// Threads of the kernels that work on whole rows.
const ROW_THREADS: u32 = 256;
/// Heads (simdgroups) that one threadgroup of the RoPE kernel handles.
pub const ROPE_HEADS: usize = 4;
/// Simdgroups of the kernel that puts the parts of a split context together.
pub const COMBINE_SIMDGROUPS: usize = 4;
/// Elements that one threadgroup of the embedding and post-norm kernels handles.
pub const ROW_ELEMENTS: usize = 1024;

/// Kernels collected so far.
#[derive(Default)]
pub struct Kernels {
    /// In file order.
    pub list: Vec<Kernel>,
}

impl Kernels {
    /// The kernel of this family, added under `role` (or `role` and its formats) where it is new.
    pub fn add(&mut self, role: &str, family: Family) -> KernelId {
        if let Some(id) = self.list.iter().position(|k| k.family == family && k.name.starts_with(role)) {
            return id;
        }
        let taken = |name: &str| self.list.iter().any(|k| k.name == name);
        let mut name = role.to_owned();
        if taken(&name) {
            let mut namesakes = self.list.iter().filter(|k| k.name.starts_with(role)).map(|k| formats(&k.family));
            let own = formats(&family);
            name = match (&own, shape(&family)) {
                (Some(_), Some(shape)) if namesakes.any(|formats| formats == own) => format!("{role}_{shape}"),
                (Some(formats), _) => format!("{role}_{formats}"),
                (None, _) => format!("{role}_alt"),
            };
        }
        let stem = name.clone();
        let mut count = 2;
        while taken(&name) {
            name = format!("{stem}_{count}");
            count += 1;
        }
        self.list.push(kernel(name, family));
        self.list.len() - 1
    }
}

/// Formats in a kernel's name, where it has any.
fn formats(family: &Family) -> Option<String> {
    let matrices = match family {
        Family::Gemv(gemv) => &gemv.matrices,
        Family::Gemm(gemm) => &gemm.matrices,
        _ => return None,
    };
    let mut names: Vec<String> = matrices.iter().map(|matrix| format_name(stored(matrix.format))).collect();
    names.dedup();
    Some(names.join("_"))
}

/// Rows and columns in a kernel's name, where it has any.
fn shape(family: &Family) -> Option<String> {
    match family {
        Family::Gemv(gemv) => Some(format!("{}x{}", gemv.rows, gemv.cols)),
        Family::Gemm(gemm) => Some(format!("{}x{}", gemm.rows, gemm.cols)),
        _ => None,
    }
}

/// A format's name in identifiers and comments: `q8_0`, `affine4_g64`.
pub fn format_name(format: Format) -> String {
    match format {
        Format::Tq2_0G128 => "tq2_0".into(),
        Format::Affine { bits, group } => format!("affine{bits}_g{group}"),
        other => other.to_string().to_lowercase(),
    }
}

fn binding(name: &'static str, element: &'static str, shape: String, access: Access) -> Binding {
    Binding { name, element, shape, access, constant: false }
}

fn params() -> Binding {
    Binding {
        name: "step",
        element: "StepParams",
        shape: "position and rows of this step".into(),
        access: Access::Read,
        constant: true,
    }
}

const MATRIX_NAMES: [&str; 3] = ["weights", "weights_1", "weights_2"];

fn weights(matrices: &[Matrix]) -> Vec<Binding> {
    let named = matrices.iter().zip(MATRIX_NAMES);
    named.map(|(matrix, name)| binding(name, "uchar", describe(matrix), Access::Read)).collect()
}

/// The MSL type of a cache's elements.
fn cache_element(cache: CacheType) -> &'static str {
    match cache {
        CacheType::F16 => "half",
        CacheType::F32 => "float",
    }
}

/// A kernel with its threads, memory and bindings.
pub(crate) fn kernel(name: String, family: Family) -> Kernel {
    let (threads, threadgroup_bytes, bindings) = match &family {
        Family::Embed(embed) => (ROW_THREADS, if embed.next.is_some() { 32 } else { 0 }, embed_bindings(embed)),
        Family::Gemv(gemv) => gemv_shape(gemv),
        Family::Gemm(gemm) => (128, (GEMM_TOKENS * GEMM_ROWS * 4) as u32, gemm_bindings(gemm)),
        Family::RopeAppend(rope) => (32 * ROPE_HEADS as u32, 0, rope_bindings(rope)),
        Family::AttentionTile(a) => (128, (a.tile_shared() * 4) as u32, attention_bindings(a, true, false)),
        Family::AttentionDecode(a) | Family::AttentionPart(a) => {
            let g = attention::decode_geometry(a.heads, a.kv_heads, a.head_dim);
            let shared = g.simdgroups * g.heads_shared * (a.head_dim + 2) * 4;
            let parts = matches!(family, Family::AttentionPart(_));
            (32 * g.simdgroups as u32, shared as u32, attention_bindings(a, false, parts))
        }
        Family::AttentionCombine(a) => {
            (32 * COMBINE_SIMDGROUPS as u32, (COMBINE_SIMDGROUPS * a.head_dim * 4) as u32, combine_bindings(a))
        }
        Family::LayerInputs(inputs) => (32 * ROPE_HEADS as u32, 0, layer_inputs_bindings(inputs)),
        Family::RmsNorm(norm) => (ROW_THREADS, 32, norm_bindings(norm)),
        Family::PostNorm(norm) => (ROW_THREADS, 32, post_norm_bindings(norm)),
        Family::SampleBest(sample) => (ROW_THREADS, 64, sample_bindings(sample, 1)),
        Family::SampleCollect(sample) => (ROW_THREADS, 0, sample_bindings(sample, 2)),
        Family::SampleDraw(sample) => (ROW_THREADS, 64, sample_bindings(sample, 3)),
    };
    Kernel { name, family, threads, threadgroup_bytes, bindings }
}

fn embed_bindings(embed: &Embed) -> Vec<Binding> {
    let mut list = vec![
        binding("table", "uchar", describe(&embed.table), Access::Read),
        binding("tokens", "uint", "[rows] token ids".into(), Access::Read),
        binding("x", "float", format!("[rows, {}] f32", embed.table.cols), Access::Write),
    ];
    list.extend(next_bindings(embed.next, embed.table.cols));
    list
}

fn layer_inputs_bindings(inputs: &LayerInputs) -> Vec<Binding> {
    let all = inputs.layers * inputs.width;
    vec![
        binding("table", "uchar", describe(&inputs.table), Access::Read),
        binding("tokens", "uint", "[rows] token ids".into(), Access::Read),
        binding("projected", "float", format!("[rows, {all}] f32"), Access::Read),
        binding("gamma", "float", format!("[{}] f32", inputs.width), Access::Read),
        binding("y", "float", format!("[{}, rows, {}] f32", inputs.layers, inputs.width), Access::Write),
        params(),
    ]
}

fn next_bindings(next: Option<crate::kernel::NextNorm>, hidden: usize) -> Vec<Binding> {
    next.map_or_else(Vec::new, |next| {
        vec![
            binding("gamma", "float", format!("[{hidden}] f32, the next norm's"), Access::Read),
            binding("scaled", "float", format!("[{hidden}] f32, x * gamma"), Access::Write),
            binding("sums", "float", format!("[{}] f32, partial sums of x^2", next.partials), Access::Write),
        ]
    })
}

fn result_bindings(epilogue: &Epilogue, rows: usize, tokens: &str) -> Vec<Binding> {
    match epilogue {
        Epilogue::Store { partials, .. } => {
            let mut list = vec![binding("y", "float", format!("[{tokens}{rows}] f32"), Access::Write)];
            if let Some(partials) = partials {
                list.push(binding(
                    "result_sums",
                    "float",
                    format!("[{partials}] f32, partial sums of y^2"),
                    Access::Write,
                ));
            }
            list
        }
        Epilogue::Residual { next, .. } => {
            let mut list = vec![binding("x", "float", format!("[{tokens}{rows}] f32"), Access::ReadWrite)];
            list.extend(next_bindings(*next, rows));
            list
        }
        Epilogue::Gated(_) => {
            vec![binding("y", "float", format!("[{tokens}{}] f32", rows / 2), Access::Write)]
        }
        Epilogue::GatedBy(_) => {
            let shape = format!("[{tokens}{rows}] f32");
            vec![
                binding("multiplier", "float", shape.clone(), Access::Read),
                binding("y", "float", shape, Access::Write),
            ]
        }
    }
}

/// The table of `gemv_q1_0_sums`: 16 sums for each of 32 lanes' two runs of four columns in four tiles.
const SIGNED_SUMS_BYTES: usize = 4 * 2 * 16 * 32 * 4;

fn gemv_shape(gemv: &Gemv) -> (u32, u32, Vec<Binding>) {
    let mut list = weights(&gemv.matrices);
    let what = if gemv.norm.is_some() { ", x * gamma" } else { "" };
    let tokens = if gemv.tokens > 1 { "rows, " } else { "" };
    list.push(binding("input", "float", format!("[{tokens}{}] f32{what}", gemv.cols), Access::Read));
    if let Some(norm) = gemv.norm {
        let shape = format!("[{}] f32, partial sums of squares", norm.partials);
        list.push(binding("input_sums", "float", shape, Access::Read));
    }
    if gemv.bias {
        list.push(binding("bias", "float", format!("[{}] f32", gemv.rows), Access::Read));
    }
    list.extend(result_bindings(&gemv.epilogue, gemv.rows, tokens));
    if gemv.tokens > 1 {
        list.push(params());
    }
    let g = gemv.geometry;
    let split = if g.split_k > 1 { g.simdgroups * g.rows_per_simdgroup * gemv.tokens * 4 } else { 0 };
    let sums = match gemv.epilogue {
        Epilogue::Store { partials: Some(_), .. } | Epilogue::Residual { next: Some(_), .. } => g.simdgroups * 4,
        _ => 0,
    };
    let table = if gemv.signed_sums() { SIGNED_SUMS_BYTES } else { 0 };
    (32 * g.simdgroups as u32, ((split + sums).next_multiple_of(16) + table) as u32, list)
}

fn gemm_bindings(gemm: &Gemm) -> Vec<Binding> {
    let mut list = weights(&gemm.matrices);
    list.push(binding("input", "float", format!("[rows, {}] f32", gemm.cols), Access::Read));
    if gemm.bias {
        list.push(binding("bias", "float", format!("[{}] f32", gemm.rows), Access::Read));
    }
    list.extend(result_bindings(&gemm.epilogue, gemm.rows, "rows, "));
    list.push(params());
    list
}

fn cache(name: &'static str, kv: CacheType, kv_heads: usize, head_dim: usize, access: Access) -> Binding {
    let element = cache_element(kv);
    binding(name, element, format!("[positions, {kv_heads}, {head_dim}] {element}"), access)
}

fn rope_bindings(rope: &RopeAppend) -> Vec<Binding> {
    let q_width = rope.heads * rope.head_dim;
    let mut list = vec![
        binding("qkv", "float", format!("[rows, {}] f32", rope.width()), Access::Read),
        binding("q", "float", format!("[rows, {q_width}] f32"), Access::Write),
    ];
    if rope.kv_heads > 0 {
        list.push(cache("keys", rope.kv, rope.kv_heads, rope.head_dim, Access::Write));
        list.push(cache("values", rope.kv, rope.kv_heads, rope.head_dim, Access::Write));
    }
    let norms = [
        ("q_gamma", rope.q_norm, rope.heads),
        ("k_gamma", rope.k_norm, rope.kv_heads),
        ("v_gamma", rope.v_norm, rope.kv_heads),
    ];
    for (name, norm, heads) in norms {
        if let Some(norm) = norm
            && norm.gamma
        {
            let width = if norm.norm.across_heads { heads * rope.head_dim } else { rope.head_dim };
            list.push(binding(name, "float", format!("[{width}] f32"), Access::Read));
        }
    }
    list.push(params());
    list
}

fn attention_bindings(attention: &AttentionKernel, rows: bool, parts: bool) -> Vec<Binding> {
    let width = attention.heads * attention.head_dim;
    let row = format!("[{}{width}] f32", if rows { "rows, " } else { "" });
    let cache = |name| cache(name, attention.kv, attention.kv_heads, attention.head_dim, Access::Read);
    let result = if parts {
        format!("[parts, {width}] f32 sums, then [parts, {}, 2] highest score and weight", attention.heads)
    } else {
        row.clone()
    };
    vec![
        binding("q", "float", row, Access::Read),
        cache("keys"),
        cache("values"),
        binding("y", "float", result, Access::Write),
        params(),
    ]
}

fn combine_bindings(attention: &AttentionKernel) -> Vec<Binding> {
    let width = attention.heads * attention.head_dim;
    let parts = format!("[parts, {width}] f32 sums, then [parts, {}, 2] highest score and weight", attention.heads);
    vec![
        binding("parts", "float", parts, Access::Read),
        binding("y", "float", format!("[{width}] f32"), Access::Write),
        params(),
    ]
}

fn norm_bindings(norm: &RmsNorm) -> Vec<Binding> {
    vec![
        binding("x", "float", format!("[rows, {}] f32", norm.width), Access::Read),
        binding("gamma", "float", format!("[{}] f32", norm.width), Access::Read),
        binding("y", "float", format!("[rows, {}] f32", norm.width), Access::Write),
    ]
}

fn post_norm_bindings(norm: &PostNorm) -> Vec<Binding> {
    let mut list = vec![binding("y", "float", format!("[rows, {}] f32", norm.width), Access::Read)];
    if let Some(partials) = norm.partials {
        let shape = format!("[{partials}] f32, partial sums of y^2");
        list.push(binding("result_sums", "float", shape, Access::Read));
    }
    list.push(binding("post_gamma", "float", format!("[{}] f32", norm.width), Access::Read));
    if norm.scaled {
        list.push(binding("scale", "float", "[1] f32, the layer's".into(), Access::Read));
    }
    list.push(binding("x", "float", format!("[rows, {}] f32", norm.width), Access::ReadWrite));
    list.extend(next_bindings(norm.next, norm.width));
    list
}

/// Bindings of sampling step 1, 2 or 3.
fn sample_bindings(sample: &Sample, step: usize) -> Vec<Binding> {
    let logits = || binding("logits", "float", format!("[{}] f32", sample.vocab), Access::Read);
    let seen = |access| binding("seen", "uint", format!("[{}] bits, one per token", sample.vocab.div_ceil(32)), access);
    let best = |access| binding("best", "uint", format!("[{}, 2] key and id", sample.groups), access);
    let count = |access| binding("count", "atomic_uint", "candidates".into(), access);
    let candidates = |access| binding("candidates", "Candidate", format!("[{}]", sample.vocab), access);
    match step {
        1 => vec![logits(), seen(Access::Read), best(Access::Write), count(Access::Write), params()],
        2 => vec![
            logits(),
            seen(Access::Read),
            best(Access::Read),
            count(Access::ReadWrite),
            candidates(Access::Write),
            params(),
        ],
        _ => vec![
            best(Access::Read),
            count(Access::Read),
            candidates(Access::Read),
            seen(Access::ReadWrite),
            binding("next_token", "uint", "what the next step embeds".into(), Access::Write),
            binding("chosen", "uint", "the same, for the host".into(), Access::Write),
            params(),
        ],
    }
}
