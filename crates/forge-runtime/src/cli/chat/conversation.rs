//! The messages so far.

use std::path::Path;

use serde_json::{Value, json};

use super::super::super::messages::check_messages;
use super::super::super::{Error, Result};

/// What was said, in the form that chat templates take.
pub struct Conversation {
    system: Option<String>,
    /// Questions and answers.
    messages: Vec<Value>,
}

impl Conversation {
    pub fn new(system: Option<String>) -> Self {
        Self { system, messages: Vec::new() }
    }

    /// All messages, the instructions first.
    pub fn messages(&self) -> Value {
        let system = self.system.iter().map(|content| json!({ "role": "system", "content": content }));
        Value::Array(system.chain(self.messages.iter().cloned()).collect())
    }

    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    pub fn instruct(&mut self, text: &str) {
        self.system = Some(text.to_owned());
    }

    pub fn clear(&mut self) {
        self.messages.clear();
    }

    pub fn ask(&mut self, question: String) {
        self.messages.push(json!({ "role": "user", "content": question }));
    }

    pub fn answered(&mut self, message: Value) {
        self.messages.push(message);
    }

    /// Takes the last question back, and what came after it.
    pub fn undo(&mut self) -> Option<String> {
        let last = self.messages.iter().rposition(is_question)?;
        let question = self.messages[last]["content"].as_str().unwrap_or_default().to_owned();
        self.messages.truncate(last);
        Some(question)
    }

    /// Takes back what came after the last question; whether there is one.
    pub fn forget_answer(&mut self) -> bool {
        let last = self.messages.iter().rposition(is_question);
        if let Some(last) = last {
            self.messages.truncate(last + 1);
        }
        last.is_some()
    }

    /// Writes the messages as a list of JSON, as `tokenize --chat` reads it; how many there are.
    pub fn save(&self, path: &Path) -> Result<usize> {
        let messages = self.messages();
        let text = serde_json::to_string_pretty(&messages).map_err(|source| json_error(path, source))?;
        std::fs::write(path, text + "\n").map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(messages.as_array().map_or(0, Vec::len))
    }

    /// Takes the place of these messages by those of a file; how many there are. On an error nothing changes.
    pub fn load(&mut self, path: &Path) -> Result<usize> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|source| json_error(path, source))?;
        let mut messages = check_messages(&value)?;
        let count = messages.len();
        let first = messages.first().filter(|message| message["role"] == "system");
        self.system = first.and_then(|message| message["content"].as_str()).map(str::to_owned);
        if self.system.is_some() {
            messages.remove(0);
        }
        self.messages = messages;
        Ok(count)
    }
}

fn is_question(message: &Value) -> bool {
    message["role"] == "user"
}

fn json_error(path: &Path, source: serde_json::Error) -> Error {
    Error::Io { path: path.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Conversation;

    fn said() -> Conversation {
        let mut conversation = Conversation::new(Some("Be brief.".to_owned()));
        for (question, answer) in [("one", "1"), ("two", "2")] {
            conversation.ask(question.to_owned());
            conversation.answered(json!({ "role": "assistant", "content": answer }));
        }
        conversation
    }

    #[test]
    fn exchanges_are_taken_back() {
        let mut conversation = said();
        assert!(conversation.forget_answer());
        assert_eq!(conversation.messages().as_array().unwrap().len(), 4);
        assert_eq!(conversation.undo().as_deref(), Some("two"));
        assert_eq!(conversation.undo().as_deref(), Some("one"));
        assert_eq!(conversation.undo(), None);
        assert!(!conversation.forget_answer());
        assert_eq!(conversation.messages(), json!([{ "role": "system", "content": "Be brief." }]));
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.json");
        assert_eq!(said().save(&path).unwrap(), 5);
        let mut other = Conversation::new(None);
        assert_eq!(other.load(&path).unwrap(), 5);
        assert_eq!((other.messages(), other.system()), (said().messages(), Some("Be brief.")));
        for wrong in ["", "{}", "[]", r#"[{"role": 1}]"#] {
            std::fs::write(&path, wrong).unwrap();
            assert!(other.load(&path).is_err(), "{wrong}");
        }
        assert_eq!(other.messages(), said().messages(), "a file that is none changes nothing");
    }
}
