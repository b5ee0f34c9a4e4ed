//! The inside of a tag as tokens, by Jinja2's rules.

/// Most tokens of a tag: the engine's time for a chain of operators grows with its square. Real tags have some hundred.
pub(super) const LONGEST: usize = 5000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Word,
    Number,
    Text,
    Operator,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// Blanks before it.
    pub(super) space: &'a str,
    pub(super) text: &'a str,
}

pub(super) struct Tokens<'a> {
    pub(super) list: Vec<Token<'a>>,
    /// Blanks before the end of the tag, and its whitespace mark.
    pub(super) trailing: &'a str,
    pub(super) right: &'static str,
    /// Bytes of the tag.
    pub(super) length: usize,
}

pub(super) struct Lexer<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    /// What ends the tag outside brackets.
    pub(super) end: &'static str,
}

impl<'a> Lexer<'a> {
    pub(super) fn tokens(mut self) -> Option<Tokens<'a>> {
        let mut list = Vec::new();
        let mut open = Vec::new();
        loop {
            let start = self.at;
            self.skip(char::is_whitespace);
            let space = &self.text[start..self.at];
            let rest = &self.text[self.at..];
            let right = mark(rest.chars().next());
            if open.is_empty() && rest[right.len()..].starts_with(self.end) {
                let length = self.at + right.len() + self.end.len();
                return Some(Tokens { list, trailing: space, right, length });
            }
            if list.len() == LONGEST {
                return None;
            }
            let start = self.at;
            let kind = self.token()?;
            let text = &self.text[start..self.at];
            match text {
                "(" | "[" | "{" => open.push(text),
                ")" | "]" | "}" if open.pop() != Some(opening(text)) => return None,
                _ => {}
            }
            list.push(Token { kind, space, text });
        }
    }

    fn token(&mut self) -> Option<Kind> {
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        if first == '"' || first == '\'' {
            let mut escaped = false;
            let closes = |(at, c): (usize, char)| {
                let closes = at > 0 && c == first && !escaped;
                escaped = c == '\\' && !escaped;
                closes.then_some(at + 1)
            };
            self.at += rest.char_indices().find_map(closes)?;
            return Some(Kind::Text);
        }
        if first.is_ascii_digit() {
            self.number();
            return Some(Kind::Number);
        }
        if first.is_alphabetic() || first == '_' {
            self.skip(|c| c.is_alphanumeric() || c == '_');
            return Some(Kind::Word);
        }
        const TWO: [&str; 6] = ["**", "//", "==", "!=", "<=", ">="];
        let length = match TWO.iter().find(|two| rest.starts_with(**two)) {
            Some(two) => two.len(),
            None if "+-*/%~<>=.,:|()[]{}".contains(first) => 1,
            None => return None,
        };
        self.at += length;
        Some(Kind::Operator)
    }

    fn number(&mut self) {
        let rest = &self.text[self.at..];
        if rest.len() > 1 && rest.starts_with('0') && rest[1..].starts_with(['x', 'X', 'o', 'O', 'b', 'B']) {
            self.at += 2;
            self.skip(|c| c.is_ascii_hexdigit() || c == '_');
            return;
        }
        let digits = |c: char| c.is_ascii_digit() || c == '_';
        self.skip(digits);
        let followed = |text: &str, by: usize| text[by..].starts_with(|c: char| c.is_ascii_digit());
        let rest = &self.text[self.at..];
        if rest.starts_with('.') && followed(rest, 1) {
            self.at += 1;
            self.skip(digits);
        }
        let rest = &self.text[self.at..];
        if rest.starts_with(['e', 'E']) {
            let sign = usize::from(rest[1..].starts_with(['+', '-']));
            if followed(rest, 1 + sign) {
                self.at += 1 + sign;
                self.skip(digits);
            }
        }
    }

    fn skip(&mut self, matches: impl Fn(char) -> bool) {
        let rest = &self.text[self.at..];
        self.at += rest.find(|c| !matches(c)).unwrap_or(rest.len());
    }
}

fn opening(closing: &str) -> &'static str {
    match closing {
        ")" => "(",
        "]" => "[",
        _ => "{",
    }
}

/// The whitespace mark of a tag.
pub(super) fn mark(first: Option<char>) -> &'static str {
    match first {
        Some('-') => "-",
        Some('+') => "+",
        _ => "",
    }
}
