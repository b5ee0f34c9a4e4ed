//! Anthropic's `/v1/messages`.
//!
//! Source of the form: Anthropic's API reference, version 2023-06-01. Marks for its cache (`cache_control`) are passed over: what a prompt
//! begins with is reused wherever it can be.

use serde_json::{Map, Value, json};

use super::super::super::assets::SamplingOptions;
use super::super::api_error::ApiError;
use super::super::fields::{Fields, Limit, wrong_type};
use super::ask::{Calls, Offer, assistant_message, call, check_count, content};
use super::{Ask, Choice, Chosen, End, Head, Item, Output, Prompt, Why, Writer, event, openai};

/// What a block of Claude Code's system prompt begins with that is new in every request, and nothing to the model.
const BILLING: &str = "x-anthropic-billing-header";

pub(super) fn read(mut fields: Fields) -> Result<(Ask, Box<dyn Writer>), ApiError> {
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    fields.refuse_unless("mcp_servers", empty, "is not supported; this server calls no others")?;
    fields.refuse_unless("container", |_| false, "is not supported; this server runs no code")?;
    let output = fields.object("output_config")?;
    let format = output.and_then(|output| output.get("format")).filter(|format| !format.is_null());
    let (form_field, format) = match format {
        Some(format) => ("output_config.format", Some(format)),
        // As betas have it.
        None => ("output_format", fields.get("output_format")),
    };
    let form = openai::form(form_field, format)?;
    let mut variables = Map::new();
    if let Some(effort) = output.and_then(|output| output.get("effort")).filter(|effort| effort.is_string()) {
        variables.insert("reasoning_effort".into(), effort.clone());
    }
    let (thinks, reasoning_tokens) = thinking(&fields)?;
    variables.extend(thinks.map(|thinks| ("enable_thinking".to_owned(), thinks.into())));
    variables.extend(fields.object("chat_template_kwargs")?.cloned().unwrap_or_default());
    let sampling = SamplingOptions {
        temperature: fields.number("temperature")?,
        top_k: fields.count("top_k")?,
        top_p: fields.number("top_p")?,
        seed: fields.seed("seed")?,
        ..SamplingOptions::default()
    };
    let offer = offer(&fields)?;
    let calls = calls(&fields, &offer)?;
    let mut messages = Vec::new();
    system(fields.take("system"), &mut messages)?;
    let list = fields.take("messages");
    let list = list.as_ref().and_then(Value::as_array).ok_or_else(|| wrong_type("messages", "a list of messages"))?;
    for (index, message) in list.iter().enumerate() {
        read_message(&format!("messages[{index}]"), message, &mut messages)?;
    }
    let ask = Ask {
        max_tokens: fields.limit("max_tokens")?.unwrap_or(Limit::None).most(),
        sampling,
        stop: openai::stop_strings(&fields, "stop_sequences")?,
        form,
        form_field,
        stream: fields.boolean("stream")?.unwrap_or(false),
        reasoning_tokens,
        ..Ask::to(Prompt::Chat(offer.chat(messages, variables, calls)), "messages")
    };
    Ok((ask, Box::new(MessageWriter::default())))
}

/// Whether the request asks for thoughts, if it says so, and of how many tokens at most.
fn thinking(fields: &Fields) -> Result<(Option<bool>, Option<usize>), ApiError> {
    let Some(thinking) = fields.object("thinking")? else { return Ok((None, None)) };
    let thinks = match thinking.get("type").and_then(Value::as_str) {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => return Err(wrong_type("thinking.type", "\"enabled\", \"adaptive\" or \"disabled\"")),
    };
    let most = match thinking.get("budget_tokens").filter(|most| !most.is_null()) {
        None => None,
        Some(most) => match most.as_u64().and_then(|most| usize::try_from(most).ok()) {
            Some(most) => Some(most),
            None => return Err(wrong_type("thinking.budget_tokens", "a whole number, 0 or more")),
        },
    };
    Ok((Some(thinks), most.filter(|_| thinks)))
}

fn offer(fields: &Fields) -> Result<Offer, ApiError> {
    let mut offer = Offer::default();
    let Some(tools) = fields.get("tools") else { return Ok(offer) };
    let tools = tools.as_array().ok_or_else(|| wrong_type("tools", "a list of tools"))?;
    check_count(tools)?;
    for (index, tool) in tools.iter().enumerate() {
        match tool["type"].as_str() {
            None | Some("custom") => {
                let name = tool["name"].as_str().filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| wrong_type(&format!("tools[{index}]"), "a tool with a name"))?;
                let strict = tool["strict"] == true;
                offer.function(name, tool.get("description"), tool["input_schema"].clone(), strict);
            }
            Some(kind) => offer.skip(kind),
        }
    }
    Ok(offer)
}

fn calls(fields: &Fields, offer: &Offer) -> Result<Calls, ApiError> {
    let expected = "of type \"auto\", \"any\", \"none\", or \"tool\" with a name";
    let Some(choice) = fields.object("tool_choice")? else {
        return Ok(Calls { choice: Choice::Auto, parallel: true });
    };
    let parallel = choice.get("disable_parallel_tool_use").and_then(Value::as_bool) != Some(true);
    let name = choice.get("name").and_then(Value::as_str);
    let choice = match (choice.get("type").and_then(Value::as_str), name) {
        (Some("auto"), _) => Choice::Auto,
        (Some("none"), _) => Choice::None,
        (Some("any"), _) => Choice::call(None, &offer.tools)?,
        (Some("tool"), Some(name)) => Choice::call(Some(name), &offer.tools)?,
        _ => return Err(wrong_type("tool_choice", expected)),
    };
    Ok(Calls { choice, parallel })
}

fn system(system: Option<Value>, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let Some(system) = system else { return Ok(()) };
    let mut texts = texts("system", &system)?;
    texts.retain(|text| !text.starts_with(BILLING));
    if !texts.is_empty() {
        messages.push(json!({ "role": "system", "content": content(texts) }));
    }
    Ok(())
}

/// The texts of a string or of blocks, of which all are text.
fn texts(place: &str, value: &Value) -> Result<Vec<String>, ApiError> {
    blocks(place, value)?.into_iter().map(|(place, block)| text(&place, &block)).collect()
}

/// The blocks of a content with their places. A string is one block of text.
fn blocks(place: &str, value: &Value) -> Result<Vec<(String, Value)>, ApiError> {
    match value {
        Value::String(text) => Ok(vec![(place.to_owned(), json!({ "type": "text", "text": text }))]),
        Value::Array(list) => {
            let blocks = list.iter().enumerate();
            Ok(blocks.map(|(index, block)| (format!("{place}[{index}]"), block.clone())).collect())
        }
        _ => Err(wrong_type(place, "a string or a list of blocks")),
    }
}

/// The text of a block that is text: a document may be as well.
fn text(place: &str, block: &Value) -> Result<String, ApiError> {
    let text = match block["type"].as_str() {
        Some("text") => block["text"].as_str(),
        Some("document") if block["source"]["type"] == "text" => block["source"]["data"].as_str(),
        Some(kind @ ("image" | "document" | "search_result")) => {
            let words = format!("{place}: blocks of type {kind:?} are not supported; this model reads text alone");
            return Err(ApiError::invalid(place.to_owned(), words));
        }
        _ => None,
    };
    text.map(str::to_owned).ok_or_else(|| wrong_type(place, "a block of text"))
}

/// One message as those of OpenAI's chat: results of tools are messages of their own there.
fn read_message(place: &str, message: &Value, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let role = message["role"].as_str().unwrap_or_default();
    let place = format!("{place}.content");
    let before = messages.len();
    match role {
        "assistant" => messages.push(assistant(&place, &message["content"])?),
        "user" => {
            let mut texts = Vec::new();
            for (place, block) in blocks(&place, &message["content"])? {
                if block["type"] != "tool_result" {
                    texts.push(text(&place, &block)?);
                    continue;
                }
                if !texts.is_empty() {
                    messages.push(json!({ "role": role, "content": content(std::mem::take(&mut texts)) }));
                }
                messages.push(tool_result(&place, &block)?);
            }
            if !texts.is_empty() || messages.len() == before {
                messages.push(json!({ "role": role, "content": content(texts) }));
            }
        }
        "system" => messages.push(json!({ "role": role, "content": content(texts(&place, &message["content"])?) })),
        _ => {
            let place = place.replace(".content", ".role");
            return Err(wrong_type(&place, &format!("\"user\", \"assistant\" or \"system\", not {role:?}")));
        }
    }
    Ok(())
}

fn tool_result(place: &str, block: &Value) -> Result<Value, ApiError> {
    let id = block["tool_use_id"].as_str();
    let id = id.ok_or_else(|| wrong_type(&format!("{place}.tool_use_id"), "the id of a call"))?;
    let texts = match block.get("content").filter(|content| !content.is_null()) {
        Some(content) => texts(&format!("{place}.content"), content)?,
        None => Vec::new(),
    };
    Ok(json!({ "role": "tool", "tool_call_id": id, "content": content(texts) }))
}

fn assistant(place: &str, value: &Value) -> Result<Value, ApiError> {
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), String::new(), Vec::new());
    for (place, block) in blocks(place, value)? {
        match block["type"].as_str() {
            Some("thinking") => thoughts += block["thinking"].as_str().unwrap_or_default(),
            // Nobody but Anthropic can read it.
            Some("redacted_thinking") => {}
            Some("tool_use") => {
                let (Some(id), Some(name), true) =
                    (block["id"].as_str(), block["name"].as_str(), block["input"].is_object())
                else {
                    return Err(wrong_type(&place, "a call with id, name and input"));
                };
                calls.push(call(id, name, &block["input"].to_string()));
            }
            _ => texts.push(text(&place, &block)?),
        }
    }
    Ok(assistant_message(thoughts, texts, calls))
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    ToolUse,
}

/// Answers with a message.
#[derive(Default)]
struct MessageWriter {
    /// The block that is being written.
    open: Option<Block>,
    /// Blocks that were ended.
    ended: usize,
}

impl MessageWriter {
    /// An event, which names itself twice.
    fn event(&self, kind: &str, fields: Value) -> String {
        let mut body = json!({ "type": kind });
        if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
            body.extend(fields);
        }
        event(kind, &body)
    }

    /// Ends the block that is being written.
    fn close(&mut self) -> String {
        let index = self.ended;
        let mut text = String::new();
        match self.open.take() {
            None => return text,
            Some(Block::Thinking) => {
                // Whose it was is not signed here.
                let delta = json!({ "type": "signature_delta", "signature": "" });
                text += &self.event("content_block_delta", json!({ "index": index, "delta": delta }));
            }
            Some(Block::Text | Block::ToolUse) => {}
        }
        self.ended += 1;
        text + &self.event("content_block_stop", json!({ "index": index }))
    }

    /// Begins a block, unless one of the kind is being written.
    fn begin(&mut self, block: Block, start: Value) -> String {
        if self.open == Some(block) && block != Block::ToolUse {
            return String::new();
        }
        let text = self.close();
        self.open = Some(block);
        text + &self.event("content_block_start", json!({ "index": self.ended, "content_block": start }))
    }

    fn delta(&self, delta: Value) -> String {
        self.event("content_block_delta", json!({ "index": self.ended, "delta": delta }))
    }
}

impl Writer for MessageWriter {
    fn prefix(&self) -> &'static str {
        "msg_"
    }

    fn open(&mut self, head: &Head) -> String {
        // How much of the prompt is reused is not known yet.
        let usage = usage(head.prompt_tokens, 0, 0);
        self.event("message_start", json!({ "message": message(head, Vec::new(), None, usage) }))
    }

    fn output(&mut self, _: &Head, _: usize, output: Output) -> String {
        match output {
            Output::Text(piece) => {
                self.begin(Block::Text, json!({ "type": "text", "text": "" }))
                    + &self.delta(json!({ "type": "text_delta", "text": piece.text }))
            }
            Output::Reasoning(piece) => {
                self.begin(Block::Thinking, json!({ "type": "thinking", "thinking": "", "signature": "" }))
                    + &self.delta(json!({ "type": "thinking_delta", "thinking": piece }))
            }
            Output::CallBegin { id, name } => {
                self.begin(Block::ToolUse, json!({ "type": "tool_use", "id": id, "name": name, "input": {} }))
            }
            Output::CallArguments(piece) => self.delta(json!({ "type": "input_json_delta", "partial_json": piece })),
            Output::CallEnd => self.close(),
            Output::End(end) => {
                let (reason, sequence) = stop_reason(&end);
                let delta = json!({ "stop_reason": reason, "stop_sequence": sequence });
                let last = json!({ "delta": delta, "usage": usage_of(&end) });
                self.close() + &self.event("message_delta", last) + &self.event("message_stop", json!({}))
            }
            Output::Failed(error) => event("error", &error.anthropic_body()),
        }
    }

    fn alive(&mut self, _: &Head) -> String {
        self.event("ping", json!({}))
    }

    fn whole(&mut self, head: &Head, choices: Vec<Chosen>) -> Value {
        let Some(Chosen { items, end }) = choices.into_iter().next() else { return Value::Null };
        let block = |item| match item {
            Item::Text(piece) => json!({ "type": "text", "text": piece.text }),
            Item::Reasoning(text) => json!({ "type": "thinking", "thinking": text, "signature": "" }),
            Item::Call { id, name, arguments } => {
                // Readers of calls give objects alone.
                let input: Value = serde_json::from_str(&arguments).unwrap_or_else(|_| json!({}));
                json!({ "type": "tool_use", "id": id, "name": name, "input": input })
            }
        };
        message(head, items.into_iter().map(block).collect(), Some(&end), usage_of(&end))
    }
}

fn message(head: &Head, content: Vec<Value>, end: Option<&End>, usage: Value) -> Value {
    let (reason, sequence) = end.map(stop_reason).unzip();
    json!({
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence.flatten(),
        "usage": usage,
    })
}

fn stop_reason(end: &End) -> (&'static str, Option<&str>) {
    match (end.why, &end.summary.stop) {
        (Why::Calls, _) => ("tool_use", None),
        (Why::Stop, Some(stop)) => ("stop_sequence", Some(stop)),
        (Why::Stop, None) => ("end_turn", None),
        (Why::Length, _) => ("max_tokens", None),
    }
}

fn usage_of(end: &End) -> Value {
    let summary = &end.summary;
    usage(summary.prompt_tokens, summary.reused_tokens, summary.completion_tokens)
}

/// Tokens of the prompt are counted apart: those that were reused, and the others.
fn usage(prompt: usize, reused: usize, output: usize) -> Value {
    json!({
        "input_tokens": prompt - reused,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reused,
        "output_tokens": output,
    })
}
