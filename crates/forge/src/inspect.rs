//! `forge inspect`: a checkpoint in numbers, what would be generated from it, and the memory that needs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forge_frontend::{Checkpoint, Graph};
use forge_pack::Header;
use forge_plan::costs::{self, PassCost};
use forge_plan::plan::{BufferPlan, StatePlan};
use forge_plan::{Plan, PlanError, PlanOptions, plan};

use crate::cli::InspectArgs;
use crate::{Error, interrupt, units};

/// The KV cache of a program is for this many tokens unless it is asked for more.
const USUAL_CONTEXT: usize = 8192;

/// Memory bandwidth of some Apple chips in GB/s, from Apple's specifications.
const CHIPS: [(&str, u32); 4] = [("M1", 68), ("M4", 120), ("M4 Pro", 273), ("M4 Max", 546)];

/// Reads the checkpoint, plans it and gives the report.
///
/// # Errors
/// A checkpoint that cannot be read or planned.
pub fn run(args: &InspectArgs) -> Result<String, Error> {
    let checkpoint = forge_frontend::load(&args.checkpoint)?;
    interrupt::check()?;
    let plan = plan(&checkpoint.graph, &PlanOptions { context: None, kv: args.kv.into() })?;
    let trained = plan.context;
    let context = args.context.unwrap_or(trained.min(USUAL_CONTEXT));
    if context == 0 || context > trained {
        return Err(PlanError::Context { asked: context, trained }.into());
    }
    Ok(report(&checkpoint, &plan, context))
}

fn report(checkpoint: &Checkpoint, plan: &Plan, context: usize) -> String {
    let graph = &checkpoint.graph;
    let config = &graph.config;
    let mut text = String::new();
    section(
        &mut text,
        &format!("{} ({}, {})", config.name, config.architecture, checkpoint.kind),
        &[
            ("parameters", units::parameters(parameters(graph))),
            ("layers", config.num_layers.to_string()),
            ("hidden size", config.hidden_size.to_string()),
            ("feed-forward size", config.intermediate_size.to_string()),
            (
                "heads",
                format!("{} of {}, {} for keys and values", config.num_heads, config.head_dim, config.num_kv_heads),
            ),
            ("vocabulary", config.vocab_size.to_string()),
            ("trained context", format!("{} tokens", config.trained_context)),
            ("chat template", if checkpoint.assets.chat_template.is_some() { "yes" } else { "no" }.to_owned()),
        ],
    );
    section(&mut text, "Tensors", &formats(checkpoint));
    for line in &checkpoint.ignored {
        let _ = writeln!(text, "  not used: {line}");
    }
    let weights = Header::new(&plan.weights).file_bytes;
    let token = costs::decode(plan, context - 1);
    section(
        &mut text,
        "Would be generated",
        &[
            ("kernels", plan.kernels.len().to_string()),
            ("decode", format!("{} dispatches and {} barriers a token", token.dispatches(), token.barriers())),
            ("prefill", format!("tiles of {} tokens", plan.prefill_tile)),
            ("weights file", units::bytes(weights)),
        ],
    );
    let kv = kv_bytes(plan, context);
    let activations = activation_bytes(plan);
    section(
        &mut text,
        &format!("Memory at {context} tokens of context"),
        &[
            ("weights", units::bytes(weights)),
            (
                "KV cache",
                format!("{} ({}, {} a token)", units::bytes(kv), plan.kv.msl(), units::bytes(kv_bytes(plan, 1))),
            ),
            ("activations", units::bytes(activations)),
            ("in all", units::bytes(weights + kv + activations)),
        ],
    );
    section(&mut text, &format!("Decoding with {context} tokens of context, at most"), &roofline(&token));
    text
}

/// Tokens per second that the memory of some chips allows.
fn roofline(token: &PassCost) -> Vec<(String, String)> {
    let mut lines = vec![("bytes a token".to_owned(), units::bytes(token.bytes()))];
    for (chip, gigabytes) in CHIPS {
        let rate = f64::from(gigabytes) * 1e9 / token.bytes() as f64;
        lines.push((format!("{chip}, {gigabytes} GB/s"), format!("{rate:.0} tokens/s")));
    }
    lines
}

/// A title with aligned lines below it.
fn section<N: AsRef<str>>(text: &mut String, title: &str, lines: &[(N, String)]) {
    let bold = anstyle::Style::new().bold();
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{bold}{title}{bold:#}");
    let width = lines.iter().map(|(name, _)| name.as_ref().chars().count()).max().unwrap_or(0);
    for (name, value) in lines {
        let _ = writeln!(text, "  {:width$}  {value}", name.as_ref());
    }
}

/// Weights as numbers, each once.
pub(crate) fn parameters(graph: &Graph) -> u64 {
    graph.weights.iter().map(|weight| weight.rows as u64 * weight.cols as u64).sum()
}

/// One line per weight format: how many tensors, parameters and bytes.
fn formats(checkpoint: &Checkpoint) -> Vec<(String, String)> {
    let mut formats: BTreeMap<_, (usize, u64, u64)> = BTreeMap::new();
    for weight in &checkpoint.graph.weights {
        let (tensors, elements, bytes) = formats.entry(weight.format).or_default();
        *tensors += 1;
        *elements += weight.rows as u64 * weight.cols as u64;
        *bytes += weight.format.row_bytes(weight.cols).unwrap_or(0) as u64 * weight.rows as u64;
    }
    let line = |(tensors, elements, bytes)| {
        format!("{tensors} tensors, {} parameters, {}", units::parameters(elements), units::bytes(bytes))
    };
    formats.into_iter().map(|(format, counts)| (format.to_string(), line(counts))).collect()
}

/// Bytes of all KV caches with room for `context` tokens.
fn kv_bytes(plan: &Plan, context: usize) -> u64 {
    let bytes = |state: &StatePlan| {
        let positions = state.capacity.unwrap_or(context).min(context);
        2 * (state.width() * plan.kv.bytes()) as u64 * positions as u64
    };
    plan.states.iter().map(bytes).sum()
}

/// Bytes of the activation buffers of both paths.
fn activation_bytes(plan: &Plan) -> u64 {
    let elements = |buffers: &[BufferPlan]| buffers.iter().map(|buffer| buffer.width as u64).sum::<u64>();
    4 * (elements(&plan.decode_buffers) + elements(&plan.prefill_buffers) * plan.prefill_tile as u64)
}
