//! Which form of calls a model has, found out from its chat template: what that writes for a call of an earlier turn is what the
//! model has learned to write. A template that writes no calls at all leaves the tags that its instructions, or else the
//! vocabulary, have.

use serde_json::{Map, Value, json};

use super::super::super::assets::Text;
use super::super::super::chat_templates::Ending;
use super::call::{self, Begun, FUNCTION};
use super::form::{CallForm, Style};
use super::rest::{Arguments, CallRest};
use super::values::Notation;
use super::{harmony, invoke, keys};

/// Name of the function in the probing call, and of another that is only offered; neither occurs in a template.
const CALLED: &str = "forge_probe_call";
const OFFERED: &str = "forge_probe_tool";
/// Name and value of the argument.
const KEY: &str = "forge_probe_key";
const VALUE: &str = "forge_probe_value";
/// Of another argument.
const OTHER_KEY: &str = "forge_probe_also";
const OTHER_VALUE: &str = "forge_probe_other";

/// Tags that calls stand between, for templates that write none.
const USUAL_TAGS: [(&str, &str); 3] =
    [("<tool_call>", "</tool_call>"), ("[TOOL_CALLS]", ""), ("<|tool_call|>", "<|/tool_call|>")];
/// Where the Llama 3 family begins a call that is not only JSON.
const PYTHON_TAG: &str = "<|python_tag|>";

/// Longest tag; what is longer between brackets is text.
const LONGEST_TAG: usize = 40;

/// Ids of the probing call: some templates insist on nine letters and digits, and Kimi's writes the id instead of the name.
const SHORT_ID: &str = "abcDEF123";
const NAMED_ID: &str = "functions.forge_probe_call:0";

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
        for id in [SHORT_ID, NAMED_ID] {
            for arguments in [in_object.clone(), Value::String(in_object.to_string())] {
                for answered in [false, true] {
                    let messages = conversation(&user, id, &arguments, answered);
                    let called = render(text, &messages, true).filter(|text| text.contains(CALLED));
                    let Some(called) = called else { continue };
                    shown = true;
                    if let Some(mut form) = shown_form(&called, &plain) {
                        form.named_ids = id == NAMED_ID;
                        return Some(form.with_python_tag(text));
                    }
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

    /// What the template writes of a call up to its name, behind what begins the answer: a prompt that ends with it leaves the model
    /// nothing but a call. `None` where the name is not the first that is written, or nothing is.
    pub fn beginning(&self, text: &Text) -> Option<String> {
        if self.style == Style::Channels {
            return Some(harmony::BEFORE_NAME.into());
        }
        let user = json!({ "role": "user", "content": "Q" });
        let (id, in_object) = (self.probing_id(), json!({ KEY: VALUE }));
        [in_object.clone(), Value::String(in_object.to_string())].iter().find_map(|arguments| {
            let called = render(text, &conversation(&user, id, arguments, false), true)
                .or_else(|| render(text, &conversation(&user, id, arguments, true), true))?;
            let before = &called[..called.find(CALLED)?];
            let start =
                if self.bare { before.rfind("{\"name\"")? } else { before.rfind(self.open.first()?.as_str())? };
            // Tags around all calls.
            let outside = before[..start].trim_end();
            let outer = self.close.iter().find(|tag| outside.ends_with(tag.as_str()) && !is_closing(tag));
            let start = outer.map_or(start, |tag| outside.len() - tag.len());
            let beginning = &before[start..];
            (!beginning.contains(VALUE)).then(|| beginning.to_owned())
        })
    }

    /// What the template writes of a call behind its name, apart from its arguments; `None` where an id stands there, or the template does not show it.
    pub fn rest(&self, text: &Text) -> Option<CallRest> {
        let each = |notation, end: &str| Some(CallRest::Each(self.arguments(text, notation, end)?));
        match &self.style {
            Style::Json | Style::Separated(_) => self.rest_around_object(text),
            Style::Xml => each(Notation::Text, call::END_OF_PARAMETER),
            Style::Keys => each(Notation::Text, keys::END_OF_VALUE),
            Style::Invoke(mark) => each(Notation::Text, &invoke::end_of_parameter(mark)),
            Style::Pairs => each(Notation::Pairs, ""),
            Style::Python => each(Notation::Python, ""),
            Style::Channels => {
                // Where it ends an answer, it is no part of it.
                let ends = text.tokenizer.id(harmony::CALL).is_some_and(|id| text.defaults.end_token_ids.contains(&id));
                let after = if ends { String::new() } else { harmony::CALL.to_owned() };
                Some(CallRest::Object { before: harmony::BEFORE_ARGUMENTS.into(), after })
            }
        }
    }

    fn rest_around_object(&self, text: &Text) -> Option<CallRest> {
        let arguments = json!({ KEY: VALUE });
        [arguments.clone(), Value::String(arguments.to_string())].iter().find_map(|given| {
            let behind = self.behind_name(text, given)?;
            let behind = behind.strip_prefix(":0").filter(|_| self.named_ids).unwrap_or(&behind);
            let (before, object) = behind.split_at(behind.find('{')?);
            let mut values = serde_json::Deserializer::from_str(object).into_iter::<Value>();
            (values.next()?.ok()? == arguments).then_some(())?;
            let after = &object[values.byte_offset()..];
            let end = match self.end_of_call() {
                Some(close) => after.find(close)? + close.len(),
                // The object around name and arguments, and the list around that.
                None if before.contains(':') => {
                    let object = after.find('}')? + 1;
                    let list = after[object..].trim_start().starts_with(']');
                    if list { object + after[object..].find(']')? + 1 } else { object }
                }
                None => 0,
            };
            let (before, after) = (before.to_owned(), after[..end].to_owned());
            let id = self.probing_id();
            (!before.contains(id) && !after.contains(id)).then_some(CallRest::Object { before, after })
        })
    }

    /// How the template writes arguments that come one after the other; `end` is the tag that ends a value, if any does.
    fn arguments(&self, text: &Text, notation: Notation, end: &str) -> Option<Arguments> {
        let in_text =
            [false, true].into_iter().find(|&in_text| self.call_of(text, &json!({ KEY: VALUE }), in_text).is_some())?;
        let call_of = |arguments: &Value| self.call_of(text, arguments, in_text);
        // In an order that is no alphabet's.
        let two = call_of(&json!({ KEY: VALUE, OTHER_KEY: OTHER_VALUE }))?;
        let (at, other) = (two.find(KEY)?, two.find(OTHER_KEY)?);
        let sorted = other < at;
        let [(first_key, first_value), (second_key, second_value)] =
            if sorted { [(OTHER_KEY, OTHER_VALUE), (KEY, VALUE)] } else { [(KEY, VALUE), (OTHER_KEY, OTHER_VALUE)] };
        let (first, rest) = two.split_once(first_key)?;
        let (is, rest) = rest.split_once(first_value)?;
        let (between, rest) = rest.split_once(second_key)?;
        let (_, rest) = rest.split_once(second_value)?;
        // Quotes are a part of values.
        let quote = match notation {
            Notation::Text => "",
            Notation::Pairs => call::QUOTE,
            Notation::Python => is.get(is.len().checked_sub(1)?..)?,
        };
        let is = is.strip_suffix(quote)?;
        let (between, rest) = (between.strip_prefix(quote)?, rest.strip_prefix(quote)?);
        let value_end = &between[..between.find(end)? + end.len()];
        let last = rest.strip_prefix(value_end)?;
        // Before what is no text there may be another word.
        let number = json!({ KEY: 17 });
        let of_number = call_of(&number);
        let is_number = match &of_number {
            Some(number) => number.split_once(KEY)?.1.split_once("17")?.0,
            None => is,
        };
        let arguments = Arguments {
            notation,
            none: call_of(&json!({}))?,
            first: first.to_owned(),
            is: [is.to_owned(), is_number.to_owned()],
            end: value_end.to_owned(),
            next: between[value_end.len()..].to_owned(),
            last: last.to_owned(),
            sorted,
        };
        // What was taken apart is put together as the template does.
        let mixed = json!({ KEY: VALUE, OTHER_KEY: 17 });
        let is_same = |given: &Value, called: Option<String>| {
            let written = given.as_object().map(|given| arguments.written(given, [quote, quote]));
            called.is_none() || called == written
        };
        let is_known = is_same(&number, of_number) && is_same(&mixed, call_of(&mixed)) && !arguments.none.contains(KEY);
        is_known.then_some(arguments)
    }

    /// A call of these arguments from behind its name to its end, as the template writes it.
    fn call_of(&self, text: &Text, arguments: &Value, in_text: bool) -> Option<String> {
        let given = if in_text { Value::String(arguments.to_string()) } else { arguments.clone() };
        let behind = self.behind_name(text, &given)?;
        let end = match (self.end_of_call(), &self.style) {
            (Some(close), _) => behind.find(close)? + close.len(),
            (None, Style::Xml) => behind.find(call::END_OF_FUNCTION)? + call::END_OF_FUNCTION.len(),
            (None, _) => return None,
        };
        let call = &behind[..end];
        (!call.contains(self.probing_id())).then(|| call.to_owned())
    }

    /// What the template writes behind a call's name, to the conversation's end.
    fn behind_name(&self, text: &Text, arguments: &Value) -> Option<String> {
        let user = json!({ "role": "user", "content": "Q" });
        let called = |answered| render(text, &conversation(&user, self.probing_id(), arguments, answered), true);
        let called = called(false).or_else(|| called(true))?;
        Some(called[called.find(CALLED)? + CALLED.len()..].to_owned())
    }

    /// The tag that ends a call.
    fn end_of_call(&self) -> Option<&str> {
        self.close.iter().find(|tag| is_closing(tag)).or(self.close.first()).map(String::as_str)
    }

    fn probing_id(&self) -> &'static str {
        if self.named_ids { NAMED_ID } else { SHORT_ID }
    }

    fn with_python_tag(mut self, text: &Text) -> Self {
        if self.bare && text.tokenizer.id(PYTHON_TAG).is_some() {
            self.open.push(PYTHON_TAG.into());
        }
        self
    }
}

/// A conversation with one call in it.
fn conversation(user: &Value, id: &str, arguments: &Value, answered: bool) -> Value {
    let function = json!({ "name": CALLED, "arguments": arguments });
    let call = json!({ "id": id, "type": "function", "function": function });
    let mut messages = vec![user.clone(), json!({ "role": "assistant", "content": "", "tool_calls": [call] })];
    if answered {
        messages.push(json!({ "role": "tool", "tool_call_id": id, "name": OFFERED, "content": "R" }));
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
        return Some(CallForm { style: Style::Xml, bare: false, ..CallForm::tagged(open_tag(before), close) });
    }
    if before.ends_with("to=functions.") && called.contains(harmony::CHANNEL) {
        return Some(CallForm { style: Style::Channels, ..CallForm::default() });
    }
    if let Some(form) = with_own_tags(before, after, plain) {
        return Some(form);
    }
    if let Some(open) = open_tag(before).filter(|open| before.ends_with(open) && open.starts_with('[')) {
        let arguments = ["[ARGS]", "[CALL_ID]", "{"].iter().any(|next| after.starts_with(next));
        return arguments.then(|| CallForm::tagged(Some(open), None));
    }
    if let Some(open) = before.strip_suffix(call::CALL).and_then(open_tag) {
        let Begun::Call { bytes, .. } = call::pairs(&called[at - call::CALL.len()..]) else { return None };
        let close = close_tag(&called[at - call::CALL.len() + bytes..]);
        return Some(CallForm { style: Style::Pairs, ..CallForm::tagged(Some(open), close) });
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

/// The form where what stands next to the name is a tag, or punctuation, of one form alone.
fn with_own_tags(before: &str, after: &str, plain: &str) -> Option<CallForm> {
    let new = |tag: &&str| !plain.contains(*tag);
    // Tags next to each other: the innermost is the call's, those around it are all calls'.
    let tagged = |before: &str, after: &str, style: Style| {
        let open = tag_before(before).filter(new)?;
        let outside = before.trim_end().strip_suffix(open)?;
        let (mut close, mut rest) = (Vec::new(), after);
        while let Some(tag) = tag_after(rest).filter(new) {
            close.push(tag.to_owned());
            rest = rest.trim_start().strip_prefix(tag)?;
        }
        close.extend(tag_before(outside).filter(new).map(str::to_owned));
        Some(CallForm { open: vec![open.to_owned()], close, style, ..CallForm::default() })
    };
    if after.trim_start().starts_with(&format!("{}{KEY}", keys::KEY)) {
        let (_, rest) = after.rsplit_once(VALUE)?;
        return tagged(before, rest.trim_start().strip_prefix(keys::END_OF_VALUE)?, Style::Keys);
    }
    if let Some(mark) =
        before.strip_suffix("invoke name=\"").and_then(|before| before.rsplit_once('<')).map(|(_, mark)| mark)
    {
        let outside = before.strip_suffix(invoke::opening(mark).as_str())?;
        let (_, rest) = after.split_once(&format!("</{mark}invoke>"))?;
        return tagged(outside, rest, Style::Invoke(mark.to_owned()));
    }
    if let (Some(outside), Some(rest)) = (before.strip_suffix('['), after.strip_prefix('(')) {
        let (_, rest) = rest.strip_prefix(KEY)?.strip_prefix('=')?.split_once(VALUE)?;
        let rest = rest.trim_start_matches(['"', '\'']).strip_prefix(")]")?;
        return tagged(outside, rest, Style::Python);
    }
    // A tag behind the name, or behind what kind of tool it is.
    let start = before.trim_end();
    let (outside, separator, arguments) = match after.strip_prefix(|c: char| c == '<' || c == ':') {
        Some(_) => {
            let index = after.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit());
            let separator = tag_after(index).filter(|tag| tag.starts_with('<'))?;
            let name = start.strip_suffix("functions.").unwrap_or(start);
            (name, separator, index.trim_start().strip_prefix(separator)?)
        }
        None => {
            let separator = tag_before(start).filter(|tag| tag.starts_with('<') && after.contains("```"))?;
            let kind = start.strip_suffix(separator)?;
            let kind = kind.strip_suffix("function")?;
            (kind, separator, after.split_once("```")?.1.trim_start_matches("json"))
        }
    };
    let arguments = arguments.trim_start();
    let mut values = serde_json::Deserializer::from_str(arguments).into_iter::<Value>();
    let object = values.next()?.ok()?;
    (object[KEY] == VALUE).then_some(())?;
    let rest = arguments[values.byte_offset()..].trim_start();
    let rest = rest.strip_prefix("```").unwrap_or(rest);
    tagged(outside, rest, Style::Separated(separator.to_owned()))
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

/// Whether a tag that may stand behind a call says that something ended.
fn is_closing(tag: &str) -> bool {
    tag.contains("end") || tag.contains('/')
}

fn is_tag(tag: &str) -> bool {
    let inner = tag.get(1..tag.len() - 1).unwrap_or_default();
    tag.len() <= LONGEST_TAG
        && inner.chars().any(char::is_alphabetic)
        && inner.chars().all(|c| c.is_alphanumeric() || "_-/|:▁｜".contains(c))
}
