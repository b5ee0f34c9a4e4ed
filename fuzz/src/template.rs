//! Inputs for chat templates: whatever the template is, rendering ends with a text or an error.

use forge_runtime::chat::ChatTemplate;
use forge_runtime::messages::check_messages;
use serde_json::{Map, Value, json};

/// Renders the template for a chat with every form of message; whether it gave a text.
pub fn render(data: &[u8]) -> bool {
    let source = String::from_utf8_lossy(data);
    let tokens: Map<String, Value> = [("bos_token", "<s>"), ("eos_token", "</s>")]
        .map(|(name, text)| (name.to_owned(), text.into()))
        .into_iter()
        .collect();
    let Ok(template) = ChatTemplate::new(&source, &tokens) else { return false };
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "text", "text": " Hi <you> & 'me'\n" }] },
        { "role": "assistant", "content": null, "tool_calls": [
            { "type": "function", "function": { "name": "f", "arguments": { "x": [1, 2.5, "é"] } } },
        ] },
        { "role": "tool", "content": "{}" },
        { "role": "user", "content": "And now?" },
    ]);
    let messages = check_messages(&messages).expect("a chat as it should be");
    let extra = json!({
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
        "enable_thinking": true,
    });
    template.render(&messages, true, extra.as_object().expect("an object")).is_ok()
}
