//! Brings a template's source from Jinja2's syntax, with transformers' extensions, to what minijinja parses in the same way.
//!
//! Line ends become LF (Jinja2's `newline_sequence`). `%` and `*` become calls, because they work on strings too; so does a
//! slice, which the engine leaves an iterator. String literals are decoded by Python's rules. `{% generation %}`, `{% print %}`
//! and `{% raw %}` become statements that there are. Line breaks inside tags stay, so that errors name the right line. What
//! does not lex is left to minijinja to complain about.

use super::expression::{Node, join, nodes, words};
use super::lexer::{Kind, LONGEST, Lexer, Token, Tokens, mark};
use super::literals::literal;

/// A variable that there is not.
const UNSET: &str = "__unset";

/// The source as minijinja reads it; nothing where a tag is longer than it can be read in good time.
pub(super) fn translate(source: &str) -> Option<String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut translator = Translator { out: String::with_capacity(source.len() + 64), macros: 0 };
    let mut rest = source.as_str();
    while let Some(start) = next_tag(rest) {
        let (before, tag) = rest.split_at(start);
        translator.out.push_str(before);
        match translator.tag(tag) {
            Some(length) => rest = &tag[length..],
            // Nothing that parses is longer than its tokens and the blanks between them.
            None if tag.split_ascii_whitespace().map(str::len).sum::<usize>() > LONGEST => return None,
            None => {
                rest = tag;
                break;
            }
        }
    }
    translator.out.push_str(rest);
    Some(translator.out)
}

fn next_tag(text: &str) -> Option<usize> {
    let begins = |at: &usize| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    text.match_indices('{').map(|(at, _)| at).find(begins)
}

struct Translator {
    out: String,
    /// Macros and call blocks that are open.
    macros: usize,
}

impl Translator {
    /// Writes the tag that `text` begins with; its length, or nothing if it does not lex.
    fn tag(&mut self, text: &str) -> Option<usize> {
        let (end, block) = match text.as_bytes().get(1)? {
            b'#' => {
                let length = 2 + text[2..].find("#}")? + 2;
                self.out.push_str(&text[..length]);
                return Some(length);
            }
            b'%' => ("%}", true),
            _ => ("}}", false),
        };
        let left = mark(text[2..].chars().next());
        let start = 2 + left.len();
        let tokens = Lexer { text, at: start, end }.tokens()?;
        let right = tokens.right;
        if block && let Some(Token { kind: Kind::Word, text: word, .. }) = tokens.list.first() {
            if *word == "raw" && tokens.list.len() == 1 {
                return self.raw(text, left, right, tokens.length);
            }
            self.statement(word, &tokens, left, right)?;
            return Some(tokens.length);
        }
        let nodes = nodes(&tokens.list)?;
        let (open, close) = if block { ("{%", "%}") } else { ("{{", "}}") };
        let comma = nodes.iter().any(|node| node.is(","));
        let (before, after) = if comma { ("(", ")") } else { ("", "") };
        let expression = join(&nodes);
        self.out.push_str(&format!("{open}{left}{before}{expression}{after}{}{right}{close}", tokens.trailing));
        Some(tokens.length)
    }

    fn statement(&mut self, word: &str, tokens: &Tokens, left: &str, right: &str) -> Option<()> {
        let trailing = tokens.trailing;
        let space = tokens.list[0].space;
        let rest = nodes(&tokens.list[1..])?;
        let simple = |word: &str| format!("{{%{left}{space}{word}{trailing}{right}%}}");
        let text = match word {
            // Its own scope, as the block call that transformers makes of it.
            "generation" if rest.is_empty() => simple("with"),
            "endgeneration" if rest.is_empty() => simple("endwith"),
            "print" => {
                let values = rest.split(|node| node.is(",")).map(|value| format!("{{{{ ({}) }}}}", join(value)));
                let values: String = values.collect();
                format!("{{%{left}{space}if true %}}{values}{{% endif{trailing}{right}%}}")
            }
            _ => {
                match word {
                    "macro" | "call" => self.macros += 1,
                    "endmacro" | "endcall" => self.macros = self.macros.saturating_sub(1),
                    _ => {}
                }
                if word == "macro"
                    && let Some((head, body)) = defaults(&tokens.list[1..])
                {
                    self.out.push_str(&format!(
                        "{{%{left}{space}{word}{head}%}}{body}{{% if true %}}{{% endif{trailing}{right}%}}"
                    ));
                    return Some(());
                }
                let rest = match word {
                    "for" => loop_over(rest),
                    "set" if self.macros > 0 => captured(rest),
                    _ => rest,
                };
                format!("{{%{left}{space}{word}{}{trailing}{right}%}}", join(&rest))
            }
        };
        self.out.push_str(&text);
        Some(())
    }

    /// A raw block as a string: Jinja2 keeps a line end behind its first tag, minijinja does not.
    fn raw(&mut self, text: &str, left: &str, right: &str, start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            at += text[at..].find("{%")?;
            let inside = &text[at + 2..];
            let mark_left = mark(inside.chars().next());
            let Some(word) = inside[mark_left.len()..].trim_start().strip_prefix("endraw") else {
                at += 2;
                continue;
            };
            let mark_right = mark(word.trim_start().chars().next());
            let Some(after) = word.trim_start()[mark_right.len()..].strip_prefix("%}") else {
                at += 2;
                continue;
            };
            let mut body = &text[start..at];
            if right == "-" {
                body = body.trim_start();
            }
            body = match mark_left {
                "-" => body.trim_end(),
                "+" => body,
                _ => {
                    let line = body.rfind('\n').map_or(body.len(), |at| at + 1);
                    if body[line..].trim().is_empty() { &body[..line] } else { body }
                }
            };
            let body = literal(body, true);
            self.out.push_str(&format!("{{%{left} if true %}}{{{{ {body} }}}}{{% endif {mark_right}%}}"));
            return Some(text.len() - after.len());
        }
    }
}

/// `a, b` behind `in` becomes a tuple.
fn loop_over(nodes: Vec<Node>) -> Vec<Node> {
    let Some(first) = nodes.iter().position(|node| node.is("in")).map(|at| at + 1) else { return nodes };
    let ends = |node: &Node| node.is("if") || node.is("recursive");
    let last = nodes[first..].iter().position(ends).map_or(nodes.len(), |at| first + at);
    if !nodes[first..last].iter().any(|node| node.is(",")) {
        return nodes;
    }
    let tuple = Node::operand(" ", format!("({})", join(&nodes[first..last])));
    nodes[..first].iter().cloned().chain([tuple]).chain(nodes[last..].iter().cloned()).collect()
}

/// `ns.x = value` in a macro names `ns` in its value too: minijinja lends a macro the variables that it reads, no others.
fn captured(nodes: Vec<Node>) -> Vec<Node> {
    let [target, equals, value @ ..] = nodes.as_slice() else { return nodes };
    match target.text.split_once('.') {
        Some((name, _)) if equals.is("=") && !value.is_empty() => {
            let value = Node::operand(" ", format!("({name}, ({}))[1]", join(value)));
            vec![target.clone(), equals.clone(), value]
        }
        _ => nodes,
    }
}

/// A macro whose defaults name earlier parameters, as the tag's inside with those defaults left out, and the statements that
/// set them; nothing for any other macro.
fn defaults(tokens: &[Token]) -> Option<(String, String)> {
    let [name, open, inner @ .., _] = tokens else { return None };
    let (mut head, mut body) = (format!("{}{}{}(", name.space, name.text, open.space), String::new());
    let mut names: Vec<&str> = Vec::new();
    for parameter in nodes(inner)?.split(|node| node.is(",")) {
        let [Node { text, .. }, rest @ ..] = parameter else { continue };
        let value = rest.get(1..).map(join).filter(|value| words(value).any(|word| names.contains(&word)));
        match value {
            Some(value) => {
                head.push_str(&format!("{text}={UNSET}, "));
                body.push_str(&format!("{{% if {text} is undefined %}}{{% set {text} ={value} %}}{{% endif %}}"));
            }
            None => head.push_str(&format!("{}, ", join(parameter))),
        }
        names.push(inner.iter().find(|token| token.text == text).map_or("", |token| token.text));
    }
    (!body.is_empty()).then(|| (head + ")", body))
}
