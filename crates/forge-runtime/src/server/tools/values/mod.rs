//! Values that a schema allows, as a grammar of the texts that they are written as: in Lark, for llguidance.
//!
//! What a grammar lets come has to be read as a value that the schema allows; it need not let everything come that there is. A schema of which that
//! cannot be said has none.

mod pairs;
mod properties;
mod python;
mod text;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::super::grammar::prepared;
use super::schema::{Kinds, flat};

pub(super) use properties::Properties;

/// Values within one another.
const DEEPEST: usize = 12;

/// Rules of a grammar: beyond that it is too large in any case.
const MOST_RULES: usize = 5000;

/// Fields of a schema that say something of strings.
const OF_TEXT: [&str; 6] = ["type", "minLength", "maxLength", "pattern", "format", "nullable"];
/// Of numbers.
const OF_NUMBERS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];

/// Names of properties where any may be given.
const ANY_NAME: &str = "/[A-Za-z_][A-Za-z0-9_]{0,63}/";

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// Strings as they are, all else as JSON.
    Text,
    /// Strings between quotes of their own, names without any (Gemma 4).
    Pairs,
    /// JSON with Python's words for truth and nothing.
    Python,
}

/// What stands around a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// Before it where it is text, and where it is not.
    pub(super) before: &'a [String; 2],
    /// Behind it.
    pub(super) end: &'a str,
}

/// A grammar that is being written.
pub(super) struct Rules<'a> {
    lines: String,
    count: usize,
    /// Special tokens that are written out in texts.
    special: &'a [(u32, String)],
    /// The rule of any value in pairs, once there is one.
    any: Option<String>,
    /// Rules of values in pairs that schemas refer to, by the place.
    referred: BTreeMap<String, String>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(special: &'a [(u32, String)]) -> Self {
        Self { lines: String::new(), count: 0, special, any: None, referred: BTreeMap::new() }
    }

    /// All of them.
    pub(super) fn lines(&self) -> &str {
        &self.lines
    }

    fn name(&mut self) -> Option<usize> {
        self.count += 1;
        (self.count <= MOST_RULES).then_some(self.count)
    }

    /// A rule with this on its right.
    pub(super) fn rule(&mut self, body: &str) -> Option<String> {
        let name = format!("rule_{}", self.name()?);
        self.lines += &format!("{name}: {body}\n");
        Some(name)
    }

    /// A text as an expression, special tokens by their ids.
    pub(super) fn literal(&self, text: &str) -> String {
        let first = self.special.iter().filter_map(|(id, tag)| Some((text.find(tag.as_str())?, *id, tag.len()))).min();
        match first {
            Some((at, id, length)) => {
                format!("{} <[{id}]> {}", self.literal(&text[..at]), self.literal(&text[at + length..]))
            }
            None if text.is_empty() => String::new(),
            None => Value::from(text).to_string(),
        }
    }

    /// JSON that a schema allows.
    pub(super) fn json(&mut self, schema: &Value, root: &Value) -> Option<String> {
        let mut schema = if schema.is_null() { json!({}) } else { schema.clone() };
        if refers(&schema) {
            if !schema["$ref"].is_null() && schema.as_object()?.len() > 1 {
                schema = Value::Object(flat(&schema, root)?);
            }
            for place in ["$defs", "definitions"] {
                if let (Some(fields), Some(all)) = (schema.as_object_mut(), root.get(place)) {
                    fields.insert(place.to_owned(), all.clone());
                }
            }
            if !refers_to_definitions(&schema) {
                return None;
            }
        }
        self.rule(&format!("%json {}", prepared(&schema)))
    }

    /// A value in a notation, with what stands around it.
    pub(super) fn value(
        &mut self,
        notation: Notation,
        schema: &Value,
        root: &Value,
        around: Around<'_>,
    ) -> Option<String> {
        let value = match notation {
            Notation::Text => return self.text_value(schema, root, around),
            Notation::Pairs => self.pairs(schema, root, DEEPEST)?,
            Notation::Python => self.python(schema, root, DEEPEST)?,
        };
        Some(format!("{} {value} {}", self.literal(&around.before[1]), self.literal(around.end)))
    }

    /// One of several.
    fn choice(&mut self, choices: &[String]) -> Option<String> {
        if choices.is_empty() { None } else { self.rule(&choices.join(" | ")) }
    }

    /// Named values one after the other, with what stands around them; `value` writes one of a schema, with what stands between it and its name.
    pub(super) fn each(
        &mut self,
        properties: &Properties,
        write: &Each<'_>,
        mut value: impl FnMut(&mut Self, &Value) -> Option<String>,
    ) -> Option<String> {
        let [none, first, next, last] =
            [write.none, write.first, write.next, write.last].map(|text| self.literal(text));
        // What may follow where something came before, and where nothing did; an empty text is no expression.
        let expression = |text: String| if text.is_empty() { "\"\"".to_owned() } else { text };
        let (mut behind, mut fresh) = (expression(last), expression(none));
        if let Some(schema) = &properties.others {
            let any = value(self, schema)?;
            let again = format!("again_{}", self.name()?);
            self.lines += &format!("{again}: {next} {ANY_NAME} {any} {again} | {behind}\n");
            fresh = self.rule(&format!("{first} {ANY_NAME} {any} {again} | {fresh}"))?;
            behind = again;
        }
        for (name, schema, is_required) in properties.named.iter().rev() {
            let value = value(self, schema)?;
            let pair = self.rule(&format!("{} {value}", self.literal(name)))?;
            let or = |rest: &str| if *is_required { String::new() } else { format!(" | {rest}") };
            let (with, without) = (format!("{first} {pair} {behind}"), or(&fresh));
            let again = format!("{next} {pair} {behind}{}", or(&behind));
            fresh = self.rule(&format!("{with}{without}"))?;
            behind = self.rule(&again)?;
        }
        Some(fresh)
    }
}

/// What stands around named values.
pub(super) struct Each<'a> {
    /// All there is where there are none.
    pub(super) none: &'a str,
    /// Before the first name.
    pub(super) first: &'a str,
    /// Between a value and the next name.
    pub(super) next: &'a str,
    /// Behind the last value.
    pub(super) last: &'a str,
}

/// Whether the type that a schema says beside a value allows the value.
fn may_be(fields: &Map<String, Value>, value: &Value) -> bool {
    let of_type = fields.get("type").map_or_else(|| json!({}), |name| json!({ "type": name }));
    Kinds::of(&of_type, &Value::Null).allow(value)
}

/// A name that stands without quotes everywhere.
pub(super) fn plain_name(name: &str) -> Option<&str> {
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    is_plain.then_some(name)
}

/// Whether a schema refers to another anywhere.
fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, value)| name == "$ref" || refers(value)),
        Value::Array(items) => items.iter().any(refers),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether what it refers to are definitions, which go with it.
fn refers_to_definitions(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().all(|(name, value)| match value {
            Value::String(place) if name == "$ref" => {
                place.starts_with("#/$defs/") || place.starts_with("#/definitions/")
            }
            value => refers_to_definitions(value),
        }),
        Value::Array(items) => items.iter().all(refers_to_definitions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}
