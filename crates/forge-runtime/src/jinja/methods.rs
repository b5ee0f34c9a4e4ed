//! Python's methods on strings, lists and dicts.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::format::format;
use super::strings::{self, Side};

/// Calls a method that the engine does not have itself.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => string(text, method, args),
        (ValueKind::Map, _) if method == "copy" => {
            Arguments::new(args)?.end()?;
            Ok(value.clone())
        }
        (ValueKind::Seq, _) => match method {
            "copy" => {
                Arguments::new(args)?.end()?;
                Ok(value.clone())
            }
            "index" => {
                let mut args = Arguments::new(args)?;
                let wanted = args.required("value")?;
                args.end()?;
                let place = value.try_iter()?.position(|item| item == wanted);
                place.map(Value::from).ok_or_else(|| refusal("the value is not in the list"))
            }
            _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
        },
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// An error in a template's own words.
pub(super) fn refusal(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, words.into())
}

/// Arguments that Python takes by place or by name.
pub(super) struct Arguments<'a> {
    places: std::slice::Iter<'a, Value>,
    names: Kwargs,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(args: &'a [Value]) -> Result<Self, Error> {
        let (places, names): (&[Value], Kwargs) = from_args(args)?;
        Ok(Self { places: places.iter(), names })
    }

    /// The next argument, or the one of that name.
    pub(super) fn next(&mut self, name: &str) -> Result<Option<Value>, Error> {
        match self.places.next() {
            Some(value) => Ok(Some(value.clone())),
            None => self.names.get(name),
        }
    }

    /// The next argument of a type; None counts as absent.
    pub(super) fn typed<T: TryFrom<Value, Error = Error>>(&mut self, name: &str) -> Result<Option<T>, Error> {
        self.next(name)?.filter(|value| !value.is_none()).map(T::try_from).transpose()
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.next(name)?.filter(|value| !value.is_none()) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| refusal(format!("{name} must be a string, not {}", value.kind())))?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn truth(&mut self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.next(name)?.map_or(default, |value| value.is_true()))
    }

    pub(super) fn required(&mut self, name: &str) -> Result<Value, Error> {
        self.next(name)?.ok_or_else(|| Error::new(ErrorKind::MissingArgument, name.to_owned()))
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Error> {
        self.text(name)?.ok_or_else(|| Error::new(ErrorKind::MissingArgument, name.to_owned()))
    }

    /// Checks that nothing is left.
    pub(super) fn end(mut self) -> Result<(), Error> {
        match self.places.next() {
            Some(_) => Err(Error::from(ErrorKind::TooManyArguments)),
            None => self.names.assert_all_used(),
        }
    }
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    if method == "format" {
        return format(text, args).map(Value::from);
    }
    let mut arguments = Arguments::new(args)?;
    let value = match method {
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "title" => strings::title(text).into(),
        "capitalize" => strings::capitalize(text).into(),
        "swapcase" => strings::swapcase(text).into(),
        "casefold" => strings::casefold(text).into(),
        "strip" | "lstrip" | "rstrip" => {
            let chars = arguments.text("chars")?;
            strings::strip(text, chars.as_deref(), method != "rstrip", method != "lstrip").into()
        }
        "split" | "rsplit" => {
            let separator = arguments.text("sep")?;
            let limit = arguments.typed::<i64>("maxsplit")?.unwrap_or(-1);
            if separator.as_deref() == Some("") {
                return Err(refusal("empty separator"));
            }
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let split = if method == "split" { strings::split } else { strings::rsplit };
            split(text, separator.as_deref(), limit).into_iter().map(Value::from).collect()
        }
        "splitlines" => {
            let keep = arguments.truth("keepends", false)?;
            strings::split_lines(text, keep).into_iter().map(Value::from).collect()
        }
        "replace" => {
            let (old, new) = (arguments.required_text("old")?, arguments.required_text("new")?);
            match usize::try_from(arguments.typed::<i64>("count")?.unwrap_or(-1)) {
                Ok(count) => text.replacen(&old, &new, count).into(),
                Err(_) => text.replace(&old, &new).into(),
            }
        }
        "join" => join(text, &arguments.required("iterable")?)?.into(),
        "removeprefix" => {
            let prefix = arguments.required_text("prefix")?;
            text.strip_prefix(prefix.as_str()).unwrap_or(text).into()
        }
        "removesuffix" => {
            let suffix = arguments.required_text("suffix")?;
            text.strip_suffix(suffix.as_str()).unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let separator = arguments.required_text("sep")?;
            if separator.is_empty() {
                return Err(refusal("empty separator"));
            }
            let first = method == "partition";
            let found = if first { text.split_once(&separator) } else { text.rsplit_once(&separator) };
            let parts = match found {
                Some((before, after)) => [before, separator.as_str(), after],
                None if first => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith" => {
            let value = search(text, method, &mut arguments)?;
            arguments.end()?;
            return Ok(value);
        }
        "center" | "ljust" | "rjust" => {
            let width = arguments.typed("width")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let fill = arguments.text("fillchar")?.unwrap_or_else(|| " ".into());
            let mut fill = fill.chars();
            let (Some(fill), None) = (fill.next(), fill.next()) else {
                return Err(refusal("the fill character must be exactly one character long"));
            };
            let side = match method {
                "center" => Side::Center,
                "ljust" => Side::Right,
                _ => Side::Left,
            };
            strings::pad(text, width, fill, side).ok_or_else(|| refusal("excessive width"))?.into()
        }
        "zfill" => {
            let width = arguments.typed("width")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            strings::zero_fill(text, width).ok_or_else(|| refusal("excessive width"))?.into()
        }
        "expandtabs" => {
            let size = arguments.typed::<i64>("tabsize")?.unwrap_or(8).clamp(0, 1024);
            strings::expand_tabs(text, size as usize).into()
        }
        _ => Value::from(property(text, method)?),
    };
    arguments.end()?;
    Ok(value)
}

/// The methods that ask something about every character.
fn property(text: &str, method: &str) -> Result<bool, Error> {
    let all = |holds: fn(char) -> bool| !text.is_empty() && text.chars().all(holds);
    Ok(match method {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(|c| strings::decimal(c).is_some()),
        "isdigit" => all(strings::is_digit),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(strings::is_space),
        "isprintable" => text.chars().all(strings::is_printable),
        "isidentifier" => {
            all(|c| c.is_alphabetic() || strings::decimal(c).is_some() || c == '_')
                && !text.starts_with(|c: char| strings::decimal(c).is_some())
        }
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
        "istitle" => strings::is_title(text),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn search(text: &str, method: &str, arguments: &mut Arguments) -> Result<Value, Error> {
    let wanted = arguments.required("sub")?;
    let (start, end) = (arguments.typed("start")?, arguments.typed("end")?);
    let range = strings::range(text, start, end);
    if let "startswith" | "endswith" = method {
        let matches = |affix: &Value| {
            let affix =
                affix.as_str().ok_or_else(|| refusal(format!("{method} takes strings, not {}", affix.kind())))?;
            let at = |text: &str| if method == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) };
            Ok::<_, Error>(range.is_some_and(|(_, text)| at(text)))
        };
        if wanted.as_str().is_some() {
            return Ok(matches(&wanted)?.into());
        }
        if !wanted.is_tuple() {
            return Err(refusal(format!("{method} takes a string or a tuple of strings, not {}", wanted.kind())));
        }
        let mut any = false;
        for affix in wanted.try_iter()? {
            any |= matches(&affix)?;
        }
        return Ok(any.into());
    }
    let wanted = wanted.as_str().ok_or_else(|| refusal(format!("{method} takes a string, not {}", wanted.kind())))?;
    let place = |found: Option<(usize, &str, usize)>| {
        found.map(|(before, text, at)| (before + text[..at].chars().count()) as i64).unwrap_or(-1)
    };
    let found = match method {
        "count" => return Ok(range.map_or(0, |(_, text)| text.matches(wanted).count()).into()),
        "find" | "index" => place(range.and_then(|(before, text)| Some((before, text, text.find(wanted)?)))),
        _ => place(range.and_then(|(before, text)| Some((before, text, text.rfind(wanted)?)))),
    };
    if found < 0 && method.ends_with("index") { Err(refusal("substring not found")) } else { Ok(found.into()) }
}

fn join(separator: &str, items: &Value) -> Result<String, Error> {
    let mut out = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        let kind = item.kind();
        out.push_str(item.as_str().ok_or_else(|| refusal(format!("item {index} is no string but {kind}")))?);
    }
    Ok(out)
}
