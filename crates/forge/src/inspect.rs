//! `forge inspect`: a checkpoint in numbers, what would be generated from it, and the memory that needs; where nothing can
//! be, what keeps it from that.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forge_frontend::graph::Op;
use forge_frontend::{Checkpoint, Graph, Survey, survey};
use forge_pack::Header;
use forge_plan::costs;
use forge_plan::{Plan, PlanError, PlanOptions, plan};
use forge_sources::Located;

use crate::cli::InspectArgs;
use crate::warnings::warnings;
use crate::{Error, interrupt, plan_report, sources, units};

/// The KV cache of a program is for this many tokens unless it is asked for more.
const USUAL_CONTEXT: usize = 8192;
/// Tokens of the prompt that `--plan` shows unless told.
const USUAL_PROMPT: usize = 512;

/// What there is to tell of a checkpoint.
#[derive(Debug)]
pub struct Inspection {
    /// The report.
    pub text: String,
    /// Why nothing can be generated, where that is so.
    pub problem: Option<Error>,
}

/// Reads the checkpoint, plans it and gives the report. One that is a checkpoint but cannot be generated from gets a report
/// on what it is and everything that stands against it.
///
/// # Errors
/// Files that cannot be read as a checkpoint, or a context that the model does not have.
pub fn run(args: &InspectArgs) -> Result<Inspection, Error> {
    let located = sources::locate(&args.checkpoint, args.offline, false)?;
    let obstacle = match supported(args, &located) {
        Ok(text) => return Ok(Inspection { text, problem: None }),
        Err(Error::Unsupported(obstacle)) => obstacle,
        Err(error) => return Err(error),
    };
    let text = survey(&located.path).map_or_else(
        |_| String::new(),
        |mut survey| {
            sources::call(&mut survey.name, &located);
            obstacles(&survey, &obstacle)
        },
    );
    Ok(Inspection { text, problem: Some(Error::Unsupported(obstacle)) })
}

/// The report on a checkpoint that is not supported.
fn obstacles(survey: &Survey, obstacle: &Error) -> String {
    let mut text = String::new();
    let name = format!("{} ({}, {})", survey.name, survey.architecture, survey.kind);
    let formats: Vec<(String, String)> = survey
        .formats
        .iter()
        .map(|count| {
            let note = if count.supported { "" } else { ", not supported" };
            (plain(&count.format), format!("{} tensors{note}", count.tensors))
        })
        .collect();
    section::<&str>(&mut text, &plain(&name), &[]);
    section(&mut text, "Tensors", &formats);
    // A plan comes after what a survey looks at.
    let reasons = if survey.problems.is_empty() { vec![obstacle.to_string()] } else { survey.problems.clone() };
    list(&mut text, "Warnings", &warnings(&survey.warnings));
    list(&mut text, "Nothing can be generated", &reasons);
    text
}

/// A section with an item a line; nothing where there are none.
fn list(text: &mut String, title: &str, items: &[String]) {
    let items: Vec<(&str, String)> = items.iter().map(|item| ("-", plain(item))).collect();
    if !items.is_empty() {
        section(text, title, &items);
    }
}

/// A text from a checkpoint without what a terminal would act on.
fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "\u{fffd}")
}

fn supported(args: &InspectArgs, located: &Located) -> Result<String, Error> {
    let checkpoint = sources::load(located)?;
    interrupt::check()?;
    let plan = plan(&checkpoint.graph, &PlanOptions { kv: args.kv, slots: args.slots, ..PlanOptions::default() })?;
    let trained = plan.context;
    let context = args.context.unwrap_or(trained.min(USUAL_CONTEXT));
    if context == 0 || context > trained {
        return Err(PlanError::Context { asked: context, trained }.into());
    }
    let mut text = report(&checkpoint, &plan, context, args);
    if args.plan {
        text.push_str(&plan_report::report(&plan, context, args.prompt.unwrap_or(USUAL_PROMPT).min(context)));
    }
    Ok(text)
}

fn report(checkpoint: &Checkpoint, plan: &Plan, context: usize, args: &InspectArgs) -> String {
    let graph = &checkpoint.graph;
    let config = &graph.config;
    let mut text = String::new();
    let mut lines = vec![
        ("parameters", parameters(graph)),
        ("layers", config.num_layers.to_string()),
        ("hidden size", config.hidden_size.to_string()),
        ("feed-forward size", config.intermediate_size.to_string()),
    ];
    lines.extend(experts(graph).map(|experts| ("experts", experts)));
    lines.extend([
        ("heads", format!("{} of {}, {} for keys and values", config.num_heads, config.head_dim, config.num_kv_heads)),
        ("vocabulary", config.vocab_size.to_string()),
        ("trained context", format!("{} tokens", config.trained_context)),
        ("chat template", chat_templates(checkpoint)),
    ]);
    section(&mut text, &format!("{} ({}, {})", config.name, config.architecture, checkpoint.kind), &lines);
    section(&mut text, "Tensors", &formats(checkpoint));
    list(&mut text, "Warnings", &warnings(&checkpoint.warnings));
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
    let title = format!("Memory at {context} tokens of context");
    section(&mut text, &title, &plan_report::memory(plan, weights, context));
    let title = format!("Decoding with {context} tokens of context, at most");
    section(&mut text, &title, &plan_report::roofline(&token, args.bandwidth, args.plan));
    text
}

/// Parameters, and of a mixture those that a token is multiplied with.
fn parameters(graph: &Graph) -> String {
    let all = units::parameters(graph.parameters());
    match experts(graph) {
        Some(_) => format!("{all}, {} active", units::parameters(graph.active_parameters())),
        None => all,
    }
}

/// The experts of a mixture: how many a token takes, and their weights' bytes as stored.
fn experts(graph: &Graph) -> Option<String> {
    let mut rules: Vec<(usize, usize)> = Vec::new();
    let mut bytes = 0;
    for layer in &graph.layers {
        let block = &graph.blocks[layer.block];
        for node in &block.nodes {
            match &node.op {
                Op::Route { routing, .. } if !rules.contains(&(routing.chosen, routing.experts)) => {
                    rules.push((routing.chosen, routing.experts));
                }
                Op::Experts { .. } => {
                    let weights = node.op.slots().into_iter().map(|slot| &graph.weights[layer.weights[slot]]);
                    bytes +=
                        weights.map(|w| w.format.row_bytes(w.cols).unwrap_or(0) as u64 * w.rows as u64).sum::<u64>();
                }
                _ => {}
            }
        }
    }
    let rules: Vec<String> = rules.iter().map(|(chosen, experts)| format!("{chosen} of {experts} a token")).collect();
    (!rules.is_empty()).then(|| format!("{}, {}", rules.join(" or "), units::bytes(bytes)))
}

/// Whether there are chat templates, and which besides the default one.
fn chat_templates(checkpoint: &Checkpoint) -> String {
    let assets = &checkpoint.assets;
    let default = if assets.chat_template.is_some() { "yes" } else { "no" };
    match assets.other_templates.as_slice() {
        [] => default.to_owned(),
        others => format!("{default}; also {}", others.join(", ")),
    }
}

fn section<N: AsRef<str>>(text: &mut String, title: &str, lines: &[(N, String)]) {
    let bold = anstyle::Style::new().bold();
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{bold}{title}{bold:#}");
    let width = lines.iter().map(|(name, _)| name.as_ref().chars().count()).max().unwrap_or(0);
    for (name, value) in lines {
        let _ = writeln!(text, "  {:width$}  {value}", name.as_ref());
    }
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
