//! Values in pairs: strings between quotes of their own, names without any.

use serde_json::{Map, Value, json};

use super::super::call::QUOTE;
use super::super::schema::{Kinds, flat, is_word};
use super::properties::OF_OBJECTS;
use super::{ANY_NAME, Each, OF_NUMBERS, OF_TEXT, Properties, Rules, may_be, plain_name};

impl Rules<'_> {
    /// A value in pairs.
    pub(super) fn pairs(&mut self, schema: &Value, root: &Value, depth: usize) -> Option<String> {
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
        let members: Vec<&Value> = fields
            .get("const")
            .into_iter()
            .chain(fields.get("enum").and_then(Value::as_array).into_iter().flatten())
            .collect();
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
                    of_objects
                        .retain(|field, _| !OF_TEXT.contains(&field.as_str()) && !OF_NUMBERS.contains(&field.as_str()));
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
}

/// A value in pairs; `None` where a string has the quotes in it, or a name is not one without any.
fn in_pairs(value: &Value) -> Option<String> {
    let all =
        |items: Vec<Option<String>>| items.into_iter().collect::<Option<Vec<String>>>().map(|items| items.join(","));
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
