//! What a call consists of besides name and arguments, as a grammar for calls that are asked for.

use serde_json::{Value, json};

use super::super::super::assets::Text;
use super::super::super::grammar::prepared;
use super::{CallForm, Tool};

/// What a model writes of a call behind its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRest {
    /// Up to the arguments, which are a JSON object.
    pub before: String,
    /// Behind them, up to the call's end.
    pub after: String,
}

impl CallRest {
    /// The grammar of a call of one of `tools`, behind what there is of it already: the name of the tool, if it is `named`; `lead` comes before that
    /// still. Arguments are what the tool's schema says if `strict`, else any object.
    pub fn grammar(
        &self,
        form: &CallForm,
        tools: &[Tool],
        lead: &str,
        named: Option<&str>,
        text: &Text,
        strict: impl Fn(&Tool) -> bool,
    ) -> String {
        let special = form.special_tags(text);
        let tools = tools.iter().filter(|tool| named.is_none_or(|name| tool.name == name));
        let mut calls = Vec::new();
        let mut rules = String::new();
        for (index, tool) in tools.enumerate() {
            let name = if named.is_none() { literal(&tool.name, &[]) } else { String::new() };
            calls.push(format!("{name} {} arguments_{index}", literal(&self.before, &special)));
            let any = json!({ "type": "object" });
            let schema = if strict(tool) && tool.parameters.is_object() { &tool.parameters } else { &any };
            rules += &format!("arguments_{index}: %json {}\n", prepared(schema));
        }
        let (lead, after) = (literal(lead, &special), literal(&self.after, &special));
        format!("start: {lead} call {after}\ncall: {}\n{rules}", calls.join(" | "))
    }
}

/// A text in Lark, special tokens by their ids.
fn literal(text: &str, special: &[(u32, String)]) -> String {
    let first = special.iter().filter_map(|(id, tag)| Some((text.find(tag.as_str())?, *id, tag.as_str()))).min();
    match first {
        Some((at, id, tag)) => {
            format!("{} <[{id}]> {}", literal(&text[..at], special), literal(&text[at + tag.len()..], special))
        }
        None if text.is_empty() => String::new(),
        None => Value::from(text).to_string(),
    }
}
