//! What a request asks for, in no dialect's words.

use serde_json::{Map, Value};

use super::super::super::assets::SamplingOptions;
use super::super::tools::Tool;

/// What a request asks for.
pub(in super::super) struct Ask {
    /// What the answer is to.
    pub(in super::super) prompt: Prompt,
    /// The field that it comes from, for errors.
    pub(in super::super) prompt_field: &'static str,
    /// Most tokens of the answer; up to the context's end if not given.
    pub(in super::super) max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub(in super::super) sampling: SamplingOptions,
    /// Texts that end the answer and are not part of it.
    pub(in super::super) stop: Vec<String>,
    /// Whether it is to be sent as it comes.
    pub(in super::super) stream: bool,
}

/// What an answer is to.
pub(in super::super) enum Prompt {
    /// A text, which the answer continues.
    Text(String),
    /// The same as tokens.
    Ids(Vec<u32>),
    /// Messages, which a template makes a prompt of.
    Chat(Chat),
}

/// Messages, and what else a template makes a prompt of.
#[derive(Default)]
pub(in super::super) struct Chat {
    /// Messages in the form of OpenAI's chat, which is that of templates.
    pub(in super::super) messages: Value,
    /// Variables of templates: `tools`, in the form of OpenAI's chat, and whatever else there is.
    pub(in super::super) variables: Map<String, Value>,
    /// The functions that `tools` has.
    pub(in super::super) tools: Vec<Tool>,
    /// Whether there may, or must be a call of one.
    pub(in super::super) choice: Choice,
    /// Whether there may be several.
    pub(in super::super) parallel: bool,
    /// What was asked for and is left out: kinds of tools that only a dialect's own servers have.
    pub(in super::super) skipped: Vec<String>,
}

/// Whether there may, or must be a call.
#[derive(Debug, Default, PartialEq)]
pub(in super::super) enum Choice {
    #[default]
    Auto,
    None,
    /// A call, of this function if one is named.
    Call(Option<String>),
}

/// What is wrong with a choice.
pub(in super::super) enum BadChoice {
    /// There are no tools.
    NoTools,
    /// There is none of this name.
    Unknown(String),
}

impl Choice {
    /// A call of one of `tools`, of that which is named if one is.
    ///
    /// # Errors
    /// There is no such tool.
    pub(in super::super) fn call(name: Option<&str>, tools: &[Tool]) -> Result<Self, BadChoice> {
        match (name, tools) {
            (_, []) => Err(BadChoice::NoTools),
            // One of one is as good as named.
            (None, [only]) => Ok(Self::Call(Some(only.name.clone()))),
            (None, _) => Ok(Self::Call(None)),
            (Some(name), tools) if tools.iter().any(|tool| tool.name == name) => Ok(Self::Call(Some(name.to_owned()))),
            (Some(name), _) => Err(BadChoice::Unknown(name.to_owned())),
        }
    }
}
