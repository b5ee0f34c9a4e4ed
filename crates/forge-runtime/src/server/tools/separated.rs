//! Calls as a name and JSON with a tag between them: `name<tag>{...}` (DeepSeek V3.1), `functions.name:0<tag>{...}` (Kimi K2), and
//! `function<tag>name` with the JSON in a fenced block (DeepSeek R1).

use serde_json::{Map, Value};

use super::call::{Begun, Scan};

/// Begins and ends a fenced block; the reader takes off the end.
pub(super) const FENCE: &str = "```";
const LANGUAGE: &str = "json";

/// Reads such a call. Whatever stands around the name in an id is left out.
pub(super) fn read(text: &str, separator: &str, scan: &mut Scan) -> Begun {
    let Some((first, rest)) = text.split_once(separator) else {
        // Names are short, and have no tags in them.
        let name = &text[..text.find('<').unwrap_or(text.len())];
        let may_be_tag = separator.starts_with(&text[name.len()..]);
        return if may_be_tag && is_id(name.trim()) { Begun::Open } else { Begun::Other };
    };
    let mut name = first.trim();
    if !is_id(name) {
        return Begun::Other;
    }
    let mut after = rest.trim_start();
    if !after.is_empty() && !after.starts_with('{') {
        // Only a kind of tool came first; its name follows.
        let Some((line, next)) = after.split_once('\n') else {
            return if is_id(after.trim()) { Begun::Open } else { Begun::Other };
        };
        name = line.trim();
        after = next.trim_start();
        if let Some(fenced) = after.strip_prefix(FENCE) {
            after = fenced.strip_prefix(LANGUAGE).unwrap_or(fenced).trim_start();
            if after.is_empty() || LANGUAGE.starts_with(after) {
                return Begun::Open;
            }
        } else if FENCE.starts_with(after) {
            return Begun::Open;
        }
    }
    if !is_id(name) {
        return Begun::Other;
    }
    if after.is_empty() {
        return Begun::Open;
    }
    if !after.starts_with('{') {
        return Begun::Other;
    }
    match scan.object(after) {
        None => Begun::Other,
        Some(None) => Begun::Open,
        Some(Some(bytes)) => {
            let (arguments, rest) = after.split_at(bytes);
            if serde_json::from_str::<Map<String, Value>>(arguments).is_err() {
                return Begun::Other;
            }
            Begun::Call { name: bare(name).to_owned(), arguments: arguments.to_owned(), bytes: text.len() - rest.len() }
        }
    }
}

fn is_id(name: &str) -> bool {
    !name.is_empty() && name.len() <= 256 && name.chars().all(|c| c.is_alphanumeric() || "_-.:/".contains(c))
}

/// The function's name in an id of Kimi's form.
fn bare(id: &str) -> &str {
    let name = id.strip_prefix("functions.").filter(|name| !name.is_empty()).unwrap_or(id);
    match name.rsplit_once(':') {
        Some((name, index)) if !name.is_empty() && !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => name,
    }
}
