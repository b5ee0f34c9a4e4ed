//! Calls as Python writes them (LFM2): `name(key="text", other=[1, True, None])`.

use serde_json::{Map, Number, Value};

use super::call::Begun;

/// Deepest value; JSON's reader has a limit of its own.
const DEEPEST: usize = 100;

/// Reads such a call. Words of JSON for truth and nothing are taken too.
pub(super) fn read(text: &str) -> Begun {
    let Some(end) = text.find(|c: char| !(c.is_alphanumeric() || "_.".contains(c))) else { return Begun::Open };
    let (name, rest) = text.split_at(end);
    let Some(rest) = rest.strip_prefix('(').filter(|_| !name.is_empty()) else { return Begun::Other };
    match arguments(rest) {
        Ok((arguments, after)) => Begun::Call {
            name: name.to_owned(),
            arguments: Value::Object(arguments).to_string(),
            bytes: text.len() - after.len(),
        },
        Err(begun) => begun,
    }
}

fn arguments(mut rest: &str) -> Result<(Map<String, Value>, &str), Begun> {
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(')') {
            return Ok((arguments, after));
        }
        if !arguments.is_empty() {
            rest = expect(rest, ',')?.trim_start();
            if rest.starts_with(')') {
                continue;
            }
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).ok_or(Begun::Open)?;
        let (key, after) = rest.split_at(end);
        if key.is_empty() {
            return Err(if rest.is_empty() { Begun::Open } else { Begun::Other });
        }
        let (value, after) = value(expect(after.trim_start(), '=')?.trim_start(), DEEPEST)?;
        arguments.insert(key.to_owned(), value);
        rest = after;
    }
}

fn expect(text: &str, wanted: char) -> Result<&str, Begun> {
    match text.strip_prefix(wanted) {
        Some(after) => Ok(after),
        None if text.is_empty() => Err(Begun::Open),
        None => Err(Begun::Other),
    }
}

fn value(text: &str, depth: usize) -> Result<(Value, &str), Begun> {
    let deeper = depth.checked_sub(1).ok_or(Begun::Other)?;
    match text.chars().next().ok_or(Begun::Open)? {
        quote @ ('"' | '\'') => {
            let (string, after) = string(&text[1..], quote)?;
            Ok((Value::String(string), after))
        }
        open @ ('[' | '(') => {
            let close = if open == '[' { ']' } else { ')' };
            let (mut items, mut rest) = (Vec::new(), &text[1..]);
            loop {
                rest = rest.trim_start();
                if let Some(after) = rest.strip_prefix(close) {
                    return Ok((Value::Array(items), after));
                }
                if !items.is_empty() {
                    rest = expect(rest, ',')?.trim_start();
                    if rest.starts_with(close) {
                        continue;
                    }
                }
                let (item, after) = value(rest, deeper)?;
                items.push(item);
                rest = after;
            }
        }
        '{' => {
            let (mut entries, mut rest) = (Map::new(), &text[1..]);
            loop {
                rest = rest.trim_start();
                if let Some(after) = rest.strip_prefix('}') {
                    return Ok((Value::Object(entries), after));
                }
                if !entries.is_empty() {
                    rest = expect(rest, ',')?.trim_start();
                    if rest.starts_with('}') {
                        continue;
                    }
                }
                let (key, after) = match rest.chars().next().ok_or(Begun::Open)? {
                    quote @ ('"' | '\'') => string(&rest[1..], quote)?,
                    _ => return Err(Begun::Other),
                };
                let (entry, after) = value(expect(after.trim_start(), ':')?.trim_start(), deeper)?;
                entries.insert(key, entry);
                rest = after;
            }
        }
        _ => {
            let end = text.find(|c: char| !(c.is_alphanumeric() || "_.+-".contains(c))).ok_or(Begun::Open)?;
            let (word, after) = text.split_at(end);
            let value = match word {
                "True" | "true" => Value::Bool(true),
                "False" | "false" => Value::Bool(false),
                "None" | "null" => Value::Null,
                _ => Value::Number(number(word).ok_or(Begun::Other)?),
            };
            Ok((value, after))
        }
    }
}

/// A number of Python's that JSON has too, as it is written where JSON allows that.
fn number(word: &str) -> Option<Number> {
    let plain = word.strip_prefix('+').unwrap_or(word).replace('_', "");
    serde_json::from_str(&plain).ok().or_else(|| Number::from_f64(plain.parse().ok()?))
}

/// A string after its first quote. Escapes are those that Python and JSON share, and `\'`; others stay as they are, as in Python.
fn string(text: &str, quote: char) -> Result<(String, &str), Begun> {
    let mut string = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((string, &text[at + 1..]));
        }
        if c != '\\' {
            string.push(c);
            continue;
        }
        let (at, escaped) = chars.next().ok_or(Begun::Open)?;
        match escaped {
            'n' => string.push('\n'),
            't' => string.push('\t'),
            'r' => string.push('\r'),
            'b' => string.push('\u{8}'),
            'f' => string.push('\u{c}'),
            '\\' | '\'' | '"' | '/' => string.push(escaped),
            '\n' => {}
            'u' => {
                let unit = |at: usize| match text.get(at..at + 4) {
                    Some(digits) => u32::from_str_radix(digits, 16).map_err(|_| Begun::Other),
                    None => Err(if text.len() < at + 4 { Begun::Open } else { Begun::Other }),
                };
                let first = unit(at + 1)?;
                chars.nth(3);
                let code = match first {
                    // Halves of a pair, as JSON has them; Python would keep them apart.
                    0xD800..0xDC00 => {
                        let rest = &text[at + 5..];
                        if rest.len() < 2 && "\\u".starts_with(rest) {
                            return Err(Begun::Open);
                        }
                        let second = if rest.starts_with("\\u") { unit(at + 7)? } else { 0 };
                        chars.nth(5);
                        match second {
                            0xDC00..0xE000 => 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                            _ => return Err(Begun::Other),
                        }
                    }
                    _ => first,
                };
                string.push(char::from_u32(code).ok_or(Begun::Other)?);
            }
            _ => string.extend(['\\', escaped]),
        }
    }
    Err(Begun::Open)
}
