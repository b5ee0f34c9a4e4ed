//! JSON as Python's `json.dumps` writes it: chat templates are written against that, and a model saw it in training.

use std::fmt::Write as _;

use serde_json::Value;

/// Layout of the text, as the keyword arguments of `json.dumps`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Spaces for each level, one item on a line; without it everything is on one line.
    pub indent: Option<usize>,
    /// Escape everything outside ASCII.
    pub ensure_ascii: bool,
    /// Keys in order of their code points; without it in the order given.
    pub sort_keys: bool,
}

/// `value` as text, separators `", "` and `": "`.
pub fn dumps(value: &Value, style: Style) -> String {
    let mut out = String::new();
    write_value(&mut out, value, style, 0);
    out
}

fn write_value(out: &mut String, value: &Value, style: Style, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&float_repr(float)),
            _ => out.push_str(&number.to_string()),
        },
        Value::String(text) => write_string(out, text, style.ensure_ascii),
        Value::Array(items) => {
            write_items(out, '[', ']', items, style, depth, |out, item| write_value(out, item, style, depth + 1));
        }
        Value::Object(entries) => {
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            if style.sort_keys {
                entries.sort_by_key(|(key, _)| *key);
            }
            write_items(out, '{', '}', &entries, style, depth, |out, (key, item)| {
                write_string(out, key, style.ensure_ascii);
                out.push_str(": ");
                write_value(out, item, style, depth + 1);
            });
        }
    }
}

fn write_items<T>(
    out: &mut String,
    open: char,
    close: char,
    items: &[T],
    style: Style,
    depth: usize,
    mut write_item: impl FnMut(&mut String, &T),
) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        match style.indent {
            Some(indent) => {
                out.push_str(if index == 0 { "\n" } else { ",\n" });
                out.extend(std::iter::repeat_n(' ', indent * (depth + 1)));
            }
            None if index > 0 => out.push_str(", "),
            None => {}
        }
        write_item(out, item);
    }
    if let (Some(indent), false) = (style.indent, items.is_empty()) {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent * depth));
    }
    out.push(close);
}

fn write_string(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Python's `repr(float)`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn float_repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
