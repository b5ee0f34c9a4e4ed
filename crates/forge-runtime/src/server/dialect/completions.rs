//! OpenAI's `/v1/completions`.

use serde_json::{Value, json};

use super::super::api_error::ApiError;
use super::super::fields::{Fields, Limit, wrong_type};
use super::openai::{self, StreamOptions};
use super::{Ask, End, Head, Item, Output, Prompt, Writer, data};

/// Tokens of a completion that names no limit, as in OpenAI's API. A chat goes on to the end of the context.
const DEFAULT_TOKENS: usize = 16;

pub(super) fn read(mut fields: Fields) -> Result<(Ask, Box<dyn Writer>), ApiError> {
    openai::refuse_unsupported(&fields)?;
    let stream = openai::stream_options(&fields)?;
    let ask = Ask {
        max_tokens: fields.limit("max_tokens")?.unwrap_or(Limit::Of(DEFAULT_TOKENS)).most(),
        sampling: openai::sampling(&fields)?,
        stop: openai::stop_strings(&fields, "stop")?,
        form: openai::form("response_format", fields.get("response_format"))?,
        form_field: "response_format",
        stream: stream.is_some(),
        prompt: prompt(&mut fields)?,
        prompt_field: "prompt",
    };
    Ok((ask, Box::new(CompletionWriter { options: stream.unwrap_or_default() })))
}

fn prompt(fields: &mut Fields) -> Result<Prompt, ApiError> {
    let wrong = || wrong_type("prompt", "a string, a list of one string, or a list of token ids");
    let mut prompt = fields.take("prompt").ok_or_else(wrong)?;
    if let Value::Array(list) = &mut prompt
        && let Some(Value::String(_) | Value::Array(_)) = list.first()
    {
        if list.len() > 1 {
            return Err(ApiError::invalid("prompt".to_owned(), "only 1 prompt to a request is supported".into()));
        }
        prompt = list.remove(0);
    }
    match prompt {
        Value::String(prompt) => Ok(Prompt::Text(prompt)),
        Value::Array(ids) => {
            let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
            ids.iter().map(id).collect::<Result<_, _>>().map(Prompt::Ids)
        }
        _ => Err(wrong()),
    }
}

/// Answers a completion.
struct CompletionWriter {
    options: StreamOptions,
}

fn choice(text: &str, finish: Option<&str>) -> Value {
    json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": finish })
}

impl Writer for CompletionWriter {
    fn prefix(&self) -> &'static str {
        "cmpl-"
    }

    fn open(&mut self, _: &Head) -> String {
        String::new()
    }

    fn output(&mut self, head: &Head, output: Output) -> String {
        match output {
            Output::Text(piece) => data(&openai::chunk(head, "text_completion", choice(&piece, None), self.options)),
            // Nothing but text is made of an answer to a text.
            Output::Reasoning(_) | Output::CallBegin { .. } | Output::CallArguments(_) | Output::CallEnd => {
                String::new()
            }
            Output::End(end) => {
                let choice = choice("", Some(openai::finish_reason(&end)));
                let last = openai::chunk(head, "text_completion", choice, self.options);
                openai::ending(head, "text_completion", last, &end, self.options)
            }
            Output::Failed(error) => data(&error.body()) + openai::DONE,
        }
    }

    fn alive(&mut self, _: &Head) -> String {
        openai::COMMENT.to_owned()
    }

    fn whole(&mut self, head: &Head, items: Vec<Item>, end: &End) -> Value {
        let text = |item: &Item| match item {
            Item::Text(text) => text.clone(),
            Item::Reasoning(_) | Item::Call { .. } => String::new(),
        };
        let text: String = items.iter().map(text).collect();
        openai::whole(head, "text_completion", choice(&text, Some(openai::finish_reason(end))), end)
    }
}
