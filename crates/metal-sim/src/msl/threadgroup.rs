//! Bodies: attributes go, `threadgroup T a[N], b;` becomes references into the threadgroup's memory.

use super::kernels::is_known_attribute;
use super::rewrite::{Source, blanked};
use super::{MslError, MslErrorKind};

const BUILTIN_WORDS: [&str; 9] = ["unsigned", "signed", "long", "short", "char", "int", "float", "half", "bool"];

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

impl Source<'_> {
    /// The token after the type that begins at `at`: a qualified, perhaps templated, name or builtin words.
    fn type_end(&self, at: usize) -> usize {
        let mut end = at;
        if BUILTIN_WORDS.contains(&self.at(end)) {
            while BUILTIN_WORDS.contains(&self.at(end)) {
                end += 1;
            }
            return end;
        }
        end += 1;
        while self.at(end) == "::" {
            end += 2;
        }
        if self.at(end) == "<" {
            let mut depth = 0;
            loop {
                match self.at(end) {
                    "<" => depth += 1,
                    ">" => depth -= 1,
                    ">>" => depth -= 2,
                    "" => return end,
                    _ => {}
                }
                end += 1;
                if depth <= 0 {
                    break;
                }
            }
        }
        while self.at(end) == "::" {
            end += 2;
        }
        end
    }

    /// The declarators between `begin` and `end`, each as its tokens' texts.
    fn declarators(&self, begin: usize, end: usize) -> Vec<Vec<&str>> {
        let mut all = vec![Vec::new()];
        let mut depth = 0;
        for at in begin..end {
            match self.at(at) {
                "(" | "[" | "{" | "<" => depth += 1,
                ")" | "]" | "}" | ">" => depth -= 1,
                "," if depth == 0 => {
                    all.push(Vec::new());
                    continue;
                }
                _ => {}
            }
            if let Some(last) = all.last_mut() {
                last.push(self.at(at));
            }
        }
        all
    }

    fn statement_end(&self, at: usize) -> Result<usize, MslError> {
        let mut depth = 0;
        for end in at..self.len() {
            match self.at(end) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                ";" if depth == 0 => return Ok(end),
                _ => {}
            }
        }
        Err(self
            .error(self.line(at), MslErrorKind::Unmatched { bracket: "threadgroup declaration without ;".to_owned() }))
    }

    /// Whether the `threadgroup` at `at` begins a declaration; elsewhere it must be part of a pointer or reference type.
    fn begins_statement(&self, at: usize) -> bool {
        matches!(self.at(at.wrapping_sub(1)), "{" | "}" | ";" | ":" | "const" | "volatile")
    }

    /// Drops attributes and rewrites threadgroup variables in `out`; returns how many variables there are.
    pub(super) fn rewrite_bodies(&self, out: &mut [String]) -> Result<usize, MslError> {
        let (mut at, mut depth, mut parentheses, mut variables) = (0, 0, 0, 0);
        while at < self.len() {
            if self.is_attribute(at) {
                let end = self.attribute_end(at)?;
                if !is_known_attribute(self.at(at + 2)) {
                    let attribute = self.at(at + 2).to_owned();
                    return Err(self.error(self.line(at), MslErrorKind::UnknownAttribute { attribute }));
                }
                for text in &mut out[self.places[at]..=self.places[end]] {
                    *text = blanked(text);
                }
                at = end + 1;
                continue;
            }
            match self.at(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                "(" => parentheses += 1,
                ")" => parentheses -= 1,
                "threadgroup" if depth > 0 && parentheses == 0 && self.begins_statement(at) => {
                    let mut begin = at + 1;
                    while matches!(self.at(begin), "const" | "volatile") {
                        begin += 1;
                    }
                    let mut names = self.type_end(begin);
                    let type_end = names;
                    while matches!(self.at(names), "const" | "volatile") {
                        names += 1;
                    }
                    if !matches!(self.at(names), "*" | "&") {
                        let end = self.statement_end(at)?;
                        let type_text: Vec<_> = (begin..type_end).map(|at| self.at(at)).collect();
                        let text = self.references(&type_text.join(" "), names, end, variables)?;
                        variables += self.declarators(names, end).len();
                        let lines = (self.places[at]..=self.places[end]).map(|place| {
                            let text = std::mem::take(&mut out[place]);
                            text.matches('\n').count()
                        });
                        let lines: usize = lines.sum();
                        out[self.places[at]] = text + &"\n".repeat(lines);
                        at = end + 1;
                        continue;
                    }
                }
                "threadgroup" if parentheses == 0 => {
                    let end = (at + 1..self.len())
                        .map(|at| self.at(at))
                        .find(|text| matches!(*text, "*" | "&" | ";" | "[" | "=" | "{" | ")" | ","));
                    if !matches!(end, Some("*" | "&")) {
                        return Err(self.error(self.line(at), MslErrorKind::ThreadgroupPlace));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Ok(variables)
    }

    /// The C++ for the declarators between `begin` and `end`, numbered from `first`.
    fn references(&self, type_text: &str, begin: usize, end: usize, first: usize) -> Result<String, MslError> {
        let line = self.line(begin);
        let mut text = String::new();
        for (number, declarator) in self.declarators(begin, end).iter().enumerate() {
            let name = declarator.first().copied().unwrap_or_default();
            if declarator.contains(&"=") {
                return Err(self.error(line, MslErrorKind::ThreadgroupInitialiser { name: name.to_owned() }));
            }
            if !is_name(name) || declarator.get(1).is_some_and(|next| *next != "[") {
                return Err(self.error(line, MslErrorKind::ThreadgroupDeclaration { text: declarator.join(" ") }));
            }
            let dimensions = declarator[1..].join(" ");
            let id = first + number;
            text +=
                &format!("typedef {type_text} {name}__tg {dimensions}; MSL_TGREF({name}__tg, {name}, {id}, {line}); ");
        }
        Ok(text)
    }
}
