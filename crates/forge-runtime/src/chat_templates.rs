//! The chat templates of a checkpoint, which of them a request needs, and what that one can be given.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::chat::ChatTemplate;
use super::messages::{check_messages, cut_at_mark, encode_arguments, join_parts, mark_end, wrap_text};
use super::{Error, Result};

/// Name of the template for what no other is for.
const DEFAULT: &str = "default";

/// How a prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With the last message.
    Closed,
    /// With the opening of the assistant's answer.
    Opened,
    /// Within the last message, which the answer continues.
    Continued,
}

impl Ending {
    /// What the fields `add_generation_prompt` and `continue_final_message` ask for, which servers and transformers know by
    /// these names. Where neither is given, an assistant's message at the end is continued if `prefill` is set.
    ///
    /// # Errors
    /// [`Error::Usage`] where both are set, or one is neither true nor false.
    pub fn of(fields: &Map<String, Value>, messages: &Value, prefill: bool) -> Result<Self> {
        let flag = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_bool().map(Some).ok_or_else(|| Error::Usage(format!("{name} must be true or false")))
            }
        };
        let continued = flag("continue_final_message")?;
        match (continued, flag("add_generation_prompt")?) {
            (Some(true), Some(true)) => {
                Err(Error::Usage("add_generation_prompt and continue_final_message exclude each other".into()))
            }
            (Some(true), _) => Ok(Self::Continued),
            (None, None) if prefill && ends_with_text_of_assistant(messages) => Ok(Self::Continued),
            (_, Some(false)) => Ok(Self::Closed),
            _ => Ok(Self::Opened),
        }
    }
}

impl From<bool> for Ending {
    fn from(add_generation_prompt: bool) -> Self {
        if add_generation_prompt { Self::Opened } else { Self::Closed }
    }
}

fn ends_with_text_of_assistant(messages: &Value) -> bool {
    let Some(last) = messages.as_array().and_then(|messages| messages.last()) else { return false };
    let none = |name: &str| last.get(name).is_none_or(|value| value.is_null() || value == &json!([]));
    last.get("role").and_then(Value::as_str) == Some("assistant")
        && !none("content")
        && none("tool_calls")
        && none("function_call")
}

/// A template, with what is found out about it when that is needed.
struct Named {
    /// Or why it does not parse.
    template: Result<ChatTemplate, String>,
    source: String,
    /// Whether it has a branch for the role "developer".
    knows_developer: bool,
    /// Contents that messages of a role may have.
    contents: Mutex<HashMap<String, Contents>>,
}

fn mentions(source: &str, role: &str) -> bool {
    ['\'', '"'].iter().any(|quote| source.contains(&format!("{quote}{role}{quote}")))
}

/// Contents that a template renders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// Strings alone.
    Strings,
    /// Lists of parts alone.
    Parts,
    /// Either.
    Both,
}

/// All templates of a checkpoint.
pub struct ChatTemplates(BTreeMap<String, Named>);

impl ChatTemplates {
    /// From sources by name. What does not parse is an error only for those who need it. `tokens` are variables such as
    /// `bos_token` and `eos_token`.
    pub fn new<'a>(sources: impl IntoIterator<Item = (&'a str, &'a str)>, tokens: &Map<String, Value>) -> Self {
        let named = |source: &str| Named {
            template: ChatTemplate::new(source, tokens).map_err(|error| match error {
                Error::Template(reason) => reason,
                other => other.to_string(),
            }),
            source: source.to_owned(),
            knows_developer: mentions(source, "developer"),
            contents: Mutex::default(),
        };
        Self(sources.into_iter().map(|(name, source)| (name.to_owned(), named(source))).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The source of the default one.
    pub fn default_source(&self) -> Option<&str> {
        self.0.get(DEFAULT).map(|named| named.source.as_str())
    }

    /// Whether one of them has a word for this role, in quotes.
    pub fn mention(&self, role: &str) -> bool {
        self.0.values().any(|named| mentions(&named.source, role))
    }

    /// Renderings that were given up and hold their memory still, of the template that has most of them.
    pub fn given_up(&self) -> usize {
        let templates = self.0.values().filter_map(|named| named.template.as_ref().ok());
        templates.map(ChatTemplate::given_up).max().unwrap_or(0)
    }

    /// The prompt for a chat. `variables` has what else the template knows, `tools` and `documents` too; `chat_template` in it
    /// is the name of a template. Without one, tools ask for `tool_use`, documents for `rag`, where there are such.
    ///
    /// # Errors
    /// [`Error::NoTemplate`], [`Error::Messages`], [`Error::Template`] and [`Error::RenderingsGivenUp`].
    pub fn render(&self, messages: &Value, ending: Ending, variables: &Map<String, Value>) -> Result<String> {
        let given = messages;
        let mut messages = check_messages(given)?;
        let mut variables = variables.clone();
        let wanted = variables.shift_remove("chat_template");
        for other in ["messages", "add_generation_prompt", "continue_final_message"] {
            variables.shift_remove(other);
        }
        let named = self.choose(wanted.as_ref(), &variables)?;
        let template = named.template.as_ref().map_err(|reason| Error::Template(reason.clone()))?;
        for message in &mut messages {
            if !named.knows_developer && message["role"] == "developer" {
                message["role"] = "system".into();
            }
            match (named.contents(template, message), message.get("content")) {
                (Contents::Strings, Some(Value::Array(_))) => join_parts(message),
                (Contents::Parts, Some(Value::String(_))) => wrap_text(message),
                _ => {}
            }
        }
        let finish = |messages: &mut Vec<Value>| {
            if ending == Ending::Continued {
                let text = mark_end(messages)?;
                return cut_at_mark(&template.render(messages, false, &variables)?, &text);
            }
            template.render(messages, ending == Ending::Opened, &variables)
        };
        let mut strings = messages.clone();
        match finish(&mut messages) {
            // Some templates (DeepSeek's) put arguments into the text as they are.
            Err(Error::Template(reason)) if encode_arguments(&mut strings, given) => {
                finish(&mut strings).map_err(|_| Error::Template(reason))
            }
            result => result,
        }
    }

    fn choose(&self, wanted: Option<&Value>, variables: &Map<String, Value>) -> Result<&Named> {
        if self.0.is_empty() {
            return Err(Error::NoTemplate);
        }
        let known = || self.names().collect::<Vec<_>>().join(", ");
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_null()) {
            let named = wanted.as_str().and_then(|name| self.0.get(name));
            return named.ok_or_else(|| Error::Template(format!("there is none named {wanted}, but {}", known())));
        }
        let given = |name: &str| variables.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        let needed = [("tools", "tool_use"), ("documents", "rag")].into_iter().filter(|(field, _)| given(field));
        let named = needed.filter_map(|(_, name)| self.0.get(name)).next();
        let named = named.or_else(|| self.0.get(DEFAULT));
        named.ok_or_else(|| Error::Template(format!("there is no default one; name one of {}", known())))
    }
}

impl Named {
    /// Contents that a message of this role may have: found by rendering a short chat with either form.
    fn contents(&self, template: &ChatTemplate, message: &Value) -> Contents {
        let role = message["role"].as_str().unwrap_or_default();
        let known = self.contents.lock().unwrap_or_else(PoisonError::into_inner).get(role).copied();
        known.unwrap_or_else(|| {
            let contents = probe(template, role);
            self.contents.lock().unwrap_or_else(PoisonError::into_inner).insert(role.to_owned(), contents);
            contents
        })
    }
}

/// A text that no template writes by itself.
const PROBE: &str = "forge7probe";

fn probe(template: &ChatTemplate, role: &str) -> Contents {
    let user = json!({ "role": "user", "content": "x" });
    let chats = |content: Value| {
        let message = json!({ "role": role, "content": content, "name": "x", "tool_call_id": "x00000000" });
        let call = json!([{ "id": "x00000000", "type": "function", "function": { "name": "x", "arguments": {} } }]);
        match role {
            "user" => vec![vec![message.clone()], vec![json!({ "role": "system", "content": "x" }), message]],
            "assistant" => vec![vec![user.clone(), message.clone(), user.clone()], vec![user.clone(), message]],
            "tool" => {
                let asks = json!({ "role": "assistant", "content": "", "tool_calls": call });
                vec![vec![user.clone(), asks, message.clone()], vec![user.clone(), message]]
            }
            _ => vec![vec![message.clone(), user.clone()], vec![user.clone(), message]],
        }
    };
    let render = |content: Value| {
        let render = |chat: Vec<Value>| template.render(&chat, false, &Map::new()).ok();
        chats(content).into_iter().filter_map(render).collect::<Vec<_>>()
    };
    // A template that knows no parts writes them as Python or JSON does, the names of their fields too.
    let names = |text: &String| text.matches("type").count() + text.matches("text").count();
    let strings = render(PROBE.into());
    let most = strings.iter().map(names).max().unwrap_or(0);
    let mut parts = render(json!([{ "type": "text", "text": PROBE }]));
    parts.retain(|text| text.contains(PROBE));
    let parts = !parts.is_empty() && parts.iter().all(|text| names(text) <= most);
    match (strings.iter().any(|text| text.contains(PROBE)), parts) {
        (true, true) => Contents::Both,
        (false, true) => Contents::Parts,
        _ => Contents::Strings,
    }
}
