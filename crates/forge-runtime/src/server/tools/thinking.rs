//! How a model marks its reasoning.

use serde_json::{Map, json};

use super::super::super::assets::Text;
use super::super::super::chat_templates::Ending;
use super::super::super::generation::ReasoningMarks;
use super::form::special;
use super::harmony;

/// Tags of reasoning, those of most models first: DeepSeek R1, Qwen 3 and many after them; Mistral from Magistral on; Gemma 4; Seed-OSS;
/// Kimi's vision models.
const KNOWN: [(&str, &str); 5] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
];

/// A text that no template writes by itself.
const THOUGHT: &str = "forge_probe_thought";

/// How a model marks its reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thinking {
    /// It stands between these, at the beginning of an answer.
    Tags {
        /// Begins it; a prompt may end with it.
        open: String,
        /// Ends it.
        close: String,
    },
    /// It has a channel of its own (gpt-oss).
    Channels,
}

impl Default for Thinking {
    fn default() -> Self {
        Self::tags(KNOWN[0])
    }
}

impl Thinking {
    fn tags((open, close): (&str, &str)) -> Self {
        Self::Tags { open: open.into(), close: close.into() }
    }

    /// The marks that a model's text side shows: those that the template writes around an earlier answer's reasoning, or else has
    /// in what it writes; the usual ones where nothing shows any.
    pub fn of(text: &Text) -> Self {
        let mut shown = String::new();
        for field in ["reasoning_content", "thinking"] {
            let answer = json!({ "role": "assistant", "content": "A", field: THOUGHT });
            let messages = json!([{ "role": "user", "content": "Q" }, answer]);
            for ending in [Ending::Closed, Ending::Opened] {
                shown += &text.render_chat(&messages, ending, &Map::new()).unwrap_or_default();
            }
        }
        let opened = text.render_chat(&json!([{ "role": "user", "content": "Q" }]), Ending::Opened, &Map::new());
        shown += &opened.unwrap_or_default();
        if shown.contains(harmony::CHANNEL) && text.tokenizer.id(harmony::CHANNEL).is_some() {
            return Self::Channels;
        }
        if let Some(at) = shown.find(THOUGHT) {
            let before = shown[..at].trim_end();
            if let Some(known) = KNOWN.into_iter().find(|(open, _)| before.ends_with(open)) {
                return Self::tags(known);
            }
        }
        let mentioned = KNOWN.into_iter().find(|(open, close)| shown.contains(open) || shown.contains(close));
        let known = || KNOWN.into_iter().find(|(open, _)| text.tokenizer.id(open).is_some());
        mentioned.or_else(known).map_or_else(Self::default, Self::tags)
    }

    /// Whether a prompt ends inside of the reasoning.
    pub fn is_open_at_end_of(&self, prompt: &str) -> bool {
        match self {
            Self::Tags { open, .. } => prompt.trim_end().ends_with(open.as_str()),
            Self::Channels => prompt.trim_end().ends_with("<|channel|>analysis<|message|>"),
        }
    }

    /// Ids of special tokens among the marks, with their text.
    pub fn special_tags(&self, text: &Text) -> Vec<(u32, String)> {
        match self {
            Self::Tags { open, close } => {
                // A tag may have a word behind it that is no part of its token.
                let tag = open.find('>').map_or(open.as_str(), |end| &open[..=end]);
                let mut tags = vec![tag, close.as_str()];
                tags.dedup();
                special(text, tags)
            }
            Self::Channels => special(text, harmony::TAGS),
        }
    }

    /// What reasoning is told by, and ended with where the model does not end it.
    pub fn marks(&self) -> ReasoningMarks {
        match self {
            Self::Tags { open, close } => ReasoningMarks {
                open: vec![open.clone()],
                close: close.clone(),
                parts: false,
                end: format!("\n{close}\n\n"),
            },
            Self::Channels => harmony::reasoning_marks(),
        }
    }

    /// The marks in a few words.
    pub fn describe(&self) -> String {
        match self {
            Self::Tags { open, close } => format!("between {open} and {close}"),
            Self::Channels => "in a channel".into(),
        }
    }
}
