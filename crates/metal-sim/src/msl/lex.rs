//! Tokens of MSL source text: enough to rewrite and to lint it, with blanks and comments kept so that the text can be
//! put together again.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// `//` or `/* */`.
    Comment,
    /// A string or character literal.
    Text,
    /// A number with its suffix.
    Number,
    /// A word.
    Identifier,
    /// Blanks and line ends.
    Blank,
    /// `::`, `->`, `<<`, `>>` or one character.
    Punctuation,
}

/// One token and the line it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// Its text as written.
    pub text: &'a str,
    /// The line it begins on, from 1.
    pub line: u32,
    /// The column it begins at in bytes, from 1.
    pub column: u32,
}

impl Token<'_> {
    /// Neither blank nor comment.
    pub fn is_significant(&self) -> bool {
        !matches!(self.kind, TokenKind::Blank | TokenKind::Comment)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn literal_end(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'\n' {
        match bytes[at] {
            b'\\' => at += 1,
            byte if byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at.min(bytes.len())
}

fn number_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        let exponent = matches!(bytes[at - 1], b'e' | b'E' | b'p' | b'P');
        if is_word(bytes[at]) || bytes[at] == b'.' || (exponent && matches!(bytes[at], b'+' | b'-')) {
            at += 1;
        } else {
            break;
        }
    }
    at
}

fn token_end(bytes: &[u8], start: usize) -> (TokenKind, usize) {
    let rest = &bytes[start..];
    let find = |from: usize, pattern: &[u8]| {
        rest[from..].windows(pattern.len()).position(|window| window == pattern).map(|at| start + from + at)
    };
    let next = rest.get(1).copied().unwrap_or(0);
    match rest[0] {
        b'/' if next == b'/' => (TokenKind::Comment, find(2, b"\n").unwrap_or(bytes.len())),
        b'/' if next == b'*' => (TokenKind::Comment, find(2, b"*/").map_or(bytes.len(), |at| at + 2)),
        b'"' | b'\'' => (TokenKind::Text, literal_end(bytes, start)),
        byte if byte.is_ascii_digit() || (byte == b'.' && next.is_ascii_digit()) => {
            (TokenKind::Number, number_end(bytes, start))
        }
        byte if byte.is_ascii_whitespace() => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            (TokenKind::Blank, start + length)
        }
        byte if is_word(byte) => {
            let length = rest.iter().take_while(|byte| is_word(**byte)).count();
            (TokenKind::Identifier, start + length)
        }
        byte => {
            let pair = matches!((byte, next), (b':', b':') | (b'-', b'>') | (b'<', b'<') | (b'>', b'>'));
            (TokenKind::Punctuation, start + 1 + usize::from(pair))
        }
    }
}

/// All tokens of `source`; their texts, joined, are `source`.
pub fn lex(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let (mut start, mut line, mut line_start) = (0, 1, 0);
    while start < bytes.len() {
        let (kind, end) = token_end(bytes, start);
        let text = &source[start..end];
        tokens.push(Token { kind, text, line, column: (start - line_start) as u32 + 1 });
        if let Some(last) = text.rfind('\n') {
            line += text.matches('\n').count() as u32;
            line_start = start + last + 1;
        }
        start = end;
    }
    tokens
}

/// For each token, whether it belongs to a preprocessor directive.
pub fn directives(tokens: &[Token<'_>]) -> Vec<bool> {
    let mut inside = vec![false; tokens.len()];
    let mut at = 0;
    let mut previous_line = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        if !token.is_significant() {
            at += 1;
            continue;
        }
        if token.text != "#" || token.line == previous_line {
            previous_line = token.line;
            at += 1;
            continue;
        }
        let mut last_line = token.line;
        while at < tokens.len() && (!tokens[at].is_significant() || tokens[at].line <= last_line) {
            if tokens[at].is_significant() {
                inside[at] = true;
                let ends_line = tokens.get(at + 1).is_none_or(|next| next.text.starts_with(['\n', '\r']));
                if tokens[at].text == "\\" && ends_line {
                    last_line += 1;
                }
            }
            at += 1;
        }
        previous_line = last_line;
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_join_to_the_source_and_know_their_lines() {
        let source = "#define A \\\n  1\nfloat x = 1.0e-3h; // end\n/* a\nb */ p->q >> 2u \"s\\\"t\"";
        let tokens = lex(source);
        assert_eq!(tokens.iter().map(|token| token.text).collect::<String>(), source);
        let line_of = |text| tokens.iter().find(|token| token.text == text).map(|token| (token.line, token.column));
        assert_eq!(line_of("1.0e-3h"), Some((3, 11)));
        assert_eq!(line_of("->"), Some((5, 7)));
        assert_eq!(line_of("\"s\\\"t\""), Some((5, 17)));
        let inside = directives(&tokens);
        let text: Vec<_> =
            tokens.iter().zip(inside).filter(|(_, inside)| *inside).map(|(token, _)| token.text).collect();
        assert_eq!(text, ["#", "define", "A", "\\", "1"]);
    }
}
