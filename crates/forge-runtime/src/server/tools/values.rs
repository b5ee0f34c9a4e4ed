//! Values that a schema allows, as a grammar of the texts that they are written as: in Lark, for llguidance.
//!
//! What a grammar lets come has to be read as a value that the schema allows; it need not let everything come that there is. A schema of which that
//! cannot be said has none.

use std::collections::BTreeMap;

use llguidance::regex_to_lark;
use serde_json::{Map, Value, json};

use super::super::super::grammar::prepared;
use super::call::QUOTE;
use super::schema::{Kinds, flat, is_word};

/// Values within one another.
const DEEPEST: usize = 12;

/// Rules of a grammar: beyond that it is too large in any case.
const MOST_RULES: usize = 5000;

/// Names of properties where any may be given.
const ANY_NAME: &str = "/[A-Za-z_][A-Za-z0-9_]{0,63}/";

/// Fields of a schema that say something of strings.
const OF_TEXT: [&str; 6] = ["type", "minLength", "maxLength", "pattern", "format", "nullable"];
/// Of numbers.
const OF_NUMBERS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
/// Of objects.
const OF_OBJECTS: [&str; 4] = ["type", "properties", "required", "additionalProperties"];

/// Formats of strings. Source: RFC 3339 for dates and times, RFC 9562 for UUIDs; the 29th of February, which needs the year, is left out.
const DATE: &str = "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))";
const TIME: &str = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const IPV4: &str = r"((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const UUID: &str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
const EMAIL: &str = r"[A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,32}){0,3}@([A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?\.){1,4}[A-Za-z]{2,20}";

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

/// The named values that an object has.
pub(super) struct Properties {
    /// Name, schema, and whether it has to be there; in order.
    pub(super) named: Vec<(String, Value, bool)>,
    /// The schema of any others.
    pub(super) others: Option<Value>,
}

impl Properties {
    /// Those of a schema of objects; `None` where it says more of them.
    pub(super) fn of(schema: &Value, root: &Value) -> Option<Self> {
        let fields = flat(schema, root)?;
        let kinds = Kinds::of(schema, root);
        if !fields.keys().all(|field| OF_OBJECTS.contains(&field.as_str()) || is_word(field))
            || !(kinds.names().is_empty() || kinds.has("object"))
        {
            return None;
        }
        let none = Map::new();
        let properties = match fields.get("properties") {
            Some(Value::Object(properties)) => properties,
            Some(_) => return None,
            None => &none,
        };
        let mut required = Vec::new();
        if let Some(names) = fields.get("required") {
            for name in names.as_array()? {
                required.push(name.as_str()?);
            }
        }
        let further = match fields.get("additionalProperties") {
            None | Some(Value::Bool(true)) => Some(Value::Bool(true)),
            Some(Value::Bool(false)) => None,
            Some(schema) => Some(schema.clone()),
        };
        let mut named: Vec<(String, Value, bool)> = properties
            .iter()
            .map(|(name, schema)| (name.clone(), schema.clone(), required.contains(&name.as_str())))
            .collect();
        for name in &required {
            if !properties.contains_key(*name) {
                named.push(((*name).to_owned(), further.clone()?, true));
            }
        }
        // What nothing can be is left out.
        let possible = |(_, schema, is_required): &(String, Value, bool)| *is_required || *schema != Value::Bool(false);
        named.retain(possible);
        let others = further.filter(|_| named.is_empty());
        Some(Self { named, others })
    }
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
    pub(super) fn value(&mut self, notation: Notation, schema: &Value, root: &Value, around: Around<'_>) -> Option<String> {
        let value = match notation {
            Notation::Text => return self.text_value(schema, root, around),
            Notation::Pairs => self.pairs(schema, root, DEEPEST)?,
            Notation::Python => self.python(schema, root, DEEPEST)?,
        };
        Some(format!("{} {value} {}", self.literal(&around.before[1]), self.literal(around.end)))
    }

    /// A value that is text, or else JSON.
    fn text_value(&mut self, schema: &Value, root: &Value, around: Around<'_>) -> Option<String> {
        let kinds = Kinds::of(schema, root);
        let [before, before_json] = around.before.each_ref().map(|before| self.literal(before));
        let end = self.literal(around.end);
        if !kinds.is_text() {
            // Of which something is said without that, all else is allowed.
            let mut fields = flat(schema, root)?;
            if !["type", "const", "enum", "anyOf", "oneOf"].iter().any(|field| fields.contains_key(*field)) {
                fields.insert("type".into(), json!(kinds.names()));
            }
            let json = self.json(&Value::Object(fields), root)?;
            return Some(format!("{before_json} {json} {end}"));
        }
        // A newline at either end may be the template's.
        let padded = around.before[0].ends_with('\n') && around.end.starts_with('\n');
        let mut texts = Vec::new();
        self.texts(schema, root, DEEPEST, (around.end, padded), &mut texts)?;
        let mut choices: Vec<String> = texts.iter().map(|text| format!("{before} {text}")).collect();
        if kinds.has("null") {
            choices.push(format!("{before_json} \"null\" {end}"));
        }
        for member in kinds.members.iter().filter(|member| !member.is_string() && !member.is_null()) {
            let json = self.json(&json!({ "const": member }), root)?;
            choices.push(format!("{before_json} {json} {end}"));
        }
        self.choice(&choices)
    }

    /// One of several.
    fn choice(&mut self, choices: &[String]) -> Option<String> {
        if choices.is_empty() { None } else { self.rule(&choices.join(" | ")) }
    }

    /// The strings of a schema, each with the end.
    fn texts(
        &mut self,
        schema: &Value,
        root: &Value,
        depth: usize,
        (end, padded): (&str, bool),
        texts: &mut Vec<String>,
    ) -> Option<()> {
        let (fields, deeper) = (flat(schema, root)?, depth.checked_sub(1)?);
        let members = fields.get("const").into_iter().chain(fields.get("enum").and_then(Value::as_array).into_iter().flatten());
        let is_named = fields.contains_key("const") || fields.contains_key("enum");
        if is_named {
            for member in members.filter_map(Value::as_str) {
                if member.contains(end.trim()) {
                    return None;
                }
                // The reader takes a newline from either end.
                let pad = if !padded && (member.starts_with('\n') || member.ends_with('\n')) { "\n" } else { "" };
                texts.push(format!("{} {}", self.literal(&format!("{pad}{member}{pad}")), self.literal(end)));
            }
            return Some(());
        }
        for several in ["anyOf", "oneOf"] {
            let Some(branches) = fields.get(several) else { continue };
            if !fields.keys().all(|field| field == several || field == "type" || is_word(field)) {
                return None;
            }
            for branch in branches.as_array()? {
                if Kinds::of(branch, root).is_text() {
                    self.texts(branch, root, deeper, (end, padded), texts)?;
                }
            }
            return Some(());
        }
        texts.push(self.text(&fields, end, !padded)?);
        Some(())
    }

    /// A string that these fields allow, and the end, which does not stand in it. With `trims`, a newline at either end is no part of it.
    fn text(&mut self, fields: &Map<String, Value>, end: &str, trims: bool) -> Option<String> {
        // What is said of other kinds does not matter.
        let others = |field: &str| OF_NUMBERS.contains(&field) || is_word(field);
        if !fields.keys().all(|field| OF_TEXT.contains(&field.as_str()) || others(field)) {
            return None;
        }
        let mut parts = Vec::new();
        let bound = |name: &str| fields.get(name).map(Value::as_u64);
        let (least, most) = (bound("minLength"), bound("maxLength"));
        if least.is_some() || most.is_some() {
            let least = least.map_or(Some(0), |least| least)?;
            let most = most.map_or(Some(String::new()), |most| most.map(|most| most.to_string()))?;
            parts.push(format!("/(?s:.{{{least},{most}}})/"));
        }
        if let Some(pattern) = fields.get("pattern") {
            parts.push(format!("/{}/", searched(pattern.as_str()?)?));
        }
        if let Some(format) = fields.get("format") {
            let format = match format.as_str()? {
                "date" => DATE.to_owned(),
                "time" => TIME.to_owned(),
                "date-time" => format!("{DATE}T{TIME}"),
                "ipv4" => IPV4.to_owned(),
                "uuid" => UUID.to_owned(),
                "email" => EMAIL.to_owned(),
                _ => return None,
            };
            parts.push(format!("/{format}/"));
        }
        let special = self.special.iter().find_map(|(id, tag)| Some((*id, end.split_once(tag.as_str())?)));
        let any = parts.is_empty();
        if any {
            parts.push("/(?s:.*)/".into());
        } else if trims {
            parts.extend(["~/\\n(?s:.*)/".into(), "~/(?s:.*)\\n/".into()]);
        }
        if !any || special.is_some() {
            // Otherwise the first end is the end.
            parts.push(format!("~/(?s:.*){}(?s:.*)/", escaped(end.trim())));
        }
        let body = parts.join(" & ");
        let number = self.name()?;
        self.lines += &format!("TEXT_{number}: {body}\n");
        match special {
            // A terminal has no special tokens.
            Some((id, (lead, rest))) => {
                let lead = if lead.is_empty() { String::new() } else { Value::from(lead).to_string() };
                self.lines += &format!("LED_{number}: TEXT_{number} {lead}\n");
                Some(format!("LED_{number} <[{id}]> {}", self.literal(rest)))
            }
            None => {
                self.lines += &format!("text_{number}[suffix={}]: TEXT_{number}\n", Value::from(end));
                Some(format!("text_{number}"))
            }
        }
    }

    /// A value as Python writes it.
    fn python(&mut self, schema: &Value, root: &Value, depth: usize) -> Option<String> {
        let (fields, deeper) = (flat(schema, root)?, depth.checked_sub(1)?);
        let word = |value: &Value| match value {
            Value::Null => Some("\"None\""),
            Value::Bool(true) => Some("\"True\""),
            Value::Bool(false) => Some("\"False\""),
            Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let only = |known: &[&str]| fields.keys().all(|field| known.contains(&field.as_str()) || is_word(field));
        if let (Some(members), true) = (fields.get("enum").and_then(Value::as_array), only(&["enum", "type"])) {
            let mut choices = Vec::new();
            for member in members.iter().filter(|member| may_be(&fields, member)) {
                choices.push(match word(member) {
                    Some(word) => word.to_owned(),
                    None => self.json(&json!({ "const": member }), root)?,
                });
            }
            return self.choice(&choices);
        }
        if let (Some(branches), true) = (fields.get("anyOf").and_then(Value::as_array), only(&["anyOf"])) {
            let choices = branches.iter().map(|branch| self.python(branch, root, deeper)).collect::<Option<Vec<_>>>()?;
            return self.choice(&choices);
        }
        match fields.get("type") {
            Some(Value::Array(names)) if !fields.contains_key("const") => {
                let mut choices = Vec::new();
                for name in names {
                    let mut one = fields.clone();
                    one.insert("type".into(), name.clone());
                    choices.push(self.python(&Value::Object(one), root, deeper)?);
                }
                self.choice(&choices)
            }
            Some(name) if name == "boolean" && only(&["type"]) => Some("(\"True\" | \"False\")".into()),
            Some(name) if name == "null" && only(&["type"]) => Some("\"None\"".into()),
            _ => match fields.get("const").and_then(word) {
                Some(word) if only(&["const", "type"]) => Some(word.into()),
                _ => self.json(&Value::Object(fields), root),
            },
        }
    }

    /// A value in pairs.
    fn pairs(&mut self, schema: &Value, root: &Value, depth: usize) -> Option<String> {
        let place = schema["$ref"].as_str().filter(|_| schema.as_object().is_some_and(|fields| fields.len() == 1));
        let Some(place) = place else { return self.pairs_of(schema, root, depth) };
        if let Some(rule) = self.referred.get(place) {
            return Some(rule.clone());
        }
        // It may refer to itself.
        let name = format!("referred_{}", self.name()?);
        self.referred.insert(place.to_owned(), name.clone());
        let body = self.pairs_of(schema, root, depth)?;
        self.lines += &format!("{name}: {body}\n");
        Some(name)
    }

    fn pairs_of(&mut self, schema: &Value, root: &Value, depth: usize) -> Option<String> {
        let (fields, deeper) = (flat(schema, root)?, depth.checked_sub(1)?);
        let only = |known: &[&[&str]]| {
            fields.keys().all(|field| known.iter().any(|known| known.contains(&field.as_str())) || is_word(field))
        };
        let members: Vec<&Value> =
            fields.get("const").into_iter().chain(fields.get("enum").and_then(Value::as_array).into_iter().flatten()).collect();
        if fields.contains_key("const") || fields.contains_key("enum") {
            only(&[&["const", "enum", "type"]]).then_some(())?;
            let choices = members.into_iter().filter(|member| may_be(&fields, member));
            let choices = choices.map(|member| Some(self.literal(&in_pairs(member)?))).collect::<Option<Vec<_>>>()?;
            return self.choice(&choices);
        }
        for several in ["anyOf", "oneOf"] {
            let Some(branches) = fields.get(several).and_then(Value::as_array) else { continue };
            let is_one_of_each = || {
                let kinds: Vec<Kinds> = branches.iter().map(|branch| Kinds::of(branch, root)).collect();
                let of = |kinds: &Kinds| kinds.names().first().cloned().filter(|_| kinds.names().len() == 1);
                let names: Option<Vec<String>> = kinds.iter().map(of).collect();
                // A whole number is a number.
                let apart = |names: &[String]| {
                    (0..names.len()).all(|at| !names[..at].contains(&names[at]))
                        && !["integer", "number"].iter().all(|name| names.iter().any(|own| own == name))
                };
                names.is_some_and(|names| apart(&names))
            };
            if !only(&[&[several]]) || several == "oneOf" && !is_one_of_each() {
                return None;
            }
            let choices = branches.iter().map(|branch| self.pairs(branch, root, deeper)).collect::<Option<Vec<_>>>()?;
            return self.choice(&choices);
        }
        let kinds = Kinds::of(&Value::Object(fields.clone()), root);
        if kinds.names().is_empty() {
            return if fields.keys().all(|field| is_word(field)) { self.any_in_pairs() } else { None };
        }
        let mut choices = Vec::new();
        for name in kinds.names() {
            choices.push(match name.as_str() {
                "string" => {
                    let mut of_text = fields.clone();
                    of_text.retain(|field, _| OF_TEXT.contains(&field.as_str()));
                    let text = self.text(&of_text, QUOTE, false)?;
                    format!("{} {text}", self.literal(QUOTE))
                }
                "integer" | "number" => {
                    let mut of_numbers = fields.clone();
                    of_numbers.retain(|field, _| OF_NUMBERS.contains(&field.as_str()));
                    of_numbers.insert("type".into(), name.clone().into());
                    self.json(&Value::Object(of_numbers), root)?
                }
                "boolean" => "(\"true\" | \"false\")".into(),
                "null" => "\"null\"".into(),
                "array" => {
                    only(&[&["items", "minItems", "maxItems"], &OF_TEXT, &OF_NUMBERS, &OF_OBJECTS]).then_some(())?;
                    self.list_in_pairs(&fields, root, deeper)?
                }
                "object" => {
                    let mut of_objects = fields.clone();
                    of_objects.retain(|field, _| !OF_TEXT.contains(&field.as_str()) && !OF_NUMBERS.contains(&field.as_str()));
                    of_objects.retain(|field, _| !["items", "minItems", "maxItems"].contains(&field.as_str()));
                    let properties = Properties::of(&Value::Object(of_objects), root)?;
                    let write = Each { none: "{}", first: "{", next: ",", last: "}" };
                    let colon = [":".to_owned(), ":".to_owned()];
                    self.each(&properties, &write, |rules, schema| {
                        let value = rules.pairs(schema, root, deeper)?;
                        Some(format!("{} {value}", rules.literal(&colon[1])))
                    })?
                }
                _ => return None,
            });
        }
        // What is said of a kind that is not among them would not have been looked at.
        only(&[&["items", "minItems", "maxItems"], &OF_TEXT, &OF_NUMBERS, &OF_OBJECTS]).then_some(())?;
        self.choice(&choices)
    }

    fn list_in_pairs(&mut self, fields: &Map<String, Value>, root: &Value, depth: usize) -> Option<String> {
        let bound = |name: &str| fields.get(name).map(Value::as_u64);
        let least = bound("minItems").map_or(Some(0), |least| least)?;
        let most = bound("maxItems").map_or(Some(u64::MAX), |most| most)?;
        if least > most {
            return None;
        }
        if most == 0 {
            return Some("\"[]\"".into());
        }
        let item = self.pairs(fields.get("items").unwrap_or(&Value::Null), root, depth)?;
        let more = if most == u64::MAX { String::new() } else { (most - 1).to_string() };
        let items = format!("\"[\" {item} (\",\" {item}){{{},{more}}} \"]\"", least.saturating_sub(1));
        let empty = if least == 0 { "\"[]\" | " } else { "" };
        self.rule(&format!("{empty}{items}"))
    }

    /// Any value in pairs.
    fn any_in_pairs(&mut self) -> Option<String> {
        if let Some(any) = &self.any {
            return Some(any.clone());
        }
        let any = format!("any_{}", self.name()?);
        let text = self.text(&Map::new(), QUOTE, false)?;
        let number = self.json(&json!({ "type": "number" }), &Value::Null)?;
        let quote = self.literal(QUOTE);
        let pair = format!("{ANY_NAME} \":\" {any}");
        self.lines += &format!(
            "{any}: {quote} {text} | {number} | \"true\" | \"false\" | \"null\" | \"[]\" | \"[\" {any} (\",\" {any})* \"]\" | \"{{}}\" | \"{{\" {pair} (\",\" {pair})* \"}}\"\n"
        );
        self.any = Some(any.clone());
        Some(any)
    }

    /// Named values one after the other, with what stands around them; `value` writes one of a schema, with what stands between it and its name.
    pub(super) fn each(
        &mut self,
        properties: &Properties,
        write: &Each<'_>,
        mut value: impl FnMut(&mut Self, &Value) -> Option<String>,
    ) -> Option<String> {
        let [none, first, next, last] = [write.none, write.first, write.next, write.last].map(|text| self.literal(text));
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

/// A value in pairs; `None` where a string has the quotes in it, or a name is not one without any.
fn in_pairs(value: &Value) -> Option<String> {
    let all = |items: Vec<Option<String>>| items.into_iter().collect::<Option<Vec<String>>>().map(|items| items.join(","));
    Some(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if !text.contains(QUOTE) => format!("{QUOTE}{text}{QUOTE}"),
        Value::String(_) => return None,
        Value::Array(items) => format!("[{}]", all(items.iter().map(in_pairs).collect())?),
        Value::Object(entries) => {
            let pair = |(name, value): (&String, &Value)| Some(format!("{}:{}", plain_name(name)?, in_pairs(value)?));
            format!("{{{}}}", all(entries.iter().map(pair).collect())?)
        }
    })
}

/// A name that stands without quotes everywhere.
pub(super) fn plain_name(name: &str) -> Option<&str> {
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    is_plain.then_some(name)
}

/// A pattern that is looked for in a text as one of the whole text; `None` of one whose anchors are elsewhere than at its ends.
fn searched(pattern: &str) -> Option<String> {
    let (mut depth, mut in_class, mut is_escaped, mut is_choice) = (0_usize, false, false, false);
    let (mut begins, mut ends) = (false, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if is_escaped => {
                is_escaped = false;
                if !in_class && matches!(c, 'b' | 'B' | 'A' | 'z' | 'Z') {
                    return None;
                }
            }
            '\\' => is_escaped = true,
            ']' => in_class = false,
            '[' => in_class = true,
            _ if in_class => {}
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            '|' => is_choice |= depth == 0,
            '^' if at == 0 => begins = true,
            '$' if at + 1 == pattern.len() => ends = true,
            '^' | '$' => return None,
            _ => {}
        }
    }
    if is_choice && (begins || ends) {
        return None;
    }
    let inner = &pattern[usize::from(begins)..pattern.len() - usize::from(ends)];
    let free = |anchored: bool| if anchored { "" } else { "(?s:.*)" };
    Some(format!("{}(?:{}){}", free(begins), regex_to_lark(inner, "dw"), free(ends)))
}

/// A text as a regular expression.
fn escaped(text: &str) -> String {
    let one = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) };
    text.chars().map(one).collect()
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
