//! The view of the generated `README.md`.

use askama::Template;
use forge_plan::Plan;

use forge_plan::memory;

use crate::model::decode_dispatches;
use crate::naming::crate_name;

/// `README.md`.
#[derive(Template)]
#[template(path = "project/README.md")]
pub struct ReadmeFile<'a> {
    pub title: &'a str,
    pub name: &'a str,
    pub library: String,
    pub version: &'static str,
    pub source: &'a str,
    pub command: &'a str,
    pub architecture: String,
    pub parameters: String,
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub context: usize,
    pub kernels: usize,
    pub dispatches: usize,
    pub weights: String,
    pub memory: Vec<MemoryRow>,
    /// What does not grow with the context, where there is any.
    pub recurrent: Option<String>,
    /// Whether the checkpoint has one.
    pub chat_template: bool,
    /// Whether there are libraries for other languages.
    pub bindings: bool,
}

/// Memory at one context.
pub struct MemoryRow {
    pub context: usize,
    pub cache: String,
    pub total: String,
}

impl<'a> ReadmeFile<'a> {
    /// The view of a plan.
    #[expect(clippy::too_many_arguments, reason = "what the plan does not know")]
    pub fn new(
        plan: &Plan,
        title: &'a str,
        name: &'a str,
        source: &'a str,
        command: &'a str,
        parameters: u64,
        weights_bytes: u64,
        chat_template: bool,
        bindings: bool,
    ) -> Self {
        let config = &plan.config;
        let mut contexts = vec![1024.min(plan.context), 8192.min(plan.context), plan.context];
        contexts.dedup();
        ReadmeFile {
            title,
            name,
            library: crate_name(name),
            version: env!("CARGO_PKG_VERSION"),
            source,
            command,
            architecture: crate::naming::plain(&config.architecture),
            parameters: count(parameters),
            layers: config.num_layers,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: config.num_heads,
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            vocab: config.vocab_size,
            context: plan.context,
            kernels: plan.kernels.len(),
            dispatches: decode_dispatches(plan),
            weights: bytes(weights_bytes),
            memory: contexts
                .into_iter()
                .map(|context| {
                    let cache = memory::kv_bytes(plan, context);
                    let made = memory::activation_bytes_per_token(plan) * context as u64;
                    let others = memory::activation_bytes(plan) + memory::recurrent_bytes(plan) + made;
                    MemoryRow { context, cache: bytes(cache), total: bytes(cache + weights_bytes + others) }
                })
                .collect(),
            recurrent: Some(memory::recurrent_bytes(plan)).filter(|&held| held > 0).map(bytes),
            chat_template,
            bindings,
        }
    }
}

fn bytes(value: u64) -> String {
    scaled(value, 1024.0, &["bytes", "KiB", "MiB", "GiB", "TiB"])
}

fn count(value: u64) -> String {
    scaled(value, 1000.0, &["", "thousand", "million", "billion"]).trim_end().to_owned()
}

fn scaled(value: u64, step: f64, units: &[&str]) -> String {
    let (mut number, mut unit) = (value as f64, 0);
    while number >= step && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    if unit == 0 { format!("{value} {}", units[0]) } else { format!("{number:.2} {}", units[unit]) }
}
