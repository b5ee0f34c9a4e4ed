//! Python's two ways of formatting: `str.format`, and `%` on a string.

use minijinja::formatting::{FormatStyle, format as render};
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, Value};

use super::methods::refusal;
use super::repr::{repr, text};
use super::strings::{Side, pad};

/// `template.format(*args)`.
pub(super) fn format(template: &str, args: &[Value]) -> Result<String, Error> {
    let (places, names): (&[Value], Kwargs) = from_args(args)?;
    let mut fields = Fields { places, names: &names, next: 0 };
    fields.expand(template, 2)
}

struct Fields<'a> {
    places: &'a [Value],
    names: &'a Kwargs,
    /// The next argument of a field without a name.
    next: usize,
}

impl Fields<'_> {
    /// `template` with its fields filled in, which may nest `depth` deep.
    fn expand(&mut self, template: &str, depth: usize) -> Result<String, Error> {
        let mut out = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            let after = &rest[at + 1..];
            if let Some(next) = after.strip_prefix(brace) {
                out.push_str(brace);
                rest = next;
                continue;
            }
            if brace == "}" || depth == 0 {
                return Err(refusal("a single brace in a format string"));
            }
            let length =
                field_length(after).ok_or_else(|| refusal("expected '}' before the end of the format string"))?;
            out.push_str(&self.field(&after[..length], depth)?);
            rest = &after[length + 1..];
        }
        Ok(out + rest)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let (name, spec) = match field.find(['!', ':']) {
            Some(at) if field[at..].starts_with('!') => {
                let conversion = &field[at..field.len().min(at + 2)];
                let spec = field[at + conversion.len()..].strip_prefix(':').unwrap_or("");
                (&field[..at], (conversion, spec))
            }
            Some(at) => (&field[..at], ("", &field[at + 1..])),
            None => (field, ("", "")),
        };
        let value = self.value(name)?;
        let value = match spec.0 {
            "" => value,
            "!r" | "!a" => Value::from(repr(&value)),
            "!s" => Value::from(text(&value)),
            other => return Err(refusal(format!("unknown conversion {other:?}"))),
        };
        let spec = self.expand(spec.1, depth - 1)?;
        formatted(&value, &spec)
    }

    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let mut value = match first.parse::<usize>() {
            Ok(index) => self.places.get(index).cloned(),
            Err(_) if first.is_empty() => {
                self.next += 1;
                self.places.get(self.next - 1).cloned()
            }
            Err(_) => self.names.get::<Option<Value>>(first)?,
        }
        .ok_or_else(|| refusal(format!("no argument for the field {name:?}")))?;
        while !path.is_empty() {
            if let Some(inner) = path.strip_prefix('[') {
                let (key, rest) = inner.split_once(']').ok_or_else(|| refusal("expected ']' in a format string"))?;
                let index = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
                value = value.get_item(&index)?;
                path = rest;
            } else {
                let inner = &path[1..];
                let end = inner.find(['.', '[']).unwrap_or(inner.len());
                value = value.get_attr(&inner[..end])?;
                path = &inner[end..];
            }
        }
        let missing = value.is_undefined() && end < name.len();
        if missing { Err(refusal(format!("no value for the field {name:?}"))) } else { Ok(value) }
    }
}

/// Bytes up to the brace that closes a field.
fn field_length(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn formatted(value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return Ok(text(value));
    }
    if let Some(spec) = spec.strip_suffix('%') {
        let number = f64::try_from(value.clone())? * 100.0;
        // The percent sign counts towards the width, the first number behind the alignment.
        let (layout, precision) = spec.split_once('.').unwrap_or((spec, "6"));
        let digits = layout.trim_start_matches(|c: char| !c.is_ascii_digit());
        let number = render(FormatStyle::StrFormat, &format!("{{:.{precision}f}}%"), &[Value::from(number)])?;
        let width = digits.parse().unwrap_or(0);
        return pad(&number, width, ' ', Side::Left).ok_or_else(|| refusal("excessive width"));
    }
    if let Some(text) = value.as_str() {
        // The engine counts bytes where Python counts characters.
        let spec = spec.strip_suffix('s').unwrap_or(spec);
        let side = |c: char| match c {
            '<' => Some(Side::Right),
            '>' => Some(Side::Left),
            '^' => Some(Side::Center),
            _ => None,
        };
        let mut chars = spec.chars();
        let (first, second) = (chars.next(), chars.next());
        let (fill, align, layout) = match (first, first.and_then(side), second.and_then(side)) {
            (Some(fill), _, Some(align)) => (fill, align, &spec[fill.len_utf8() + 1..]),
            (_, Some(align), _) => (' ', align, &spec[1..]),
            _ => (' ', Side::Right, spec),
        };
        let (fill, layout) = match layout.strip_prefix('0') {
            Some(layout) if first.and_then(side).is_none() && second.and_then(side).is_none() => ('0', layout),
            _ => (fill, layout),
        };
        return aligned(text, layout, fill, align);
    }
    render(FormatStyle::StrFormat, &format!("{{:{spec}}}"), std::slice::from_ref(value))
}

/// `text` by a layout of width and precision, `8.3`.
fn aligned(text: &str, layout: &str, fill: char, side: Side) -> Result<String, Error> {
    let (width, precision) = layout.split_once('.').map_or((layout, None), |(width, most)| (width, Some(most)));
    let number = |digits: &str| match digits {
        "" => Ok(0),
        digits => digits.parse::<usize>().map_err(|_| refusal(format!("invalid format {layout:?} for a string"))),
    };
    let text: String = match precision {
        Some(most) => text.chars().take(number(most)?).collect(),
        None => text.to_owned(),
    };
    let width = i64::try_from(number(width)?).unwrap_or(i64::MAX);
    // `str.format` puts the odd blank of a centred text to its right, unlike `str.center`.
    let (text, side) = match side {
        Side::Center => {
            let length = text.chars().count();
            let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
            let left = pad(&text, (length + missing / 2) as i64, fill, Side::Left);
            (left.ok_or_else(|| refusal("excessive width"))?, Side::Right)
        }
        side => (text, side),
    };
    pad(&text, width, fill, side).ok_or_else(|| refusal("excessive width"))
}

/// `template % values`: a tuple is several values, a dict has them by name.
pub(super) fn percent(template: &str, values: &Value) -> Result<String, Error> {
    let items: Vec<Value> = if values.is_tuple() { values.try_iter()?.collect() } else { vec![values.clone()] };
    let named = values.kind() == ValueKind::Map;
    let mut items = items.into_iter();
    let mut out = String::new();
    let mut rest = template;
    let missing = || refusal("not enough arguments for format string");
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut value = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (key, after) = inner.split_once(')').ok_or_else(|| refusal("incomplete format key"))?;
            if !named {
                return Err(refusal("format requires a mapping"));
            }
            value = Some(values.get_item(&Value::from(key))?).filter(|value| !value.is_undefined());
            rest = after;
            if value.is_none() {
                return Err(refusal(format!("no value for {key:?}")));
            }
        }
        let end = rest.find(|c: char| c.is_alphabetic() && !matches!(c, 'h' | 'l' | 'L') || c == '%');
        let end = end.ok_or_else(|| refusal("incomplete format"))?;
        let kind = rest[end..].chars().next().unwrap_or('%');
        let mut flags: String = rest[..end].chars().filter(|c| !matches!(c, 'h' | 'l' | 'L')).collect();
        rest = &rest[end + kind.len_utf8()..];
        while let Some(star) = flags.find('*') {
            let width = text(&items.next().ok_or_else(missing)?);
            flags.replace_range(star..=star, &width);
        }
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => items.next().ok_or_else(missing)?,
        };
        let (kind, value) = match kind {
            's' => ('s', Value::from(text(&value))),
            'r' | 'a' => ('s', Value::from(repr(&value))),
            'i' | 'u' | 'd' if value.kind() == ValueKind::Number && !value.is_integer() => {
                ('d', Value::from(f64::try_from(value)?.trunc() as i128))
            }
            'i' | 'u' => ('d', value),
            kind => (kind, value),
        };
        if kind == 's' {
            let flags = flags.trim_start_matches(['#', '0', ' ', '+']);
            let left = flags.starts_with('-');
            let flags = flags.trim_start_matches(['-', '#', '0', ' ', '+']);
            out.push_str(&aligned(&text(&value), flags, ' ', if left { Side::Right } else { Side::Left })?);
        } else {
            out.push_str(&render(FormatStyle::Printf, &format!("%{flags}{kind}"), &[value])?);
        }
    }
    if !named && items.next().is_some() {
        return Err(refusal("not all arguments converted during string formatting"));
    }
    Ok(out + rest)
}
