//! How a model writes tool calls.
//!
//! Known are calls as JSON objects with `name` and `arguments` or `parameters`, each between tags (Hermes, Qwen 2.5 and 3), as a
//! list after a tag (Mistral, Granite 3), or with nothing around them (Llama 3); a name and JSON arguments after a tag (Mistral from
//! 2025 on); and the forms of [`Style`]. Tags are the template's own.

use super::super::super::assets::Text;
use super::{call, harmony, keys};

/// What stands between a call's tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Style {
    /// JSON, or a name and JSON.
    #[default]
    Json,
    /// `<function=name><parameter=key>value</parameter></function>` (Qwen3-Coder), also without a tag before it.
    Xml,
    /// `call:name{key:value}`, strings between `<|"|>` (Gemma 4).
    Pairs,
    /// `name<arg_key>key</arg_key><arg_value>value</arg_value>` (GLM).
    Keys,
    /// A name and JSON with this tag between them (DeepSeek, Kimi).
    Separated(String),
    /// `<invoke name="name"><parameter name="key">value</parameter></invoke>`, with this in each tag before its name (MiniMax M2,
    /// DeepSeek V3.2).
    Invoke(String),
    /// `name(key="value")` (LFM2).
    Python,
    /// Messages in channels to `functions.name` (gpt-oss).
    Channels,
}

/// How a model writes tool calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallForm {
    /// Tags that one call, or a list of calls, follows.
    pub open: Vec<String>,
    /// Tags that may follow it, or stand around all calls of an answer.
    pub close: Vec<String>,
    /// An answer that begins with a JSON object, or a list of such, may itself be calls.
    pub bare: bool,
    /// What stands between the tags.
    pub style: Style,
    /// Ids of calls are `functions.name:0`, counted through the whole chat, and the template writes them instead of names (Kimi).
    pub named_ids: bool,
}

impl CallForm {
    /// Calls between these tags.
    pub(super) fn tagged(open: Option<&str>, close: Option<&str>) -> Self {
        let list = |tag: Option<&str>| tag.map(str::to_owned).into_iter().collect();
        Self { open: list(open), close: list(close), bare: open.is_none(), ..Self::default() }
    }

    /// Ids of special tokens that are tags of the form, with their text: the detokenizer leaves special tokens out.
    pub fn special_tags(&self, text: &Text) -> Vec<(u32, String)> {
        let mut tags: Vec<&str> = self.open.iter().chain(&self.close).map(String::as_str).collect();
        tags.extend(["[CALL_ID]", "[ARGS]"]);
        match &self.style {
            Style::Pairs => tags.push(call::QUOTE),
            Style::Separated(separator) => tags.push(separator),
            Style::Channels => tags.extend(harmony::TAGS),
            Style::Keys => tags.extend(keys::TAGS),
            Style::Json | Style::Xml | Style::Invoke(_) | Style::Python => {}
        }
        special(text, tags)
    }

    /// The form in a few words.
    pub fn describe(&self) -> String {
        let open = self.open.first().map_or("nothing", String::as_str);
        match (&self.style, self.close.first()) {
            (Style::Json, _) if self.bare => "JSON".into(),
            (Style::Json, Some(close)) => format!("JSON between {open} and {close}"),
            (Style::Json, None) => format!("JSON after {open}"),
            (Style::Xml, _) if self.open.is_empty() => "XML".into(),
            (Style::Xml, _) => format!("XML after {open}"),
            (Style::Pairs, _) => format!("names and pairs after {open}"),
            (Style::Keys, _) => format!("names and tagged pairs after {open}"),
            (Style::Separated(separator), _) => format!("names, {separator} and JSON after {open}"),
            (Style::Invoke(_), _) => format!("XML with attributes after {open}"),
            (Style::Python, _) => format!("Python after {open}"),
            (Style::Channels, _) => "messages in channels".into(),
        }
    }
}

/// Those of the tags that are special tokens, with their ids.
pub(super) fn special<'a>(text: &Text, tags: impl IntoIterator<Item = &'a str>) -> Vec<(u32, String)> {
    let special = |tag: &str| text.tokenizer.id(tag).filter(|id| text.tokenizer.is_special(*id));
    tags.into_iter().filter_map(|tag| Some((special(tag)?, tag.to_owned()))).collect()
}
