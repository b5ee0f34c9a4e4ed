//! OpenAI's `/v1/responses`, without memory: every request brings all that was said before.
//!
//! Source of the form: OpenAI's API reference. Codex and OpenAI's clients rely on the order of events: each item is added, its parts
//! come and are done, the item is done, and `response.completed` has all of them again.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::super::assets::SamplingOptions;
use super::super::api_error::ApiError;
use super::super::fields::{Fields, Limit, wrong_type};
use super::ask::{Calls, Offer, assistant_message, call, check_count, content};
use super::openai::MOST_TOP_LOGPROBS;
use super::{Ask, Choice, Chosen, End, Head, Item, Mark, Output, Piece, Prompt, Why, Writer, event, openai};

pub(super) fn read(mut fields: Fields) -> Result<(Ask, Box<dyn Writer>), ApiError> {
    refuse_unsupported(&fields)?;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let max_tokens = fields.limit("max_output_tokens")?.unwrap_or(Limit::None);
    let mut variables = Map::new();
    match fields.object("reasoning")?.and_then(|reasoning| reasoning.get("effort")).and_then(Value::as_str) {
        Some("none") => drop(variables.insert("enable_thinking".into(), false.into())),
        Some(effort) => drop(variables.insert("reasoning_effort".into(), effort.into())),
        None => {}
    }
    variables.extend(fields.object("chat_template_kwargs")?.cloned().unwrap_or_default());
    let sampling = SamplingOptions {
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        seed: fields.seed("seed")?,
        ..SamplingOptions::default()
    };
    let mut writer = ResponseWriter::new(&fields)?;
    let mut tools = Tools::default();
    if let Some(list) = fields.get("tools") {
        tools.add("tools", list)?;
    }
    let mut input = Input::default();
    if let Some(instructions) = fields.string("instructions")? {
        input.system.push(instructions.to_owned());
    }
    match fields.take("input") {
        Some(Value::String(text)) => input.messages.push(json!({ "role": "user", "content": text })),
        Some(Value::Array(items)) => {
            for (index, item) in items.into_iter().enumerate() {
                input.item(&format!("input[{index}]"), &item, &mut tools)?;
            }
        }
        _ => return Err(wrong_type("input", "a string or a list of items")),
    }
    let messages = input.messages();
    if messages.is_empty() {
        return Err(wrong_type("input", "a string or a list of items, of which there is at least one message"));
    }
    let Tools { mut offer, custom } = tools;
    writer.custom = custom;
    offer.skipped.append(&mut input.skipped);
    let calls = calls(&fields, &offer)?;
    let ask = Ask {
        max_tokens: max_tokens.most(),
        sampling,
        stop: openai::stop_strings(&fields, "stop")?,
        form: openai::form("text.format", fields.object("text")?.and_then(|text| text.get("format")))?,
        form_field: "text.format",
        stream,
        top_logprobs: top_logprobs(&fields)?,
        reasoning_tokens: openai::reasoning_tokens(&fields)?,
        ..Ask::to(Prompt::Chat(offer.chat(messages, variables, calls)), "input")
    };
    Ok((ask, Box::new(writer)))
}

fn refuse_unsupported(fields: &Fields) -> Result<(), ApiError> {
    let off = |value: &Value| value.as_bool() == Some(false);
    fields.refuse_unless("previous_response_id", |_| false, "nothing is stored; send all items of the conversation")?;
    fields.refuse_unless("conversation", |_| false, "nothing is stored; send all items of the conversation")?;
    fields.refuse_unless("background", off, "nothing is stored; only false is supported")?;
    fields.refuse_unless("prompt", |_| false, "nothing is stored; send instructions and input")
}

/// The most probable tokens that are wanted with each token's log-probability, if that is: both ways of asking for it count.
fn top_logprobs(fields: &Fields) -> Result<Option<usize>, ApiError> {
    let top = openai::count_to(fields, "top_logprobs", MOST_TOP_LOGPROBS)?;
    let include = fields.get("include").and_then(Value::as_array);
    let included = include.is_some_and(|list| list.iter().any(|name| name == "message.output_text.logprobs"));
    Ok(top.filter(|top| included || *top > 0).or(included.then_some(0)))
}

/// What a request offers.
#[derive(Default)]
struct Tools {
    offer: Offer,
    /// Functions that take a text instead of an object.
    custom: BTreeSet<String>,
}

impl Tools {
    /// Adds a list of tools. What OpenAI's own servers have is left out.
    fn add(&mut self, place: &str, tools: &Value) -> Result<(), ApiError> {
        let tools = tools.as_array().ok_or_else(|| wrong_type(place, "a list of tools"))?;
        check_count(tools)?;
        for (index, tool) in tools.iter().enumerate() {
            let place = format!("{place}[{index}]");
            let name = || {
                let name = tool["name"].as_str().filter(|name| !name.is_empty());
                name.ok_or_else(|| wrong_type(&place, "a tool with a name"))
            };
            match tool["type"].as_str() {
                Some("function") => {
                    let strict = tool["strict"] == true;
                    self.offer.function(name()?, tool.get("description"), tool["parameters"].clone(), strict);
                }
                Some("custom") => {
                    let parameters = json!({
                        "type": "object", "properties": { "input": { "type": "string" } }, "required": ["input"],
                    });
                    self.offer.function(name()?, Some(&custom_description(tool)), parameters, false);
                    self.custom.insert(name()?.to_owned());
                }
                Some(kind) => self.offer.skip(kind),
                None => return Err(wrong_type(&place, "a tool with a type")),
            }
        }
        Ok(())
    }
}

/// What a tool is for, and by which grammar it reads its text.
fn custom_description(tool: &Value) -> Value {
    let mut words = tool["description"].as_str().unwrap_or_default().to_owned();
    if let (Some(syntax), Some(grammar)) = (tool["format"]["syntax"].as_str(), tool["format"]["definition"].as_str()) {
        words += &format!("\n\nThe input is written by this grammar ({syntax}):\n{grammar}");
    }
    words.into()
}

fn calls(fields: &Fields, offer: &Offer) -> Result<Calls, ApiError> {
    let expected = "\"auto\", \"none\", \"required\", or a function's name";
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let choice = match fields.get("tool_choice") {
        None => Choice::Auto,
        Some(choice) => match (choice.as_str(), choice["type"].as_str(), choice["name"].as_str()) {
            (Some("auto"), ..) => Choice::Auto,
            (Some("none"), ..) => Choice::None,
            (Some("required"), ..) => Choice::call(None, &offer.tools)?,
            (None, Some("function" | "custom"), Some(name)) => Choice::call(Some(name), &offer.tools)?,
            _ => return Err(wrong_type("tool_choice", expected)),
        },
    };
    Ok(Calls { choice, parallel })
}

/// Items on their way to messages.
#[derive(Default)]
struct Input {
    /// What comes before all else: instructions, and the first messages of a system or developer.
    system: Vec<String>,
    messages: Vec<Value>,
    /// The assistant's message that further items may belong to.
    turn: Option<Turn>,
    skipped: Vec<String>,
}

/// One message of an assistant: in this API its parts are items.
#[derive(Default)]
struct Turn {
    thoughts: String,
    texts: Vec<String>,
    calls: Vec<Value>,
}

impl Input {
    /// The messages of a chat.
    fn messages(&mut self) -> Vec<Value> {
        self.end_turn();
        let system = std::mem::take(&mut self.system);
        let system = (!system.is_empty()).then(|| json!({ "role": "system", "content": content(system) }));
        system.into_iter().chain(std::mem::take(&mut self.messages)).collect()
    }

    fn end_turn(&mut self) {
        let Some(Turn { thoughts, texts, calls }) = self.turn.take() else { return };
        self.messages.push(assistant_message(thoughts, texts, calls));
    }

    /// The message that a part belongs to, a new one if that would come before what it has.
    fn turn(&mut self, belongs: impl Fn(&Turn) -> bool) -> &mut Turn {
        if self.turn.as_ref().is_some_and(|turn| !belongs(turn)) {
            self.end_turn();
        }
        self.turn.get_or_insert_default()
    }

    fn item(&mut self, place: &str, item: &Value, tools: &mut Tools) -> Result<(), ApiError> {
        let string = |name: &str| item[name].as_str().ok_or_else(|| wrong_type(&format!("{place}.{name}"), "a string"));
        match item["type"].as_str() {
            None | Some("message") => self.message(place, item)?,
            Some("reasoning") => {
                let thoughts = thoughts(item);
                self.turn(|turn| turn.texts.is_empty() && turn.calls.is_empty()).thoughts += &thoughts;
            }
            Some("function_call") => {
                let call = call(string("call_id")?, string("name")?, string("arguments")?);
                self.turn(|_| true).calls.push(call);
            }
            Some("custom_tool_call") => {
                let arguments = json!({ "input": string("input")? }).to_string();
                let call = call(string("call_id")?, string("name")?, &arguments);
                self.turn(|_| true).calls.push(call);
            }
            Some("function_call_output" | "custom_tool_call_output") => {
                let texts = texts(&format!("{place}.output"), &item["output"])?;
                let id = string("call_id")?;
                self.end_turn();
                self.messages.push(json!({ "role": "tool", "tool_call_id": id, "content": content(texts) }));
            }
            Some("additional_tools") => tools.add(&format!("{place}.tools"), &item["tools"])?,
            Some("item_reference") => {
                let words = format!("{place}: nothing is stored; send the item itself");
                return Err(ApiError::invalid(place.to_owned(), words));
            }
            // What OpenAI's own servers did.
            Some(kind) => self.skipped.push(kind.to_owned()),
        }
        Ok(())
    }

    fn message(&mut self, place: &str, item: &Value) -> Result<(), ApiError> {
        let mut texts = texts(&format!("{place}.content"), &item["content"])?;
        match item["role"].as_str() {
            Some("assistant") => {
                self.turn(|turn| turn.texts.is_empty() && turn.calls.is_empty()).texts.append(&mut texts);
            }
            Some("system" | "developer") if self.messages.is_empty() && self.turn.is_none() => {
                self.system.append(&mut texts);
            }
            Some(role @ ("user" | "system" | "developer")) => {
                self.end_turn();
                self.messages.push(json!({ "role": role, "content": content(texts) }));
            }
            _ => {
                let expected = "\"user\", \"assistant\", \"system\" or \"developer\"";
                return Err(wrong_type(&format!("{place}.role"), expected));
            }
        }
        Ok(())
    }
}

/// The text of a reasoning item: what was thought, or else a summary of it.
fn thoughts(item: &Value) -> String {
    let text = |list: &str| -> String {
        item[list].as_array().into_iter().flatten().filter_map(|part| part["text"].as_str()).collect()
    };
    Some(text("content")).filter(|text| !text.is_empty()).unwrap_or_else(|| text("summary"))
}

/// The texts of a content: a string, or parts of which all are text.
fn texts(place: &str, value: &Value) -> Result<Vec<String>, ApiError> {
    let parts = match value {
        Value::String(text) => return Ok(vec![text.clone()]),
        Value::Array(parts) => parts,
        _ => return Err(wrong_type(place, "a string or a list of parts")),
    };
    let text = |(index, part): (usize, &Value)| {
        let text = match part["type"].as_str() {
            Some("input_text" | "output_text" | "text") => part["text"].as_str(),
            Some("refusal") => part["refusal"].as_str(),
            _ => None,
        };
        text.map(str::to_owned).ok_or_else(|| wrong_type(&format!("{place}[{index}]"), "a part of text"))
    };
    parts.iter().enumerate().map(text).collect()
}

/// What is said again in every answer.
const ECHOED: [&str; 13] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
];

/// An item that is being written.
struct Open {
    kind: Kind,
    id: String,
    /// Its text, or the arguments of its call.
    text: String,
    /// How probable the tokens of its text were, where that was asked for.
    scores: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
    Call {
        id: String,
        name: String,
        /// It takes a text.
        custom: bool,
    },
}

/// Answers with a response.
struct ResponseWriter {
    /// The response but for what comes.
    base: Value,
    custom: BTreeSet<String>,
    /// Events so far.
    events: usize,
    open: Option<Open>,
    /// Items that were ended.
    output: Vec<Value>,
}

impl ResponseWriter {
    fn new(fields: &Fields) -> Result<Self, ApiError> {
        let mut base = json!({ "object": "response", "background": false, "store": false, "truncation": "disabled" });
        for name in ECHOED {
            base[name] = fields.get(name).cloned().unwrap_or(Value::Null);
        }
        for (name, usual) in [
            ("metadata", json!({})),
            ("reasoning", json!({ "effort": null, "summary": null })),
            ("text", json!({ "format": { "type": "text" } })),
            ("tools", json!([])),
            ("top_logprobs", json!(0)),
        ] {
            if base[name].is_null() {
                base[name] = usual;
            }
        }
        base["tool_choice"] = fields.get("tool_choice").cloned().unwrap_or_else(|| "auto".into());
        base["parallel_tool_calls"] = fields.boolean("parallel_tool_calls")?.unwrap_or(true).into();
        base["previous_response_id"] = Value::Null;
        Ok(Self { base, custom: BTreeSet::new(), events: 0, open: None, output: Vec::new() })
    }

    /// The response as it is by now.
    fn response(&self, head: &Head, status: &str, end: Option<&End>, error: Value) -> Value {
        let incomplete = (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" }));
        let mut response = json!({
            "id": head.id,
            "created_at": head.created,
            "status": status,
            "error": error,
            "incomplete_details": incomplete,
            "model": head.model,
            "output": self.output,
            "usage": end.map(usage),
        });
        if let (Value::Object(response), Value::Object(base)) = (&mut response, &self.base) {
            response.extend(base.clone());
        }
        response
    }

    fn event(&mut self, kind: &str, fields: Value) -> String {
        let mut body = json!({ "type": kind, "sequence_number": self.events });
        self.events += 1;
        if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
            body.extend(fields);
        }
        event(kind, &body)
    }

    /// An event of the item that is being written.
    fn of_item(&mut self, kind: &str, fields: Value) -> String {
        let id = self.open.as_ref().map(|open| open.id.clone());
        let mut all = json!({ "item_id": id, "output_index": self.output.len() });
        if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
            all.extend(fields);
        }
        self.event(kind, all)
    }

    /// Begins an item, unless it goes on with the one that is being written.
    fn begin(&mut self, head: &Head, kind: Kind) -> String {
        if self.open.as_ref().is_some_and(|open| open.kind == kind) {
            return String::new();
        }
        let mut text = self.close("completed");
        let number = head.id.strip_prefix(self.prefix()).unwrap_or(&head.id);
        let prefix = match &kind {
            Kind::Message => "msg",
            Kind::Reasoning => "rs",
            Kind::Call { custom: false, .. } => "fc",
            Kind::Call { custom: true, .. } => "ctc",
        };
        let id = format!("{prefix}_{number}-{}", self.output.len());
        let part = kind.part("", &[]);
        let open = Open { kind, id, text: String::new(), scores: Vec::new() };
        let mut item = open.item("in_progress");
        for list in ["content", "summary"] {
            if item.get(list).is_some() {
                item[list] = json!([]);
            }
        }
        self.open = Some(open);
        text += &self.event("response.output_item.added", json!({ "output_index": self.output.len(), "item": item }));
        if let Some(part) = part {
            text += &self.of_item("response.content_part.added", json!({ "content_index": 0, "part": part }));
        }
        text
    }

    /// The next piece of the item that is being written.
    fn piece(&mut self, Piece { text: piece, scores }: Piece) -> String {
        let Some(open) = &mut self.open else { return String::new() };
        open.text += &piece;
        match open.kind {
            Kind::Message => {
                let fields = json!({ "content_index": 0, "delta": piece, "logprobs": openai::logprobs(&scores) });
                open.scores.extend(scores);
                self.of_item("response.output_text.delta", fields)
            }
            Kind::Reasoning => {
                self.of_item("response.reasoning_text.delta", json!({ "content_index": 0, "delta": piece }))
            }
            Kind::Call { custom: false, .. } => {
                self.of_item("response.function_call_arguments.delta", json!({ "delta": piece }))
            }
            // Its text is known when the arguments are whole.
            Kind::Call { custom: true, .. } => String::new(),
        }
    }

    /// Ends the item that is being written.
    fn close(&mut self, status: &str) -> String {
        let Some(open) = &self.open else { return String::new() };
        let (item, part, whole) = (open.item(status), open.kind.part(&open.text, &open.scores), open.text.clone());
        let mut text = match &open.kind {
            Kind::Message => {
                let fields = json!({ "content_index": 0, "text": whole, "logprobs": openai::logprobs(&open.scores) });
                self.of_item("response.output_text.done", fields)
            }
            Kind::Reasoning => {
                self.of_item("response.reasoning_text.done", json!({ "content_index": 0, "text": whole }))
            }
            Kind::Call { name, custom: false, .. } => {
                let fields = json!({ "name": name, "arguments": whole });
                self.of_item("response.function_call_arguments.done", fields)
            }
            Kind::Call { custom: true, .. } => {
                let input = item["input"].clone();
                self.of_item("response.custom_tool_call_input.delta", json!({ "delta": input }))
                    + &self.of_item("response.custom_tool_call_input.done", json!({ "input": input }))
            }
        };
        if let Some(part) = part {
            text += &self.of_item("response.content_part.done", json!({ "content_index": 0, "part": part }));
        }
        text += &self.event("response.output_item.done", json!({ "output_index": self.output.len(), "item": item }));
        self.open = None;
        self.output.push(item);
        text
    }

    /// Ends what is being written, and says how.
    fn finish(&mut self, end: &End) -> (String, &'static str) {
        let status = match end.why {
            Why::Stop | Why::Calls => "completed",
            Why::Length => "incomplete",
        };
        (self.close(status), status)
    }
}

impl Kind {
    /// Its one part.
    fn part(&self, text: &str, scores: &[Mark]) -> Option<Value> {
        match self {
            Self::Message => {
                let logprobs = openai::logprobs(scores);
                Some(json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": logprobs }))
            }
            Self::Reasoning => Some(json!({ "type": "reasoning_text", "text": text })),
            Self::Call { .. } => None,
        }
    }
}

impl Open {
    /// The item with what has come of it.
    fn item(&self, status: &str) -> Value {
        let Self { kind, id, text, scores } = self;
        let part = kind.part(text, scores);
        match kind {
            Kind::Message => {
                json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": [part] })
            }
            Kind::Reasoning => {
                json!({ "id": id, "type": "reasoning", "status": status, "summary": [], "content": [part] })
            }
            Kind::Call { id: call, name, custom: false } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call, "name": name, "arguments": text,
            }),
            Kind::Call { id: call, name, custom: true } => {
                let arguments: Value = serde_json::from_str(text).unwrap_or_default();
                // A model that gives something else than a text has that to say.
                let input = arguments["input"].as_str().unwrap_or(text);
                json!({
                    "id": id, "type": "custom_tool_call", "status": status, "call_id": call, "name": name, "input": input,
                })
            }
        }
    }
}

impl Writer for ResponseWriter {
    fn prefix(&self) -> &'static str {
        "resp_"
    }

    fn open(&mut self, head: &Head) -> String {
        let response = self.response(head, "in_progress", None, Value::Null);
        self.event("response.created", json!({ "response": response })) + &self.alive(head)
    }

    fn output(&mut self, head: &Head, _: usize, output: Output) -> String {
        match output {
            Output::Text(piece) => self.begin(head, Kind::Message) + &self.piece(piece),
            Output::Reasoning(piece) => self.begin(head, Kind::Reasoning) + &self.piece(piece.into()),
            Output::CallBegin { id, name } => {
                let custom = self.custom.contains(&name);
                self.begin(head, Kind::Call { id, name, custom })
            }
            Output::CallArguments(piece) => self.piece(piece.into()),
            Output::CallEnd => self.close("completed"),
            Output::End(end) => {
                let (text, status) = self.finish(&end);
                let response = self.response(head, status, Some(&end), Value::Null);
                text + &self.event(&format!("response.{status}"), json!({ "response": response }))
            }
            Output::Failed(error) => {
                let body = error.body();
                let code = body["error"]["code"].as_str().unwrap_or("server_error");
                let said = json!({ "code": code, "message": body["error"]["message"] });
                let response = self.response(head, "failed", None, said);
                self.event("response.failed", json!({ "response": response }))
            }
        }
    }

    /// Codex counts events as life, comments not.
    fn alive(&mut self, head: &Head) -> String {
        let response = self.response(head, "in_progress", None, Value::Null);
        self.event("response.in_progress", json!({ "response": response }))
    }

    fn whole(&mut self, head: &Head, choices: Vec<Chosen>) -> Value {
        let Some(Chosen { items, end }) = choices.into_iter().next() else { return Value::Null };
        for item in items {
            match item {
                Item::Text(piece) => drop(self.output(head, 0, Output::Text(piece))),
                Item::Reasoning(text) => drop(self.output(head, 0, Output::Reasoning(text))),
                Item::Call { id, name, arguments } => {
                    let outputs = [Output::CallBegin { id, name }, Output::CallArguments(arguments), Output::CallEnd];
                    outputs.into_iter().for_each(|output| drop(self.output(head, 0, output)));
                }
            }
        }
        let (_, status) = self.finish(&end);
        self.response(head, status, Some(&end), Value::Null)
    }
}

fn usage(end: &End) -> Value {
    let summary = &end.summary;
    json!({
        "input_tokens": summary.prompt_tokens,
        "input_tokens_details": { "cached_tokens": summary.reused_tokens, "cache_write_tokens": 0 },
        "output_tokens": summary.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": end.reasoning_tokens },
        "total_tokens": summary.prompt_tokens + summary.completion_tokens,
    })
}
