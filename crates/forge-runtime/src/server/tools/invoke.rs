//! Calls as XML with attributes: `<invoke name="f"><parameter name="key">value</parameter></invoke>` (MiniMax M2), and the same with a
//! mark in each tag and a word on each value (DeepSeek V3.2: `<｜DSML｜parameter name="key" string="false">1</｜DSML｜parameter>`).

use serde_json::{Map, Value};

use super::Tool;
use super::call::{Begun, schema_of, value_before};
use super::schema::typed_argument;

/// How a call begins, up to the name.
pub(super) fn opening(mark: &str) -> String {
    format!("<{mark}invoke name=\"")
}

/// What ends a parameter.
pub(super) fn end_of_parameter(mark: &str) -> String {
    format!("</{mark}parameter>")
}

/// Reads such a call, whose tags begin with `mark`.
pub(super) fn read(text: &str, mark: &str, tools: &[Tool]) -> Begun {
    let opening = opening(mark);
    let (parameter, end) = (format!("<{mark}parameter name=\""), format!("</{mark}invoke>"));
    let end_of_parameter = end_of_parameter(mark);
    let Some(rest) = text.strip_prefix(opening.as_str()) else { return open_if(opening.starts_with(text)) };
    let Some((name, mut rest)) = rest.split_once('"') else { return open_if(!rest.contains(['<', '\n'])) };
    if name.contains(['<', '\n']) {
        return Begun::Other;
    }
    match rest.strip_prefix('>') {
        Some(after) if !name.is_empty() => rest = after,
        _ => return open_if(rest.is_empty() && !name.is_empty()),
    }
    let schema = schema_of(tools, name);
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(end.as_str()) {
            let bytes = text.len() - after.len();
            return Begun::Call { name: name.to_owned(), arguments: Value::Object(arguments).to_string(), bytes };
        }
        let Some(after) = rest.strip_prefix(parameter.as_str()) else {
            return open_if(end.starts_with(rest) || parameter.starts_with(rest));
        };
        let Some((head, after)) = after.split_once('>') else { return open_if(!after.contains(['<', '\n'])) };
        let Some((key, attributes)) = head.split_once('"').filter(|_| !head.contains(['<', '\n'])) else {
            return Begun::Other;
        };
        let Some((value, after)) = value_before(after, &end_of_parameter, &[&parameter, &end]) else {
            return Begun::Open;
        };
        let value = match attributes.trim() {
            "string=\"true\"" => Value::String(value.to_owned()),
            "string=\"false\"" => serde_json::from_str(value.trim()).unwrap_or_else(|_| value.into()),
            _ => typed_argument(value, key, schema),
        };
        arguments.insert(key.to_owned(), value);
        rest = after;
    }
}

fn open_if(more_is_needed: bool) -> Begun {
    if more_is_needed { Begun::Open } else { Begun::Other }
}
