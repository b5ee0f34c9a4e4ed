//! Chat templates: one string, or several with names.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::jinja;
use crate::source::{read_file, read_json};
use crate::{FrontendError, Refusal};

/// Name of the template that is used where no other is asked for.
const DEFAULT: &str = "default";

/// Template file of a folder; files of further templates may have names that begin as its does.
const FILE: &str = "chat_template.jinja";

/// Folders with a file per further template. Source: transformers' `CHAT_TEMPLATE_DIR`, and its name before.
const FOLDERS: [&str; 2] = ["chat_templates", "additional_chat_templates"];

/// The default template, and the others by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Templates {
    pub default: Option<String>,
    pub others: BTreeMap<String, String>,
}

impl Templates {
    /// All of them.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.default.iter().chain(self.others.values()).map(String::as_str)
    }

    /// From `chat_template` of a tokenizer_config.json: a string, or a list of `{name, template}`, or an object by name.
    pub fn from_json(value: &Value) -> Self {
        match value {
            Value::String(template) => Self { default: Some(template.clone()), others: BTreeMap::new() },
            Value::Array(items) => {
                let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
                Self::from_named(items.iter().filter_map(|item| Some((text(item, "name")?, text(item, "template")?))))
            }
            Value::Object(items) => {
                let named = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.to_owned()));
                Self::from_named(items.iter().filter_map(named))
            }
            _ => Self::default(),
        }
    }

    /// From names and templates; `default` is the one used, or the only one there is.
    pub fn from_named(named: impl Iterator<Item = (String, String)>) -> Self {
        let mut others: BTreeMap<String, String> = named.collect();
        let only = if others.len() == 1 { others.keys().next().cloned() } else { None };
        let default = others.remove(DEFAULT).or_else(|| others.remove(&only?));
        Self { default, others }
    }

    /// The templates of a Hugging Face folder: those with files of their own come before the entries of
    /// tokenizer_config.json, and those before chat_template.json, which processors had.
    ///
    /// # Errors
    /// A file that is not UTF-8, or no JSON.
    pub fn from_folder(folder: &Path, tokenizer_config: &Map<String, Value>) -> Result<Self, FrontendError> {
        let mut files = Self { default: read_text(folder, FILE)?, others: BTreeMap::new() };
        for (name, path) in named_files(folder) {
            if let Some(text) = read_text(folder, &path)? {
                match name.as_str() {
                    DEFAULT => files.default = files.default.or(Some(text)),
                    _ => drop(files.others.insert(name, text)),
                }
            }
        }
        let listed = tokenizer_config.get("chat_template").map(Self::from_json).unwrap_or_default();
        let processor = read_json(folder, "chat_template.json")?.unwrap_or_default();
        let processor = processor.get("chat_template").map(Self::from_json).unwrap_or_default();
        let mut templates = files;
        for further in [listed, processor] {
            templates.default = templates.default.or(further.default);
            for (name, text) in further.others {
                templates.others.entry(name).or_insert(text);
            }
        }
        Ok(templates)
    }
}

/// Name of each template that the engine of a generated project does not take, and why.
pub(super) fn problems(default: Option<&str>, others: &BTreeMap<String, String>) -> Vec<(Option<String>, String)> {
    let default = default.map(|source| (DEFAULT, source));
    let all = default.into_iter().chain(others.iter().map(|(name, source)| (name.as_str(), source.as_str())));
    let problem = |(name, source): (&str, &str)| {
        let error = jinja::parse(source).err()?;
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
        let name = (name != DEFAULT).then(|| name.to_owned());
        Some((name, format!("{}{detail}{line}", error.kind()).replace('\n', " ")))
    };
    all.filter_map(problem).collect()
}

/// The file of a folder that a template comes from.
pub(crate) fn file_of(folder: &Path, name: Option<&str>) -> String {
    let own = folder.join(FILE).exists().then(|| FILE.to_owned());
    let file = match name {
        None => own,
        Some(name) => named_files(folder).into_iter().find(|(known, _)| known == name).map(|(_, file)| file),
    };
    file.unwrap_or_else(|| "tokenizer_config.json".to_owned())
}

/// Names and paths of a folder's further template files, sorted: `chat_template_NAME.jinja` with any sign before the name, and
/// `NAME.jinja` in a folder for them.
fn named_files(folder: &Path) -> Vec<(String, String)> {
    let mut named = Vec::new();
    let files = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    for file in files(folder) {
        let stem = file.strip_suffix(".jinja").and_then(|stem| stem.strip_prefix("chat_template"));
        if let Some(name) = stem.and_then(|stem| stem.strip_prefix(['_', '-', '.'])) {
            named.push((name.to_owned(), file));
        }
    }
    for inner in FOLDERS {
        for file in files(&folder.join(inner)) {
            if let Some(name) = file.strip_suffix(".jinja") {
                named.push((name.to_owned(), format!("{inner}/{file}")));
            }
        }
    }
    named.sort();
    named
}

fn read_text(folder: &Path, file: &str) -> Result<Option<String>, FrontendError> {
    let Some(bytes) = read_file(folder, file)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| FrontendError::Tokenizer {
        refusal: Refusal::TemplateText,
        file: file.to_owned(),
        key: "the whole file".to_owned(),
        reason: "expected UTF-8".to_owned(),
    })?;
    Ok(Some(text))
}
