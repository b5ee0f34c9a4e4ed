//! From what is asked for to a [`Request`] of the token loop: everything that can be wrong is found here, before it is queued.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::super::assets::Text;
use super::super::chat_templates::Ending;
use super::super::generation::{Budget, Constraint, Request, Score, check_prompt};
use super::super::grammar::{Form, Grammars, Opening, Scope};
use super::super::sampler::Sampling;
use super::super::tokenizer::Detokenizer;
use super::super::{Error, ModelInfo};
use super::answer::{Echo, Unsent};
use super::api_error::ApiError;
use super::dialect::{Ask, Chat, Choice, Dialect, Mark, Outputs, Piece, Prompt, Reading};
use super::fields::{Fields, wrong_type};
use super::tools::{Begun, CallForm, CallRest, Thinking};

/// JSON values of one request, beside the ids of a prompt. A hundred tools with their schemas have some ten thousand.
const MAX_VALUES: usize = 100_000;

/// Messages of one chat.
const MAX_MESSAGES: usize = 10_000;

/// Roles of the OpenAI API; templates may have others.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// A request that can be queued.
pub(super) struct Prepared {
    /// One for each choice.
    pub(super) requests: Vec<Request>,
    /// Special tokens that are to come as text, among the marks of reasoning, and of calls.
    pub(super) shown: Shown,
    /// What was asked for and is left out.
    pub(super) skipped: Vec<String>,
    /// Whether the answer is to be streamed.
    pub(super) stream: bool,
    /// The answer.
    pub(super) answer: Unsent,
}

/// Which special tokens of an answer come as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    None,
    Reasoning,
    ReasoningAndCalls,
}

/// What is known of a model's answers.
pub(super) struct Answers {
    /// How it writes tool calls, if that is known.
    pub(super) calls: Option<CallForm>,
    /// What a call begins with.
    pub(super) beginning: Option<String>,
    /// What it writes of a call besides its name and arguments.
    pub(super) rest: Option<CallRest>,
    /// How it marks reasoning.
    pub(super) thinking: Thinking,
    /// What holds answers to forms, once that was asked for.
    pub(super) grammars: OnceLock<Result<Grammars, String>>,
    /// Whether special tokens that are written out in messages are special.
    pub(super) trust_special: bool,
    /// Whether its template has a place for system messages in mid-chat.
    pub(super) system_anywhere: bool,
    /// Whether its sequences can be gone on with from some positions alone, so that it has to be known where prompts may part.
    pub(super) marked: bool,
}

/// A text that no template writes by itself.
const PROBE: &str = "forge5probe";

/// Whether a chat's template writes a system message in mid-chat.
fn has_place_for_system(text: &Text) -> bool {
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    let chat = [message("system", "S"), message("user", "Q"), message("assistant", "A"), message("user", "Q")];
    let chat: Value = chat.into_iter().chain([message("system", PROBE), message("user", "Q")]).collect();
    text.render_chat(&chat, Ending::Opened, &Map::new()).is_ok_and(|prompt| prompt.contains(PROBE))
}

impl Answers {
    /// What a model's text side shows.
    pub(super) fn of(text: &Text) -> Self {
        let calls = CallForm::of(text);
        let beginning = calls.as_ref().and_then(|form| form.beginning(text));
        let rest = calls.as_ref().and_then(|form| form.rest(text));
        let system_anywhere = has_place_for_system(text);
        let (thinking, grammars) = (Thinking::of(text), OnceLock::new());
        let (trust_special, marked) = (false, false);
        Self { calls, beginning, rest, thinking, grammars, trust_special, system_anywhere, marked }
    }

    /// What holds answers to forms. The first who asks waits for it.
    fn grammars(&self, text: &Text, vocab_size: usize) -> Result<&Grammars, Error> {
        let made = || Grammars::new(text, vocab_size).map_err(|error| error.to_string());
        self.grammars.get_or_init(made).as_ref().map_err(|words| Error::Constraint(words.clone()))
    }
}

/// Said of tools where the form of calls is not known.
const NO_CALLS: &str = "tools: the form of this model's tool calls is not known; calls come back as content";

/// Said of strict tools that may be called or not.
const NOT_STRICT: &str = "tools: strict is held where tool_choice asks for a call, and not where there may be none: what begins this model's calls is \
    not known, or may begin an answer as well";

/// Said of calls that have to come.
const NOT_HELD: &str =
    "tool_choice: what follows the name in this model's calls is not known, and nothing holds it to their end";

/// The fields of a body.
///
/// # Errors
/// It is no JSON object, or too much of one.
pub(super) fn fields(body: &[u8], context: usize) -> Result<Fields, ApiError> {
    Fields::parse(body, MAX_VALUES.saturating_add(context))
}

pub(super) fn prepare(
    body: &[u8],
    dialect: Dialect,
    text: &Text,
    answers: &Answers,
    info: &ModelInfo,
    context: usize,
) -> Result<Prepared, ApiError> {
    let (ask, writer) = dialect.read(fields(body, context)?)?;
    let Ask {
        prompt,
        prompt_field,
        max_tokens,
        sampling,
        stop,
        form,
        form_field,
        stream,
        choices,
        top_logprobs,
        echo,
        reasoning_tokens,
    } = ask;
    let words = match &prompt {
        Prompt::Text(words) if echo => Some(words.clone()),
        Prompt::Text(_) | Prompt::Ids(_) | Prompt::Chat(_) => None,
    };
    let runtime_error = |error| ApiError::from_runtime(&error, prompt_field);
    let sampling = text.defaults.sampling(&sampling).map_err(runtime_error)?;
    if let Some((id, _)) = sampling.logit_bias.iter().find(|(id, _)| *id as usize >= info.vocab_size) {
        let words = format!("logit_bias: there is no token {id}, the vocabulary has {}", info.vocab_size);
        return Err(ApiError::invalid("logit_bias".to_owned(), words));
    }
    let Encoded { prompt, continues, boundaries, reading, mut warning, skipped } =
        encode(prompt, prompt_field, text, answers, context)?;
    check_prompt(&prompt, info.vocab_size, context).map_err(runtime_error)?;
    let shown = match &reading {
        Some(reading) if reading.form.is_some() => Shown::ReasoningAndCalls,
        Some(_) => Shown::Reasoning,
        None => Shown::None,
    };
    let constraint = match (form, &reading) {
        // What has to be a call has no content.
        (_, Some(reading)) if !reading.begun.is_empty() => call_constraint(reading, text, answers, info, &mut warning)?,
        (form, reading) => {
            let invalid = |error: Error| ApiError::invalid(form_field.to_owned(), format!("{form_field}: {error}"));
            let scope = reading.as_ref().map(|reading| scope(reading, text, continues)).unwrap_or_default();
            let content = match form {
                Some(form) => {
                    let grammars = answers.grammars(text, info.vocab_size).map_err(invalid)?;
                    Some((grammars.hold(&form, &scope).map_err(invalid)?, form))
                }
                None => None,
            };
            match reading {
                Some(reading) if reading.form.is_some() => {
                    let form = content.map(|(_, form)| form);
                    beside_calls(form, form_field, &scope, reading, text, answers, info, &mut warning)?
                }
                _ => content.map(|(held, _)| held),
            }
        }
    };
    let constraint = match (reasoning_tokens, &reading) {
        // A limit that is reached no later needs no other, and a call that is asked for has no thought before it.
        (Some(most), Some(reading))
            if most < max_tokens.unwrap_or(usize::MAX).min(context)
                && reading.begun.is_empty()
                && (reading.inside || !continues) =>
        {
            let (tokenizer, marks) = (text.tokenizer.clone(), reading.thinking.marks());
            let budget = Budget::new(tokenizer, marks, most, reading.inside, constraint).map_err(runtime_error)?;
            Some(Box::new(budget) as Box<dyn Constraint>)
        }
        _ => constraint,
    };
    let prompt_tokens = prompt.len();
    let echo = match echo {
        true => Some(self::echo(words, &prompt, text, top_logprobs.is_some()).map_err(runtime_error)?),
        false => None,
    };
    let request = Request {
        prompt,
        max_tokens,
        sampling,
        stop,
        continues_prompt: continues,
        constraint,
        boundaries,
        top_logprobs,
        prompt_logprobs: echo.is_some() && top_logprobs.is_some(),
    };
    let of_choice = |choice: usize| {
        // Each draws on its own.
        let seed = request.sampling.seed.wrapping_add(choice as u64);
        Request { sampling: Sampling { seed, ..request.sampling.clone() }, ..request.clone() }
    };
    let outputs = (0..choices).map(|_| Outputs::new(reading.clone(), text.tokenizer.clone())).collect();
    let answer = Unsent { writer, outputs, echo, prompt_tokens, prompt_field, warning };
    Ok(Prepared { requests: (0..choices).map(of_choice).collect(), shown, skipped, stream, answer })
}

/// What an answer begins with that begins with its prompt: these `words`, or else what its tokens say.
fn echo(words: Option<String>, prompt: &[u32], text: &Text, scored: bool) -> Result<Echo, Error> {
    let mut detokenizer = Detokenizer::new(&*text.tokenizer);
    let (mut said, mut starts) = (String::new(), Vec::with_capacity(prompt.len()));
    for &id in prompt {
        starts.push(said.len());
        said += &detokenizer.push(id)?;
    }
    said += &detokenizer.finish()?;
    let first = prompt.first().filter(|_| scored).map(|&id| Mark {
        at: 0,
        token: Score::unknown(&text.tokenizer, id),
        top: None,
    });
    let piece = Piece { text: words.unwrap_or(said), scores: first.into_iter().collect() };
    Ok(Echo { piece, starts })
}

/// Where in an answer its form begins: behind reasoning, if there is some. Of an answer that may begin with it, and whose first token it is then.
fn scope(reading: &Reading, text: &Text, continues: bool) -> Scope {
    match &reading.thinking {
        Thinking::Channels => Scope { after: Some(FINAL_CHANNEL.into()), ..Scope::default() },
        Thinking::Tags { close, .. } if reading.inside => Scope { after: Some(close.clone()), ..Scope::default() },
        Thinking::Tags { open, close } => {
            let open = text.tokenizer.id(open).filter(|_| !continues);
            Scope { unless: open.map(|open| (open, close.clone())), ..Scope::default() }
        }
    }
}

/// What gpt-oss writes before an answer.
const FINAL_CHANNEL: &str = "<|channel|>final<|message|>";

/// Said of tools whose schemas cannot be held.
const NO_SCHEMA: &str = "tools: a schema cannot be held in the form of this model's calls, arguments may be any object";

/// What holds an answer to a call that the prompt begins, where what follows its name is known.
fn call_constraint(
    reading: &Reading,
    text: &Text,
    answers: &Answers,
    info: &ModelInfo,
    warning: &mut Option<String>,
) -> Result<Option<Box<dyn Constraint>>, ApiError> {
    let (Some(form), Some(beginning), Some(rest)) = (&reading.form, &answers.beginning, &answers.rest) else {
        warn(warning, NOT_HELD);
        return Ok(None);
    };
    let invalid = |error: Error| ApiError::invalid("tool_choice".to_owned(), format!("tool_choice: {error}"));
    let grammars = answers.grammars(text, info.vocab_size).map_err(invalid)?;
    let named = reading.begun.strip_prefix(beginning.as_str()).filter(|name| !name.is_empty());
    let hold = |strict: bool| {
        let grammar = rest.grammar(form, &reading.tools, "", named, text, |_| strict).ok_or_else(no_grammar)?;
        grammars.hold(&Form::Grammar(grammar), &Scope::default())
    };
    held_or_any(hold, warning).map(Some).map_err(invalid)
}

/// What `hold` makes of schemas, or else, with a word to the client, without them.
fn held_or_any(
    hold: impl Fn(bool) -> Result<Box<dyn Constraint>, Error>,
    warning: &mut Option<String>,
) -> Result<Box<dyn Constraint>, Error> {
    hold(true).or_else(|_| {
        warn(warning, NO_SCHEMA);
        hold(false)
    })
}

fn no_grammar() -> Error {
    Error::Constraint("its form has no grammar".into())
}

/// Adds to what a client should know.
fn warn(warning: &mut Option<String>, words: &str) {
    *warning = Some(match warning.take() {
        Some(before) => format!("{before}; {words}"),
        None => words.to_owned(),
    });
}

/// What holds an answer that may have calls: calls to the schemas of strict tools, and what is no call to a form that was asked for. Nothing does
/// where neither is wanted.
///
/// # Errors
/// A form that was asked for of a model whose calls are not known to begin with one token.
#[allow(clippy::too_many_arguments, reason = "each is of another owner")]
fn beside_calls(
    content: Option<Form>,
    form_field: &str,
    scope: &Scope,
    reading: &Reading,
    text: &Text,
    answers: &Answers,
    info: &ModelInfo,
    warning: &mut Option<String>,
) -> Result<Option<Box<dyn Constraint>>, ApiError> {
    if content.is_none() && !reading.tools.iter().any(|tool| tool.strict) {
        return Ok(None);
    }
    let begun = reading.form.as_ref().zip(answers.rest.as_ref());
    let begun = begun.map(|(form, rest)| (form, rest.begun(form, answers.beginning.as_deref(), text)));
    // A text that may begin a call anywhere is looked for where nothing else is held.
    let in_channels = reading.thinking == Thinking::Channels;
    let is_told = |begun: &Begun<'_>| content.is_none() || in_channels || matches!(begun.opening, Opening::Token(_));
    let held = begun.filter(|(_, begun)| !begun.is_empty() && begun.iter().all(is_told));
    let Some((form, begun)) = held else {
        if content.is_some() {
            let words = format!("{form_field}: beside this model's tools only with a tool_choice other than \"auto\"");
            return Err(ApiError::invalid(form_field.to_owned(), words));
        }
        warn(warning, NOT_STRICT);
        return Ok(None);
    };
    let invalid = |error: Error| ApiError::invalid("tools".to_owned(), format!("tools: {error}"));
    let grammars = answers.grammars(text, info.vocab_size).map_err(invalid)?;
    // Calls come in the place of the channel that a form is held behind.
    let scope = match (&content, in_channels) {
        (None, true) => &Scope::default(),
        (_, calls_before) => &Scope { calls_before, ..scope.clone() },
    };
    let hold = |strict: bool| {
        let mut calls = Vec::new();
        for Begun { opening, lead, rest } in &begun {
            let lark = rest.grammar(form, &reading.tools, lead, None, text, |tool| strict && tool.strict);
            calls.push((opening.clone(), Form::Grammar(lark.ok_or_else(no_grammar)?)));
        }
        grammars.hold_calls(content.as_ref(), &calls, scope)
    };
    held_or_any(hold, warning).map(Some).map_err(invalid)
}

/// Tokens of the prompt that a body asks for, however many they are.
pub(super) fn count(
    body: &[u8],
    dialect: Dialect,
    text: &Text,
    answers: &Answers,
    context: usize,
) -> Result<usize, ApiError> {
    let (Ask { prompt, prompt_field, .. }, _) = dialect.read(fields(body, context)?)?;
    Ok(encode(prompt, prompt_field, text, answers, usize::MAX)?.prompt.len())
}

/// A prompt as tokens, and what follows from it.
struct Encoded {
    prompt: Vec<u32>,
    /// Whether the answer continues its text.
    continues: bool,
    /// Where other prompts may part from it.
    boundaries: Vec<usize>,
    /// How the answer of a chat is to be read.
    reading: Option<Reading>,
    warning: Option<String>,
    skipped: Vec<String>,
}

fn encode(prompt: Prompt, field: &str, text: &Text, answers: &Answers, context: usize) -> Result<Encoded, ApiError> {
    let encode = |words: &str, special| {
        let ids = text.tokenizer.encode_within(words, special, context);
        ids.map_err(|error| ApiError::from_runtime(&error, field))
    };
    let plain = |prompt| Encoded {
        prompt,
        continues: true,
        boundaries: Vec::new(),
        reading: None,
        warning: None,
        skipped: Vec::new(),
    };
    match prompt {
        Prompt::Text(words) => Ok(plain(encode(&words, true)?)),
        Prompt::Ids(ids) => Ok(plain(ids)),
        Prompt::Chat(chat) => {
            let Rendered { words, continues, instructions, reading, warning, skipped } =
                render(chat, text, answers, field, Words::Shielded)?;
            let prompt = encode(&words, false)?;
            // A token may reach beyond their end.
            let whole = |ids: Vec<u32>| ids.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
            let boundaries = match words.get(..instructions).filter(|words| !words.is_empty()) {
                Some(words) => vec![whole(encode(words, false)?)],
                None => Vec::new(),
            };
            Ok(Encoded { prompt, continues, boundaries, reading: Some(reading), warning, skipped })
        }
    }
}

/// A chat as the text of a prompt.
pub(super) struct Rendered {
    pub(super) words: String,
    /// Whether the answer continues its last message.
    pub(super) continues: bool,
    /// Bytes that other chats with the same instructions and tools begin with too; 0 where it does not matter.
    pub(super) instructions: usize,
    pub(super) reading: Reading,
    warning: Option<String>,
    skipped: Vec<String>,
}

/// What becomes of the words of special tokens in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// They are encoded as text, unless the server trusts them.
    Shielded,
    /// They are left as they are written.
    AsWritten,
}

/// Renders a chat; `field` is where a request has it.
///
/// # Errors
/// What the template refuses, and calls that are asked for of a model whose form of calls is not known.
pub(super) fn render(
    chat: Chat,
    text: &Text,
    answers: &Answers,
    field: &str,
    special: Words,
) -> Result<Rendered, ApiError> {
    let Chat { mut messages, variables, tools, choice, parallel, skipped, fold_system } = chat;
    check_roles(&messages, text)?;
    if fold_system && !answers.system_anywhere {
        fold_system_messages(&mut messages);
    }
    let usage = |error: Error| ApiError::invalid(None, error.to_string());
    let ending = Ending::of(&variables, &messages, true).map_err(usage)?;
    let error = |error| ApiError::from_runtime(&error, field);
    let shielded = if answers.trust_special || special == Words::AsWritten { None } else { shielded(&messages, text) };
    let written = shielded.as_ref().unwrap_or(&messages);
    let mut words = text.render_chat(written, ending, &variables).map_err(error)?;
    let instructions = if answers.marked { instructions(written, &words, text, &variables) } else { 0 };
    let mut reading = Reading {
        form: answers.calls.clone().filter(|_| !tools.is_empty()),
        thinking: answers.thinking.clone(),
        inside: answers.thinking.is_open_at_end_of(&words),
        begun: String::new(),
        calls_before: messages.as_array().into_iter().flatten().map(calls_of).sum(),
        parallel,
        tools,
    };
    let mut warnings = Vec::new();
    if answers.calls.is_none() && !reading.tools.is_empty() {
        warnings.push(NO_CALLS.to_owned());
    }
    if !skipped.is_empty() {
        warnings.push(format!("tools: left out, for this server has none of them: {}", skipped.join(", ")));
    }
    let mut continues = ending == Ending::Continued;
    if let Choice::Call(name) = choice {
        let beginning = answers.beginning.as_ref().filter(|_| reading.form.is_some() && !continues);
        let why = "tool_choice: how a call of this model begins is not known; only \"auto\" and \"none\" are supported";
        let beginning = beginning.ok_or_else(|| ApiError::invalid("tool_choice".to_owned(), why.into()))?;
        if let (true, Thinking::Tags { close, .. }) = (reading.inside, &reading.thinking) {
            // A call that is asked for needs no thought.
            words = format!("{}\n\n{close}\n\n", words.trim_end());
            reading.inside = false;
        }
        reading.begun = format!("{beginning}{}", name.unwrap_or_default());
        words += &reading.begun;
        continues = true;
    }
    let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
    Ok(Rendered { words, continues, instructions, reading, warning, skipped })
}

/// Bytes of a rendered chat that another one with the same system messages and tools begins with.
fn instructions(messages: &Value, words: &str, text: &Text, variables: &Map<String, Value>) -> usize {
    let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
    let system = messages.iter().take_while(|message| matches!(message["role"].as_str(), Some("system" | "developer")));
    let other: Value = system.cloned().chain([json!({ "role": "user", "content": PROBE })]).collect();
    let Ok(other) = text.render_chat(&other, Ending::Opened, variables) else { return 0 };
    words.char_indices().zip(other.chars()).find(|((_, a), b)| a != b).map_or(0, |((at, _), _)| at)
}

/// Makes system messages in mid-chat users' messages: part of the one before, where that is a user's or a tool's, so that turns
/// alternate as before.
fn fold_system_messages(messages: &mut Value) {
    let Some(list) = messages.as_array_mut() else { return };
    let mut folded: Vec<Value> = Vec::with_capacity(list.len());
    for mut message in std::mem::take(list) {
        let is_system = matches!(message["role"].as_str(), Some("system" | "developer"));
        match folded.last_mut() {
            Some(before) if is_system && matches!(before["role"].as_str(), Some("user" | "tool")) => {
                let parts = parts(before["content"].take()).into_iter().chain(parts(message["content"].take()));
                before["content"] = parts.collect();
            }
            Some(_) if is_system => {
                message["role"] = "user".into();
                folded.push(message);
            }
            _ => folded.push(message),
        }
    }
    *list = folded;
}

/// A content as a list of parts.
fn parts(content: Value) -> Vec<Value> {
    match content {
        Value::Array(parts) => parts,
        text => vec![json!({ "type": "text", "text": text })],
    }
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
