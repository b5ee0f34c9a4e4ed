//! `forge inspect`: a checkpoint in numbers, what would be generated from it, and the memory that needs; where nothing can
//! be, what keeps it from that.

use std::fmt::Write as _;

use forge_frontend::{Checkpoint, Survey, survey};
use forge_plan::{PlanError, PlanOptions};
use forge_sources::Located;

use crate::cli::InspectArgs;
use crate::plan::{self, Asked, Document, Experts, Model, Stored};
use crate::warnings::warnings;
use crate::{Error, interrupt, page, sources, units};

/// The KV cache of a program is for this many tokens unless it is asked for more.
const USUAL_CONTEXT: usize = 8192;
/// Tokens of the prompt that is planned for unless told.
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
    if args.json {
        return Ok(Inspection { text: String::new(), problem: Some(Error::Unsupported(obstacle)) });
    }
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
    let plan =
        forge_plan::plan(&checkpoint.graph, &PlanOptions { kv: args.kv, slots: args.slots, ..PlanOptions::default() })?;
    let trained = plan.context;
    let context = args.context.unwrap_or(trained.min(USUAL_CONTEXT));
    if context == 0 || context > trained {
        return Err(PlanError::Context { asked: context, trained }.into());
    }
    let prompt = args.prompt.unwrap_or(USUAL_PROMPT).min(context);
    let document = plan::document(&checkpoint, &plan, Asked { context, prompt, bandwidth: args.bandwidth });
    if let Some(path) = &args.html {
        std::fs::write(path, page::page(&plan::json(&document))).map_err(Error::io(path))?;
        return Ok(format!("wrote {}\n", path.display()));
    }
    if args.json {
        return Ok(plan::json(&document));
    }
    let mut text = report(&checkpoint, &document, args.plan);
    if args.plan {
        text.push_str(&plan::text::report(&document));
    }
    Ok(text)
}

fn report(checkpoint: &Checkpoint, plan: &Document, every_chip: bool) -> String {
    let model = &plan.model;
    let mut text = String::new();
    let mut lines = vec![
        ("parameters", parameters(model)),
        ("layers", model.layers.len().to_string()),
        ("hidden size", model.hidden_size.to_string()),
        ("feed-forward size", model.intermediate_size.to_string()),
    ];
    lines.extend(experts(model).map(|experts| ("experts", experts)));
    lines.extend([
        ("heads", format!("{} of {}, {} for keys and values", model.heads, model.head_dim, model.kv_heads)),
        ("vocabulary", model.vocabulary.to_string()),
        ("trained context", format!("{} tokens", model.trained_context)),
        ("chat template", chat_templates(checkpoint)),
    ]);
    section(&mut text, &format!("{} ({}, {})", model.name, model.architecture, model.checkpoint), &lines);
    section(&mut text, "Tensors", &formats(plan));
    list(&mut text, "Warnings", &warnings(&checkpoint.warnings));
    let (token, context) = (&plan.decode.totals, plan.options.context);
    section(
        &mut text,
        "Would be generated",
        &[
            ("kernels", plan.kernels.len().to_string()),
            ("decode", format!("{} dispatches and {} barriers a token", token.dispatches, token.barriers)),
            ("prefill", format!("tiles of {} tokens", plan.options.tile)),
            ("weights file", units::bytes(plan.weights.file_bytes)),
        ],
    );
    section(&mut text, &format!("Memory at {context} tokens of context"), &plan::text::memory(plan));
    let title = format!("Decoding with {context} tokens of context, at most");
    section(&mut text, &title, &plan::text::roofline(plan, every_chip));
    text
}

/// Parameters, and of a mixture those that a token is multiplied with.
fn parameters(model: &Model) -> String {
    let all = units::parameters(model.parameters);
    if model.experts.is_empty() {
        return all;
    }
    format!("{all}, {} active", units::parameters(model.active_parameters))
}

/// The experts of a mixture: how many a token takes, and their weights' bytes as stored.
fn experts(model: &Model) -> Option<String> {
    let rules: Vec<String> =
        model.experts.iter().map(|Experts { chosen, of }| format!("{chosen} of {of} a token")).collect();
    (!rules.is_empty()).then(|| format!("{}, {}", rules.join(" or "), units::bytes(model.expert_bytes)))
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
fn formats(plan: &Document) -> Vec<(String, String)> {
    let line = |Stored { format, tensors, parameters, bytes }: &Stored| {
        let parameters = units::parameters(*parameters);
        (format.clone(), format!("{tensors} tensors, {parameters} parameters, {}", units::bytes(*bytes)))
    };
    plan.weights.stored.iter().map(line).collect()
}
