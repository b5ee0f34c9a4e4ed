//! What the server tells of itself and of its model, and its text side on its own: routes that generate nothing.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::Error;
use super::super::assets::Text;
use super::super::chat::MOST_GIVEN_UP;
use super::super::generation::Status;
use super::Shared;
use super::answer::json_response;
use super::api_error::ApiError;
use super::dialect;
use super::fields::{Fields, wrong_type};
use super::log::timestamp;
use super::request::{self, Words};
use super::worker::Loading;

/// What happened so far, for Prometheus.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.metrics.page(&shared.worker.shown())
}

/// 200 once the server answers; 503 while the model is being loaded, and when only a restart helps.
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    if *shared.loading.borrow() != Loading::Done {
        return ApiError::loading().into_response();
    }
    match shared.text.templates.given_up() {
        renderings @ MOST_GIVEN_UP.. => {
            ApiError::degraded(Error::RenderingsGivenUp { renderings }.to_string()).into_response()
        }
        _ => json_response(&json!({ "status": "ok" })),
    }
}

/// What runs in each slot, by the names that llama.cpp's server has for it.
pub(super) async fn slots(State(shared): State<Arc<Shared>>) -> Response {
    let shown = shared.worker.shown();
    let slot = |(id, slot): (usize, &Status)| {
        json!({
            "id": id,
            "n_ctx": shared.context,
            "is_processing": slot.request.is_some(),
            "id_task": slot.request,
            "n_tokens": slot.tokens,
            "n_decoded": slot.completion_tokens,
        })
    };
    let slots: Vec<Value> = shown.slots.iter().enumerate().map(slot).collect();
    json_response(&json!({
        "slots": slots,
        "waiting": shown.waiting,
        "kept_bytes": shown.kept_bytes,
        "stored_bytes": shown.stored_bytes,
    }))
}

/// The one model, as OpenAI lists models, and as Anthropic does.
pub(super) async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let id = shared.info.name;
    json_response(&json!({
        "object": "list", "data": [model_object(&shared)], "has_more": false, "first_id": id, "last_id": id,
    }))
}

pub(super) async fn model(State(shared): State<Arc<Shared>>, id: Result<Path<String>, PathRejection>) -> Response {
    // What is no UTF-8 is no model's name either.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    if id == shared.info.name {
        json_response(&model_object(&shared))
    } else {
        ApiError::not_found(format!("no model {id:?}; this server has {:?}", shared.info.name), Some("model_not_found"))
            .into_response()
    }
}

/// Lengths of contexts go by the names that llama.cpp's server, vLLM and OpenRouter have for them.
fn model_object(shared: &Shared) -> Value {
    let info = shared.info;
    json!({
        "id": info.name,
        "object": "model",
        "created": shared.started,
        "owned_by": "forge",
        "context_length": shared.context,
        "max_model_len": shared.context,
        "meta": {
            "n_ctx_train": info.trained_context,
            "n_vocab": info.vocab_size,
            "n_params": info.parameters,
            "size": info.weights_bytes,
        },
        "type": "model",
        "display_name": info.name,
        "created_at": timestamp(shared.started),
    })
}

/// The server's properties, by the names that llama.cpp's server has for them.
pub(super) async fn props(State(shared): State<Arc<Shared>>) -> Response {
    let Shared { info, text, answers, context, .. } = &*shared;
    let defaults = &text.defaults;
    json_response(&json!({
        "default_generation_settings": {
            "n_ctx": context,
            "params": {
                "temperature": defaults.temperature,
                "top_k": defaults.top_k,
                "top_p": defaults.top_p,
                "min_p": defaults.min_p,
                "repeat_penalty": defaults.repeat_penalty,
            },
        },
        "total_slots": info.slots,
        "model_alias": info.name,
        "model_path": info.source,
        "chat_template": text.templates.default_source(),
        "bos_token": defaults.bos_token,
        "eos_token": defaults.eos_token,
        "modalities": { "vision": false, "audio": false },
        "build_info": concat!("forge ", env!("CARGO_PKG_VERSION")),
        "tool_calls": answers.calls.as_ref().map(|form| form.describe()),
        "reasoning": answers.thinking.describe(),
    }))
}

/// The ids of a text (`content`, by default without what the tokenizer adds, as in llama.cpp's server; `prompt`, with it, as in vLLM's), or
/// of a chat.
pub(super) fn tokenize(shared: &Shared, body: &[u8]) -> Result<Value, ApiError> {
    let Shared { text, answers, context, .. } = shared;
    let mut fields = request::fields(body, *context)?;
    let add = |name: &str, usual: bool| Ok::<_, ApiError>(fields.boolean(name)?.unwrap_or(usual));
    let special = [add("add_special", false)?, add("add_special_tokens", fields.get("prompt").is_some())?];
    let [pieces, strings] = [add("with_pieces", false)?, add("return_token_strs", false)?];
    let trusted = add("parse_special", true)?;
    let ids = if fields.get("messages").is_some() {
        let chat = dialect::chat(&mut fields)?;
        let words = request::render(chat, text, answers, "messages", Words::Shielded)?.words;
        encode(text, &words, false)?
    } else {
        let name = if fields.get("content").is_some() { "content" } else { "prompt" };
        let words = fields.string(name)?;
        let words = words
            .ok_or_else(|| ApiError::invalid("content".to_owned(), "content, prompt or messages is missing".into()))?;
        let words = if trusted { words.into() } else { text.tokenizer.shield(words) };
        encode(text, &words, special.contains(&true))?
    };
    let token = |id: &u32| match pieces {
        false => json!(id),
        true => json!({ "id": id, "piece": piece(text, *id) }),
    };
    let tokens: Vec<Value> = ids.iter().map(token).collect();
    let mut answer = json!({ "tokens": tokens, "count": ids.len(), "max_model_len": context });
    if strings {
        answer["token_strs"] = ids.iter().map(|id| text.tokenizer.token(*id)).collect::<Vec<_>>().into();
    }
    Ok(answer)
}

fn encode(text: &Text, words: &str, special: bool) -> Result<Vec<u32>, ApiError> {
    text.tokenizer.encode(words, special).map_err(|error| ApiError::from_runtime(&error, "content"))
}

/// What a token alone stands for: text, or bytes of a character that others end.
fn piece(text: &Text, id: u32) -> Value {
    text.tokenizer.decode(&[id], false).map_or(Value::Null, Value::from)
}

/// The text of ids, special tokens as they are written.
pub(super) fn detokenize(shared: &Shared, body: &[u8]) -> Result<Value, ApiError> {
    let Shared { text, info, context, .. } = shared;
    let fields = request::fields(body, *context)?;
    let wrong = || wrong_type("tokens", "a list of token ids");
    let list = fields.get("tokens").and_then(Value::as_array).ok_or_else(wrong)?;
    let id = |id: &Value| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)?;
        match (id as usize) < info.vocab_size {
            true => Ok(id),
            false => Err(ApiError::from_runtime(&Error::TokenOutOfRange { id, vocab_size: info.vocab_size }, "tokens")),
        }
    };
    let ids = list.iter().map(id).collect::<Result<Vec<_>, _>>()?;
    let words = text.tokenizer.decode(&ids, false).map_err(|error| ApiError::from_runtime(&error, "tokens"))?;
    Ok(json!({ "content": words, "prompt": words }))
}

/// The text that a chat's template makes of it.
pub(super) fn apply_template(shared: &Shared, body: &[u8]) -> Result<Value, ApiError> {
    let Shared { text, answers, context, .. } = shared;
    let mut fields: Fields = request::fields(body, *context)?;
    let chat = dialect::chat(&mut fields)?;
    let rendered = request::render(chat, text, answers, "messages", Words::AsWritten)?;
    Ok(json!({ "prompt": rendered.words }))
}
