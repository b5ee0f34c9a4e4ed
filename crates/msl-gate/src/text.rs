//! The significant tokens of a file, as the checks walk over them.

use metal_sim::msl::{Token, TokenKind, directives, lex};

/// A fault: its line and what is wrong.
pub(crate) type Fault = (u32, String);

/// A file's significant tokens.
pub(crate) struct Text<'a> {
    tokens: Vec<Token<'a>>,
    in_directive: Vec<bool>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        let all = lex(source);
        let inside = directives(&all);
        let (tokens, in_directive) = all.into_iter().zip(inside).filter(|(token, _)| token.is_significant()).unzip();
        Self { tokens, in_directive }
    }

    /// Without preprocessor directives.
    pub(crate) fn code(&self) -> Self {
        let kept = self.tokens.iter().zip(&self.in_directive).filter(|(_, inside)| !**inside);
        let tokens: Vec<_> = kept.map(|(token, _)| token.clone()).collect();
        let in_directive = vec![false; tokens.len()];
        Self { tokens, in_directive }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The text of token `at`; empty outside of the file.
    pub(crate) fn at(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    /// The text of the token before `at`; empty at the start.
    pub(crate) fn before(&self, at: usize) -> &'a str {
        at.checked_sub(1).map_or("", |at| self.at(at))
    }

    pub(crate) fn line(&self, at: usize) -> u32 {
        self.tokens.get(at).map_or(0, |token| token.line)
    }

    pub(crate) fn is_identifier(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Identifier)
    }

    pub(crate) fn is_number(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Number)
    }

    pub(crate) fn in_directive(&self, at: usize) -> bool {
        self.in_directive.get(at).copied().unwrap_or(false)
    }

    /// The closing bracket of the opening one at `at`, or the end of the file.
    pub(crate) fn matching(&self, at: usize, open: &str, close: &str) -> usize {
        let mut depth = 0;
        for end in at..self.len() {
            if self.at(end) == open {
                depth += 1;
            } else if self.at(end) == close {
                depth -= 1;
                if depth == 0 {
                    return end;
                }
            }
        }
        self.len()
    }

    /// The `<` that the `>` at `at` closes.
    pub(crate) fn opening_angle(&self, at: usize) -> Option<usize> {
        let mut depth = 0;
        for begin in (0..=at).rev() {
            match self.at(begin) {
                ">" => depth += 1,
                ">>" => depth += 2,
                "<" => depth -= 1,
                ";" | "{" | "}" => return None,
                _ => {}
            }
            if depth == 0 {
                return Some(begin);
            }
        }
        None
    }
}
