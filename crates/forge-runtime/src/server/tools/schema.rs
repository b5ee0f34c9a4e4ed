//! What a parameter's schema says of values that a model writes as text.

use serde_json::{Map, Value};

/// Schemas within one another, references among them.
const DEEPEST: usize = 16;
/// Schemas that are looked at for one value: those that refer to themselves have no end.
const MOST: usize = 1000;

/// Fields that say nothing of values.
const WORDS: [&str; 13] = [
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
    "$defs",
    "definitions",
];

/// Whether a field says nothing of values.
pub(super) fn is_word(field: &str) -> bool {
    WORDS.contains(&field) || field.starts_with("x-")
}

/// A schema with what it refers to in `root` and all that it is made of (`allOf`) in one object; `None` of one that allows nothing, refers to
/// what there is not, or says a thing twice.
pub(super) fn flat(schema: &Value, root: &Value) -> Option<Map<String, Value>> {
    flat_within(schema, root, DEEPEST, &mut { MOST })
}

fn flat_within(schema: &Value, root: &Value, depth: usize, left: &mut usize) -> Option<Map<String, Value>> {
    let deeper = depth.checked_sub(1)?;
    *left = left.checked_sub(1)?;
    let fields = match schema {
        Value::Null | Value::Bool(true) => return Some(Map::new()),
        Value::Object(fields) => fields,
        Value::Bool(false) | Value::Number(_) | Value::String(_) | Value::Array(_) => return None,
    };
    let mut all = fields.clone();
    let reference = match all.remove("$ref") {
        Some(reference) => Some(root.pointer(reference.as_str()?.strip_prefix('#')?)?),
        None => None,
    };
    let parts = match all.remove("allOf") {
        Some(Value::Array(parts)) => parts,
        Some(_) => return None,
        None => Vec::new(),
    };
    for part in reference.into_iter().chain(&parts) {
        for (field, value) in flat_within(part, root, deeper, left)? {
            match all.get(&field) {
                Some(before) if *before != value && !is_word(&field) => return None,
                Some(_) => {}
                None => drop(all.insert(field, value)),
            }
        }
    }
    Some(all)
}

/// What values may be.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    names: Vec<String>,
    /// Values that are named one by one.
    pub(super) members: Vec<Value>,
}

/// The name that schemas have for the kind of a value.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if !number.is_f64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Kinds {
    /// As far as they are written out in the schema.
    pub(super) fn of(schema: &Value, root: &Value) -> Self {
        let mut kinds = Self::default();
        kinds.collect(schema, root, DEEPEST, &mut { MOST });
        kinds
    }

    fn collect(&mut self, schema: &Value, root: &Value, depth: usize, left: &mut usize) {
        let Some(deeper) = depth.checked_sub(1) else { return };
        let Some(fields) = flat_within(schema, root, DEEPEST, left) else { return };
        let has = |names: &[&str]| names.iter().any(|name| fields.contains_key(*name));
        let members =
            fields.get("const").into_iter().chain(fields.get("enum").and_then(Value::as_array).into_iter().flatten());
        let members: Vec<Value> = members.cloned().collect();
        match fields.get("type") {
            Some(Value::String(name)) => self.names.push(name.clone()),
            Some(Value::Array(names)) => self.names.extend(names.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ if !members.is_empty() => self.names.extend(members.iter().map(|value| kind_of(value).to_owned())),
            _ if has(&["properties", "required", "additionalProperties", "patternProperties"]) => {
                self.names.push("object".into())
            }
            _ if has(&["items", "prefixItems"]) => self.names.push("array".into()),
            _ => {}
        }
        self.members.extend(members);
        for several in ["anyOf", "oneOf"] {
            for one in fields.get(several).and_then(Value::as_array).into_iter().flatten() {
                self.collect(one, root, deeper, left);
            }
        }
    }

    /// Whether one of them is called so.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Their names.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a value that is written as text may be any text: it is a string, or nothing is said of it.
    pub(super) fn is_text(&self) -> bool {
        self.names.is_empty() || self.has("string")
    }

    /// Whether a value is of one of them, if anything is said of that.
    pub(super) fn allow(&self, value: &Value) -> bool {
        self.names.is_empty() || self.fits(value)
    }

    fn fits(&self, value: &Value) -> bool {
        let is_whole = || value.as_f64().is_some_and(|number| number.fract() == 0.0);
        self.has(kind_of(value)) || value.is_number() && (self.has("number") || self.has("integer") && is_whole())
    }
}

/// An argument that was written as text, as the schema of all arguments has it.
pub(super) fn typed_argument(written: &str, name: &str, schema: &Value) -> Value {
    let fields = flat(schema, schema).unwrap_or_default();
    let own = fields.get("properties").and_then(|properties| properties.get(name));
    let own = own.or_else(|| fields.get("additionalProperties").filter(|others| others.is_object()));
    typed(written, own.unwrap_or(&Value::Null), schema)
}

/// A value that was written as text, as its schema has it; text where that has no word on it, or another.
fn typed(written: &str, schema: &Value, root: &Value) -> Value {
    let kinds = Kinds::of(schema, root);
    let text = || Value::String(written.to_owned());
    if kinds.members.contains(&text()) {
        return text();
    }
    let bare = written.trim();
    if kinds.has("null") && matches!(bare, "null" | "None") {
        return Value::Null;
    }
    // Python's words, which models fall into.
    let bare = match bare {
        "True" => "true",
        "False" => "false",
        other => other,
    };
    match serde_json::from_str::<Value>(bare) {
        Ok(parsed) if kinds.members.contains(&parsed) => parsed,
        Ok(parsed) if !kinds.is_text() && !parsed.is_string() && kinds.fits(&parsed) => parsed,
        _ => text(),
    }
}
