//! Markers of a chat that a GGUF types as normal text.
//!
//! Converters type a token by what the tokenizer's configuration names (gguf-py, `LlamaHfVocab`): a marker that is only listed
//! among added tokens comes out as normal. Then it would be spelled in pieces, as the model never saw it. llama.cpp types the ends of turns
//! that it knows by name again; what begins a turn has no such list, but the checkpoint's own chat template writes it, and
//! no merge leads to it.

use std::collections::HashSet;

use super::end_tokens;
use super::vocabulary::{Token, TokenType};

/// Normal tokens that are markers, by id, and what they are: control tokens where the name says so, else tokens that are found whole in a
/// text and written as they were before, user-defined ones. `merges` are those that the file lists; without a list names alone count.
pub(super) fn mistyped<'a>(
    tokens: &[Token],
    merges: Option<&[(&str, &str)]>,
    templates: impl Iterator<Item = &'a str>,
) -> Vec<(usize, TokenType)> {
    let written: HashSet<&str> =
        if merges.is_some() { templates.flat_map(bracketed).collect() } else { HashSet::new() };
    let normal = || tokens.iter().enumerate().filter(|(_, token)| token.kind == TokenType::Normal);
    let any = normal().any(|(_, token)| written.contains(token.text.as_str()));
    let merges = merges.filter(|_| any).unwrap_or_default();
    let made: HashSet<String> = merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
    let kind = |token: &Token| {
        let text = token.text.as_str();
        if end_tokens::ends_turns(text) {
            Some(TokenType::Control)
        } else if written.contains(text) && !made.contains(text) {
            Some(TokenType::UserDefined)
        } else {
            None
        }
    };
    normal().filter_map(|(id, token)| Some((id, kind(token)?))).collect()
}

/// What stands in a text between `<` and the next `>`, or `[` and `]`, with them; of several that begin before an end the last.
fn bracketed(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut begun = [None; 2];
    for (at, c) in text.char_indices() {
        match c {
            '<' => begun[0] = Some(at),
            '[' => begun[1] = Some(at),
            '>' | ']' => {
                if let Some(start) = begun[usize::from(c == ']')].take() {
                    found.push(&text[start..=at]);
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{TokenType, bracketed, mistyped};
    use crate::assets::vocabulary::Token;

    fn tokens(texts: &[(&str, TokenType)]) -> Vec<Token> {
        texts.iter().map(|(text, kind)| Token { text: (*text).to_owned(), kind: *kind, score: 0.0 }).collect()
    }

    #[test]
    fn what_stands_in_brackets() {
        assert_eq!(bracketed("{{ '<a>' if m[0] < 3 else '<<b>' }}[/c]"), ["<a>", "[0]", "<b>", "[/c]"]);
        assert_eq!(bracketed("a > b ] <"), [""; 0]);
    }

    #[test]
    fn what_merges_make_is_text() {
        use TokenType::{Control, Normal, UserDefined};
        let all =
            tokens(&[("<a>", Normal), ("<b>", Normal), ("<c>", Normal), ("<d>", Control), ("<end_of_turn>", Normal)]);
        let merges = [("<", "a"), ("<a", ">")];
        let template = "<a> <b> <d> <end_of_turn>";
        assert_eq!(mistyped(&all, Some(&merges), [template].into_iter()), [(1, UserDefined), (4, Control)]);
        assert_eq!(mistyped(&all, None, [template].into_iter()), [(4, Control)], "no list of merges");
        assert_eq!(mistyped(&all, Some(&merges), [].into_iter()), [(4, Control)], "no template");
    }
}
