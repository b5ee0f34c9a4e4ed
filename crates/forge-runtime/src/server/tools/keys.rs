//! Calls as a name and tagged pairs (GLM): `name`, then `<arg_key>key</arg_key><arg_value>value</arg_value>` for each argument, up
//! to the tag that ends the call.

use serde_json::{Map, Value};

use super::Tool;
use super::call::{Begun, schema_of, value_before};
use super::schema::typed_argument;

pub(super) const KEY: &str = "<arg_key>";
const END_OF_KEY: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
pub(super) const END_OF_VALUE: &str = "</arg_value>";

/// Every tag of them.
pub(super) const TAGS: [&str; 4] = [KEY, END_OF_KEY, VALUE, END_OF_VALUE];

/// What ends a call where the template shows nothing.
pub(super) const USUAL_END: &str = "</tool_call>";

/// Reads such a call, which the first of `close` ends. Values are text; the tool's schema says which are meant as JSON.
pub(super) fn read(text: &str, tools: &[Tool], close: &str) -> Begun {
    let Some(end) = text.find(['\n', '<']) else { return Begun::Open };
    let name = text[..end].trim();
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "_-.:/".contains(c)) {
        return Begun::Other;
    }
    let schema = schema_of(tools, name);
    let mut rest = &text[end..];
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if rest.starts_with(close) {
            let bytes = text.len() - rest.len();
            return Begun::Call { name: name.to_owned(), arguments: Value::Object(arguments).to_string(), bytes };
        }
        let Some(after) = rest.strip_prefix(KEY) else {
            return open_if([close, KEY].iter().any(|tag| tag.starts_with(rest)));
        };
        let Some((key, after)) = after.split_once(END_OF_KEY) else { return Begun::Open };
        let Some(after) = after.trim_start().strip_prefix(VALUE) else {
            return open_if(VALUE.starts_with(after.trim_start()));
        };
        let Some((value, after)) = value_before(after, END_OF_VALUE, &[KEY, close]) else { return Begun::Open };
        let key = key.trim();
        arguments.insert(key.to_owned(), typed_argument(value, key, schema));
        rest = after;
    }
}

fn open_if(more_is_needed: bool) -> Begun {
    if more_is_needed { Begun::Open } else { Begun::Other }
}
