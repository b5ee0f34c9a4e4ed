//! What both of OpenAI's APIs here have: their common fields, and the numbers of an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::super::assets::SamplingOptions;
use super::super::super::generation::{Score, Summary};
use super::super::super::grammar::Form;
use super::super::super::sampler::BANNED;
use super::super::api_error::ApiError;
use super::super::fields::{Fields, wrong_type};
use super::{Chosen, End, Head, Item, Mark, Why, data};

/// Stop strings of one request; OpenAI has 4.
const MAX_STOPS: usize = 16;

/// Bytes of one stop string: the end of the text is compared with it at every token.
const LONGEST_STOP: usize = 4096;

/// Most answers to one request, as OpenAI has it.
const MOST_CHOICES: usize = 128;

/// Most of the most probable tokens that come with one, as OpenAI has it.
pub(super) const MOST_TOP_LOGPROBS: usize = 20;

/// The lowest log-probability, as OpenAI has it: of tokens that could not come.
const LOWEST_LOGPROB: f32 = -9999.0;

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

/// Answers that are wanted.
///
/// # Errors
/// There are none, or too many.
pub(super) fn choices(fields: &Fields) -> Result<usize, ApiError> {
    match fields.count("n")? {
        None => Ok(1),
        Some(count @ 1..=MOST_CHOICES) => Ok(count),
        Some(count) => Err(ApiError::invalid("n".to_owned(), format!("n is {count}, 1 to {MOST_CHOICES} are allowed"))),
    }
}

/// A count of at most `most`, if it is given.
///
/// # Errors
/// It is none, or more.
pub(super) fn count_to(fields: &Fields, name: &str, most: usize) -> Result<Option<usize>, ApiError> {
    match fields.count(name)? {
        Some(count) if count > most => {
            Err(ApiError::invalid(name.to_owned(), format!("{name} is {count}, at most {most} are allowed")))
        }
        count => Ok(count),
    }
}

/// Most tokens of reasoning, by the names of vLLM, llama.cpp's server and Qwen's own, or as OpenRouter has it beside the effort.
///
/// # Errors
/// It is no count.
pub(super) fn reasoning_tokens(fields: &Fields) -> Result<Option<usize>, ApiError> {
    for name in ["thinking_token_budget", "thinking_budget_tokens", "thinking_budget"] {
        if let Some(limit) = fields.limit(name)? {
            return Ok(limit.most());
        }
    }
    match fields.object("reasoning")?.and_then(|reasoning| reasoning.get("max_tokens")).filter(|most| !most.is_null()) {
        None => Ok(None),
        Some(most) => match most.as_u64().and_then(|most| usize::try_from(most).ok()) {
            Some(most) => Ok(Some(most)),
            None => Err(wrong_type("reasoning.max_tokens", "a whole number, 0 or more")),
        },
    }
}

/// Refuses what would change the answer and cannot be done, where so many answers are wanted.
pub(super) fn refuse_unsupported(fields: &Fields, choices: usize) -> Result<(), ApiError> {
    let off = |value: &Value| value.as_bool() == Some(false);
    let empty = |value: &Value| {
        value.as_object().is_some_and(Map::is_empty)
            || value.as_str() == Some("")
            || value.as_array().is_some_and(Vec::is_empty)
    };
    let unforced = |value: &Value| matches!(value.as_str(), Some("none" | "auto"));
    let all = |value: &Value| value.as_u64() == Some(choices as u64);
    fields.refuse_unless("best_of", all, "only as many as n are supported, of which all are answered with")?;
    fields.refuse_unless("suffix", empty, "is not supported")?;
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

/// The end of a choice, the last of the `ends` so far, whose last chunk is `last`; and that of the stream, if it was the last choice.
pub(super) fn ending(head: &Head, name: &str, mut last: Value, ends: &[End], options: StreamOptions) -> String {
    last["timings"] = ends.last().map(|end| timings(&end.summary)).unwrap_or_default();
    let mut text = data(&last);
    if ends.len() < head.choices {
        return text;
    }
    if options.include_usage {
        let mut body = object(head, name, json!([]));
        body["usage"] = End::summary_of(ends).as_ref().map(usage).unwrap_or_default();
        text += &data(&body);
    }
    text + DONE
}

/// A whole answer, of the choices that `choice` makes of their indices.
pub(super) fn whole(
    head: &Head,
    name: &str,
    choices: Vec<Chosen>,
    choice: impl Fn(usize, Vec<Item>, &End) -> Value,
) -> Value {
    let summary = End::summary_of(choices.iter().map(|chosen| &chosen.end));
    let choices = choices.into_iter().enumerate();
    let choices = choices.map(|(index, Chosen { items, end })| choice(index, items, &end)).collect();
    let mut body = object(head, name, Value::Array(choices));
    body["usage"] = summary.as_ref().map(usage).unwrap_or_default();
    body["timings"] = summary.as_ref().map(timings).unwrap_or_default();
    body
}

/// How probable tokens were, as chats and responses have it.
pub(super) fn logprobs(marks: &[Mark]) -> Vec<Value> {
    let score =
        |score: &Score| json!({ "token": spelled(&score.bytes, ""), "logprob": logprob(score), "bytes": score.bytes });
    let mark = |Mark { token, top, .. }: &Mark| {
        let mut value = score(token);
        value["top_logprobs"] = top.iter().flatten().map(score).collect();
        value
    };
    marks.iter().map(mark).collect()
}

pub(super) fn logprob(score: &Score) -> f32 {
    score.logprob.max(LOWEST_LOGPROB)
}

/// A token's text; where it is no whole text, its bytes behind a mark.
pub(super) fn spelled(bytes: &[u8], mark: &str) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(mark.to_owned(), |text, byte| format!("{text}\\x{byte:02x}")),
    }
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
