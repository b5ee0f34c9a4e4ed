//! Expressions: what the engine does not do as Python does becomes a call, with Jinja2's precedence.

use super::lexer::{Kind, Token};
use super::literals::literal;

/// Function that stands for the operator `%`.
pub(super) const REMAINDER: &str = "__remainder";

/// Function that stands for the operator `*`.
pub(super) const PRODUCT: &str = "__product";

/// Function that stands for the operator `+` beside a safe string.
pub(super) const SUM: &str = "__sum";

/// Function that stands for a slice.
pub(super) const SLICE: &str = "__slice";

/// A part of an expression: an operand with its calls, subscripts and filters, or an operator or keyword.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) operand: bool,
    pub(super) space: String,
    pub(super) text: String,
}

impl Node {
    pub(super) fn operand(space: &str, text: String) -> Self {
        Self { operand: true, space: space.to_owned(), text }
    }

    pub(super) fn is(&self, text: &str) -> bool {
        !self.operand && self.text == text
    }
}

/// Most operators of one product that become calls; the engine nests calls no deeper.
const LONGEST_PRODUCT: usize = 100;

/// Deepest brackets; the engine takes no more.
const DEEPEST: usize = 150;

/// Longest operand of which a slice becomes a call, in bytes.
const LONGEST_SLICED: usize = 4096;

/// Words between operands.
const KEYWORDS: [&str; 9] = ["and", "or", "not", "if", "else", "in", "is", "recursive", "elif"];

/// The parts of a whole expression; nothing if its brackets do not match.
pub(super) fn nodes(tokens: &[Token]) -> Option<Vec<Node>> {
    let mut at = 0;
    let nodes = group(tokens, &mut at, 0)?;
    (at == tokens.len()).then_some(nodes)
}

/// The parts up to a closing bracket.
fn group(tokens: &[Token], at: &mut usize, depth: usize) -> Option<Vec<Node>> {
    if depth > DEEPEST {
        return None;
    }
    let mut list: Vec<Node> = Vec::new();
    while let Some(token) = tokens.get(*at) {
        if matches!(token.text, ")" | "]" | "}") {
            break;
        }
        *at += 1;
        let tests = list.last().is_some_and(|last| last.is("is"))
            || list.last().is_some_and(|last| last.is("not")) && list.len() > 1 && list[list.len() - 2].is("is");
        match (token.kind, token.text) {
            (Kind::Operator, "(" | "[" | "{") => {
                let inner = group(tokens, at, depth + 1)?;
                let closing = tokens.get(*at)?;
                *at += 1;
                let after = list.last_mut().filter(|last| last.operand);
                match (token.text, after) {
                    ("[", Some(operand)) => subscript(operand, token, &inner, closing),
                    ("(", Some(operand)) => {
                        operand.text += &format!("{}({}{})", token.space, join(&inner), closing.space);
                    }
                    (open, _) => {
                        let text = format!("{open}{}{}{}", join(&inner), closing.space, closing.text);
                        list.push(Node::operand(token.space, text));
                    }
                }
            }
            // Members and filters belong to their operand, as do the names behind them.
            (Kind::Operator, "." | "|") if list.last().is_some_and(|last| last.operand) => {
                let name = tokens.get(*at)?;
                *at += 1;
                let last = list.last_mut()?;
                last.text += &format!("{}{}{}{}", token.space, token.text, name.space, name.text);
            }
            (Kind::Word, word) if tests && word != "not" => {
                // A test's name; what follows is its argument.
                list.push(Node { operand: false, space: token.space.to_owned(), text: word.to_owned() });
            }
            (Kind::Word, word) if KEYWORDS.contains(&word) => {
                list.push(Node { operand: false, space: token.space.to_owned(), text: word.to_owned() });
            }
            (Kind::Operator, operator) => {
                list.push(Node { operand: false, space: token.space.to_owned(), text: operator.to_owned() });
            }
            (Kind::Text, text) if text.contains('\\') => {
                list.push(Node::operand(token.space, literal(&text[1..text.len() - 1], false)));
            }
            (_, text) => list.push(Node::operand(token.space, text.to_owned())),
        }
    }
    Some(list)
}

/// `operand[inner]`; a slice becomes a call.
fn subscript(operand: &mut Node, open: &Token, inner: &[Node], closing: &Token) {
    let parts: Vec<&[Node]> = inner.split(|node| node.is(":")).collect();
    let part = |nodes: &[Node]| if nodes.is_empty() { " none".to_owned() } else { join(nodes) };
    if let (2 | 3, true) = (parts.len(), operand.text.len() <= LONGEST_SLICED) {
        let bounds: Vec<String> = parts.into_iter().map(part).collect();
        operand.text = format!("{SLICE}({},{})", operand.text, bounds.join(","));
        return;
    }
    let inside = join(inner);
    let tuple = inner.iter().any(|node| node.is(","));
    let inside = if tuple { format!("({inside})") } else { inside };
    operand.text += &format!("{}[{inside}{}]", open.space, closing.space);
}

/// Whether a part ends a product: everything that binds less than `*`, `/`, `//` and `%`.
fn ends_product(nodes: &[Node], at: usize) -> bool {
    let node = &nodes[at];
    if node.operand {
        return false;
    }
    let after = |word: &str| at > 0 && nodes[at - 1].is(word);
    match node.text.as_str() {
        "+" | "-" => !is_sign(nodes, at),
        "not" | "in" => !(after("is") || after("not") && at > 1 && nodes[at - 2].is("is")),
        "~" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "=" | "," | ":" => !after("is"),
        "and" | "or" | "if" | "else" | "recursive" | "elif" => true,
        _ => false,
    }
}

/// Whether `+`, `-`, `*` or `**` stands before its operand rather than between two.
fn is_sign(nodes: &[Node], at: usize) -> bool {
    match at.checked_sub(1).map(|before| &nodes[before]) {
        None => true,
        Some(before) if before.operand => false,
        Some(before) => {
            let name = before.text.starts_with(|c: char| c.is_alphabetic());
            // The name of a test without arguments ends an operand: `n is odd - 1`.
            !name || KEYWORDS.contains(&before.text.as_str())
        }
    }
}

/// The text of an expression.
pub(super) fn join(nodes: &[Node]) -> String {
    let adds = |at: usize| matches!(nodes[at].text.as_str(), "+" | "-" | "~");
    runs(nodes, |at| ends_product(nodes, at) && !adds(at), sum)
}

/// `nodes` with each run between those that end one rewritten.
fn runs(nodes: &[Node], ends: impl Fn(usize) -> bool, rewrite: fn(&[Node]) -> String) -> String {
    let mut out = String::new();
    let mut start = 0;
    for at in 0..=nodes.len() {
        if at == nodes.len() || ends(at) {
            out.push_str(&rewrite(&nodes[start..at]));
            if let Some(node) = nodes.get(at) {
                out.push_str(&node.space);
                out.push_str(&node.text);
            }
            start = at + 1;
        }
    }
    out
}

/// A run of products between `+`, `-` and `~`. Where one of them is marked as safe, `+` becomes a call that escapes the others.
fn sum(nodes: &[Node]) -> String {
    let terms = |nodes: &[Node]| runs(nodes, |at| ends_product(nodes, at), product);
    let adds = |at: usize| (nodes[at].is("+") || nodes[at].is("-")) && !is_sign(nodes, at);
    let operators: Vec<usize> = (0..nodes.len()).filter(|&at| adds(at)).collect();
    let safe = nodes.iter().any(|node| node.operand && marks_safe(&node.text));
    if !safe || operators.len() > LONGEST_PRODUCT {
        return terms(nodes);
    }
    let (mut opening, mut rest) = (String::new(), terms(&nodes[..operators.first().copied().unwrap_or(nodes.len())]));
    let ends = operators.iter().skip(1).copied().chain([nodes.len()]);
    for (&at, end) in operators.iter().zip(ends) {
        let right = terms(&nodes[at + 1..end]);
        if nodes[at].is("+") {
            opening.insert_str(0, &format!("{SUM}("));
            rest += &format!(",{right})");
        } else {
            rest += &format!("{}-{right}", nodes[at].space);
        }
    }
    if opening.is_empty() { rest } else { format!(" {opening}{rest}") }
}

/// Whether an operand has a filter that gives a safe string.
fn marks_safe(operand: &str) -> bool {
    let name = |filter: &str| words(filter.trim_start()).next().unwrap_or_default().to_owned();
    operand.split('|').skip(1).any(|filter| matches!(name(filter).as_str(), "safe" | "escape" | "e" | "forceescape"))
}

/// A run of operands between `*`, `/`, `//` and `%`.
fn product(nodes: &[Node]) -> String {
    let divides = |at: usize| matches!(nodes[at].text.as_str(), "*" | "/" | "//" | "%") && !nodes[at].operand;
    let operators: Vec<usize> = (0..nodes.len()).filter(|&at| divides(at) && !is_sign(nodes, at)).collect();
    if operators.is_empty() || operators.len() > LONGEST_PRODUCT {
        return concatenated(nodes);
    }
    // From left to right: all calls open before the first operand.
    let (mut opening, mut rest) = (String::new(), concatenated(&nodes[..operators[0]]));
    let ends = operators.iter().skip(1).copied().chain([nodes.len()]);
    for (&at, end) in operators.iter().zip(ends) {
        let right = concatenated(&nodes[at + 1..end]);
        // A number that is written out cannot be a text's negative factor.
        let call = match nodes[at].text.as_str() {
            "%" => REMAINDER,
            "*" if !right.trim_start().starts_with(|c: char| c.is_ascii_digit()) => PRODUCT,
            operator => {
                rest += &format!("{}{operator}{right}", nodes[at].space);
                continue;
            }
        };
        opening.insert_str(0, &format!("{call}("));
        rest += &format!(",{right})");
    }
    if opening.is_empty() { rest } else { format!(" {opening}{rest}") }
}

fn concatenated(nodes: &[Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        // Jinja2 has a plus sign; it does nothing.
        if !node.is("+") {
            out.push_str(&node.space);
            out.push_str(&node.text);
        }
    }
    out
}

/// The words of a text: what stands between characters that no name has.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}
