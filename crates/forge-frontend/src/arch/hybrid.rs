//! What decoders share of whose layers only some attend: which those are, and what all layers look like.

use serde_json::Value;

use super::builder::BlockBuilder;
use super::dense::Sizes;
use crate::graph::{Block, ValueId};
use crate::source::{Hparams, Key, integer, key};
use crate::{FrontendError, Refusal};

/// Layers that attend, by number (LFM2 before it had `layer_types`).
const ATTENDING: Key = Key::new("", "full_attn_idxs");

/// Whether each layer has a recurrent state.
const RECURRENT: Key = Key::new("attention.recurrent_layers", "");

/// Which layers attend; the others, called `recurrent` in a config.json, keep a recurrent state. `default` tells where no key
/// does.
///
/// # Errors
/// A key that does not say it of each layer.
pub(crate) fn attending_layers(
    h: &Hparams,
    layers: usize,
    recurrent: &str,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, FrontendError> {
    let unfit = |key: Key, expected: String| h.invalid(Refusal::LayerMixers, key, expected);
    let items = |key: Key| h.get(key).and_then(Value::as_array);
    if let Some(indices) = items(ATTENDING).filter(|_| h.get(key::LAYER_TYPES).is_none()) {
        let index = |item: &Value| integer(item).and_then(|n| usize::try_from(n).ok()).filter(|&n| n < layers);
        let indices: Option<Vec<usize>> = indices.iter().map(index).collect();
        let indices = indices.ok_or_else(|| unfit(ATTENDING, format!("numbers of the {layers} layers")))?;
        return Ok((0..layers).map(|layer| indices.contains(&layer)).collect());
    }
    let kind = |item: &Value| match item.as_str() {
        Some("full_attention") => Some(true),
        Some(name) if name == recurrent => Some(false),
        _ => None,
    };
    let mixes = |item: &Value| item.as_bool().map(|recurrent| !recurrent);
    // A GGUF says how many key and value heads each layer has.
    let heads = |item: &Value| integer(item).filter(|&heads| heads >= 0).map(|heads| heads > 0);
    for (key, attends, expected) in [
        (RECURRENT, &mixes as &dyn Fn(&Value) -> Option<bool>, "true or false".to_owned()),
        (key::LAYER_TYPES, &kind as &dyn Fn(&Value) -> Option<bool>, format!("full_attention or {recurrent}")),
        (Key::new(key::KV_HEADS.gguf, ""), &heads, "a number of heads, 0 where it does not attend,".to_owned()),
    ] {
        let Some(items) = items(key) else { continue };
        let list: Option<Vec<bool>> = items.iter().map(attends).collect();
        return match list.filter(|list| list.len() == layers) {
            Some(list) => Ok(list),
            None => Err(unfit(key, format!("{expected} for each of the {layers} layers"))),
        };
    }
    Ok((0..layers).map(default).collect())
}

/// The key and value heads of the layers that attend: the largest number, where a GGUF gives one for each layer.
pub(crate) fn kv_heads(h: &Hparams) -> Result<Option<usize>, FrontendError> {
    match h.get(key::KV_HEADS).and_then(Value::as_array) {
        Some(items) => Ok(items.iter().filter_map(integer).max().and_then(|most| usize::try_from(most).ok())),
        None => h.opt_usize(key::KV_HEADS),
    }
}

/// `x + mixer(norm(x))`, then `x + ffn(norm(x))`.
pub(super) fn layer(
    name: &str,
    sizes: &Sizes,
    mixer: impl Fn(&mut BlockBuilder, ValueId) -> ValueId,
    ffn: impl Fn(&mut BlockBuilder, ValueId) -> ValueId,
) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let mixer_in = b.rms_norm("mixer_in", "attn_norm", x, sizes.eps);
    let mixed = mixer(&mut b, mixer_in);
    let x = b.add("x_mixed", x, mixed);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, sizes.eps);
    let ffn = ffn(&mut b, ffn_in);
    let x = b.add("x_ffn", x, ffn);
    b.finish(x)
}
