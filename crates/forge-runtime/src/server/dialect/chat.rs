//! OpenAI's `/v1/chat/completions`.

use serde_json::{Map, Value, json};

use super::super::api_error::ApiError;
use super::super::fields::{Fields, Limit, wrong_type};
use super::super::tools::Tool;
use super::ask::{call, check_count};
use super::openai::{self, MOST_TOP_LOGPROBS, StreamOptions};
use super::{Ask, Chat, Choice, Chosen, End, Head, Item, Mark, Output, Prompt, Writer, data};

/// Fields of a request that are variables of chat templates by the same name.
const TEMPLATE_FIELDS: [&str; 4] = ["chat_template", "documents", "enable_thinking", "reasoning_effort"];

pub(super) fn read(mut fields: Fields) -> Result<(Ask, Box<dyn Writer>), ApiError> {
    let choices = openai::choices(&fields)?;
    openai::refuse_unsupported(&fields, choices)?;
    fields.refuse_unless("echo", |value| value == false, "is not supported; /v1/completions has it")?;
    let top_logprobs = top_logprobs(&fields)?;
    let stream = openai::stream_options(&fields)?;
    let max_tokens = match fields.limit("max_completion_tokens")? {
        Some(limit) => limit,
        None => fields.limit("max_tokens")?.unwrap_or(Limit::None),
    };
    let ask = Ask {
        max_tokens: max_tokens.most(),
        sampling: openai::sampling(&fields)?,
        stop: openai::stop_strings(&fields, "stop")?,
        form: openai::form("response_format", fields.get("response_format"))?,
        stream: stream.is_some(),
        choices,
        top_logprobs,
        reasoning_tokens: openai::reasoning_tokens(&fields)?,
        ..Ask::to(Prompt::Chat(chat(&mut fields)?), "messages")
    };
    let (options, calls) = (stream.unwrap_or_default(), vec![0; choices]);
    Ok((ask, Box::new(ChatWriter { options, scored: top_logprobs.is_some(), calls, ends: Vec::new() })))
}

/// The most probable tokens that are wanted with each token's log-probability, if that is.
fn top_logprobs(fields: &Fields) -> Result<Option<usize>, ApiError> {
    let top = openai::count_to(fields, "top_logprobs", MOST_TOP_LOGPROBS)?;
    // A number is what completions have.
    let wanted = match fields.get("logprobs") {
        Some(number) if number.as_u64() == Some(0) => false,
        _ => fields.boolean("logprobs")?.unwrap_or(false),
    };
    match top {
        Some(1..) if !wanted => {
            let words = "top_logprobs: only with logprobs true";
            Err(ApiError::invalid("top_logprobs".to_owned(), words.into()))
        }
        top => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

/// The chat of a request.
///
/// # Errors
/// What is wrong with its fields.
pub(in super::super) fn chat(fields: &mut Fields) -> Result<Chat, ApiError> {
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
    } else if let Some(tools) = fields.take("tools").filter(|_| !tools.is_empty()) {
        variables.insert("tools".into(), tools);
    }
    if variables.get("documents").is_some_and(|documents| !documents.is_array()) {
        return Err(wrong_type("documents", "a list of documents"));
    }
    for name in ["add_generation_prompt", "continue_final_message"] {
        variables.extend(fields.boolean(name)?.map(|value| (name.to_owned(), Value::Bool(value))));
    }
    let messages = fields.take("messages").ok_or_else(|| wrong_type("messages", "a list of messages"))?;
    Ok(Chat { messages, variables, tools, choice, parallel, skipped: Vec::new(), fold_system: false })
}

/// What the request says of calls: whether there may, or must be one.
fn choice(fields: &Fields, tools: &[Tool]) -> Result<Choice, ApiError> {
    let expected = "\"auto\", \"none\", \"required\", or a function's name";
    let Some(value) = fields.get("tool_choice") else { return Ok(Choice::Auto) };
    let choose = |name| Choice::call(name, tools);
    match value.as_str() {
        Some("auto") => Ok(Choice::Auto),
        Some("none") => Ok(Choice::None),
        Some("required") => choose(None),
        Some(_) => Err(wrong_type("tool_choice", expected)),
        None => match (value["type"].as_str(), value["function"]["name"].as_str()) {
            (Some("function") | None, Some(name)) => choose(Some(name)),
            _ => Err(wrong_type("tool_choice", expected)),
        },
    }
}

/// What the request offers to the model.
fn offered_tools(fields: &Fields) -> Result<Vec<Tool>, ApiError> {
    let Some(tools) = fields.get("tools") else { return Ok(Vec::new()) };
    let tools = tools.as_array().ok_or_else(|| wrong_type("tools", "a list of tools"))?;
    check_count(tools)?;
    let tool = |(index, tool): (usize, &Value)| {
        let function = tool.get("function").filter(|_| matches!(tool["type"].as_str(), None | Some("function")));
        let name = function.and_then(|function| function["name"].as_str()).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| wrong_type(&format!("tools[{index}]"), "a function with a name"))?;
        let (name, strict) = (name.to_owned(), tool["function"]["strict"] == true);
        Ok(Tool { name, parameters: tool["function"]["parameters"].clone(), strict })
    };
    tools.iter().enumerate().map(tool).collect()
}

/// Answers a chat.
struct ChatWriter {
    options: StreamOptions,
    /// Whether log-probabilities are wanted.
    scored: bool,
    /// Calls that were begun, by choice.
    calls: Vec<usize>,
    /// Of the choices that have ended.
    ends: Vec<End>,
}

impl ChatWriter {
    fn chunk(&self, head: &Head, index: usize, delta: &Value, finish: Option<&str>) -> Value {
        let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish });
        openai::chunk(head, "chat.completion.chunk", choice, self.options)
    }

    /// How probable the tokens of a text were, where that is wanted.
    fn logprobs(&self, marks: &[Mark]) -> Value {
        if self.scored { json!({ "content": openai::logprobs(marks), "refusal": null }) } else { Value::Null }
    }
}

impl Writer for ChatWriter {
    fn prefix(&self) -> &'static str {
        "chatcmpl-"
    }

    fn open(&mut self, head: &Head) -> String {
        let role = json!({ "role": "assistant", "content": "" });
        (0..head.choices).map(|index| data(&self.chunk(head, index, &role, None))).collect()
    }

    fn output(&mut self, head: &Head, index: usize, output: Output) -> String {
        let delta = match output {
            Output::Text(piece) => {
                let mut chunk = self.chunk(head, index, &json!({ "content": piece.text }), None);
                chunk["choices"][0]["logprobs"] = self.logprobs(&piece.scores);
                return data(&chunk);
            }
            Output::Reasoning(piece) => json!({ "reasoning_content": piece }),
            Output::CallBegin { id, name } => {
                let mut call = call(&id, &name, "");
                call["index"] = self.calls[index].into();
                self.calls[index] += 1;
                json!({ "tool_calls": [call] })
            }
            Output::CallArguments(piece) => {
                json!({ "tool_calls": [{ "index": self.calls[index] - 1, "function": { "arguments": piece } }] })
            }
            Output::CallEnd => return String::new(),
            Output::End(end) => {
                let last = self.chunk(head, index, &json!({}), Some(openai::finish_reason(&end)));
                self.ends.push(end);
                return openai::ending(head, "chat.completion.chunk", last, &self.ends, self.options);
            }
            Output::Failed(error) => return data(&error.body()) + openai::DONE,
        };
        data(&self.chunk(head, index, &delta, None))
    }

    fn alive(&mut self, _: &Head) -> String {
        openai::COMMENT.to_owned()
    }

    fn whole(&mut self, head: &Head, choices: Vec<Chosen>) -> Value {
        openai::whole(head, "chat.completion", choices, |index, items, end| {
            let (message, marks) = message(items);
            let (logprobs, finish) = (self.logprobs(&marks), openai::finish_reason(end));
            json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": finish })
        })
    }
}

/// The message of an answer, and the tokens of its content. As OpenAI has it: null where there is nothing but calls.
fn message(items: Vec<Item>) -> (Value, Vec<Mark>) {
    let (mut text, mut reasoning, mut calls, mut marks) = (String::new(), String::new(), Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Text(mut piece) => {
                text += &piece.text;
                marks.append(&mut piece.scores);
            }
            Item::Reasoning(piece) => reasoning += &piece,
            Item::Call { id, name, arguments } => calls.push(call(&id, &name, &arguments)),
        }
    }
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if !reasoning.is_empty() {
        message["reasoning_content"] = reasoning.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    (message, marks)
}
