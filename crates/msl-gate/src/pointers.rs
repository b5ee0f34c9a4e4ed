//! Pointers and references without an address space: Apple's compiler rejects each, C++ for OpenCL gives them one.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::text::{Fault, Text};

const SPACES: [&str; 6] = ["device", "constant", "thread", "threadgroup", "threadgroup_imageblock", "ray_data"];

/// Words that stand between an address space and the `*` without being a type.
const SPECIFIERS: [&str; 9] =
    ["const", "volatile", "static", "inline", "constexpr", "typename", "struct", "unsigned", "signed"];

const SCALARS: [&str; 24] = [
    "void",
    "bool",
    "char",
    "uchar",
    "short",
    "ushort",
    "int",
    "uint",
    "long",
    "ulong",
    "half",
    "float",
    "bfloat",
    "size_t",
    "ptrdiff_t",
    "int8_t",
    "uint8_t",
    "int16_t",
    "uint16_t",
    "int32_t",
    "uint32_t",
    "int64_t",
    "uint64_t",
    "auto",
];

const CLASSES: [&str; 10] = [
    "atomic_int",
    "atomic_uint",
    "atomic_float",
    "atomic_bool",
    "atomic_ulong",
    "simdgroup_float8x8",
    "simdgroup_half8x8",
    "simdgroup_bfloat8x8",
    "unsigned",
    "signed",
];

const TEMPLATES: [&str; 4] = ["vec", "simdgroup_matrix", "atomic", "matrix"];

fn is_vector(word: &str) -> bool {
    let word = word.strip_prefix("packed_").unwrap_or(word);
    word.strip_suffix(['2', '3', '4']).is_some_and(|base| SCALARS[1..13].contains(&base))
}

/// Types that the file declares.
struct Types<'a> {
    /// Structures and aliases.
    names: BTreeSet<&'a str>,
    /// Class templates.
    templates: BTreeSet<&'a str>,
    /// Template parameters, each a type in its template only; elsewhere the name may be a number's.
    parameters: Vec<(&'a str, Range<usize>)>,
}

/// The end of the declaration whose template parameters end at `at`.
fn declaration_end(text: &Text<'_>, at: usize) -> usize {
    for end in at..text.len() {
        match text.at(end) {
            "{" => return text.matching(end, "{", "}"),
            ";" => return end,
            _ => {}
        }
    }
    text.len()
}

impl<'a> Types<'a> {
    fn new(text: &Text<'a>) -> Self {
        let mut types = Self { names: BTreeSet::new(), templates: BTreeSet::new(), parameters: Vec::new() };
        for at in 0..text.len() {
            let next = text.at(at + 1);
            match text.at(at) {
                "template" if next == "<" => {
                    let end = text.matching(at + 1, "<", ">");
                    let extent = at..declaration_end(text, end);
                    let parameters = (at..end).filter(|at| matches!(text.at(*at), "typename" | "class"));
                    types.parameters.extend(parameters.map(|at| (text.at(at + 1), extent.clone())));
                }
                "struct" | "class" | "enum" if text.is_identifier(at + 1) && !matches!(text.before(at), "<" | ",") => {
                    let name = text.at(if next == "class" { at + 2 } else { at + 1 });
                    types.names.insert(name);
                    if text.before(at) == ">" {
                        types.templates.insert(name);
                    }
                }
                "using" if text.is_identifier(at + 1) && text.at(at + 2) == "=" => {
                    types.names.insert(next);
                }
                "typedef" => {
                    let end = (at..text.len()).find(|end| text.at(*end) == ";").unwrap_or(at);
                    let name = (at..end).rev().find(|name| text.is_identifier(*name));
                    types.names.extend(name.map(|name| text.at(name)));
                }
                _ => {}
            }
        }
        types
    }

    fn is_type(&self, word: &str, at: usize) -> bool {
        let is_parameter = || self.parameters.iter().any(|(name, extent)| *name == word && extent.contains(&at));
        SCALARS.contains(&word)
            || CLASSES.contains(&word)
            || is_vector(word)
            || self.names.contains(word)
            || is_parameter()
    }

    /// The first token of the type that ends at `at`, if one does.
    fn type_begin(&self, text: &Text<'_>, at: usize) -> Option<usize> {
        let word = text.at(at);
        if word == ">" {
            let open = text.opening_angle(at)?;
            let name = text.before(open);
            let known = TEMPLATES.contains(&name) || self.templates.contains(name);
            return (known && open > 0).then(|| self.qualified_begin(text, open - 1));
        }
        if self.is_type(word, at) {
            return Some(self.qualified_begin(text, at));
        }
        // `typename T::Block`
        let begin = self.qualified_begin(text, at);
        (begin < at && text.before(begin) == "typename").then_some(begin)
    }

    fn qualified_begin(&self, text: &Text<'_>, at: usize) -> usize {
        let mut begin = at;
        while text.before(begin) == "::" && begin >= 2 && (text.is_identifier(begin - 2) || text.at(begin - 2) == ">") {
            begin -= 2;
            if text.at(begin) == ">" {
                match text.opening_angle(begin) {
                    Some(open) if open > 0 => begin = open - 1,
                    _ => return begin,
                }
            }
        }
        begin
    }
}

/// Whether what follows the `*` or `&` at `at` can follow a declarator's.
fn declares(text: &Text<'_>, at: usize) -> bool {
    text.is_identifier(at + 1)
        || matches!(text.at(at + 1), ")" | ">" | "," | "*" | "&" | ">>" | "(" | "[" | "=" | ";" | "{" | "::" | "")
}

/// Faults of pointers and references, in declarations, casts, members, parameters and template arguments.
pub(crate) fn check(text: &Text<'_>) -> Vec<Fault> {
    let types = Types::new(text);
    let mut found = Vec::new();
    for at in 1..text.len() {
        let mark = text.at(at);
        if !matches!(mark, "*" | "&") || !declares(text, at) {
            continue;
        }
        let mut end = at - 1;
        let mut spaced = false;
        while SPACES.contains(&text.at(end)) || matches!(text.at(end), "const" | "volatile") {
            spaced |= SPACES.contains(&text.at(end));
            match end.checked_sub(1) {
                Some(before) => end = before,
                None => break,
            }
        }
        let kind = if mark == "*" { "pointer" } else { "reference" };
        // `T* *p`: the second star's pointee is a pointer, whose own space must stand between
        let nested = text.at(end) == "*" && end > 0 && types.type_begin(text, end - 1).is_some();
        if nested {
            if !spaced {
                found.push((text.line(at), format!("{kind} to pointer must have an explicit address space")));
            }
            continue;
        }
        let Some(begin) = types.type_begin(text, end) else { continue };
        // `thread T&& x` has one space for both marks
        if mark == "&" && text.before(at) == "&" {
            continue;
        }
        let mut first = begin;
        while let Some(before) = first.checked_sub(1) {
            let word = text.at(before);
            spaced |= SPACES.contains(&word);
            if SPACES.contains(&word) || SPECIFIERS.contains(&word) || SCALARS.contains(&word) {
                first = before;
            } else {
                break;
            }
        }
        if !spaced {
            let name: String = (begin..=end).map(|at| text.at(at)).collect();
            found.push((text.line(at), format!("{kind} to {name} must have an explicit address space")));
        }
    }
    found
}
