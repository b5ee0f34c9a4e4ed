//! String literals, from Python's to minijinja's.

/// A string literal of minijinja's, from a Python literal's inside or from plain text.
pub(super) fn literal(text: &str, plain: bool) -> String {
    let text = if plain { text.to_owned() } else { unescape(text) };
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Python's `unicode_escape`, which keeps the backslash of an escape that there is not. Names of characters are not known.
fn unescape(text: &str) -> String {
    let mut units: Vec<u32> = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            units.push(c.into());
            continue;
        }
        let behind = rest.as_str();
        let Some(kind) = rest.next() else {
            units.push(c.into());
            break;
        };
        let simple = match kind {
            '\n' => continue,
            '\\' | '\'' | '"' => Some(kind),
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            _ => None,
        };
        if let Some(simple) = simple {
            units.push(simple.into());
            continue;
        }
        let (digits, radix, least): (usize, u32, usize) = match kind {
            'x' => (2, 16, 2),
            'u' => (4, 16, 4),
            'U' => (8, 16, 8),
            '0'..='7' => (3, 8, 1),
            _ => (0, 16, 1),
        };
        let ahead = if radix == 8 { behind } else { rest.as_str() };
        let number: String = ahead.chars().take(digits).take_while(|c| c.is_digit(radix)).collect();
        match u32::from_str_radix(&number, radix) {
            Ok(unit) if number.len() >= least => {
                units.push(unit);
                rest = ahead[number.len()..].chars();
            }
            _ => units.extend([u32::from('\\'), u32::from(kind)]),
        }
    }
    // Two halves of a surrogate pair are one character; Python could not encode them otherwise.
    let mut out = String::with_capacity(units.len());
    let mut units = units.into_iter().peekable();
    while let Some(unit) = units.next() {
        let pair = |low: &u32| (0xd800..0xdc00).contains(&unit) && (0xdc00..0xe000).contains(low);
        let unit = match units.next_if(pair) {
            Some(low) => 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
            None => unit,
        };
        out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    out
}
