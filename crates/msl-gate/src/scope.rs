//! What depends on where a declaration stands: program scope, structures, the bodies of helpers and of kernels.

use std::collections::BTreeSet;

use crate::text::{Fault, Text};

/// Words that begin a declaration at program scope which is no variable.
const NO_VARIABLE: [&str; 10] =
    ["using", "typedef", "struct", "class", "enum", "union", "static_assert", "namespace", "extern", "template"];

/// What the braces that open at some token hold.
enum Block {
    /// A namespace: more of program scope.
    Namespace,
    /// A structure's members.
    Structure,
    /// A function's body; whether it is a kernel.
    Function { kernel: bool },
    /// An initialiser.
    Initialiser,
}

fn block(text: &Text<'_>, begin: usize, open: usize) -> Block {
    let has = |word: &str| (begin..open).any(|at| text.at(at) == word);
    let call = (begin..open).find(|at| text.at(*at) == "(" && text.before(*at) != "host_name");
    let assigned = (begin..open).find(|at| text.at(*at) == "=");
    if has("namespace") {
        Block::Namespace
    } else if assigned.is_some_and(|assigned| call.is_none_or(|call| assigned < call)) && !has("operator") {
        Block::Initialiser
    } else if call.is_some() && !matches!(text.before(open), "=" | ",") {
        Block::Function { kernel: has("kernel") }
    } else if has("struct") || has("class") || has("enum") || has("union") {
        Block::Structure
    } else {
        Block::Initialiser
    }
}

struct Walk<'a, 'b> {
    text: &'b Text<'a>,
    kernels: BTreeSet<&'a str>,
    found: Vec<Fault>,
}

impl Walk<'_, '_> {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.found.push((self.text.line(at), message.into()));
    }

    /// Declarations between `at` and `end`, of program scope or of a structure.
    fn declarations(&mut self, mut at: usize, end: usize, structure: bool) {
        let mut begin = at;
        while at < end {
            match self.text.at(at) {
                "{" => {
                    let close = self.text.matching(at, "{", "}").min(end);
                    match block(self.text, begin, at) {
                        Block::Namespace => self.declarations(at + 1, close, structure),
                        Block::Structure => {
                            self.structure(begin, at);
                            self.declarations(at + 1, close, true);
                        }
                        Block::Function { kernel } => self.body(at, close, kernel),
                        Block::Initialiser => {
                            at = close + 1;
                            continue;
                        }
                    }
                    at = close + 1;
                    begin = at;
                }
                ";" => {
                    if !structure {
                        self.variable(begin, at);
                    }
                    at += 1;
                    begin = at;
                }
                "(" => at = self.text.matching(at, "(", ")").min(end).max(at + 1),
                "public" | "private" | "protected" if structure && self.text.at(at + 1) == ":" => {
                    at += 2;
                    begin = at;
                }
                _ => at += 1,
            }
        }
    }

    /// `struct B : A`.
    fn structure(&mut self, begin: usize, open: usize) {
        let is_enum = (begin..open).any(|at| self.text.at(at) == "enum");
        if let Some(colon) = (begin..open).find(|at| self.text.at(*at) == ":").filter(|_| !is_enum) {
            self.fault(colon, "derived classes do not exist in MSL");
        }
    }

    /// A declaration at program scope, from `begin` to its `;`.
    fn variable(&mut self, begin: usize, end: usize) {
        let mut first = begin;
        while self.text.at(first) == "[" && self.text.at(first + 1) == "[" {
            first = self.text.matching(first, "[", "]") + 1;
        }
        let words = first..end;
        let assigned = words.clone().find(|at| self.text.at(*at) == "=").unwrap_or(end);
        let function = (first..assigned).any(|at| self.text.at(at) == "(");
        let constant = (first..assigned).any(|at| self.text.at(at) == "constant");
        let declares = first < end && !NO_VARIABLE.contains(&self.text.at(first)) && !function;
        if declares && !constant {
            self.fault(first, "a variable at program scope must be in the constant address space");
        }
    }

    /// A function's body between the braces at `open` and `close`.
    fn body(&mut self, open: usize, close: usize, kernel: bool) {
        for at in open + 1..close {
            let word = self.text.at(at);
            if word == "threadgroup" && !kernel {
                let mark = (at + 1..close)
                    .map(|at| self.text.at(at))
                    .find(|word| matches!(*word, "*" | "&" | ";" | "[" | "=" | ")" | "," | ">"));
                if matches!(mark, Some(";" | "[" | "=" | ",")) {
                    self.fault(at, "a threadgroup variable can be declared in a kernel only");
                }
            } else if self.kernels.contains(word)
                && self.text.at(at + 1) == "("
                && !matches!(self.text.before(at), "." | "->")
            {
                self.fault(at, format!("kernel {word} is called; only the host starts kernels"));
            }
        }
    }
}

/// Faults of declarations.
pub(crate) fn check(text: &Text<'_>) -> Vec<Fault> {
    let code = text.code();
    let mut kernels = BTreeSet::new();
    for at in 0..code.len() {
        if code.at(at) == "kernel" {
            let name = (at..code.len()).find(|name| code.at(name + 1) == "(" && code.is_identifier(*name));
            kernels.extend(name.map(|name| code.at(name)));
        }
    }
    let mut walk = Walk { text: &code, kernels, found: Vec::new() };
    walk.declarations(0, code.len(), false);
    walk.found
}
