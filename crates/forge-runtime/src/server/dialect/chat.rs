//! OpenAI's `/v1/chat/completions`.

use serde_json::{Map, Value, json};

use super::super::api_error::ApiError;
use super::super::fields::{Fields, Limit, wrong_type};
use super::super::tools::Tool;
use super::ask::{call, check_count};
use super::openai::{self, StreamOptions};
use super::{Ask, Chat, Choice, End, Head, Item, Output, Prompt, Writer, data};

/// Fields of a request that are variables of chat templates by the same name.
const TEMPLATE_FIELDS: [&str; 4] = ["chat_template", "documents", "enable_thinking", "reasoning_effort"];

pub(super) fn read(mut fields: Fields) -> Result<(Ask, Box<dyn Writer>), ApiError> {
    openai::refuse_unsupported(&fields)?;
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
        form_field: "response_format",
        stream: stream.is_some(),
        prompt: Prompt::Chat(chat(&mut fields)?),
        prompt_field: "messages",
    };
    Ok((ask, Box::new(ChatWriter { options: stream.unwrap_or_default(), calls: 0 })))
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
        Ok(Tool { name: name.to_owned(), parameters: tool["function"]["parameters"].clone() })
    };
    tools.iter().enumerate().map(tool).collect()
}

/// Answers a chat.
struct ChatWriter {
    options: StreamOptions,
    /// Calls that were begun.
    calls: usize,
}

impl ChatWriter {
    fn chunk(&self, head: &Head, delta: &Value, finish: Option<&str>) -> Value {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        openai::chunk(head, "chat.completion.chunk", choice, self.options)
    }
}

impl Writer for ChatWriter {
    fn prefix(&self) -> &'static str {
        "chatcmpl-"
    }

    fn open(&mut self, head: &Head) -> String {
        data(&self.chunk(head, &json!({ "role": "assistant", "content": "" }), None))
    }

    fn output(&mut self, head: &Head, output: Output) -> String {
        let delta = match output {
            Output::Text(piece) => json!({ "content": piece }),
            Output::Reasoning(piece) => json!({ "reasoning_content": piece }),
            Output::CallBegin { id, name } => {
                let mut call = call(&id, &name, "");
                call["index"] = self.calls.into();
                self.calls += 1;
                json!({ "tool_calls": [call] })
            }
            Output::CallArguments(piece) => {
                json!({ "tool_calls": [{ "index": self.calls - 1, "function": { "arguments": piece } }] })
            }
            Output::CallEnd => return String::new(),
            Output::End(end) => {
                let last = self.chunk(head, &json!({}), Some(openai::finish_reason(&end)));
                return openai::ending(head, "chat.completion.chunk", last, &end, self.options);
            }
            Output::Failed(error) => return data(&error.body()) + openai::DONE,
        };
        data(&self.chunk(head, &delta, None))
    }

    fn alive(&mut self, _: &Head) -> String {
        openai::COMMENT.to_owned()
    }

    fn whole(&mut self, head: &Head, items: Vec<Item>, end: &End) -> Value {
        let message = message(items);
        let finish = openai::finish_reason(end);
        let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": finish });
        openai::whole(head, "chat.completion", choice, end)
    }
}

/// The message of an answer. As OpenAI has it: null where there is nothing but calls.
fn message(items: Vec<Item>) -> Value {
    let (mut text, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for item in items {
        match item {
            Item::Text(piece) => text += &piece,
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
    message
}
