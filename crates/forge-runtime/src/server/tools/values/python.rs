//! Values as Python writes them: JSON, but for the words for truth and nothing.

use serde_json::{Value, json};

use super::super::schema::{flat, is_word};
use super::{Rules, may_be};

impl Rules<'_> {
    /// A value as Python writes it.
    pub(super) fn python(&mut self, schema: &Value, root: &Value, depth: usize) -> Option<String> {
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
            let choices =
                branches.iter().map(|branch| self.python(branch, root, deeper)).collect::<Option<Vec<_>>>()?;
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
}
