//! `info`: what this program is, and the memory it takes.

use super::super::assets::{GenerationDefaults, Text};
use super::super::gpu::format_bytes;
use super::super::{LanguageModel, Result};
use super::{Program, count, terminal};

pub(super) fn run<M: LanguageModel + 'static>(program: &Program<M>) -> Result<()> {
    let info = program.info;
    let text = program.text()?;
    let mut lines = vec![
        ("model".to_owned(), format!("{} ({}), from {}", info.name, info.architecture, info.source)),
        ("parameters".to_owned(), format!("{} ({})", info.parameters, count(info.parameters))),
        ("vocabulary".to_owned(), format!("{} tokens", info.vocab_size)),
        (
            "context".to_owned(),
            format!("{} tokens by default, trained for {}", info.default_context, info.trained_context),
        ),
        ("prefill tile".to_owned(), format!("{} tokens", info.prefill_tile)),
        ("kernels".to_owned(), info.kernels.len().to_string()),
        ("chat template".to_owned(), templates(&text)),
        ("sampling".to_owned(), sampling(&text.defaults)),
        ("weights".to_owned(), format_bytes(info.weights_bytes)),
        ("KV cache".to_owned(), format!("{} a token", format_bytes(info.kv_bytes_per_token))),
        ("activations".to_owned(), format_bytes(info.activation_bytes)),
    ];
    if info.recurrent_bytes > 0 {
        lines.push(("recurrent state".to_owned(), format_bytes(info.recurrent_bytes)));
    }
    let mut contexts = vec![info.default_context, info.trained_context];
    contexts.extend(program.global.context);
    contexts.sort_unstable();
    contexts.dedup();
    for context in contexts {
        lines.push((format!("memory at {context}"), format_bytes(info.memory_bytes(context))));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect();
    terminal::print(&lines.concat())
}

/// Whether there are chat templates, and which besides the default one.
fn templates(text: &Text) -> String {
    let mut names: Vec<&str> = text.templates.names().collect();
    names.retain(|name| *name != "default");
    match (text.templates.is_empty(), names.as_slice()) {
        (true, _) => "no".to_owned(),
        (_, []) => "yes".to_owned(),
        (_, names) => format!("yes; also {}", names.join(", ")),
    }
}

fn sampling(defaults: &GenerationDefaults) -> String {
    match defaults.sampling(&Default::default()) {
        Ok(sampling) if sampling.temperature <= 0.0 => "greedy".to_owned(),
        Ok(sampling) => format!(
            "temperature {}, top-k {}, top-p {}, min-p {}, repeat penalty {}",
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, sampling.repeat_penalty
        ),
        Err(error) => error.to_string(),
    }
}
