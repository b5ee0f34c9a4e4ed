//! The messages of a chat as chat templates expect them: what clients send differs from it, by the OpenAI API's rules and by
//! habit.

use serde_json::{Map, Value};

use super::{Error, Result};

/// Names that a message's thoughts go by, the one that templates read first. Source: transformers'
/// `chat_template_utils`.
const THOUGHTS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Checks the messages of a chat and brings them into the form that transformers gives to a template:
/// * fields that are null are left out,
/// * the arguments of earlier tool calls are objects, also where the client sent them as a string of JSON, as the OpenAI API
///   has it; a string that holds no JSON object stays as it is,
/// * thoughts go by every name that templates look for.
///
/// Contents are strings or lists of text parts; an assistant's may be missing.
///
/// # Errors
/// [`Error::Messages`] with the place and the reason.
pub fn check_messages(messages: &Value) -> Result<Vec<Value>> {
    let refuse = |place: String, reason: &str| Error::Messages { place, reason: reason.into() };
    let Some(list) = messages.as_array() else {
        return Err(refuse("messages".into(), "is not a list"));
    };
    if list.is_empty() {
        return Err(refuse("messages".into(), "is empty"));
    }
    let mut checked = Vec::with_capacity(list.len());
    for (index, message) in list.iter().enumerate() {
        let place = |field: &str| format!("messages[{index}]{field}");
        let Some(fields) = message.as_object() else {
            return Err(refuse(place(""), "is not an object"));
        };
        let Some(role) = fields.get("role").and_then(Value::as_str) else {
            return Err(refuse(place(".role"), "is not a string"));
        };
        match fields.get("content") {
            Some(Value::String(_)) => {}
            Some(Value::Array(parts)) if parts.iter().all(|part| text_of_part(part).is_some()) => {}
            Some(Value::Array(_)) => return Err(refuse(place(".content"), "has a part that is not text")),
            None | Some(Value::Null) if role == "assistant" => {}
            None | Some(Value::Null) => return Err(refuse(place(".content"), "is missing")),
            Some(_) => return Err(refuse(place(".content"), "is neither a string nor a list of parts")),
        }
        let given = fields.iter().filter(|(_, value)| !value.is_null());
        let mut fields: Map<String, Value> = given.map(|(name, value)| (name.clone(), value.clone())).collect();
        let calls = fields.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten();
        for call in calls {
            let nested = call.get("function").is_some_and(Value::is_object);
            decode_arguments(if nested { call.get_mut("function") } else { Some(call) });
        }
        decode_arguments(fields.get_mut("function_call"));
        alias_thoughts(&mut fields);
        checked.push(Value::Object(fields));
    }
    Ok(checked)
}

/// The text of a content part of type "text".
fn text_of_part(part: &Value) -> Option<&str> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => part.get("text").and_then(Value::as_str),
        _ => None,
    }
}

fn decode_arguments(call: Option<&mut Value>) {
    if let Some(arguments) = call.and_then(|call| call.get_mut("arguments"))
        && let Some(text) = arguments.as_str()
        && let Ok(Value::Object(object)) = serde_json::from_str(text)
    {
        *arguments = Value::Object(object);
    }
}

/// The arguments of earlier tool calls as strings of JSON: those that the client sent as such, as they were. Whether there are any.
pub(super) fn encode_arguments(messages: &mut [Value], given: &Value) -> bool {
    let mut any = false;
    for (message, given) in messages.iter_mut().zip(given.as_array().into_iter().flatten()) {
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten();
        for (index, call) in calls.enumerate() {
            let Some(arguments) = call.pointer_mut("/function/arguments").filter(|arguments| arguments.is_object())
            else {
                continue;
            };
            let sent = given.pointer(&format!("/tool_calls/{index}/function/arguments")).and_then(Value::as_str);
            *arguments = sent.map_or_else(|| arguments.to_string(), str::to_owned).into();
            any = true;
        }
    }
    any
}

/// `reasoning_content` from its other names, and `thinking`, which some templates read, from it.
fn alias_thoughts(message: &mut Map<String, Value>) {
    let Some(thoughts) = THOUGHTS.iter().find_map(|name| message.get(*name)).cloned() else { return };
    // In the order that transformers leaves them in.
    let mut all = Map::from_iter([("thinking".to_owned(), thoughts.clone())]);
    all.append(message);
    all.insert("reasoning_content".into(), thoughts);
    *message = all;
}

/// The content of a message whose template wants strings: the texts of its parts, a line each.
pub(super) fn join_parts(message: &mut Value) {
    if let Some(Value::Array(parts)) = message.get("content") {
        let texts: Vec<&str> = parts.iter().filter_map(text_of_part).collect();
        message["content"] = texts.join("\n").into();
    }
}

/// The content of a message whose template wants parts.
pub(super) fn wrap_text(message: &mut Value) {
    if let Some(Value::String(text)) = message.get("content") {
        message["content"] = serde_json::json!([{ "type": "text", "text": text }]);
    }
}

/// What is put behind the last message's text to find the place where its continuation begins: with a blank at its end, which
/// shows whether the template strips. Source: transformers' `render_jinja_template`.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Marks the end of the last message's text; that text.
///
/// # Errors
/// [`Error::Messages`] where it has none.
pub(super) fn mark_end(messages: &mut [Value]) -> Result<String> {
    let last = messages.len().saturating_sub(1);
    let refuse =
        || Error::Messages { place: format!("messages[{last}].content"), reason: "has no text to continue".into() };
    let content = messages.last_mut().and_then(|message| message.get_mut("content")).ok_or_else(refuse)?;
    let text = match content {
        Value::Array(parts) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")).ok_or_else(refuse)?,
        content => content,
    };
    let whole = text.as_str().ok_or_else(refuse)?.to_owned();
    *text = Value::String(format!("{whole}{MARK}"));
    Ok(whole)
}

/// The prompt up to the end of its last message, whose text is `text`.
///
/// # Errors
/// [`Error::Template`] where the template left it out, or changed it.
pub(super) fn cut_at_mark(rendered: &str, text: &str) -> Result<String> {
    let place = rendered.rfind(MARK.trim_end()).filter(|_| rendered.contains(text.trim()));
    let place = place.ok_or_else(|| Error::Template("does not render the message that is to be continued".into()))?;
    let before = &rendered[..place];
    // Where the blank is gone, the template strips the text.
    Ok(if rendered[place..].starts_with(MARK) { before } else { before.trim_end() }.to_owned())
}
