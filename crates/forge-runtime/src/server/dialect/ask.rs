//! What a request asks for, in no dialect's words.

use serde_json::{Map, Value, json};

use super::super::super::assets::SamplingOptions;
use super::super::super::grammar::Form;
use super::super::api_error::ApiError;
use super::super::fields::wrong_type;
use super::super::tools::Tool;

/// What a request asks for.
pub(in super::super) struct Ask {
    /// What the answer is to.
    pub(in super::super) prompt: Prompt,
    /// The field that it comes from, for errors.
    pub(in super::super) prompt_field: &'static str,
    /// Most tokens of the answer; up to the context's end if not given.
    pub(in super::super) max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub(in super::super) sampling: SamplingOptions,
    /// Texts that end the answer and are not part of it.
    pub(in super::super) stop: Vec<String>,
    /// What the answer is held to.
    pub(in super::super) form: Option<Form>,
    /// The field that says so, for errors.
    pub(in super::super) form_field: &'static str,
    /// Whether it is to be sent as it comes.
    pub(in super::super) stream: bool,
    /// Answers that are wanted.
    pub(in super::super) choices: usize,
    /// Set if log-probabilities are wanted, with those of so many of the most probable tokens.
    pub(in super::super) top_logprobs: Option<usize>,
    /// Whether each answer is to begin with its prompt.
    pub(in super::super) echo: bool,
    /// Most tokens of reasoning; as many as the model likes if not given.
    pub(in super::super) reasoning_tokens: Option<usize>,
}

impl Ask {
    /// One whole answer to this, which is in a field of this name, chosen as the model's files say.
    pub(super) fn to(prompt: Prompt, prompt_field: &'static str) -> Self {
        Self {
            prompt,
            prompt_field,
            max_tokens: None,
            sampling: SamplingOptions::default(),
            stop: Vec::new(),
            form: None,
            form_field: "response_format",
            stream: false,
            choices: 1,
            top_logprobs: None,
            echo: false,
            reasoning_tokens: None,
        }
    }
}

/// What an answer is to.
pub(in super::super) enum Prompt {
    /// A text, which the answer continues.
    Text(String),
    /// The same as tokens.
    Ids(Vec<u32>),
    /// Messages, which a template makes a prompt of.
    Chat(Chat),
}

/// Messages, and what else a template makes a prompt of.
#[derive(Default)]
pub(in super::super) struct Chat {
    /// Messages in the form of OpenAI's chat, which is that of templates.
    pub(in super::super) messages: Value,
    /// Variables of templates: `tools`, in the form of OpenAI's chat, and whatever else there is.
    pub(in super::super) variables: Map<String, Value>,
    /// The functions that `tools` has.
    pub(in super::super) tools: Vec<Tool>,
    /// Whether there may, or must be a call of one.
    pub(in super::super) choice: Choice,
    /// Whether there may be several.
    pub(in super::super) parallel: bool,
    /// What was asked for and is left out: kinds of tools that only a dialect's own servers have.
    pub(in super::super) skipped: Vec<String>,
    /// Whether system messages in mid-chat become users' where the template has no place for them.
    pub(in super::super) fold_system: bool,
}

/// Most tools of one request.
const MAX_TOOLS: usize = 1_000;

/// Refuses more tools than there may be.
///
/// # Errors
/// There are more.
pub(super) fn check_count(tools: &[Value]) -> Result<(), ApiError> {
    if tools.len() > MAX_TOOLS {
        let words = format!("tools are {}, at most {MAX_TOOLS} are allowed", tools.len());
        return Err(ApiError::invalid("tools".to_owned(), words));
    }
    Ok(())
}

/// What a dialect that has its own words for functions offers to the model.
#[derive(Default)]
pub(super) struct Offer {
    pub(super) tools: Vec<Tool>,
    /// In the form of OpenAI's chat.
    definitions: Vec<Value>,
    pub(super) skipped: Vec<String>,
}

impl Offer {
    /// Adds a function, calls of which are held to its parameters if it is `strict`. Its description may be missing.
    pub(super) fn function(&mut self, name: &str, description: Option<&Value>, parameters: Value, strict: bool) {
        let mut function = json!({ "name": name });
        if let Some(description) = description.filter(|description| description.is_string()) {
            function["description"] = description.clone();
        }
        function["parameters"] = parameters.clone();
        self.definitions.push(json!({ "type": "function", "function": function }));
        self.tools.push(Tool { name: name.to_owned(), parameters, strict });
    }

    /// Leaves out a tool of this kind.
    pub(super) fn skip(&mut self, kind: &str) {
        self.skipped.push(kind.to_owned());
    }

    /// The chat that has it.
    pub(super) fn chat(self, messages: Vec<Value>, mut variables: Map<String, Value>, calls: Calls) -> Chat {
        let Self { mut tools, definitions, skipped } = self;
        if calls.choice == Choice::None {
            tools.clear();
        } else if !definitions.is_empty() {
            variables.insert("tools".into(), definitions.into());
        }
        let Calls { choice, parallel } = calls;
        Chat { messages: messages.into(), variables, tools, choice, parallel, skipped, fold_system: true }
    }
}

/// What a request says of calls.
pub(super) struct Calls {
    /// Whether there may, or must be one.
    pub(super) choice: Choice,
    /// Whether there may be several.
    pub(super) parallel: bool,
}

/// The content of a message of several texts: a string where there is one alone.
pub(super) fn content(mut texts: Vec<String>) -> Value {
    match texts.len() {
        0 | 1 => texts.pop().unwrap_or_default().into(),
        _ => texts.into_iter().map(|text| json!({ "type": "text", "text": text })).collect(),
    }
}

/// A call of an assistant's message, `arguments` as a string of JSON.
pub(super) fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
}

/// An assistant's message, of those of these that it has.
pub(super) fn assistant_message(thoughts: String, texts: Vec<String>, calls: Vec<Value>) -> Value {
    let mut message = json!({ "role": "assistant" });
    if !thoughts.is_empty() {
        message["reasoning_content"] = thoughts.into();
    }
    if !texts.is_empty() || calls.is_empty() {
        message["content"] = content(texts);
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

/// Whether there may, or must be a call.
#[derive(Debug, Default, PartialEq)]
pub(in super::super) enum Choice {
    #[default]
    Auto,
    None,
    /// A call, of this function if one is named.
    Call(Option<String>),
}

impl Choice {
    /// A call of one of `tools`, of that which is named if one is.
    ///
    /// # Errors
    /// There is no such tool.
    pub(super) fn call(name: Option<&str>, tools: &[Tool]) -> Result<Self, ApiError> {
        match (name, tools) {
            (_, []) => Err(wrong_type("tool_choice", "\"none\" where there are no tools")),
            // One of one is as good as named.
            (None, [only]) => Ok(Self::Call(Some(only.name.clone()))),
            (None, _) => Ok(Self::Call(None)),
            (Some(name), tools) if tools.iter().any(|tool| tool.name == name) => Ok(Self::Call(Some(name.to_owned()))),
            (Some(name), _) => {
                Err(ApiError::invalid("tool_choice".to_owned(), format!("tool_choice: there is no tool {name:?}")))
            }
        }
    }
}
