//! Python's methods of `str`, where Rust's differ.

/// Most characters that a method may pad a text to.
const WIDEST: i64 = 1 << 20;

/// What Python's `str.isspace` says of a character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `strip` and its kin: which ends, and which characters (none: white space).
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let matches = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(matches) } else { text };
    if right { text.trim_end_matches(matches) } else { text }
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || title_letter(c) == Some(c)
}

/// The title case of a letter that has its own: the digraphs, one code point between their capital and small forms.
fn title_letter(c: char) -> Option<char> {
    let code = u32::from(c);
    let title = match code {
        0x1c4..=0x1cc => code - (code - 0x1c4) % 3 + 1,
        0x1f1..=0x1f3 => 0x1f2,
        0x10d0..=0x10fa | 0x10fd..=0x10ff => code,
        _ => return None,
    };
    char::from_u32(title)
}

fn push_title(out: &mut String, c: char) {
    if let Some(title) = title_letter(c) {
        out.push(title);
        return;
    }
    let mut upper = c.to_uppercase();
    out.extend(upper.next());
    out.extend(upper.flat_map(char::to_lowercase));
}

/// `word` with its first letter in title case and the others small, a final sigma as such.
fn push_word(out: &mut String, word: &str) {
    let mut chars = word.chars();
    let Some(first) = chars.next() else { return };
    push_title(out, first);
    let lower = word.to_lowercase();
    let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
    out.push_str(lower.get(skipped..).unwrap_or_default());
}

/// `str.title`: a word begins at every letter behind what is none.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_cased) {
        out.push_str(&rest[..start]);
        let word = &rest[start..];
        let end = word.find(|c| !is_cased(c)).unwrap_or(word.len());
        push_word(&mut out, &word[..end]);
        rest = &word[end..];
    }
    out + rest
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_word(&mut out, text);
    out
}

/// `str.swapcase`.
pub(super) fn swapcase(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else if c.is_lowercase() {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// `str.casefold`: small letters, and spelled out what has a capital form of several.
pub(super) fn casefold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.to_uppercase().count() > 1 {
            out.extend(c.to_uppercase().flat_map(char::to_lowercase));
        } else {
            out.extend(c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c }));
        }
    }
    out
}

/// `str.istitle`.
pub(super) fn is_title(text: &str) -> bool {
    let (mut any, mut inside) = (false, false);
    for c in text.chars() {
        let starts = c.is_uppercase() || title_letter(c) == Some(c);
        if starts == inside && (starts || c.is_lowercase()) {
            return false;
        }
        inside = starts || c.is_lowercase();
        any |= inside;
    }
    any
}

/// The zeros of the decimal digits (Unicode's category Nd) in the basic plane.
const ZEROS: [u32; 37] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
    0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

/// The value of a decimal digit of any script.
pub(super) fn decimal(c: char) -> Option<u32> {
    ZEROS.iter().find_map(|&zero| u32::from(c).checked_sub(zero).filter(|&digit| digit < 10))
}

/// What `str.isdigit` says of a character: decimal digits, and those raised, lowered or circled.
pub(super) fn is_digit(c: char) -> bool {
    let raised = matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉');
    raised || decimal(c).is_some() || matches!(c, '①'..='⑨' | '⑴'..='⑼' | '⒈'..='⒐' | '⓪' | '❶'..='❾')
}

/// Whether `repr` shows a character as it is.
pub(super) fn is_printable(c: char) -> bool {
    // Behind another character a combining mark is not escaped.
    c == '\'' || c == '"' || c == '\\' || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// The lines of a text, each with its end where `keep` is set.
pub(super) fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    let ends =
        |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// `str.split`; at most `limit` times.
pub(super) fn split<'a>(text: &'a str, separator: Option<&str>, limit: usize) -> Vec<&'a str> {
    if let Some(separator) = separator {
        return text.splitn(limit.saturating_add(1), separator).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(is_space).filter(|_| parts.len() < limit);
        match end {
            Some(end) => {
                parts.push(&rest[..end]);
                rest = rest[end..].trim_start_matches(is_space);
            }
            None => {
                // What is left after the last split keeps the blanks at its end.
                parts.push(rest);
                break;
            }
        }
    }
    parts
}

/// `str.rsplit`; at most `limit` times, from the end.
pub(super) fn rsplit<'a>(text: &'a str, separator: Option<&str>, limit: usize) -> Vec<&'a str> {
    let mut parts = Vec::new();
    if let Some(separator) = separator {
        parts.extend(text.rsplitn(limit.saturating_add(1), separator));
    } else {
        let mut rest = text.trim_end_matches(is_space);
        while !rest.is_empty() {
            let blank = rest.char_indices().rev().find(|(_, c)| is_space(*c)).filter(|_| parts.len() < limit);
            match blank {
                Some((at, c)) => {
                    parts.push(&rest[at + c.len_utf8()..]);
                    rest = rest[..at].trim_end_matches(is_space);
                }
                None => {
                    parts.push(rest);
                    break;
                }
            }
        }
    }
    parts.reverse();
    parts
}

/// Characters `start` to `end` of a text, as Python counts them (negative: from the end), and the number of those before;
/// nothing where the start is behind the text's end.
pub(super) fn range(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, text));
    }
    let length = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (at + length).max(0) } else { at };
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)).min(length));
    if start > end {
        return None;
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Some((start as usize, &text[byte(start)..byte(end)]))
}

/// How a text is filled up to a width.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Side {
    Left,
    Right,
    Center,
}

/// `text` with `fill` up to `width` characters, on its left or right or both; nothing for an excessive width.
pub(super) fn pad(text: &str, width: i64, fill: char, side: Side) -> Option<String> {
    if width > WIDEST {
        return None;
    }
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    let left = match side {
        Side::Left => missing,
        Side::Right => 0,
        // As CPython does: an odd rest goes to the left where the width is odd.
        Side::Center => missing / 2 + (missing & width.unsigned_abs() as usize & 1),
    };
    let fill = |count| std::iter::repeat_n(fill, count);
    Some(fill(left).chain(text.chars()).chain(fill(missing - left)).collect())
}

/// `str.zfill`.
pub(super) fn zero_fill(text: &str, width: i64) -> Option<String> {
    let sign = if text.starts_with(['+', '-']) { 1 } else { 0 };
    let digits = pad(&text[sign..], width - sign as i64, '0', Side::Left)?;
    Some(text[..sign].to_owned() + &digits)
}

/// `str.expandtabs`.
pub(super) fn expand_tabs(text: &str, size: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let blanks = size - column % size;
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\t' => {}
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                out.push(c);
            }
        }
    }
    out
}
