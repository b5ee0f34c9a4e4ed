//! JSON schemas of the kinds that the public JSON Schema test suite has, and a validator for what they say.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use serde_json::{Value, json};

/// A pattern and what it means.
type Pattern = (&'static str, fn(&str) -> bool);

/// Whether all characters of a text are of a kind, and so many.
fn all_of(text: &str, counts: std::ops::RangeInclusive<usize>, kind: impl Fn(char) -> bool) -> bool {
    counts.contains(&text.chars().count()) && text.chars().all(kind)
}

const PATTERNS: [Pattern; 6] = [
    ("^[a-z]{3}$", |text| all_of(text, 3..=3, |c| c.is_ascii_lowercase())),
    ("^[A-Z][0-9]+$", |text| {
        text.len() > 1
            && text.starts_with(|c: char| c.is_ascii_uppercase())
            && text[1..].bytes().all(|b| b.is_ascii_digit())
    }),
    ("^(yes|no|maybe)$", |text| ["yes", "no", "maybe"].contains(&text)),
    ("^[0-9]{4}-[0-9]{2}$", |text| {
        text.len() == 7 && text.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() })
    }),
    ("^a*b?$", |text| text.trim_start_matches('a').len() <= 1 && matches!(text.trim_start_matches('a'), "" | "b")),
    ("^[xy]{1,4}$", |text| all_of(text, 1..=4, |c| c == 'x' || c == 'y')),
];

const FORMATS: [Pattern; 4] = [
    ("date", |text| {
        let parts: Vec<&str> = text.split('-').collect();
        parts.len() == 3
            && [4, 2, 2]
                .iter()
                .zip(&parts)
                .all(|(len, part)| part.len() == *len && part.bytes().all(|b| b.is_ascii_digit()))
            && (1..=12).contains(&parts[1].parse::<u32>().unwrap_or(0))
            && (1..=31).contains(&parts[2].parse::<u32>().unwrap_or(0))
    }),
    ("time", |text| text.len() >= 9 && text.as_bytes()[2] == b':' && text.as_bytes()[5] == b':'),
    ("ipv4", |text| text.split('.').filter(|part| part.parse::<u8>().is_ok()).count() == 4),
    ("uuid", |text| text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])),
];

/// Schemas of one value.
fn leaves() -> Vec<Value> {
    let mut leaves = vec![
        json!({ "type": "string" }),
        json!({ "type": "integer" }),
        json!({ "type": "number" }),
        json!({ "type": "boolean" }),
        json!({ "type": "null" }),
        json!({ "type": ["string", "null"] }),
        json!({ "type": ["integer", "boolean"] }),
        json!({ "enum": ["red", "amber", "green"] }),
        json!({ "enum": [1, "one", null, true, [1], { "a": 1 }] }),
        json!({ "enum": ["\"quoted\"", "new\nline", "\u{e9}\u{2603}"] }),
        json!({ "const": "fixed" }),
        json!({ "const": 42 }),
        json!({ "const": { "a": [1, { "b": null }] } }),
        json!({ "const": [] }),
        json!({ "type": "string", "minLength": 2 }),
        json!({ "type": "string", "maxLength": 5 }),
        json!({ "type": "string", "minLength": 3, "maxLength": 3 }),
        json!({ "type": "string", "maxLength": 0 }),
        json!({ "type": "integer", "minimum": 10 }),
        json!({ "type": "integer", "maximum": -3 }),
        json!({ "type": "integer", "minimum": -5, "maximum": 120 }),
        json!({ "type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10 }),
        json!({ "type": "integer", "minimum": 7, "maximum": 7 }),
        json!({ "type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 1000 }),
        json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        json!({ "type": "number", "exclusiveMinimum": -1.5, "exclusiveMaximum": 2.25 }),
        json!({ "type": "number", "minimum": 100.5 }),
        json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "maxLength": 4 }] }),
        json!({ "anyOf": [{ "const": "a" }, { "const": "b" }, { "type": "null" }] }),
        json!({ "oneOf": [{ "type": "integer" }, { "type": "boolean" }] }),
        json!({ "allOf": [{ "type": "integer", "minimum": 3 }, { "maximum": 9 }] }),
        json!({ "allOf": [{ "type": "string", "minLength": 2 }, { "type": "string", "maxLength": 6 }] }),
        json!({ "type": "array", "items": { "type": "integer" }, "maxItems": 3 }),
        json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        json!({}),
    ];
    leaves.extend(PATTERNS.iter().map(|(pattern, _)| json!({ "type": "string", "pattern": pattern })));
    leaves.extend(FORMATS.iter().map(|(format, _)| json!({ "type": "string", "format": format })));
    leaves
}

/// Every leaf by itself, and in every place that a schema has for others.
pub fn all() -> Vec<Value> {
    let leaves = leaves();
    let mut schemas = leaves.clone();
    for (index, leaf) in leaves.iter().enumerate() {
        let other = &leaves[(index + 7) % leaves.len()];
        schemas.extend([
            json!({ "type": "object", "properties": { "value": leaf }, "required": ["value"], "additionalProperties": false }),
            json!({ "type": "object", "properties": { "a": leaf, "b": other }, "required": ["b"] }),
            json!({ "type": "array", "items": leaf, "minItems": 1, "maxItems": 3 }),
            json!({ "type": "array", "prefixItems": [leaf, other], "minItems": 2, "items": false }),
            json!({
                "type": "object",
                "properties": { "inner": { "type": "object", "properties": { "list": { "type": "array", "items": leaf, "maxItems": 2 } }, "required": ["list"] } },
                "required": ["inner"],
                "additionalProperties": { "type": "integer" },
            }),
            json!({ "$ref": "#/$defs/thing", "$defs": { "thing": { "type": "object", "properties": { "x": { "$ref": "#/$defs/leaf" }, "next": { "anyOf": [{ "$ref": "#/$defs/thing" }, { "type": "null" }] } }, "required": ["x", "next"], "additionalProperties": false }, "leaf": leaf } }),
            json!({ "type": "object", "additionalProperties": leaf }),
        ]);
    }
    schemas
}

/// Schemas with values that they do not allow.
pub fn wrong() -> Vec<(Value, Value)> {
    vec![
        (json!({ "type": "string" }), json!(5)),
        (json!({ "type": "integer" }), json!("5")),
        (json!({ "type": "integer" }), json!(5.5)),
        (json!({ "type": "boolean" }), json!(null)),
        (json!({ "type": ["string", "null"] }), json!(false)),
        (json!({ "enum": ["red", "green"] }), json!("blue")),
        (json!({ "const": 42 }), json!(43)),
        (json!({ "type": "string", "minLength": 2 }), json!("a")),
        (json!({ "type": "string", "maxLength": 2 }), json!("abc")),
        (json!({ "type": "string", "pattern": "^[a-z]{3}$" }), json!("abcd")),
        (json!({ "type": "string", "format": "date" }), json!("2026-13-01")),
        (json!({ "type": "integer", "minimum": 10 }), json!(9)),
        (json!({ "type": "integer", "exclusiveMaximum": 10 }), json!(10)),
        (json!({ "type": "integer", "multipleOf": 5 }), json!(12)),
        (json!({ "type": "number", "minimum": 0, "maximum": 1 }), json!(1.5)),
        (json!({ "anyOf": [{ "type": "integer" }, { "const": "a" }] }), json!("b")),
        (json!({ "allOf": [{ "type": "integer", "minimum": 3 }, { "maximum": 9 }] }), json!(11)),
        (json!({ "type": "array", "items": { "type": "integer" } }), json!([1, "2"])),
        (json!({ "type": "array", "minItems": 2 }), json!([1])),
        (json!({ "type": "array", "maxItems": 2 }), json!([1, 2, 3])),
        (json!({ "type": "array", "prefixItems": [{ "type": "integer" }], "items": false }), json!([1, 2])),
        (json!({ "type": "object", "required": ["a"], "properties": { "a": {} } }), json!({ "b": 1 })),
        (json!({ "type": "object", "properties": { "a": { "type": "integer" } } }), json!({ "a": "1" })),
        (json!({ "type": "object", "properties": { "a": {} }, "additionalProperties": false }), json!({ "b": 1 })),
        (json!({ "type": "object", "additionalProperties": { "type": "integer" } }), json!({ "b": "1" })),
        (json!({ "$ref": "#/$defs/a", "$defs": { "a": { "type": "null" } } }), json!(1)),
    ]
}

/// Whether a value is of a type.
fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

/// Whether a value is what a schema allows. Keywords that are not known here are a mistake in the tests.
pub fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(fields) = schema else { return schema == &Value::Bool(true) };
    let number = |limit: &Value| limit.as_f64().expect("a number");
    let count = |limit: &Value| limit.as_u64().expect("a count") as usize;
    let list = |schemas: &Value| schemas.as_array().expect("schemas").clone();
    fields.iter().all(|(keyword, says)| match keyword.as_str() {
        "$defs" => true,
        "$ref" => {
            let pointer = says.as_str().expect("a reference").trim_start_matches('#');
            is_valid(root, root.pointer(pointer).expect("it is there"), value)
        }
        "type" => match says {
            Value::String(kind) => is_of(kind, value),
            kinds => kinds.as_array().expect("types").iter().any(|kind| is_of(kind.as_str().expect("a type"), value)),
        },
        "enum" => list(says).contains(value),
        "const" => says == value,
        "anyOf" => list(says).iter().any(|schema| is_valid(root, schema, value)),
        "oneOf" => list(says).iter().filter(|schema| is_valid(root, schema, value)).count() == 1,
        "allOf" => list(says).iter().all(|schema| is_valid(root, schema, value)),
        "minimum" => value.as_f64().is_none_or(|value| value >= number(says)),
        "maximum" => value.as_f64().is_none_or(|value| value <= number(says)),
        "exclusiveMinimum" => value.as_f64().is_none_or(|value| value > number(says)),
        "exclusiveMaximum" => value.as_f64().is_none_or(|value| value < number(says)),
        "multipleOf" => value.as_f64().is_none_or(|value| value % number(says) == 0.0),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= count(says)),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= count(says)),
        "pattern" | "format" => {
            let known = PATTERNS.iter().chain(&FORMATS).find(|(name, _)| says == name).expect("a known one");
            value.as_str().is_none_or(known.1)
        }
        "minItems" => value.as_array().is_none_or(|items| items.len() >= count(says)),
        "maxItems" => value.as_array().is_none_or(|items| items.len() <= count(says)),
        "prefixItems" => value
            .as_array()
            .is_none_or(|items| list(says).iter().zip(items).all(|(schema, item)| is_valid(root, schema, item))),
        "items" => value.as_array().is_none_or(|items| {
            let before = fields.get("prefixItems").map_or(0, |first| list(first).len());
            items.iter().skip(before).all(|item| is_valid(root, says, item))
        }),
        "required" => value
            .as_object()
            .is_none_or(|object| list(says).iter().all(|name| object.contains_key(name.as_str().expect("a name")))),
        "properties" => value.as_object().is_none_or(|object| {
            let says = says.as_object().expect("schemas");
            says.iter().all(|(name, schema)| object.get(name).is_none_or(|value| is_valid(root, schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let named = |name: &str| fields.get("properties").is_some_and(|named| named.get(name).is_some());
            object.iter().filter(|(name, _)| !named(name)).all(|(_, value)| is_valid(root, says, value))
        }),
        other => panic!("no keyword {other}"),
    })
}
