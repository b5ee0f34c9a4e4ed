//! JSON as the tools that write checkpoints write it. Python's `json` writes `NaN`, `Infinity` and `-Infinity`, reads a number
//! beyond a double's range as infinite, and takes the last of two equal keys; editors put a byte order mark before a file.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// UTF-8's byte order mark.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What stands for a number that JSON does not have: a text, so that whoever wants a number refuses it by its name.
pub(super) const NAN: &str = "NaN";
pub(super) const INFINITY: &str = "Infinity";
pub(super) const MINUS_INFINITY: &str = "-Infinity";

/// The bytes without a byte order mark.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Parses a file as Python's `json` does. A number that is not finite becomes a text: `"NaN"`, `"Infinity"`, `"-Infinity"`.
///
/// # Errors
/// The first fault in the text.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    lenient_json(bytes)
}

/// As [`parse`], into a type of one's own.
pub(crate) fn lenient_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    lenient(bytes, |text| serde_json::from_slice(text))
}

/// The keys that an object of the file has twice, in the file's order, each with the keys around it: `rope_scaling.factor`.
pub(super) fn duplicate_keys(bytes: &[u8]) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    let walk = |text: &[u8]| {
        found.borrow_mut().clear();
        Walk { path: "", found: &found }.deserialize(&mut serde_json::Deserializer::from_slice(text))
    };
    match lenient(bytes, walk) {
        Ok(()) => found.into_inner(),
        Err(_) => Vec::new(),
    }
}

/// A number as an integer: `32`, also as `32.0` and `3.2e1`, as whoever keeps all numbers as doubles writes it.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    /// Up to here every integer is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let integral = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT;
    value.as_i64().or_else(|| value.as_f64().filter(integral).map(|number| number as i64))
}

/// As [`integer`], of 32 bits and not negative: a token's id, a count.
pub(crate) fn unsigned(value: &Value) -> Option<u32> {
    integer(value).and_then(|number| u32::try_from(number).ok())
}

/// A float as JSON: texts stand for those that JSON does not have.
pub(super) fn float(number: f64) -> Value {
    match serde_json::Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() => Value::from(NAN),
        None => Value::from(if number > 0.0 { INFINITY } else { MINUS_INFINITY }),
    }
}

/// Reads strict JSON, and Python's where that fails.
fn lenient<T>(bytes: &[u8], read: impl Fn(&[u8]) -> Result<T, serde_json::Error>) -> Result<T, serde_json::Error> {
    let bytes = without_mark(bytes);
    read(bytes).or_else(|error| match quote_numbers(bytes) {
        Cow::Borrowed(_) => Err(error),
        // A fault that is left is the real one, though its column counts the quotes.
        Cow::Owned(text) => read(&text),
    })
}

/// The text with every number that is not finite in quotes; the text itself where there is none.
fn quote_numbers(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest[0] == b'"' {
            at += string_length(rest);
            continue;
        }
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
        let Some(name) = not_finite(&rest[..length]) else {
            at += length.max(1);
            continue;
        };
        let out = out.get_or_insert_with(Vec::new);
        out.extend(&text[copied..at]);
        out.extend([b"\"", name.as_bytes(), b"\""].concat());
        at += length;
        copied = at;
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.extend(&text[copied..]);
            Cow::Owned(out)
        }
    }
}

/// The name of a word that is a number of Python's `json` and not finite.
fn not_finite(word: &[u8]) -> Option<&'static str> {
    match word {
        b"NaN" => Some(NAN),
        b"Infinity" => Some(INFINITY),
        b"-Infinity" => Some(MINUS_INFINITY),
        [b'-' | b'0'..=b'9', ..] => {
            // Rust reads more forms than JSON has; those begin with a letter or a sign.
            let number: f64 = str::from_utf8(word).ok()?.parse().ok()?;
            let digits = word.iter().any(u8::is_ascii_digit);
            (digits && number.is_infinite()).then_some(if number > 0.0 { INFINITY } else { MINUS_INFINITY })
        }
        _ => None,
    }
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Reads a value for its keys alone.
struct Walk<'a> {
    path: &'a str,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk { path: self.path, found: self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(Key(key)) = entries.next_key()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            entries.next_value_seed(Walk { path: &path, found: self.found })?;
            if !keys.insert(key) && !self.found.borrow().contains(&path) {
                self.found.borrow_mut().push(path);
            }
        }
        Ok(())
    }
}

/// A key of an object.
#[derive(Deserialize)]
struct Key(String);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{duplicate_keys, integer, parse};

    #[test]
    fn numbers_that_json_does_not_have() {
        let text = r#"{"a": NaN, "b": [0.0, Infinity, -Infinity], "c": "NaN, \"Infinity", "d": 1e400, "e": -1e999, "f": 1e30}"#;
        let found = parse(text.as_bytes()).expect("Python reads it");
        let expected = json!({"a": "NaN", "b": [0.0, "Infinity", "-Infinity"], "c": "NaN, \"Infinity", "d": "Infinity",
            "e": "-Infinity", "f": 1e30});
        assert_eq!(found, expected);
        for wrong in
            [r#"{"a": nan}"#, r#"{"a": inf}"#, r#"{"a": NaNs}"#, r#"{"a": +Infinity}"#, "{\"a\": NaN", "{\"a\": \"\\"]
        {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\": 1}").expect("JSON"), json!({"a": 1}));
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\": Infinity}").expect("JSON"), json!({"a": "Infinity"}));
        assert!(parse(b"\xef\xbb{}").is_err());
    }

    #[test]
    fn integers_in_every_spelling() {
        for (value, expected) in [
            (json!(32), Some(32)),
            (json!(32.0), Some(32)),
            (json!(1e6), Some(1_000_000)),
            (json!(-1), Some(-1)),
            (json!(-1.0), Some(-1)),
            (json!(0.5), None),
            (json!(1e30), None),
            (json!(u64::MAX), None),
            (json!("32"), None),
            (json!(true), None),
        ] {
            assert_eq!(integer(&value), expected, "{value}");
        }
    }

    #[test]
    fn keys_given_twice() {
        let text =
            br#"{"a": {"b": 1, "c": NaN, "b": 2}, "d": [{"e": 1, "e": 1}], "a": "x", "f": null, "g": true, "h": -1}"#;
        assert_eq!(duplicate_keys(text), ["a.b", "d.e", "a"]);
        assert_eq!(duplicate_keys(br#"{"a": {"b": 1}, "c": {"b": 1}}"#), [""; 0]);
        assert_eq!(parse(br#"{"a": 1, "a": 2}"#).expect("JSON"), json!({"a": 2}));
    }
}
