//! JSON as Python's `json.dumps` writes it: chat templates are written against that, and a model saw it in training.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::methods::{Arguments, refusal};
use super::repr::float;

/// Most characters per level that `tojson` indents by.
const WIDEST_INDENT: usize = 64;

/// Deepest value that `tojson` writes, somewhat beyond what Python's does.
const DEEPEST: usize = 1000;

/// The filter `tojson` with transformers' signature: `ensure_ascii`, `indent`, `separators`, `sort_keys`, by place or name.
pub(super) fn to_json(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let mut arguments = Arguments::new(args)?;
    let ensure_ascii = arguments.truth("ensure_ascii", false)?;
    let indent = arguments.next("indent")?.filter(|indent| !indent.is_none());
    let separators = arguments.next("separators")?.filter(|separators| !separators.is_none());
    let sort_keys = arguments.truth("sort_keys", false)?;
    arguments.end()?;
    let indent = indent.map(indentation).transpose()?;
    let (item, key) = match separators {
        Some(pair) => pair_of_texts(&pair)?,
        None => ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer { out: String::new(), indent, item, key, ensure_ascii, sort_keys };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

/// What a level is indented by: a text, or a number of blanks, where a negative one counts as none.
fn indentation(indent: Value) -> Result<String, Error> {
    let text = match indent.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let blanks =
                if indent.kind() == ValueKind::Bool { i64::from(indent.is_true()) } else { i64::try_from(indent)? };
            let blanks = usize::try_from(blanks).unwrap_or(0);
            " ".repeat(blanks.min(WIDEST_INDENT + 1))
        }
    };
    if text.chars().count() > WIDEST_INDENT {
        return Err(refusal(format!("tojson indents by at most {WIDEST_INDENT} spaces")));
    }
    Ok(text)
}

fn pair_of_texts(pair: &Value) -> Result<(String, String), Error> {
    let texts: Option<Vec<String>> = pair.try_iter()?.map(|text| text.as_str().map(str::to_owned)).collect();
    match texts.as_deref() {
        Some([item, key]) => Ok((item.clone(), key.clone())),
        _ => Err(refusal("separators must be two strings")),
    }
}

struct Writer {
    out: String,
    /// One item on a line, indented by this for each level; without it everything is on one line.
    indent: Option<String>,
    item: String,
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let unknown = || {
            let words = format!("a value of type {} is not JSON serializable", value.kind());
            Error::new(ErrorKind::BadSerialization, words)
        };
        if depth > DEEPEST {
            return Err(refusal(format!("tojson writes at most {DEEPEST} levels")));
        }
        match value.kind() {
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                let text = scalar(value).ok_or_else(unknown)?;
                self.out.push_str(&text);
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut any = false;
                for item in value.try_iter()? {
                    self.next(any, depth);
                    any = true;
                    self.value(&item, depth + 1)?;
                }
                self.close(any, depth);
                self.out.push(']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.out.push('{');
                for (index, key) in keys.iter().enumerate() {
                    self.next(index > 0, depth);
                    match key.as_str() {
                        Some(text) => self.text(text),
                        None => {
                            let text = scalar(key).ok_or_else(unknown)?;
                            self.text(&text);
                        }
                    }
                    self.out.push_str(&self.key);
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.close(!keys.is_empty(), depth);
                self.out.push('}');
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// What comes before an item.
    fn next(&mut self, another: bool, depth: usize) {
        if another {
            self.out.push_str(&self.item);
        }
        self.line(depth + 1);
    }

    /// What comes before the closing bracket.
    fn close(&mut self, any: bool, depth: usize) {
        if any {
            self.line(depth);
        }
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !matches!(c, ' '..='~')) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A value that is neither text nor a container; as a key it is the same in quotes.
fn scalar(value: &Value) -> Option<String> {
    Some(match value.kind() {
        ValueKind::None => "null".into(),
        ValueKind::Bool => (if value.is_true() { "true" } else { "false" }).into(),
        ValueKind::Number if value.is_integer() => value.to_string(),
        ValueKind::Number => match f64::try_from(value.clone()).ok()? {
            number if number.is_nan() => "NaN".into(),
            number if number.is_infinite() => (if number > 0.0 { "Infinity" } else { "-Infinity" }).into(),
            number => float(number),
        },
        _ => return None,
    })
}
