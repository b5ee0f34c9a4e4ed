//! Filters, tests and functions where Jinja2's differ from the engine's, or are missing there.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State, Value, filters};

use super::format::percent;
use super::methods::{Arguments, refusal};
use super::repr::{repr, text};
use super::strings::{self, Side};
use super::{expression, json, operators};

/// Arguments behind the value that a filter works on.
type Args = Rest<ValueOrKwargs>;

/// Puts them into an environment.
pub(super) fn add(environment: &mut Environment) {
    environment.add_filter("tojson", |value: &Value, args: Args| json::to_json(value, &args.into_values()));
    environment.add_filter("string", |value: &Value| if value.is_safe() { value.clone() } else { text(value).into() });
    environment.add_filter("trim", trim);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("replace", replace);
    environment.add_filter("indent", indent);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("first", |value: &Value| Ok::<_, Error>(value.try_iter()?.next().unwrap_or_default()));
    environment.add_filter("last", last);
    environment.add_filter("items", items);
    environment.add_filter("reverse", reverse);
    environment.add_filter("sort", sort);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("round", round);
    environment.add_filter("format", format);
    environment.add_filter("escape", |value: &Value| escape(value, false));
    environment.add_filter("e", |value: &Value| escape(value, false));
    environment.add_filter("forceescape", |value: &Value| escape(value, true));
    environment.add_filter("wordcount", |value: &Value| {
        text(value).split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
    });
    environment.add_filter("center", |value: &Value, width: Option<i64>| {
        let padded = strings::pad(&text(value), width.unwrap_or(80), ' ', Side::Center);
        padded.ok_or_else(|| refusal("excessive width"))
    });
    environment.add_filter("capitalize", |value: &Value| strings::capitalize(&text(value)));
    environment.add_filter("truncate", truncate);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("pprint", |value: &Value| repr(value));
    lazy(environment, "map", Value::from_function(filters::map));
    lazy(environment, "select", Value::from_function(filters::select));
    lazy(environment, "reject", Value::from_function(filters::reject));
    lazy(environment, "selectattr", Value::from_function(filters::selectattr));
    lazy(environment, "rejectattr", Value::from_function(filters::rejectattr));
    lazy(environment, "unique", Value::from_function(filters::unique));
    lazy(environment, "batch", Value::from_function(filters::batch));
    lazy(environment, "slice", Value::from_function(filters::slice));

    // None is not, in Python.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
    });
    environment.add_test("callable", |value: &Value| matches!(value.kind(), ValueKind::Undefined | ValueKind::Plain));

    environment.add_function(expression::REMAINDER, operators::remainder);
    environment.add_function(expression::PRODUCT, operators::product);
    environment.add_function(expression::SUM, operators::sum);
    environment.add_function(expression::SLICE, operators::slice);
    environment.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_function("namespace", namespace);
    environment.add_function("dict", |args: Args| Ok::<_, Error>(Value::from_pairs(pairs(args)?)));
}

/// What Python makes a generator: true even where it is empty, and empty once it has been gone through.
#[derive(Debug)]
struct Generator(Mutex<std::vec::IntoIter<Value>>);

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let items = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Enumerator::Iter(Box::new(items))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

fn generator(items: Vec<Value>) -> Value {
    Value::from_object(Generator(Mutex::new(items.into_iter())))
}

/// A filter of the engine's that gives a list, as one that gives a generator.
fn lazy(environment: &mut Environment, name: &'static str, filter: Value) {
    environment.add_filter(name, move |state: &mut State, value: Value, args: Args| {
        let all: Vec<Value> = std::iter::once(value).chain(args.into_values()).collect();
        let list = filter.call(state, &all)?;
        Ok::<_, Error>(generator(list.try_iter()?.collect()))
    });
}

fn trim(value: &Value, args: Args) -> Result<String, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let chars = args.text("chars")?;
    args.end()?;
    Ok(strings::strip(&text(value), chars.as_deref(), true, true).to_owned())
}

fn default(value: &Value, args: Args) -> Result<Value, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let other = args.next("default_value")?.unwrap_or_else(|| Value::from(""));
    let lax = args.truth("boolean", false)?;
    args.end()?;
    Ok(if value.is_undefined() || lax && !value.is_true() { other } else { value.clone() })
}

fn replace(value: &Value, args: Args) -> Result<String, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let (old, new) = (text(&args.required("old")?), text(&args.required("new")?));
    let count = args.typed::<i64>("count")?.and_then(|count| usize::try_from(count).ok());
    args.end()?;
    let value = text(value);
    Ok(match count {
        Some(count) => value.replacen(&old, &new, count),
        None => value.replace(&old, &new),
    })
}

/// Most characters that `indent` puts before a line.
const WIDEST_INDENT: usize = 1000;

fn indent(value: &Value, args: Args) -> Result<String, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let width = args.next("width")?.unwrap_or_else(|| Value::from(4));
    let (first, blank) = (args.truth("first", false)?, args.truth("blank", false)?);
    args.end()?;
    let indent = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(i64::try_from(width)?).unwrap_or(0).min(WIDEST_INDENT + 1)),
    };
    if indent.len() > WIDEST_INDENT {
        return Err(refusal(format!("indent takes at most {WIDEST_INDENT} characters")));
    }
    let text = text(value) + "\n";
    let mut out = String::new();
    for (index, line) in strings::split_lines(&text, false).into_iter().enumerate() {
        out.push_str(if index > 0 { "\n" } else { "" });
        if if index > 0 { blank || !line.is_empty() } else { first } {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// A whole number as Python's `int(text, base)` reads it.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(strings::is_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = |letter: char| {
        digits.strip_prefix('0').and_then(|rest| rest.strip_prefix([letter, letter.to_ascii_uppercase()]))
    };
    let prefixed = [('x', 16), ('o', 8), ('b', 2)].into_iter().filter(|(_, radix)| base == 0 || base == *radix);
    let prefixed = prefixed.filter_map(|(letter, radix)| Some((prefix(letter)?, radix))).next();
    let (digits, radix) = prefixed.unwrap_or((digits, if base == 0 { 10 } else { base }));
    if !(2..=36).contains(&radix)
        || digits.is_empty()
        || digits.starts_with('_') && prefixed.is_none()
        || digits.ends_with('_')
        || digits.contains("__")
    {
        return None;
    }
    let digits: String = digits
        .chars()
        .filter(|&c| c != '_')
        .map(|c| strings::decimal(c).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c))
        .collect();
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(&digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// A number as Python's `float(text)` reads it.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(strings::is_space);
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn int(value: &Value, args: Args) -> Result<Value, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let other = args.next("default")?.unwrap_or_else(|| Value::from(0));
    let base = args.typed::<u32>("base")?.unwrap_or(10);
    args.end()?;
    let whole = |number: f64| number.is_finite().then_some(number.trunc() as i128);
    let number = match value.as_str() {
        Some(text) => parse_int(text, base).or_else(|| whole(parse_float(text)?)),
        None if value.kind() == ValueKind::Bool => Some(i128::from(value.is_true())),
        None if value.is_integer() => return Ok(value.clone()),
        None if value.is_number() => whole(f64::try_from(value.clone())?),
        None => None,
    };
    Ok(number.map_or(other, |number| i64::try_from(number).map_or(Value::from(number), Value::from)))
}

fn float(value: &Value, args: Args) -> Result<Value, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let other = args.next("default")?.unwrap_or_else(|| Value::from(0.0));
    args.end()?;
    let number = match value.as_str() {
        Some(text) => parse_float(text),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None if value.is_number() => Some(f64::try_from(value.clone())?),
        None => None,
    };
    Ok(number.map_or(other, Value::from))
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| refusal(format!("a value of type {} has no length", value.kind())))
}

fn last(value: &Value) -> Result<Value, Error> {
    if value.downcast_object_ref::<Generator>().is_some() {
        return Err(refusal("a generator cannot be reversed"));
    }
    Ok(value.try_iter()?.last().unwrap_or_default())
}

fn items(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(generator(Vec::new())),
        ValueKind::Map => {
            let pair = |key: Value| Ok(Value::from(Tuple::from([key.clone(), value.get_item(&key)?])));
            Ok(generator(value.try_iter()?.map(pair).collect::<Result<_, Error>>()?))
        }
        // The words that Jinja2 has.
        _ => Err(refusal("Can only get item pairs from a mapping.")),
    }
}

fn reverse(value: &Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => Ok(text.chars().rev().collect::<String>().into()),
        None if value.is_none() => Err(refusal("argument must be iterable")),
        None => {
            let mut items: Vec<Value> = value.try_iter()?.collect();
            items.reverse();
            Ok(generator(items))
        }
    }
}

fn sort(value: &Value, args: Args) -> Result<Value, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let (reverse, case_sensitive) = (args.truth("reverse", false)?, args.truth("case_sensitive", false)?);
    let attribute = args.next("attribute")?.filter(|attribute| !attribute.is_none());
    args.end()?;
    let paths = attribute.map(|attribute| attribute.to_string()).unwrap_or_default();
    let part = |item: &Value, path: &str| {
        let step = |value: Value, key: &str| {
            let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
            value.get_item(&key)
        };
        let found = path.split('.').filter(|key| !key.is_empty()).try_fold(item.clone(), step)?;
        let lower = |text: &str| Value::from(text.to_lowercase());
        Ok(if case_sensitive { found } else { found.as_str().map(lower).unwrap_or(found) })
    };
    let mut keyed = Vec::new();
    for item in value.try_iter()? {
        let key = paths.split(',').map(|path| part(&item, path)).collect::<Result<Vec<Value>, Error>>()?;
        keyed.push((key, item));
    }
    // What is equal keeps its order, in reverse too.
    keyed.sort_by(|(a, _), (b, _)| if reverse { b.cmp(a) } else { a.cmp(b) });
    Ok(keyed.into_iter().map(|(_, item)| item).collect())
}

fn dictsort(state: &mut State, value: Value, args: Args) -> Result<Value, Error> {
    named(state, Value::from_function(filters::dictsort), value, args, &["case_sensitive", "by", "reverse"])
}

/// Calls a filter that takes its arguments by name only.
fn named(state: &mut State, filter: Value, value: Value, args: Args, names: &[&str]) -> Result<Value, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let mut given = Vec::new();
    for name in names {
        given.extend(args.next(name)?.map(|value| (*name, value)));
    }
    args.end()?;
    filter.call(state, &[value, Kwargs::from_iter(given).into()])
}

fn round(state: &mut State, value: Value, args: Args) -> Result<Value, Error> {
    let value = if value.kind() == ValueKind::Bool { Value::from(i64::from(value.is_true())) } else { value };
    let all: Vec<Value> = std::iter::once(value).chain(args.into_values()).collect();
    Value::from_function(filters::round).call(state, &all)
}

fn format(value: &Value, args: Args) -> Result<String, Error> {
    let args = args.into_values();
    let (places, names): (&[Value], Kwargs) = from_args(&args)?;
    let named: Vec<(String, Value)> =
        names.args().map(|name| Ok((name.to_owned(), names.get(name)?))).collect::<Result<_, Error>>()?;
    match (places.is_empty(), named.is_empty()) {
        (false, false) => Err(refusal("format takes positional or keyword arguments, not both")),
        (_, true) => percent(&text(value), &Value::from(Tuple::from(places.to_vec()))),
        (true, false) => percent(&text(value), &Value::from_pairs(named)),
    }
}

pub(super) fn escape(value: &Value, force: bool) -> Value {
    if value.is_safe() && !force {
        return value.clone();
    }
    let mut out = String::new();
    for c in text(value).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Value::from_safe_string(out)
}

fn truncate(value: &Value, args: Args) -> Result<String, Error> {
    let args = args.into_values();
    let mut args = Arguments::new(&args)?;
    let length = args.typed::<usize>("length")?.unwrap_or(255);
    let kill = args.truth("killwords", false)?;
    let end = args.text("end")?.unwrap_or_else(|| "...".into());
    let leeway = args.typed::<usize>("leeway")?.unwrap_or(5);
    args.end()?;
    let value = text(value);
    if value.chars().count() <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let kept = length
        .checked_sub(end.chars().count())
        .ok_or_else(|| refusal("truncate: the end is longer than the length"))?;
    let start: String = value.chars().take(kept).collect();
    let whole = if kill { start.as_str() } else { start.rsplit_once(' ').map_or(start.as_str(), |(words, _)| words) };
    Ok(whole.to_owned() + &end)
}

fn urlencode(value: &Value) -> Result<String, Error> {
    let quote = |text: &str, query: bool| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte.into()),
                b'/' if !query => out.push('/'),
                b' ' if query => out.push('+'),
                // Writing to a String cannot fail.
                _ => drop(write!(out, "%{byte:02X}")),
            }
        }
        out
    };
    if !matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) {
        return Ok(quote(&text(value), false));
    }
    let pair = |(key, value): (Value, Value)| format!("{}={}", quote(&text(&key), true), quote(&text(&value), true));
    Ok(pairs_of(value)?.into_iter().map(pair).collect::<Vec<_>>().join("&"))
}

fn namespace(state: &mut State, args: Args) -> Result<Value, Error> {
    let pairs = pairs(args)?;
    Value::from_function(minijinja::functions::namespace).call(state, &[Value::from_pairs(pairs)])
}

/// The pairs of `dict(mapping_or_pairs, **names)`.
fn pairs(args: Args) -> Result<Vec<(Value, Value)>, Error> {
    let args = args.into_values();
    let (places, names): (&[Value], Kwargs) = from_args(&args)?;
    let mut all = Vec::new();
    for value in places {
        all.extend(pairs_of(value)?);
    }
    for name in names.args() {
        all.push((Value::from(name), names.get(name)?));
    }
    Ok(all)
}

fn pairs_of(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if value.is_undefined() {
        return Ok(Vec::new());
    }
    let map = value.kind() == ValueKind::Map;
    let pair = |item: Value| {
        if map {
            let value = value.get_item(&item)?;
            return Ok((item, value));
        }
        match item.try_iter()?.collect::<Vec<_>>().as_slice() {
            [key, value] => Ok((key.clone(), value.clone())),
            _ => Err(refusal("expected pairs")),
        }
    };
    value.try_iter()?.map(pair).collect()
}
