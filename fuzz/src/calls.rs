//! Inputs for readers of tool calls: answers in each form, cut into pieces anywhere.

use std::ops::Range;

use forge_runtime::server::tools::{CallForm, Part, Reader, Style, Thinking, Tool};
use serde_json::{Map, Value, json};

/// A form, by name, and what it is made of.
pub struct Form {
    /// Name of its corpus and target.
    pub name: &'static str,
    form: fn() -> CallForm,
    /// Tags and other words that chance does not find.
    words: &'static [&'static str],
}

/// Every form.
pub const FORMS: [Form; 10] = [
    Form {
        name: "calls_json",
        form: || tagged(&["<tool_call>"], &["</tool_call>"], Style::Json),
        words: &["<tool_call>", "</tool_call>", "{\"name\": \"f\", \"arguments\": ", "{\"a\": \"x\"}", "}", "\n"],
    },
    Form {
        name: "calls_bare",
        form: || CallForm { bare: true, ..tagged(&["<|python_tag|>"], &[], Style::Json) },
        words: &["<|python_tag|>", "{\"name\": \"f\", \"parameters\": ", "{\"function\": ", "{}", "}", "; "],
    },
    Form {
        name: "calls_named",
        form: || tagged(&["[TOOL_CALLS]"], &[], Style::Json),
        words: &[
            "[TOOL_CALLS]",
            "[ARGS]",
            "[CALL_ID]",
            "f",
            "{\"a\": 1}",
            "[{\"name\": \"f\", \"arguments\": {}}",
            "]",
        ],
    },
    Form {
        name: "calls_xml",
        form: || tagged(&["<tool_call>"], &["</tool_call>"], Style::Xml),
        words: &[
            "<tool_call>",
            "</tool_call>",
            "<function=f>",
            "</function>",
            "<parameter=a>",
            "</parameter>",
            "\n",
            "1",
        ],
    },
    Form {
        name: "calls_pairs",
        form: || tagged(&["<|tool_call>"], &["<tool_call|>"], Style::Pairs),
        words: &["<|tool_call>", "<tool_call|>", "call:f{", "a:", "<|\"|>", "}", "[", "]", ",", "null"],
    },
    Form {
        name: "calls_keys",
        form: || tagged(&["<tool_call>"], &["</tool_call>"], Style::Keys),
        words: &[
            "<tool_call>",
            "</tool_call>",
            "f\n",
            "<arg_key>",
            "</arg_key>",
            "<arg_value>",
            "</arg_value>",
            "a",
            "1",
        ],
    },
    Form {
        name: "calls_separated",
        form: || {
            tagged(&["<|call|>"], &["<|end_call|>", "<|end_calls|>", "<|calls|>"], Style::Separated("<|sep|>".into()))
        },
        words: &[
            "<|call|>",
            "<|end_call|>",
            "<|end_calls|>",
            "<|calls|>",
            "<|sep|>",
            "function",
            "f",
            "\n```json\n",
            "```",
            "{\"a\": 1}",
        ],
    },
    Form {
        name: "calls_invoke",
        form: || tagged(&["<calls>"], &["</calls>"], Style::Invoke("|D|".into())),
        words: &[
            "<calls>",
            "</calls>",
            "<|D|invoke name=\"f\">",
            "</|D|invoke>",
            "<|D|parameter name=\"a\"",
            " string=\"false\"",
            ">",
            "</|D|parameter>",
            "\n",
        ],
    },
    Form {
        name: "calls_python",
        form: || tagged(&["<|call_start|>"], &["<|call_end|>"], Style::Python),
        words: &[
            "<|call_start|>",
            "<|call_end|>",
            "[",
            "]",
            "f(",
            ")",
            "a=",
            ", ",
            "\"x\"",
            "'y'",
            "{\"k\": ",
            "}",
            "\\ud83d",
            "\\ude00",
            "None",
        ],
    },
    Form {
        name: "calls_channels",
        form: || CallForm { style: Style::Channels, ..CallForm::default() },
        words: &[
            "<|channel|>",
            "<|message|>",
            "<|start|>",
            "assistant",
            "<|end|>",
            "<|call|>",
            "<|return|>",
            "<|constrain|>",
            "analysis",
            "final",
            "commentary",
            " to=functions.f ",
            "json",
            "{\"a\": 1}",
        ],
    },
];

fn tagged(open: &[&str], close: &[&str], style: Style) -> CallForm {
    let own = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    CallForm { open: own(open), close: own(close), style, ..CallForm::default() }
}

/// Tags that are never content.
fn markers(form: &CallForm) -> Vec<String> {
    let channels = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"];
    let of_style: &[&str] = if form.style == Style::Channels { &channels } else { &[] };
    form.open.iter().chain(&form.close).cloned().chain(of_style.iter().map(|tag| (*tag).to_owned())).collect()
}

/// The pieces of an answer: bytes below 0x80 are characters, NUL is a cut, others are words.
fn pieces(data: &[u8], words: &[&str]) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for &byte in data {
        match (byte, pieces.last_mut()) {
            (0, _) | (_, None) => pieces.push(String::new()),
            (1, Some(piece)) => piece.push('\u{fc}'),
            (..0x80, Some(piece)) => piece.push(char::from(byte)),
            (_, Some(piece)) => piece.push_str(words[usize::from(byte - 0x80) % words.len()]),
        }
    }
    pieces
}

/// What was read: content, reasoning, calls.
#[derive(Debug, Default, PartialEq)]
struct Taken {
    content: String,
    reasoning: String,
    calls: Vec<(String, String)>,
}

/// Reads an answer in pieces, and says where in it the content was, what stood together as one.
fn take<'a>(form: &CallForm, inside: bool, pieces: impl IntoIterator<Item = &'a str>) -> (Taken, Vec<Range<usize>>) {
    let parameters =
        json!({ "type": "object", "properties": { "a": { "type": ["integer", "null"] }, "b": { "enum": ["x", 1] } } });
    let tools = vec![Tool { name: "f".into(), parameters, strict: false }];
    let thinking = if form.style == Style::Channels { Thinking::Channels } else { Thinking::default() };
    let mut reader = Reader::new(Some(form.clone()), tools, &thinking, inside);
    let (mut taken, mut places) = (Taken::default(), Vec::<Range<usize>>::new());
    let mut bytes = 0;
    let mut hear = |parts: Vec<Part>, content: &[(usize, Range<usize>)], bytes: usize| {
        for (part, range) in content {
            assert!(matches!(parts[*part], Part::Content(_)) && range.end <= bytes, "{range:?} of {bytes} bytes");
            match places.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                last => {
                    assert!(last.is_none_or(|last| last.end < range.start), "content comes in order");
                    places.push(range.clone());
                }
            }
        }
        for part in parts {
            match part {
                Part::Content(text) => taken.content += &text,
                Part::Reasoning(text) => taken.reasoning += &text,
                Part::Call { name, arguments } => taken.calls.push((name, arguments)),
            }
        }
    };
    for piece in pieces {
        bytes += piece.len();
        let parts = reader.push(piece);
        hear(parts, reader.content(), bytes);
    }
    let parts = reader.finish();
    hear(parts, reader.content(), bytes);
    (taken, places)
}

/// Reads an answer in pieces and as a whole; whether a call was in it. The first byte says whether the prompt ended in reasoning.
///
/// # Panics
/// Both differ, a marker is in the content, or arguments are no JSON object.
pub fn read(form: &Form, data: &[u8]) -> bool {
    let Some((first, data)) = data.split_first() else { return false };
    let (call_form, inside) = ((form.form)(), first % 2 == 1);
    let pieces = pieces(data, form.words);
    let whole = pieces.concat();
    let (taken, places) = take(&call_form, inside, pieces.iter().map(String::as_str));
    assert_eq!(taken, take(&call_form, inside, [whole.as_str()]).0, "{whole:?} in {pieces:?}");
    let characters: Vec<String> = whole.chars().map(String::from).collect();
    assert_eq!(taken, take(&call_form, inside, characters.iter().map(String::as_str)).0, "{whole:?} one by one");
    for place in places {
        // Halves of a marker on both sides of what was taken out are none.
        let text = &whole[place];
        for marker in markers(&call_form) {
            assert!(!text.contains(&marker), "{marker} in {text:?} of {whole:?}");
        }
    }
    for (name, arguments) in &taken.calls {
        assert!(!name.is_empty());
        serde_json::from_str::<Map<String, Value>>(arguments).unwrap_or_else(|error| panic!("{arguments}: {error}"));
    }
    !taken.calls.is_empty()
}

/// The form of a target.
///
/// # Panics
/// There is none of this name.
pub fn named(name: &str) -> &'static Form {
    FORMS.iter().find(|form| form.name == name).expect("a form of this name")
}
