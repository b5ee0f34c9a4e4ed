//! From a request body to a [`Request`] of the token loop: everything that can be wrong is found here, before it is queued.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::assets::{SamplingOptions, Text};
use super::super::chat_templates::Ending;
use super::super::generation::{Request, check_prompt};
use super::super::sampler::BANNED;
use super::super::{Error, ModelInfo};
use super::answer::Endpoint;
use super::api_error::ApiError;
use super::fields::{Fields, Limit, wrong_type};
use super::tools::{CallForm, Thinking, Tool};

/// Stop strings of one request; OpenAI has 4.
const MAX_STOPS: usize = 16;

/// Bytes of one stop string: the end of the text is compared with it at every token.
const LONGEST_STOP: usize = 4096;

/// JSON values of one request, beside the ids of a prompt. A hundred tools with their schemas have some ten thousand.
const MAX_VALUES: usize = 100_000;

/// Messages of one chat, and tools offered to it.
const MAX_MESSAGES: usize = 10_000;
const MAX_TOOLS: usize = 1_000;

/// Roles of the OpenAI API; templates may have others.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// Tokens of a completion that names no limit, as in OpenAI's API. A chat goes on to the end of the context.
const DEFAULT_COMPLETION_TOKENS: usize = 16;

pub(super) struct Prepared {
    pub(super) request: Request,
    /// How the answer of a chat is to be read.
    pub(super) reading: Option<Reading>,
    /// Set if the answer is to be streamed.
    pub(super) stream: Option<StreamOptions>,
}

#[derive(Default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

/// How the answer of a chat is to be read.
pub(super) struct Reading {
    /// How calls are written; `None` where none are looked for.
    pub(super) form: Option<CallForm>,
    /// What the request offers.
    pub(super) tools: Vec<Tool>,
    /// How reasoning is marked.
    pub(super) thinking: Thinking,
    /// Whether the prompt ends inside of it.
    pub(super) inside: bool,
    /// What of the answer the prompt has already: the beginning of a call that was asked for.
    pub(super) begun: String,
    /// Calls of earlier answers.
    pub(super) calls_before: usize,
    /// Whether there may be several calls.
    pub(super) parallel: bool,
    /// What the client should know.
    pub(super) warning: Option<&'static str>,
}

/// What is known of a model's answers.
pub(super) struct Answers {
    /// How it writes tool calls, if that is known.
    pub(super) calls: Option<CallForm>,
    /// What a call begins with.
    pub(super) beginning: Option<String>,
    /// How it marks reasoning.
    pub(super) thinking: Thinking,
    /// Whether special tokens that are written out in messages are special.
    pub(super) trust_special: bool,
}

impl Answers {
    /// What a model's text side shows.
    pub(super) fn of(text: &Text) -> Self {
        let calls = CallForm::of(text);
        let beginning = calls.as_ref().and_then(|form| form.beginning(text));
        Self { calls, beginning, thinking: Thinking::of(text), trust_special: false }
    }
}

/// What `tool_choice` says.
#[derive(Debug, PartialEq)]
enum Choice {
    Auto,
    None,
    /// A call, of this function if one is named.
    Call(Option<String>),
}

/// Said of tools where the form of calls is not known.
const NO_CALLS: &str = "tools: the form of this model's tool calls is not known; calls come back as content";

pub(super) fn prepare(
    body: &[u8],
    endpoint: Endpoint,
    text: &Text,
    answers: &Answers,
    info: &ModelInfo,
    context: usize,
) -> Result<Prepared, ApiError> {
    let fields = Fields::parse(body, MAX_VALUES.saturating_add(context))?;
    fields.string("model")?;
    refuse_unsupported(&fields)?;
    let stream = stream_options(&fields)?;
    let max_tokens = match endpoint {
        Endpoint::Chat => match fields.limit("max_completion_tokens")? {
            Some(limit) => limit,
            None => fields.limit("max_tokens")?.unwrap_or(Limit::None),
        },
        Endpoint::Completion => fields.limit("max_tokens")?.unwrap_or(Limit::Of(DEFAULT_COMPLETION_TOKENS)),
    };
    let max_tokens = max_tokens.most();
    let options = SamplingOptions {
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
        logit_bias: logit_bias(&fields, info.vocab_size)?,
        seed: fields.seed("seed")?,
    };
    let param = endpoint.prompt_field();
    let runtime_error = |error| ApiError::from_runtime(&error, param);
    let sampling = text.defaults.sampling(&options).map_err(runtime_error)?;
    let stop = stop_strings(&fields)?;
    let (prompt, continues_prompt, reading) = match endpoint {
        Endpoint::Chat => {
            let (prompt, continues, reading) = chat_prompt(&fields, text, answers, context)?;
            (prompt, continues, Some(reading))
        }
        Endpoint::Completion => (completion_prompt(&fields, text, context)?, true, None),
    };
    check_prompt(&prompt, info.vocab_size, context).map_err(runtime_error)?;
    let request = Request { prompt, max_tokens, sampling, stop, continues_prompt };
    Ok(Prepared { request, reading, stream })
}

fn refuse_unsupported(fields: &Fields) -> Result<(), ApiError> {
    let zero = |value: &Value| value.as_f64() == Some(0.0);
    let off = |value: &Value| value.as_bool() == Some(false);
    let empty = |value: &Value| {
        value.as_object().is_some_and(Map::is_empty)
            || value.as_str() == Some("")
            || value.as_array().is_some_and(Vec::is_empty)
    };
    let one = |value: &Value| value.as_u64() == Some(1);
    let plain_text = |value: &Value| value.get("type").and_then(Value::as_str) == Some("text");
    let unforced = |value: &Value| matches!(value.as_str(), Some("none" | "auto"));
    fields.refuse_unless("n", one, "only 1 answer to a request is supported")?;
    fields.refuse_unless("best_of", one, "only 1 is supported")?;
    fields.refuse_unless("echo", off, "is not supported")?;
    fields.refuse_unless("suffix", empty, "is not supported")?;
    fields.refuse_unless("logprobs", |value| off(value) || zero(value), "is not supported")?;
    fields.refuse_unless("top_logprobs", zero, "is not supported")?;
    fields.refuse_unless("response_format", plain_text, "only type \"text\" is supported")?;
    fields.refuse_unless("functions", empty, "is not supported; tools is")?;
    fields.refuse_unless("function_call", unforced, "is not supported; tool_choice is")?;
    let text_alone = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(|kind| kind == "text"));
    fields.refuse_unless("modalities", text_alone, "only [\"text\"] is supported")?;
    fields.refuse_unless("audio", |_| false, "is not supported")?;
    fields.refuse_unless("ignore_eos", off, "is not supported")?;
    let on = |value: &Value| value.as_bool() == Some(true);
    fields.refuse_unless("cache_prompt", on, "what a prompt begins with is always reused if it can be")
}

/// Biases of tokens: an object of ids as OpenAI has it, or a list of pairs as llama.cpp's server has it, where `false` is a ban.
fn logit_bias(fields: &Fields, vocab_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let expected = "an object of token ids and numbers, or a list of pairs of these";
    let wrong = || wrong_type("logit_bias", expected);
    let one = |id: Option<u64>, bias: &Value| {
        let id = id.ok_or_else(wrong)?;
        let known = u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size).ok_or_else(|| {
            let words = format!("logit_bias: there is no token {id}, the vocabulary has {vocab_size}");
            ApiError::invalid("logit_bias".to_owned(), words)
        })?;
        let bias = if bias == &Value::Bool(false) { Some(BANNED) } else { bias.as_f64().map(|bias| bias as f32) };
        Ok((known, bias.ok_or_else(wrong)?))
    };
    let biases: Result<BTreeMap<u32, f32>, ApiError> = match fields.get("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(biases)) => biases.iter().map(|(id, bias)| one(id.parse().ok(), bias)).collect(),
        Some(Value::Array(pairs)) => pairs
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([id, bias]) => one(id.as_u64(), bias),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    };
    Ok(biases?.into_iter().collect())
}

fn stream_options(fields: &Fields) -> Result<Option<StreamOptions>, ApiError> {
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

fn stop_strings(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let expected = "a string or a list of strings";
    let stops = match fields.get("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned).ok_or_else(|| wrong_type("stop", expected)))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong_type("stop", expected)),
    };
    if stops.len() > MAX_STOPS {
        return Err(ApiError::invalid(
            "stop".to_owned(),
            format!("stop has {} strings, at most {MAX_STOPS} are allowed", stops.len()),
        ));
    }
    if stops.iter().any(|stop| stop.len() > LONGEST_STOP) {
        let words = format!("stop has a string longer than {LONGEST_STOP} bytes");
        return Err(ApiError::invalid("stop".to_owned(), words));
    }
    Ok(stops)
}

/// Fields of a request that are variables of chat templates by the same name.
const TEMPLATE_FIELDS: [&str; 4] = ["chat_template", "documents", "enable_thinking", "reasoning_effort"];

/// The prompt of a chat, whether the answer continues its last message, and how the answer is read.
fn chat_prompt(
    fields: &Fields,
    text: &Text,
    answers: &Answers,
    context: usize,
) -> Result<(Vec<u32>, bool, Reading), ApiError> {
    let messages = fields.get("messages").ok_or_else(|| wrong_type("messages", "a list of messages"))?;
    check_roles(messages, text)?;
    let mut variables = Map::new();
    for name in TEMPLATE_FIELDS {
        variables.extend(fields.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    variables.extend(fields.object("chat_template_kwargs")?.cloned().unwrap_or_default());
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let mut tools = offered_tools(fields)?;
    let choice = choice(fields, &tools)?;
    if choice == Choice::None {
        tools.clear();
        variables.shift_remove("tools");
    } else if let Some(tools) = fields.get("tools").filter(|_| !tools.is_empty()) {
        variables.insert("tools".into(), tools.clone());
    }
    if variables.get("documents").is_some_and(|documents| !documents.is_array()) {
        return Err(wrong_type("documents", "a list of documents"));
    }
    for name in ["add_generation_prompt", "continue_final_message"] {
        variables.extend(fields.boolean(name)?.map(|value| (name.to_owned(), Value::Bool(value))));
    }
    let usage = |error: Error| ApiError::invalid(None, error.to_string());
    let ending = Ending::of(&variables, messages, true).map_err(usage)?;
    let error = |error| ApiError::from_runtime(&error, "messages");
    let shielded = if answers.trust_special { None } else { shielded(messages, text) };
    let mut rendered = text.render_chat(shielded.as_ref().unwrap_or(messages), ending, &variables).map_err(error)?;
    let mut reading = Reading {
        form: answers.calls.clone().filter(|_| !tools.is_empty()),
        thinking: answers.thinking.clone(),
        inside: answers.thinking.is_open_at_end_of(&rendered),
        begun: String::new(),
        calls_before: messages.as_array().into_iter().flatten().map(calls_of).sum(),
        parallel,
        warning: (answers.calls.is_none() && !tools.is_empty()).then_some(NO_CALLS),
        tools,
    };
    let mut continues = ending == Ending::Continued;
    if let Choice::Call(name) = choice {
        let beginning = answers.beginning.as_ref().filter(|_| reading.form.is_some() && !continues);
        let why = "tool_choice: how a call of this model begins is not known; only \"auto\" and \"none\" are supported";
        let beginning = beginning.ok_or_else(|| ApiError::invalid("tool_choice".to_owned(), why.into()))?;
        if let (true, Thinking::Tags { close, .. }) = (reading.inside, &reading.thinking) {
            // A call that is asked for needs no thought.
            rendered = format!("{}\n\n{close}\n\n", rendered.trim_end());
            reading.inside = false;
        }
        reading.begun = format!("{beginning}{}", name.unwrap_or_default());
        rendered += &reading.begun;
        continues = true;
    }
    let prompt = text.tokenizer.encode_within(&rendered, false, context).map_err(error)?;
    Ok((prompt, continues, reading))
}

/// Messages in whose texts nothing is a special token, if anything was; those of the model itself are left as they are, since
/// templates look for its tags in them.
fn shielded(messages: &Value, text: &Text) -> Option<Value> {
    let is_special = |words: &str| matches!(text.tokenizer.shield(words), Cow::Owned(_));
    fn texts(message: &mut Value) -> Vec<&mut String> {
        match message.get_mut("content") {
            Some(Value::String(words)) => vec![words],
            Some(Value::Array(parts)) => parts
                .iter_mut()
                .filter_map(|part| match part.get_mut("text") {
                    Some(Value::String(words)) => Some(words),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }
    let mut changed = None;
    for index in 0..messages.as_array().map_or(0, Vec::len) {
        if messages[index]["role"] == "assistant" {
            continue;
        }
        let mut message = messages[index].clone();
        let mut found = false;
        for words in texts(&mut message) {
            if is_special(words) {
                *words = text.tokenizer.shield(words).into_owned();
                found = true;
            }
        }
        if found {
            changed.get_or_insert_with(|| messages.clone())[index] = message;
        }
    }
    changed
}

fn calls_of(message: &Value) -> usize {
    message.get("tool_calls").and_then(Value::as_array).map_or(0, Vec::len)
}

/// What the request says of calls: whether there may, or must be one.
fn choice(fields: &Fields, tools: &[Tool]) -> Result<Choice, ApiError> {
    let expected = "\"auto\", \"none\", \"required\", or a function's name";
    let Some(value) = fields.get("tool_choice") else { return Ok(Choice::Auto) };
    let call = |name: Option<String>| match &name {
        _ if tools.is_empty() => Err(wrong_type("tool_choice", "\"none\" where there are no tools")),
        Some(name) if !tools.iter().any(|tool| tool.name == *name) => {
            Err(ApiError::invalid("tool_choice".to_owned(), format!("tool_choice: there is no tool {name:?}")))
        }
        _ => Ok(Choice::Call(name)),
    };
    match value.as_str() {
        Some("auto") => Ok(Choice::Auto),
        Some("none") => Ok(Choice::None),
        // One of one is as good as named.
        Some("required") => call(tools.first().filter(|_| tools.len() == 1).map(|tool| tool.name.clone())),
        Some(_) => Err(wrong_type("tool_choice", expected)),
        None => match (value["type"].as_str(), value["function"]["name"].as_str()) {
            (Some("function") | None, Some(name)) => call(Some(name.to_owned())),
            _ => Err(wrong_type("tool_choice", expected)),
        },
    }
}

/// Refuses more messages than there may be, and roles that neither the API nor the template has a word for.
fn check_roles(messages: &Value, text: &Text) -> Result<(), ApiError> {
    let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
    if messages.len() > MAX_MESSAGES {
        let words = format!("messages are {}, at most {MAX_MESSAGES} are allowed", messages.len());
        return Err(ApiError::invalid("messages".to_owned(), words));
    }
    let unknown = |message: &Value| {
        let role = message["role"].as_str()?;
        (!ROLES.contains(&role) && !text.templates.mention(role)).then(|| role.to_owned())
    };
    match messages.iter().enumerate().find_map(|(index, message)| Some((index, unknown(message)?))) {
        Some((index, role)) => {
            Err(wrong_type(&format!("messages[{index}].role"), &format!("one of {}, not {role:?}", ROLES.join(", "))))
        }
        None => Ok(()),
    }
}

/// What the request offers to the model.
fn offered_tools(fields: &Fields) -> Result<Vec<Tool>, ApiError> {
    let Some(tools) = fields.get("tools") else { return Ok(Vec::new()) };
    let tools = tools.as_array().ok_or_else(|| wrong_type("tools", "a list of tools"))?;
    if tools.len() > MAX_TOOLS {
        let words = format!("tools are {}, at most {MAX_TOOLS} are allowed", tools.len());
        return Err(ApiError::invalid("tools".to_owned(), words));
    }
    let tool = |(index, tool): (usize, &Value)| {
        let function = tool.get("function").filter(|_| matches!(tool["type"].as_str(), None | Some("function")));
        let name = function.and_then(|function| function["name"].as_str()).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| wrong_type(&format!("tools[{index}]"), "a function with a name"))?;
        Ok(Tool { name: name.to_owned(), parameters: tool["function"]["parameters"].clone() })
    };
    tools.iter().enumerate().map(tool).collect()
}

fn completion_prompt(fields: &Fields, text: &Text, context: usize) -> Result<Vec<u32>, ApiError> {
    let expected = "a string, a list of one string, or a list of token ids";
    let prompt = fields.get("prompt").ok_or_else(|| wrong_type("prompt", expected))?;
    let prompt = match prompt {
        Value::Array(list) => match list.as_slice() {
            [one @ (Value::String(_) | Value::Array(_))] => one,
            [Value::String(_) | Value::Array(_), ..] => {
                return Err(ApiError::invalid("prompt".to_owned(), "only 1 prompt to a request is supported".into()));
            }
            _ => prompt,
        },
        _ => prompt,
    };
    match prompt {
        Value::String(prompt) => text
            .tokenizer
            .encode_within(prompt, true, context)
            .map_err(|error| ApiError::from_runtime(&error, "prompt")),
        Value::Array(ids) => ids
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| wrong_type("prompt", expected)))
            .collect(),
        _ => Err(wrong_type("prompt", expected)),
    }
}
