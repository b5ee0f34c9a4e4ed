//! OpenAI's `/v1/completions`.

use serde_json::{Map, Value, json};

use super::super::super::generation::Score;
use super::super::api_error::ApiError;
use super::super::fields::{Fields, Limit, wrong_type};
use super::openai::{self, StreamOptions};
use super::{Ask, Chosen, End, Head, Item, Mark, Output, Piece, Prompt, Writer, data};

/// Tokens of a completion that names no limit, as in OpenAI's API. A chat goes on to the end of the context.
const DEFAULT_TOKENS: usize = 16;

/// Most of the most probable tokens that come with one, as in OpenAI's API.
const MOST_LOGPROBS: usize = 5;

pub(super) fn read(mut fields: Fields) -> Result<(Ask, Box<dyn Writer>), ApiError> {
    let choices = openai::choices(&fields)?;
    openai::refuse_unsupported(&fields, choices)?;
    fields.refuse_unless("top_logprobs", |value| value.as_u64() == Some(0), "is not supported; logprobs is")?;
    // As chats have it.
    let off = fields.get("logprobs") == Some(&Value::Bool(false));
    let top_logprobs = if off { None } else { openai::count_to(&fields, "logprobs", MOST_LOGPROBS)? };
    let stream = openai::stream_options(&fields)?;
    let ask = Ask {
        max_tokens: fields.limit("max_tokens")?.unwrap_or(Limit::Of(DEFAULT_TOKENS)).most(),
        sampling: openai::sampling(&fields)?,
        stop: openai::stop_strings(&fields, "stop")?,
        form: openai::form("response_format", fields.get("response_format"))?,
        stream: stream.is_some(),
        choices,
        top_logprobs,
        echo: fields.boolean("echo")?.unwrap_or(false),
        ..Ask::to(prompt(&mut fields)?, "prompt")
    };
    let (options, offsets) = (stream.unwrap_or_default(), vec![0; choices]);
    Ok((ask, Box::new(CompletionWriter { options, top_logprobs, offsets, ends: Vec::new() })))
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
    /// The most probable tokens that are wanted with each token's log-probability, if that is.
    top_logprobs: Option<usize>,
    /// Characters of each choice's text so far.
    offsets: Vec<usize>,
    /// Of the choices that have ended.
    ends: Vec<End>,
}

impl CompletionWriter {
    fn choice(&self, index: usize, piece: &Piece, offset: usize, finish: Option<&str>) -> Value {
        let logprobs = self.logprobs(piece, offset);
        json!({ "index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": finish })
    }

    /// How probable the tokens of a text were, which begins so many characters into the whole. What is nothing for the first token of a prompt is null.
    fn logprobs(&self, piece: &Piece, offset: usize) -> Value {
        let Some(wanted) = self.top_logprobs else { return Value::Null };
        let spelled = |score: &Score| openai::spelled(&score.bytes, "bytes:");
        let top = |mark: &Mark| {
            let top = mark.top.as_ref().filter(|_| wanted > 0)?;
            // The token itself is always among them.
            let all = top.iter().chain([&mark.token]);
            Some(all.map(|score| (spelled(score), openai::logprob(score).into())).collect::<Map<_, _>>())
        };
        let known = |mark: &Mark| mark.top.is_some().then(|| openai::logprob(&mark.token));
        let characters = |mark: &Mark| offset + piece.text.get(..mark.at).map_or(0, |before| before.chars().count());
        let marks = &piece.scores;
        json!({
            "tokens": marks.iter().map(|mark| spelled(&mark.token)).collect::<Vec<_>>(),
            "token_logprobs": marks.iter().map(known).collect::<Vec<_>>(),
            "top_logprobs": (wanted > 0).then(|| marks.iter().map(top).collect::<Vec<_>>()),
            "text_offset": marks.iter().map(characters).collect::<Vec<_>>(),
        })
    }
}

impl Writer for CompletionWriter {
    fn prefix(&self) -> &'static str {
        "cmpl-"
    }

    fn open(&mut self, _: &Head) -> String {
        String::new()
    }

    fn output(&mut self, head: &Head, index: usize, output: Output) -> String {
        match output {
            Output::Text(piece) => {
                let choice = self.choice(index, &piece, self.offsets[index], None);
                self.offsets[index] += piece.text.chars().count();
                data(&openai::chunk(head, "text_completion", choice, self.options))
            }
            // Nothing but text is made of an answer to a text.
            Output::Reasoning(_) | Output::CallBegin { .. } | Output::CallArguments(_) | Output::CallEnd => {
                String::new()
            }
            Output::End(end) => {
                let finish = Some(openai::finish_reason(&end));
                let choice = json!({ "index": index, "text": "", "logprobs": null, "finish_reason": finish });
                let last = openai::chunk(head, "text_completion", choice, self.options);
                self.ends.push(end);
                openai::ending(head, "text_completion", last, &self.ends, self.options)
            }
            Output::Failed(error) => data(&error.body()) + openai::DONE,
        }
    }

    fn alive(&mut self, _: &Head) -> String {
        openai::COMMENT.to_owned()
    }

    fn whole(&mut self, head: &Head, choices: Vec<Chosen>) -> Value {
        openai::whole(head, "text_completion", choices, |index, items, end| {
            let text = |item| match item {
                Item::Text(piece) => Some(piece),
                Item::Reasoning(_) | Item::Call { .. } => None,
            };
            let piece = items.into_iter().find_map(text).unwrap_or_default();
            self.choice(index, &piece, 0, Some(openai::finish_reason(end)))
        })
    }
}
