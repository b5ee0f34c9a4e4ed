//! Brings a template's source from Jinja2's syntax, with transformers' extensions, to what minijinja parses in the same way.
//!
//! Line ends become LF (Jinja2's `newline_sequence`). `%` and `*` become calls, because they work on strings too; so does a
//! slice, which the engine leaves an iterator. String literals are decoded by Python's rules. `{% generation %}`, `{% print %}`
//! and `{% raw %}` become statements that there are. Line breaks inside tags stay, so that errors name the right line. What
//! does not lex is left to minijinja to complain about.

/// Function that stands for the operator `%`.
pub(super) const REMAINDER: &str = "__remainder";

/// Function that stands for the operator `*`.
pub(super) const PRODUCT: &str = "__product";

/// A variable that there is not.
const UNSET: &str = "__unset";

/// Function that stands for a slice.
pub(super) const SLICE: &str = "__slice";

/// The source as minijinja reads it.
pub(super) fn translate(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut translator = Translator { out: String::with_capacity(source.len() + 64), macros: 0 };
    let mut rest = source.as_str();
    while let Some(start) = next_tag(rest) {
        let (before, tag) = rest.split_at(start);
        translator.out.push_str(before);
        match translator.tag(tag) {
            Some(length) => rest = &tag[length..],
            None => {
                rest = tag;
                break;
            }
        }
    }
    translator.out.push_str(rest);
    translator.out
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

/// The whitespace mark of a tag.
fn mark(first: Option<char>) -> &'static str {
    match first {
        Some('-') => "-",
        Some('+') => "+",
        _ => "",
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

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Word,
    Number,
    Text,
    Operator,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    /// Blanks before it.
    space: &'a str,
    text: &'a str,
}

struct Tokens<'a> {
    list: Vec<Token<'a>>,
    /// Blanks before the end of the tag, and its whitespace mark.
    trailing: &'a str,
    right: &'static str,
    /// Bytes of the tag.
    length: usize,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// What ends the tag outside brackets.
    end: &'static str,
}

impl<'a> Lexer<'a> {
    fn tokens(mut self) -> Option<Tokens<'a>> {
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

/// A part of an expression: an operand with its calls, subscripts and filters, or an operator or keyword.
#[derive(Debug, Clone)]
struct Node {
    operand: bool,
    space: String,
    text: String,
}

impl Node {
    fn operand(space: &str, text: String) -> Self {
        Self { operand: true, space: space.to_owned(), text }
    }

    fn is(&self, text: &str) -> bool {
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
fn nodes(tokens: &[Token]) -> Option<Vec<Node>> {
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
fn join(nodes: &[Node]) -> String {
    let mut out = String::new();
    let mut start = 0;
    for at in 0..=nodes.len() {
        if at == nodes.len() || ends_product(nodes, at) {
            out.push_str(&product(&nodes[start..at]));
            if let Some(node) = nodes.get(at) {
                out.push_str(&node.space);
                out.push_str(&node.text);
            }
            start = at + 1;
        }
    }
    out
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

/// A string literal of minijinja's, from a Python literal's inside or from plain text.
fn literal(text: &str, plain: bool) -> String {
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
