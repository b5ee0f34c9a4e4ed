//! Chat templates: one string, or several with names.

use serde_json::Value;

/// The default template and the names of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Templates {
    pub default: Option<String>,
    pub others: Vec<String>,
}

impl Templates {
    /// From `chat_template` of a tokenizer_config.json: a string, or a list of `{name, template}`.
    pub fn from_json(value: &Value) -> Self {
        match value {
            Value::String(template) => Self { default: Some(template.clone()), others: Vec::new() },
            Value::Array(items) => {
                let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
                let named = items.iter().filter_map(|item| Some((text(item, "name")?, text(item, "template")?)));
                Self::from_named(named)
            }
            _ => Self::default(),
        }
    }

    /// From names and templates; `default` is the one used, or the only one there is.
    pub fn from_named(named: impl Iterator<Item = (String, String)>) -> Self {
        let mut named: Vec<(String, String)> = named.collect();
        let at = named.iter().position(|(name, _)| name == "default").or((named.len() == 1).then_some(0));
        let default = at.map(|at| named.remove(at).1);
        Self { default, others: named.into_iter().map(|(name, _)| name).collect() }
    }
}
