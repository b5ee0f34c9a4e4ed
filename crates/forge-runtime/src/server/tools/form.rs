//! How a model writes tool calls, found out from its chat template: what that writes for a call of an earlier turn is what the
//! model has learned to write.
//!
//! Known are calls as JSON objects with `name` and `arguments` or `parameters`, each between tags (Hermes, Qwen 2.5 and 3), as a
//! list after a tag (Mistral, Granite 3), or with nothing around them (Llama 3); calls as XML (Qwen3-Coder); and a name and JSON
//! arguments after a tag (Mistral from 2025 on); a name and pairs between tags (Gemma 4). Tags are the template's own. A template that writes no calls at all leaves the
//! tags that its instructions, or else the vocabulary, have.

use serde_json::{Map, Value, json};

use super::super::super::assets::Text;
use super::super::super::chat_templates::Ending;
use super::call::{self, Begun};

/// Name of the function in the probing call, and of another that is only offered; neither occurs in a template.
const CALLED: &str = "forge_probe_call";
const OFFERED: &str = "forge_probe_tool";
/// Name and value of the argument.
const KEY: &str = "forge_probe_key";
const VALUE: &str = "forge_probe_value";

/// Tags that calls stand between, for templates that write none.
const USUAL_TAGS: [(&str, &str); 3] =
    [("<tool_call>", "</tool_call>"), ("[TOOL_CALLS]", ""), ("<|tool_call|>", "<|/tool_call|>")];
/// Where the Llama 3 family begins a call that is not only JSON.
const PYTHON_TAG: &str = "<|python_tag|>";
/// How a call in XML begins.
pub(super) const FUNCTION: &str = "<function=";

/// Longest tag; what is longer between brackets is text.
const LONGEST_TAG: usize = 40;

/// How a model writes tool calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallForm {
    /// Tags that one call, or a list of calls, follows.
    pub open: Vec<String>,
    /// Tags that may follow it.
    pub close: Vec<String>,
    /// An answer that begins with a JSON object, or a list of such, may itself be calls.
    pub bare: bool,
    /// `<function=` begins a call also without a tag before it.
    pub xml: bool,
    /// Calls are names and pairs, `call:name{key:value}`, strings between `<|"|>`.
    pub pairs: bool,
}

impl CallForm {
    /// The form that a model's text side shows; `None` where it is none of those known, or nothing shows any.
    pub fn of(text: &Text) -> Option<Self> {
        if text.templates.is_empty() {
            return None;
        }
        let user = json!({ "role": "user", "content": "Q" });
        let plain = render(text, &json!([user, { "role": "assistant", "content": "A" }]), false).unwrap_or_default();
        let mut shown = false;
        let in_object = json!({ KEY: VALUE });
        for arguments in [in_object.clone(), Value::String(in_object.to_string())] {
            for answered in [false, true] {
                let messages = conversation(&user, &arguments, answered);
                let Some(called) = render(text, &messages, true).filter(|text| text.contains(CALLED)) else { continue };
                shown = true;
                if let Some(form) = shown_form(&called, &plain) {
                    return Some(form.with_python_tag(text));
                }
            }
        }
        if shown { None } else { Self::usual(text, &user) }
    }

    /// The form of tags that the instructions for tools mention, or else the vocabulary has.
    fn usual(text: &Text, user: &Value) -> Option<Self> {
        let instructions = render(text, &json!([user]), true).unwrap_or_default();
        let mentioned = USUAL_TAGS.into_iter().find(|(open, _)| instructions.contains(open));
        let known = || USUAL_TAGS.into_iter().find(|(open, _)| text.tokenizer.id(open).is_some());
        if let Some((open, close)) = mentioned.or_else(known) {
            let close = Some(close).filter(|close| !close.is_empty());
            return Some(Self::tagged(Some(open), close));
        }
        let bare = Self { bare: true, ..Self::default() };
        text.tokenizer.id(PYTHON_TAG).map(|_| bare.with_python_tag(text))
    }

    fn tagged(open: Option<&str>, close: Option<&str>) -> Self {
        let list = |tag: Option<&str>| tag.map(str::to_owned).into_iter().collect();
        Self { open: list(open), close: list(close), bare: open.is_none(), ..Self::default() }
    }

    fn with_python_tag(mut self, text: &Text) -> Self {
        if self.bare && text.tokenizer.id(PYTHON_TAG).is_some() {
            self.open.push(PYTHON_TAG.into());
        }
        self
    }

    /// Ids of special tokens that are tags of the form, with their text: the detokenizer leaves special tokens out.
    pub fn special_tags(&self, text: &Text) -> Vec<(u32, String)> {
        let tags = self.open.iter().chain(&self.close).map(String::as_str).chain(["[CALL_ID]", "[ARGS]"]);
        let tags = tags.chain(self.pairs.then_some(call::QUOTE));
        let special = |tag: &str| text.tokenizer.id(tag).filter(|id| text.tokenizer.is_special(*id));
        tags.filter_map(|tag| Some((special(tag)?, tag.to_owned()))).collect()
    }

    /// The form in a few words.
    pub fn describe(&self) -> String {
        match (self.open.first(), self.close.first()) {
            _ if self.bare => "JSON".into(),
            (Some(open), _) if self.pairs => format!("names and pairs after {open}"),
            (Some(open), _) if self.xml => format!("XML after {open}"),
            (Some(open), Some(close)) => format!("JSON between {open} and {close}"),
            (Some(open), None) => format!("JSON after {open}"),
            (None, _) => "XML".into(),
        }
    }
}

/// A conversation with one call in it.
fn conversation(user: &Value, arguments: &Value, answered: bool) -> Value {
    // Some templates insist on ids of nine letters and digits.
    let function = json!({ "name": CALLED, "arguments": arguments });
    let call = json!({ "id": "abcDEF123", "type": "function", "function": function });
    let mut messages = vec![user.clone(), json!({ "role": "assistant", "content": "", "tool_calls": [call] })];
    if answered {
        messages.push(json!({ "role": "tool", "tool_call_id": "abcDEF123", "name": OFFERED, "content": "R" }));
    }
    Value::Array(messages)
}

fn render(text: &Text, messages: &Value, tools: bool) -> Option<String> {
    let mut variables = Map::new();
    if tools {
        let parameters = json!({ "type": "object", "properties": { "x": { "type": "string", "description": "X" } } });
        let function = json!({ "name": OFFERED, "description": "D", "parameters": parameters });
        variables.insert("tools".into(), json!([{ "type": "function", "function": function }]));
    }
    text.render_chat(messages, Ending::Closed, &variables).ok()
}

/// The form of the call in `called`; tags that an answer without calls has as well, in `plain`, are not the call's.
fn shown_form(called: &str, plain: &str) -> Option<CallForm> {
    let at = called.find(CALLED)?;
    let (before, after) = (&called[..at], &called[at + CALLED.len()..]);
    let open_tag = |before| tag_before(before).filter(|tag| !plain.contains(tag));
    let close_tag = |after| tag_after(after).filter(|tag| !plain.contains(tag));
    if let (Some(before), Some(after)) = (before.strip_suffix(FUNCTION), after.strip_prefix('>')) {
        after.contains(&format!("<parameter={KEY}>")).then_some(())?;
        let close = after.split_once("</function>").and_then(|(_, after)| close_tag(after));
        return Some(CallForm { xml: true, bare: false, ..CallForm::tagged(open_tag(before), close) });
    }
    if let Some(open) = open_tag(before).filter(|open| before.ends_with(open) && open.starts_with('[')) {
        let arguments = ["[ARGS]", "[CALL_ID]", "{"].iter().any(|next| after.starts_with(next));
        return arguments.then(|| CallForm::tagged(Some(open), None));
    }
    if let Some(open) = before.strip_suffix(call::CALL).and_then(open_tag) {
        let Begun::Call { bytes, .. } = call::pairs(&called[at - call::CALL.len()..]) else { return None };
        let close = close_tag(&called[at - call::CALL.len() + bytes..]);
        return Some(CallForm { pairs: true, ..CallForm::tagged(Some(open), close) });
    }
    // The innermost object around the name that has all a call has.
    let (start, length) = before.rmatch_indices('{').take(3).find_map(|(start, _)| {
        let mut values = serde_json::Deserializer::from_str(&called[start..]).into_iter::<Value>();
        let object = values.next()?.ok()?;
        is_call(&object).then(|| (start, values.byte_offset()))
    })?;
    let (mut before, mut after) = (called[..start].trim_end(), called[start + length..].trim_start());
    if let (Some(outer), Some(rest)) = (before.strip_suffix('['), after.strip_prefix(']')) {
        (before, after) = (outer, rest);
    }
    Some(CallForm::tagged(open_tag(before), close_tag(after)))
}

fn is_call(object: &Value) -> bool {
    let function = object.get("function").filter(|inner| inner.is_object()).unwrap_or(object);
    let arguments = function.get("arguments").or_else(|| function.get("parameters"));
    let argument = match arguments {
        Some(Value::String(text)) => text.contains(VALUE),
        Some(arguments) => arguments.get(KEY).and_then(Value::as_str) == Some(VALUE),
        None => false,
    };
    argument && function.get("name").and_then(Value::as_str) == Some(CALLED)
}

/// The tag, `<...>` or `[...]`, that a text ends with.
fn tag_before(text: &str) -> Option<&str> {
    let text = text.trim_end();
    let bracket = match text.chars().next_back()? {
        '>' => '<',
        ']' => '[',
        _ => return None,
    };
    Some(&text[text.rfind(bracket)?..]).filter(|tag| is_tag(tag))
}

/// The tag that a text begins with.
fn tag_after(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let bracket = match text.chars().next()? {
        '<' => '>',
        '[' => ']',
        _ => return None,
    };
    Some(&text[..=text.find(bracket)?]).filter(|tag| is_tag(tag))
}

fn is_tag(tag: &str) -> bool {
    let inner = tag.get(1..tag.len() - 1).unwrap_or_default();
    tag.len() <= LONGEST_TAG
        && inner.chars().any(char::is_alphabetic)
        && inner.chars().all(|c| c.is_alphanumeric() || "_-/|:▁｜".contains(c))
}
