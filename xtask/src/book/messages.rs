//! Messages that the book explains: a heading that is code quotes one, with `...` for what changes, and each stretch between is in a
//! text of the sources.

use super::page::Page;

/// Letters that a quote has at least between two `...`, once: less is in some text by chance.
const SHORTEST: usize = 8;

/// A line for each quote of which a stretch is in no text of the `sources`.
pub(super) fn check<'a>(page: &Page, sources: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut pieces = Vec::new();
    for source in sources {
        let product = source.split("#[cfg(test)]").next().unwrap_or_default();
        pieces.extend(texts(product).iter().flat_map(|text| without_places(text)));
    }
    let mut problems = Vec::new();
    let mut count = 0;
    for heading in &page.headings {
        let Some(quote) = &heading.code else { continue };
        count += 1;
        let stretches: Vec<&str> = quote.split("...").map(str::trim).filter(|stretch| !stretch.is_empty()).collect();
        if stretches.iter().all(|stretch| stretch.chars().count() < SHORTEST) {
            problems.push(format!("{}:{}: too little of a message: {quote}", page.name, heading.line));
        }
        for stretch in stretches {
            // What the command line puts before a message.
            let stretch =
                ["error: ", "warning: "].iter().find_map(|label| stretch.strip_prefix(label)).unwrap_or(stretch);
            if stretch != "error:" && stretch != "warning:" && !pieces.iter().any(|piece| piece.contains(stretch)) {
                problems.push(format!("{}:{}: no source says: {stretch}", page.name, heading.line));
            }
        }
    }
    if count == 0 {
        problems.push(format!("{}: no heading quotes a message", page.name));
    }
    problems
}

/// The string literals of a Rust source, without what escapes stand for but quotes, line ends and their continuation.
fn texts(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1);
        match c {
            '/' if next == Some(&'/') => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            // A quote as a character, escaped or not.
            '\'' if next == Some(&'"') && chars.get(at + 2) == Some(&'\'') => at += 3,
            '\'' if next == Some(&'\\') => at += 3,
            'r' if matches!(next, Some('"' | '#')) && (at == 0 || !chars[at - 1].is_alphanumeric()) => {
                let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                let start = at + 1 + hashes;
                if chars.get(start) != Some(&'"') {
                    at += 1;
                    continue;
                }
                let ends = |end: &usize| chars[*end] == '"' && chars[end + 1..].iter().take(hashes).all(|c| *c == '#');
                let end = (start + 1..chars.len()).find(ends).unwrap_or(chars.len());
                found.push(chars[start + 1..end].iter().collect());
                at = end + 1 + hashes;
            }
            '"' => {
                let (text, end) = literal(&chars, at + 1);
                found.push(text);
                at = end;
            }
            _ => at += 1,
        }
    }
    found
}

/// The literal whose first character is at `at`, and where the text goes on behind it.
fn literal(chars: &[char], mut at: usize) -> (String, usize) {
    let mut text = String::new();
    while let Some(&c) = chars.get(at) {
        match (c, chars.get(at + 1)) {
            ('"', _) => return (text, at + 1),
            ('\\', Some('\n')) => {
                at += 1;
                at += chars[at..].iter().take_while(|c| c.is_whitespace()).count();
            }
            ('\\', Some('n')) => {
                text.push('\n');
                at += 2;
            }
            ('\\', Some(&next)) => {
                text.push(next);
                at += 2;
            }
            _ => {
                text.push(c);
                at += 1;
            }
        }
    }
    (text, at)
}

/// What stands between the places (`{name}`) of a format string.
fn without_places(text: &str) -> Vec<String> {
    let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut pieces = Vec::new();
    for part in text.split('{') {
        let piece = if pieces.is_empty() { part } else { part.split_once('}').map_or(part, |(_, rest)| rest) };
        pieces.push(piece.replace('\u{1}', "{").replace('\u{2}', "}"));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found() {
        let source = "f(\"one \\\"two\\\" \\\n    three\"); // \"not this\"\nlet c = '\"'; let d = '\\\"'; let r = r#\"raw \"text\"\"#;\n\
            #[error(\"a {b} c {{d}}\")] for_(\"x\") \"\"";
        assert_eq!(texts(source), ["one \"two\" three", "raw \"text\"", "a {b} c {{d}}", "x", ""]);
        assert_eq!(without_places("a {b} c {{d}}{e:?}"), ["a ", " c {d}", ""]);
    }

    #[test]
    fn quotes_are_held_to_them() {
        let page = Page::new(
            "docs/t.md",
            "# T\n\n## Others\n\n### `error: cannot read ...: no such file ...`\n\n### `short`\n\n### `other message`\n",
        );
        let source = "#[error(\"cannot read {path}: no such file {why}\")]\n#[cfg(test)]\n\"other message\"";
        assert_eq!(
            check(&page, [source].into_iter()),
            [
                "docs/t.md:7: too little of a message: short",
                "docs/t.md:7: no source says: short",
                "docs/t.md:9: no source says: other message"
            ]
        );
        assert_eq!(check(&Page::new("docs/t.md", "# T\n"), [].into_iter()), ["docs/t.md: no heading quotes a message"]);
    }
}
