//! What both of OpenAI's APIs here have: their common fields, and the numbers of an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::super::assets::SamplingOptions;
use super::super::super::generation::Summary;
use super::super::super::grammar::Form;
use super::super::super::sampler::BANNED;
use super::super::api_error::ApiError;
use super::super::fields::{Fields, wrong_type};
use super::{End, Head, Why, data};

/// Stop strings of one request; OpenAI has 4.
const MAX_STOPS: usize = 16;

/// Bytes of one stop string: the end of the text is compared with it at every token.
const LONGEST_STOP: usize = 4096;

/// What a stream says when it has nothing to say: an event that clients pass over (Server-sent events, HTML standard).
pub(super) const COMMENT: &str = ": still at work\n\n";

/// The end of a stream.
pub(super) const DONE: &str = "data: [DONE]\n\n";

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

/// How tokens are chosen.
pub(super) fn sampling(fields: &Fields) -> Result<SamplingOptions, ApiError> {
    Ok(SamplingOptions {
        temperature: fields.number("temperature")?,
        top_k: fields.count("top_k")?,
        top_p: fields.number("top_p")?,
        min_p: fields.number("min_p")?,
        repeat_penalty: match fields.number("repeat_penalty")? {
            Some(penalty) => Some(penalty),
            None => fields.number("repetition_penalty")?,
        },
        presence_penalty: fields.number("presence_penalty")?,
        frequency_penalty: fields.number("frequency_penalty")?,
        logit_bias: logit_bias(fields)?,
        seed: fields.seed("seed")?,
    })
}

/// Biases of tokens: an object of ids as OpenAI has it, or a list of pairs as llama.cpp's server has it, where `false` is a ban. Of
/// pairs of one token the last counts.
fn logit_bias(fields: &Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong = || wrong_type("logit_bias", "an object of token ids and numbers, or a list of pairs of these");
    let pair = |id: Option<u32>, bias: &Value| {
        let bias = if bias == &Value::Bool(false) { Some(BANNED) } else { bias.as_f64().map(|bias| bias as f32) };
        id.zip(bias).ok_or_else(wrong)
    };
    let biases: Result<BTreeMap<u32, f32>, ApiError> = match fields.get("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(biases)) => biases.iter().map(|(id, bias)| pair(id.parse().ok(), bias)).collect(),
        Some(Value::Array(pairs)) => pairs
            .iter()
            .map(|one| match one.as_array().map(Vec::as_slice) {
                Some([id, bias]) => pair(id.as_u64().and_then(|id| u32::try_from(id).ok()), bias),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    };
    Ok(biases?.into_iter().collect())
}

/// Refuses what would change the answer and cannot be done.
pub(super) fn refuse_unsupported(fields: &Fields) -> Result<(), ApiError> {
    let zero = |value: &Value| value.as_f64() == Some(0.0);
    let off = |value: &Value| value.as_bool() == Some(false);
    let empty = |value: &Value| {
        value.as_object().is_some_and(Map::is_empty)
            || value.as_str() == Some("")
            || value.as_array().is_some_and(Vec::is_empty)
    };
    let one = |value: &Value| value.as_u64() == Some(1);
    let unforced = |value: &Value| matches!(value.as_str(), Some("none" | "auto"));
    fields.refuse_unless("n", one, "only 1 answer to a request is supported")?;
    fields.refuse_unless("best_of", one, "only 1 is supported")?;
    fields.refuse_unless("echo", off, "is not supported")?;
    fields.refuse_unless("suffix", empty, "is not supported")?;
    fields.refuse_unless("logprobs", |value| off(value) || zero(value), "is not supported")?;
    fields.refuse_unless("top_logprobs", zero, "is not supported")?;
    for name in FORMS {
        fields.refuse_unless(name, empty, "is not supported; response_format is")?;
    }
    fields.refuse_unless("functions", empty, "is not supported; tools is")?;
    fields.refuse_unless("function_call", unforced, "is not supported; tool_choice is")?;
    let text_alone = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(|kind| kind == "text"));
    fields.refuse_unless("modalities", text_alone, "only [\"text\"] is supported")?;
    fields.refuse_unless("audio", |_| false, "is not supported")?;
    fields.refuse_unless("ignore_eos", off, "is not supported")?;
    let on = |value: &Value| value.as_bool() == Some(true);
    fields.refuse_unless("cache_prompt", on, "what a prompt begins with is always reused if it can be")
}

/// Fields of llama.cpp's server and of vLLM that hold answers to a form.
const FORMS: [&str; 7] =
    ["grammar", "json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"];

/// What a format of answers, in a field of this name, holds them to; nothing for plain text. A schema is in an object of its own in OpenAI's chat,
/// and beside the type elsewhere.
///
/// # Errors
/// It is none that is known.
pub(super) fn form(name: &str, format: Option<&Value>) -> Result<Option<Form>, ApiError> {
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    let schema = |holder: &Value| holder.get("schema").filter(|schema| !schema.is_null()).cloned();
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(schema(format).map_or_else(Form::object, Form::Schema))),
        Some("json_schema") => {
            let schema = schema(&format["json_schema"]).or_else(|| schema(format));
            schema
                .map(|schema| Some(Form::Schema(schema)))
                .ok_or_else(|| wrong_type(&format!("{name}.schema"), "a schema"))
        }
        _ => Err(wrong_type(name, "of type \"text\", \"json_object\" or \"json_schema\"")),
    }
}

/// Set if the answer is to be streamed.
pub(super) fn stream_options(fields: &Fields) -> Result<Option<StreamOptions>, ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let include_usage = match fields.object("stream_options")? {
        Some(_) if !stream => {
            return Err(ApiError::invalid("stream_options".to_owned(), "stream_options needs \"stream\": true".into()));
        }
        Some(options) => match options.get("include_usage") {
            None | Some(Value::Null) => false,
            Some(value) => {
                value.as_bool().ok_or_else(|| wrong_type("stream_options.include_usage", "true or false"))?
            }
        },
        None => false,
    };
    Ok(stream.then_some(StreamOptions { include_usage }))
}

/// The strings of a field that end an answer.
pub(super) fn stop_strings(fields: &Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let expected = "a string or a list of strings";
    let stops = match fields.get(name) {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name, expected)))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong_type(name, expected)),
    };
    if stops.len() > MAX_STOPS {
        return Err(ApiError::invalid(
            name.to_owned(),
            format!("{name} has {} strings, at most {MAX_STOPS} are allowed", stops.len()),
        ));
    }
    if stops.iter().any(|stop| stop.len() > LONGEST_STOP) {
        let words = format!("{name} has a string longer than {LONGEST_STOP} bytes");
        return Err(ApiError::invalid(name.to_owned(), words));
    }
    Ok(stops)
}

fn object(head: &Head, object: &str, choices: Value) -> Value {
    let Head { id, created, model, .. } = head;
    json!({ "id": id, "object": object, "created": created, "model": model, "choices": choices })
}

/// A part of a stream.
pub(super) fn chunk(head: &Head, name: &str, choice: Value, options: StreamOptions) -> Value {
    let mut body = object(head, name, json!([choice]));
    if options.include_usage {
        // As OpenAI has it: null in every chunk but the last.
        body["usage"] = Value::Null;
    }
    body
}

/// The end of a stream, whose last chunk is `last`.
pub(super) fn ending(head: &Head, name: &str, mut last: Value, end: &End, options: StreamOptions) -> String {
    last["timings"] = timings(&end.summary);
    let mut text = data(&last);
    if options.include_usage {
        let mut body = object(head, name, json!([]));
        body["usage"] = usage(&end.summary);
        text += &data(&body);
    }
    text + DONE
}

/// A whole answer.
pub(super) fn whole(head: &Head, name: &str, choice: Value, end: &End) -> Value {
    let mut body = object(head, name, json!([choice]));
    body["usage"] = usage(&end.summary);
    body["timings"] = timings(&end.summary);
    body
}

/// Why an answer ended.
pub(super) fn finish_reason(end: &End) -> &'static str {
    match end.why {
        Why::Calls => "tool_calls",
        Why::Stop => "stop",
        Why::Length => "length",
    }
}

/// Tokens of the prompt and of the answer.
fn usage(summary: &Summary) -> Value {
    json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.prompt_tokens + summary.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": summary.reused_tokens },
    })
}

/// By the names that llama.cpp's server has for them, and four more.
fn timings(summary: &Summary) -> Value {
    let Summary {
        prompt_tokens,
        reused_tokens,
        tier,
        completion_tokens,
        guessed_tokens,
        right_tokens,
        forced_tokens,
        miss,
        queue_time,
        prompt_time,
        decode_time,
        ..
    } = summary;
    let milliseconds = |time: &Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let rate = |tokens: usize, time: &Duration| {
        let seconds = time.as_secs_f64();
        if seconds > 0.0 { json!((tokens as f64 / seconds * 1e3).round() / 1e3) } else { Value::Null }
    };
    let fresh = prompt_tokens - reused_tokens;
    json!({
        "cache_n": reused_tokens,
        "cache_tier": tier.map(|tier| tier.name()),
        "cache_miss": miss.map(|miss| miss.to_string()),
        "queue_ms": milliseconds(queue_time),
        "prompt_n": fresh,
        "prompt_ms": milliseconds(prompt_time),
        "prompt_per_second": rate(fresh, prompt_time),
        "predicted_n": completion_tokens,
        "predicted_ms": milliseconds(decode_time),
        // The first token comes out of the prompt's own run.
        "predicted_per_second": rate(completion_tokens.saturating_sub(1), decode_time),
        "draft_n": guessed_tokens,
        "draft_n_accepted": right_tokens,
        "forced_n": forced_tokens,
    })
}
