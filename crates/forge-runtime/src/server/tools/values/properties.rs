//! The named values of an object, or of a call.

use serde_json::{Map, Value};

use super::super::schema::{Kinds, flat, is_word};

/// Fields of a schema that say something of objects.
pub(super) const OF_OBJECTS: [&str; 4] = ["type", "properties", "required", "additionalProperties"];

/// The named values that an object has.
pub(in super::super) struct Properties {
    /// Name, schema, and whether it has to be there; in order.
    pub(in super::super) named: Vec<(String, Value, bool)>,
    /// The schema of any others.
    pub(in super::super) others: Option<Value>,
}

impl Properties {
    /// Those of a schema of objects; `None` where it says more of them.
    pub(in super::super) fn of(schema: &Value, root: &Value) -> Option<Self> {
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
