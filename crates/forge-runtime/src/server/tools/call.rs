//! One tool call, read from the beginning of a text that may not have come to its end.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Tool;
use super::schema::typed_argument;

/// How a call in XML begins.
pub(super) const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";
pub(super) const END_OF_PARAMETER: &str = "</parameter>";
pub(super) const END_OF_FUNCTION: &str = "</function>";

/// How a call in pairs begins, and what strings in it stand between.
pub(super) const CALL: &str = "call:";
pub(super) const QUOTE: &str = "<|\"|>";

/// Deepest value in a call in pairs; JSON's reader has a limit of its own.
const DEEPEST: usize = 100;

/// What a text begins with.
#[derive(Debug, PartialEq)]
pub(super) enum Begun {
    /// More text is needed to tell.
    Open,
    /// A call, in so many bytes.
    Call { name: String, arguments: String, bytes: usize },
    /// Something else.
    Other,
}

/// How far a JSON object has been looked through, so that no byte is looked at twice.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    /// Closing brackets that are awaited.
    awaited: Vec<u8>,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Bytes of the JSON object that `text` begins with; `None` where it is none.
    pub(super) fn object(&mut self, text: &str) -> Option<Option<usize>> {
        while let Some(&byte) = text.as_bytes().get(self.at) {
            self.at += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' => self.awaited.push(b'}'),
                b'[' => self.awaited.push(b']'),
                b'}' | b']' => {
                    if self.awaited.pop() != Some(byte) {
                        return None;
                    }
                    if self.awaited.is_empty() {
                        return Some(Some(self.at));
                    }
                }
                _ if byte.is_ascii_alphanumeric() || b" \t\r\n:,.+-".contains(&byte) => {}
                _ => return None,
            }
        }
        Some(None)
    }
}

/// Reads a call in JSON, `{"name": ..., "arguments": {...}}`.
pub(super) fn json(text: &str, scan: &mut Scan) -> Begun {
    match scan.object(text) {
        None => Begun::Other,
        Some(None) => Begun::Open,
        Some(Some(bytes)) => match serde_json::from_str::<JsonCall<'_>>(&text[..bytes]).ok().and_then(JsonCall::read) {
            Some((name, arguments)) => Begun::Call { name, arguments, bytes },
            None => Begun::Other,
        },
    }
}

/// A call as models write it, some with the API's object around it.
#[derive(Deserialize)]
struct JsonCall<'a> {
    name: Option<String>,
    #[serde(borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    function: Option<&'a RawValue>,
}

impl JsonCall<'_> {
    fn read(self) -> Option<(String, String)> {
        let Some(name) = self.name else {
            let inner: JsonCall<'_> = serde_json::from_str(self.function?.get()).ok()?;
            // Once only: what nests deeper is no call.
            return inner.name.is_some().then(|| inner.read())?;
        };
        (!name.is_empty()).then_some(())?;
        let arguments = match self.arguments.map(RawValue::get) {
            None | Some("null") => "{}".to_owned(),
            // What is JSON and no reader takes, as 1e999 is, is no call.
            Some(text) if text.starts_with('{') => {
                serde_json::from_str::<Map<String, Value>>(text).ok()?;
                text.to_owned()
            }
            // Arguments that are in a string already.
            Some(text) => {
                let text: String = serde_json::from_str(text).ok()?;
                serde_json::from_str::<Map<String, Value>>(&text).ok()?;
                text
            }
        };
        Some((name, arguments))
    }
}

/// Reads a name and arguments, `name[ARGS]{...}` or `name[CALL_ID]id[ARGS]{...}` or `name{...}`.
pub(super) fn named(text: &str, scan: &mut Scan) -> Begun {
    let is_in_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    let Some(end) = text.find(|c| !is_in_name(c)) else { return Begun::Open };
    let (name, rest) = text.split_at(end);
    let after = match after_call_id(rest) {
        Ok(after) => after.trim_start(),
        Err(begun) => return begun,
    };
    if name.is_empty() || !after.is_empty() && !after.starts_with('{') {
        return Begun::Other;
    }
    match scan.object(after) {
        None => Begun::Other,
        Some(None) => Begun::Open,
        Some(Some(bytes)) => {
            let arguments = &after[..bytes];
            match serde_json::from_str::<Map<String, Value>>(arguments) {
                Ok(_) => Begun::Call {
                    name: name.to_owned(),
                    arguments: arguments.to_owned(),
                    bytes: text.len() - after.len() + bytes,
                },
                Err(_) => Begun::Other,
            }
        }
    }
}

/// What follows an optional id and the tag before the arguments.
fn after_call_id(text: &str) -> Result<&str, Begun> {
    const ID: &str = "[CALL_ID]";
    const ARGUMENTS: &str = "[ARGS]";
    if let Some(after) = text.strip_prefix(ARGUMENTS) {
        return Ok(after);
    }
    if let Some(after) = text.strip_prefix(ID) {
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).ok_or(Begun::Open)?;
        return match after[end..].strip_prefix(ARGUMENTS) {
            Some(after) => Ok(after),
            None if ARGUMENTS.starts_with(&after[end..]) => Err(Begun::Open),
            None => Err(Begun::Other),
        };
    }
    if [ID, ARGUMENTS].iter().any(|tag| tag.starts_with(text)) { Err(Begun::Open) } else { Ok(text) }
}

/// Reads a call in XML, `<function=name><parameter=key>value</parameter></function>`. Values are text; the tool's schema says
/// which of them are meant as something else.
pub(super) fn xml(text: &str, tools: &[Tool]) -> Begun {
    let begins = |rest: &str, tag: &str| !rest.starts_with(tag) && tag.starts_with(rest);
    let Some(rest) = text.strip_prefix(FUNCTION) else {
        return if begins(text, FUNCTION) { Begun::Open } else { Begun::Other };
    };
    let (name, mut rest) = match name(rest) {
        Ok(name) => name,
        Err(begun) => return begun,
    };
    let schema = schema_of(tools, name);
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(END_OF_FUNCTION) {
            let arguments = Value::Object(arguments).to_string();
            return Begun::Call { name: name.to_owned(), arguments, bytes: text.len() - after.len() };
        }
        let Some(after) = rest.strip_prefix(PARAMETER) else {
            let open = begins(rest, END_OF_FUNCTION) || begins(rest, PARAMETER);
            return if open { Begun::Open } else { Begun::Other };
        };
        let (key, after) = match self::name(after) {
            Ok(key) => key,
            Err(begun) => return begun,
        };
        let Some((value, after)) = value_before(after, END_OF_PARAMETER, &[PARAMETER, END_OF_FUNCTION]) else {
            return Begun::Open;
        };
        arguments.insert(key.to_owned(), typed_argument(value, key, schema));
        rest = after;
    }
}

/// A name that `>` ends, and what follows.
fn name(text: &str) -> Result<(&str, &str), Begun> {
    match text.find(['>', '<', '\n']) {
        None => Err(Begun::Open),
        Some(end) => {
            let name = text[..end].trim().trim_matches(['"', '\'']);
            let after = text[end..].strip_prefix('>').filter(|_| !name.is_empty());
            after.map(|after| (name, after)).ok_or(Begun::Other)
        }
    }
}

/// A value and what follows its end. The same tag inside of a value ends it only where one of `next` follows.
pub(super) fn value_before<'a>(text: &'a str, tag: &str, next: &[&str]) -> Option<(&'a str, &'a str)> {
    for (end, _) in text.match_indices(tag) {
        let after = &text[end + tag.len()..];
        let following = after.trim_start();
        if next.iter().any(|next| following.starts_with(next)) {
            let value = text[..end].strip_prefix('\n').unwrap_or(&text[..end]);
            return Some((value.strip_suffix('\n').unwrap_or(value), after));
        }
        if next.iter().any(|next| next.starts_with(following)) {
            return None;
        }
    }
    None
}

/// The schema of a function's arguments, null where it is not among the tools.
pub(super) fn schema_of<'a>(tools: &'a [Tool], name: &str) -> &'a Value {
    tools.iter().find(|tool| tool.name == name).map_or(&Value::Null, |tool| &tool.parameters)
}

/// Reads a call in pairs, `call:name{key:<|"|>text<|"|>,other:[1,true]}`.
pub(super) fn pairs(text: &str) -> Begun {
    let Some(rest) = text.strip_prefix(CALL) else {
        return if CALL.starts_with(text) { Begun::Open } else { Begun::Other };
    };
    let Some(end) = rest.find(|c: char| !(c.is_alphanumeric() || "_-.".contains(c))) else { return Begun::Open };
    let (name, rest) = rest.split_at(end);
    if name.is_empty() || !rest.starts_with('{') {
        return Begun::Other;
    }
    match pair_value(rest, DEEPEST) {
        Ok((arguments, after)) => {
            Begun::Call { name: name.to_owned(), arguments: arguments.to_string(), bytes: text.len() - after.len() }
        }
        Err(begun) => begun,
    }
}

/// A value and what follows.
fn pair_value(text: &str, depth: usize) -> Result<(Value, &str), Begun> {
    let deeper = depth.checked_sub(1).ok_or(Begun::Other)?;
    if let Some(after) = text.strip_prefix(QUOTE) {
        let (string, after) = after.split_once(QUOTE).ok_or(Begun::Open)?;
        return Ok((Value::String(string.to_owned()), after));
    }
    if QUOTE.starts_with(text) {
        return Err(Begun::Open);
    }
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut entries = Map::new();
        while let Some(entry) = next_item(&mut rest, '}', entries.is_empty())? {
            let (key, after) = match entry.strip_prefix(QUOTE) {
                Some(quoted) => quoted.split_once(QUOTE).ok_or(Begun::Open)?,
                None if QUOTE.starts_with(entry) => return Err(Begun::Open),
                None => entry.split_at(entry.find([':', ',', '{', '}', '[', ']']).ok_or(Begun::Open)?),
            };
            let after = match after.strip_prefix(':') {
                Some(after) => after.trim_start(),
                None if after.is_empty() => return Err(Begun::Open),
                None => return Err(Begun::Other),
            };
            let (value, after) = pair_value(after, deeper)?;
            entries.insert(key.trim().to_owned(), value);
            rest = after;
        }
        return Ok((Value::Object(entries), rest));
    }
    if let Some(mut rest) = text.strip_prefix('[') {
        let mut items = Vec::new();
        while let Some(item) = next_item(&mut rest, ']', items.is_empty())? {
            let (value, after) = pair_value(item, deeper)?;
            items.push(value);
            rest = after;
        }
        return Ok((Value::Array(items), rest));
    }
    let (bare, after) = text.split_at(text.find([',', '}', ']']).ok_or(Begun::Open)?);
    let value = match bare.trim() {
        "" => return Err(Begun::Other),
        "None" => Value::Null,
        word => match serde_json::from_str(word) {
            Ok(value) => value,
            // A string that the quotes were left out of.
            Err(_) if !word.contains([':', '{', '[']) => word.into(),
            Err(_) => return Err(Begun::Other),
        },
    };
    Ok((value, after))
}

/// The text from the next item of a list on, or `None` past the end of it, where `rest` is what follows.
fn next_item<'a>(rest: &mut &'a str, close: char, first: bool) -> Result<Option<&'a str>, Begun> {
    let text = rest.trim_start();
    if let Some(after) = text.strip_prefix(close) {
        *rest = after;
        return Ok(None);
    }
    let item = if first { Some(text) } else { text.strip_prefix(',').map(str::trim_start) };
    match item {
        _ if text.is_empty() => Err(Begun::Open),
        Some("") => Err(Begun::Open),
        Some(item) => Ok(Some(item)),
        None => Err(Begun::Other),
    }
}
