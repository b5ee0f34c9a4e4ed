//! `forge list`: the models that are on this machine under a name, and what Forge would make of each.

use forge_plan::{PlanOptions, costs, plan};
use forge_sources::{Environment, Held, Located, held};
use serde_json::{Value, json};

use crate::chips::{Chip, tokens_per_second};
use crate::cli::ListArgs;
use crate::{Error, interrupt, sources, table, units};

/// Tokens of context at which speed is given, or the trained context where that is shorter.
const CONTEXT: usize = 8192;

/// What is known of a model.
struct Known {
    architecture: String,
    /// The format of most of its bytes.
    format: String,
    trained_context: usize,
    /// Tokens of context at which the bytes are counted.
    context: usize,
    /// Bytes that a token reads and writes.
    token_bytes: u64,
}

/// The report on what this machine holds.
///
/// # Errors
/// An interruption.
pub fn run(args: &ListArgs) -> Result<String, Error> {
    let environment = Environment::of_process();
    let chip = args.chip.unwrap_or_else(Chip::here);
    let mut found = Vec::new();
    for held in held(&environment) {
        interrupt::check()?;
        let known = look(&held);
        found.push((held, known));
    }
    if args.json {
        let items: Vec<Value> = found.iter().map(|(held, known)| item(held, known, chip)).collect();
        let text = serde_json::to_string_pretty(&json!({ "chip": chip.name, "models": items })).expect("plain values");
        return Ok(text + "\n");
    }
    if found.is_empty() {
        let stores: Vec<String> = [environment.cache, environment.lm_studio]
            .into_iter()
            .chain(environment.ollama)
            .map(|store| store.display().to_string())
            .collect();
        return Ok(format!("no models in {}\n", stores.join(", ")));
    }
    Ok(text(&found, chip))
}

fn look(held: &Held) -> Result<Known, String> {
    let path = held.path.as_ref().map_err(ToString::to_string)?.clone();
    let located = Located { path, name: None, source: None, stale: None };
    let checkpoint = sources::load(&located).map_err(|error| error.to_string())?;
    let plan = plan(&checkpoint.graph, &PlanOptions::default()).map_err(|error| error.to_string())?;
    let mut formats: Vec<(String, u64)> = Vec::new();
    for weight in &checkpoint.graph.weights {
        let bytes = weight.format.row_bytes(weight.cols).unwrap_or(0) as u64 * weight.rows as u64;
        let name = weight.format.to_string();
        match formats.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += bytes,
            None => formats.push((name, bytes)),
        }
    }
    let format = formats.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(name, _)| name).unwrap_or_default();
    let context = plan.context.min(CONTEXT);
    Ok(Known {
        architecture: checkpoint.graph.config.architecture.clone(),
        format,
        trained_context: checkpoint.graph.config.trained_context,
        context,
        token_bytes: costs::decode(&plan, context - 1).bytes(),
    })
}

fn text(found: &[(Held, Result<Known, String>)], chip: Chip) -> String {
    let rate = format!("tokens/s on {}", chip.name);
    let header = ["name", "architecture", "mostly", "size", "context", &rate];
    let mut rows = vec![header.map(str::to_owned)];
    let mut refused = Vec::new();
    for (held, known) in found {
        let size = if held.bytes == 0 { "-".to_owned() } else { units::bytes(held.bytes) };
        rows.push(match known {
            Ok(known) => [
                held.name.clone(),
                known.architecture.clone(),
                known.format.clone(),
                size,
                known.trained_context.to_string(),
                chip.rate(known.token_bytes),
            ],
            Err(reason) => {
                refused.push(format!("  {}: {}", held.name, reason.strip_prefix("unsupported: ").unwrap_or(reason)));
                let dash = || "-".to_owned();
                [held.name.clone(), "not supported".to_owned(), dash(), size, dash(), dash()]
            }
        });
    }
    let mut lines = table::aligned(&rows, 3);
    lines.push(String::new());
    lines.push(format!(
        "Speed: at most, of memory's {} GB/s, with {CONTEXT} tokens of context or all that a model has.",
        chip.bandwidth
    ));
    if !refused.is_empty() {
        lines.push("\nNot supported:".to_owned());
        lines.extend(refused);
    }
    // A name or a message may hold anything.
    let plain = |line: String| line.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}");
    lines.into_iter().map(|line| plain(line) + "\n").collect()
}

fn item(held: &Held, known: &Result<Known, String>, chip: Chip) -> Value {
    let mut item = json!({ "name": held.name, "bytes": held.bytes, "supported": known.is_ok() });
    if let Ok(path) = &held.path {
        item["path"] = json!(path);
    }
    match known {
        Ok(known) => {
            item["architecture"] = json!(known.architecture);
            item["format"] = json!(known.format);
            item["trained_context"] = json!(known.trained_context);
            item["context"] = json!(known.context);
            item["bytes_per_token"] = json!(known.token_bytes);
            item["tokens_per_second"] = json!(tokens_per_second(chip.bandwidth.into(), known.token_bytes));
        }
        Err(reason) => item["reason"] = json!(reason),
    }
    item
}
