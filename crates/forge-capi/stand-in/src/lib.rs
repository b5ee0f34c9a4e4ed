//! What a generated project is to its C library, with a model that is a hash function: for tests that need no project.

#[path = "../../../forge-runtime/tests/common/mod.rs"]
#[allow(clippy::all, reason = "tests share it")]
mod common;

use std::sync::OnceLock;
use std::time::Duration;

pub use forge_runtime as runtime;
use forge_runtime::service::{Options, Service};
use forge_runtime::{Assets, Error, ModelInfo, Result};

use common::{HashModel, INFO};

static ASSETS: Assets = Assets {
    tokenizer: include_bytes!("../../../forge-runtime/tests/fixtures/demo/tokenizer.json"),
    chat_template: Some(include_str!("../../../forge-runtime/tests/fixtures/demo/chat_template.jinja")),
    generation: include_str!("../../../forge-runtime/tests/fixtures/demo/generation.json"),
    project: env!("CARGO_MANIFEST_DIR"),
    weights: None,
};

/// A token on which the model panics.
pub const PANICS: u32 = 1999;

/// Loads a model of two slots. The weights' path says what it is to be like: `slow` takes 5 ms a token, `panics` panics instead of being loaded;
/// any other is to exist.
///
/// # Errors
/// Those of [`Service::load`].
pub fn load(options: &Options) -> Result<Service> {
    let path = options.weights.clone().unwrap_or_default();
    let kinds = ["", "slow", "panics"];
    if !kinds.iter().any(|kind| path.as_os_str() == *kind) {
        std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    }
    let options = Options { weights: Some("unused".into()), ..options.clone() };
    Service::load(&ASSETS, &options, move |options| {
        assert!(!path.ends_with("panics"), "asked to panic");
        static TWO_SLOTS: OnceLock<ModelInfo> = OnceLock::new();
        let info = TWO_SLOTS.get_or_init(|| ModelInfo { slots: 2, few_rows: 8, ..INFO });
        let context = options.context_for(info)?;
        let pace = if path.ends_with("slow") { Duration::from_millis(5) } else { Duration::ZERO };
        Ok(HashModel { context, pace, panic_on: Some(PANICS), info: Some(info), ..HashModel::new() })
    })
}
