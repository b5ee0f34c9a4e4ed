//! The rewriting of one MSL file into C++: attributes dropped, half literals, threadgroup variables, thunks. Lines stay
//! where they are, so that the compiler's messages and the debug information speak of the MSL file.

use std::collections::{BTreeMap, BTreeSet};

use super::kernels::KernelPlace;
use super::lex::{Token, TokenKind, directives, lex};
use super::{KernelSource, MslError, MslErrorKind};

/// A file made into C++.
pub struct Rewritten {
    /// The file's text, line by line where it was: without attributes, and with `MSL_TGREF(type, name, id, line)` for
    /// each threadgroup variable.
    pub body: String,
    /// Its kernels, in the order of the file.
    pub kernels: Vec<KernelSource>,
    /// How many threadgroup variables it has.
    pub threadgroup_variables: usize,
}

impl Rewritten {
    /// The whole C++ file: the body, a thunk for each kernel, and the table of kernels. `file` is the name for messages
    /// and debug information.
    pub fn cpp(&self, file: &str) -> String {
        let mut cpp = format!("#include <metal_stdlib>\n#line 1 \"{}\"\n", file.escape_default());
        cpp.extend(self.body.split_inclusive('\n').map(without_unrolling));
        cpp.push_str("\n#line 1 \"thunks\"\n");
        cpp.extend(self.kernels.iter().map(KernelSource::thunk));
        cpp.push_str("extern \"C\" {\nextern const msl::KernelDesc msl_kernels[] = {\n");
        cpp.extend(self.kernels.iter().map(KernelSource::row));
        cpp.push_str("  {nullptr, nullptr, \"\", 0, 0, 0}};\n");
        cpp.push_str(&format!(
            "extern const unsigned msl_kernel_count = {}, msl_tgvar_count = {};\n}}\n",
            self.kernels.len(),
            self.threadgroup_variables
        ));
        cpp
    }
}

/// A line, blank where it asks for a loop to be unrolled: a GPU keeps what such loops index in registers, and a processor has it in
/// memory as fast; compiling unrolled loops takes two to three times as long.
fn without_unrolling(line: &str) -> &str {
    if line.trim_start().starts_with("#pragma clang loop unroll") { "\n" } else { line }
}

/// The significant tokens of a file outside preprocessor directives, by number.
pub(super) struct Source<'a> {
    file: &'a str,
    pub(super) tokens: Vec<Token<'a>>,
    /// Numbers of significant tokens outside directives.
    pub(super) places: Vec<usize>,
    in_directive: Vec<bool>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str, file: &'a str) -> Self {
        let tokens = lex(text);
        let in_directive = directives(&tokens);
        let places = (0..tokens.len()).filter(|at| tokens[*at].is_significant() && !in_directive[*at]).collect();
        Self { file, tokens, places, in_directive }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The text of significant token `at`, empty past the end.
    pub(super) fn at(&self, at: usize) -> &'a str {
        self.places.get(at).map_or("", |place| self.tokens[*place].text)
    }

    pub(super) fn kind(&self, at: usize) -> Option<TokenKind> {
        self.places.get(at).map(|place| self.tokens[*place].kind)
    }

    pub(super) fn line(&self, at: usize) -> u32 {
        self.places.get(at).map_or(0, |place| self.tokens[*place].line)
    }

    pub(super) fn error(&self, line: u32, kind: MslErrorKind) -> MslError {
        MslError { file: self.file.to_owned(), line, kind }
    }

    /// The closing bracket of the opening one at `at`.
    pub(super) fn matching(&self, at: usize, open: &str, close: &str) -> Result<usize, MslError> {
        let mut depth = 0;
        for end in at..self.len() {
            if self.at(end) == open {
                depth += 1;
            } else if self.at(end) == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(end);
                }
            }
        }
        Err(self.error(self.line(at), MslErrorKind::Unmatched { bracket: open.to_owned() }))
    }

    /// Whether `[[` begins at `at`.
    pub(super) fn is_attribute(&self, at: usize) -> bool {
        self.at(at) == "[" && self.at(at + 1) == "[" && self.places[at + 1] == self.places[at] + 1
    }

    /// The last `]` of the attribute at `at`.
    pub(super) fn attribute_end(&self, at: usize) -> Result<usize, MslError> {
        self.matching(at, "[", "]")
    }

    /// The name of the struct whose members begin at `brace`.
    fn struct_name(&self, brace: usize) -> Option<&'a str> {
        let before = |at: &usize| !matches!(self.at(*at), ";" | "}");
        let found = (0..brace).rev().take_while(before).find(|at| matches!(self.at(*at), "struct" | "class" | "union"));
        found.map(|at| self.at(at + 1))
    }

    /// The name before the parameter list that ends right before `brace`, if a function's body begins there.
    fn function_name(&self, brace: usize) -> Option<&'a str> {
        let mut at = brace.checked_sub(1)?;
        while at > 0 && !matches!(self.at(at), ")" | ";" | "}") {
            at -= 1;
        }
        if self.at(at) != ")" {
            return None;
        }
        let mut depth = 0;
        loop {
            match self.at(at) {
                ")" => depth += 1,
                "(" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at.checked_sub(1).map(|name| self.at(name));
            }
            at = at.checked_sub(1)?;
        }
    }
}

fn is_sync(word: &str) -> bool {
    word == "threadgroup_barrier"
        || (word != "simdgroup_matrix"
            && ["simdgroup_", "simd_", "quad_"].iter().any(|prefix| word.starts_with(prefix)))
}

/// Which functions reach a barrier or a simd operation, by name.
fn sync_functions<'a>(bodies: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut sync: BTreeSet<&str> = BTreeSet::new();
    loop {
        let found: Vec<_> = bodies
            .iter()
            .filter(|(name, words)| {
                !sync.contains(*name) && words.iter().any(|word| is_sync(word) || sync.contains(word))
            })
            .map(|(name, _)| *name)
            .collect();
        if found.is_empty() {
            return sync;
        }
        sync.extend(found);
    }
}

struct Found<'a> {
    kernels: Vec<KernelPlace>,
    bodies: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// The kernels, and the words in each function's body.
fn find<'a>(source: &Source<'a>) -> Result<Found<'a>, MslError> {
    let mut found = Found { kernels: Vec::new(), bodies: BTreeMap::new() };
    let (mut at, mut depth) = (0, 0);
    while at < source.len() {
        let attribute_form = source.is_attribute(at) && source.at(at + 2) == "kernel";
        match source.at(at) {
            "kernel" if depth > 0 && source.at(at + 1) == "void" => {
                return Err(source.error(source.line(at), MslErrorKind::NestedKernel));
            }
            word if depth == 0 && (word == "kernel" || attribute_form) => {
                let kernel = source.kernel_at(at)?;
                if found.kernels.iter().any(|other: &KernelPlace| other.name == kernel.name) {
                    return Err(source.error(kernel.line, MslErrorKind::DuplicateKernel { name: kernel.name }));
                }
                at = Source::parameters_end(&kernel);
                found.kernels.push(kernel);
            }
            "{" => {
                if depth == 0 {
                    let end = source.matching(at, "{", "}")?;
                    // A struct stands for the functions in it: who calls one names the struct somewhere.
                    if let Some(name) = source.function_name(at).or_else(|| source.struct_name(at)) {
                        let words = (at..end).filter(|at| source.kind(*at) == Some(TokenKind::Identifier));
                        found.bodies.entry(name).or_default().extend(words.map(|at| source.at(at)));
                    }
                }
                depth += 1;
            }
            "}" => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

/// A threadgroup declaration hidden in a macro would silently become private.
fn refuse_threadgroup_in_macros(source: &Source<'_>) -> Result<(), MslError> {
    let words: Vec<_> = (0..source.tokens.len()).filter(|at| source.in_directive[*at]).collect();
    for (index, at) in words.iter().enumerate() {
        if source.tokens[*at].text != "threadgroup" {
            continue;
        }
        let end = words[index + 1..]
            .iter()
            .map(|at| source.tokens[*at].text)
            .find(|text| matches!(*text, "*" | "&" | ";" | "[" | "=" | ")" | ","));
        if !matches!(end, Some("*" | "&")) {
            return Err(source.error(source.tokens[*at].line, MslErrorKind::ThreadgroupInMacro));
        }
    }
    Ok(())
}

/// Checked mode sees accesses of at most 16 bytes.
fn refuse_wide_memory(source: &Source<'_>) -> Result<(), MslError> {
    for at in 0..source.len() {
        let is_wide = matches!(source.at(at), "long3" | "long4" | "ulong3" | "ulong4");
        let in_memory = matches!(source.at(at + 1), "*" | "&") || source.at(at.wrapping_sub(1)) == "threadgroup";
        if is_wide && in_memory {
            let type_name = source.at(at).to_owned();
            return Err(source.error(source.line(at), MslErrorKind::WideMemory { type_name }));
        }
    }
    Ok(())
}

/// `1.0h` and `1.0bf` as C++.
fn half_literal(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("0x") {
        return None;
    }
    let (digits, word) = match lower.strip_suffix("bf") {
        Some(digits) => (digits, "bfloat"),
        None => (lower.strip_suffix('h')?, "half"),
    };
    let plain = digits.contains(['.', 'e']);
    Some(format!("(({word}){digits}{}f)", if plain { "" } else { ".0" }))
}

/// `text` with everything but line ends made blank.
pub(super) fn blanked(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// `vec<T, N>(a, b)`: clang's vector types take no list of components, the shim's function does.
fn rewrite_vector_constructors(source: &Source<'_>, out: &mut [String]) {
    for at in 0..source.len() {
        if source.at(at) != "vec" || source.at(at + 1) != "<" {
            continue;
        }
        if let Ok(end) = source.matching(at + 1, "<", ">")
            && source.at(end + 1) == "("
        {
            let begin = if source.at(at.wrapping_sub(1)) == "::" { at - 2 } else { at };
            out[source.places[begin]].insert_str(0, "::msl::mk<");
            out[source.places[end]].push('>');
        }
    }
}

/// Makes MSL text into C++. `file` is the name for messages.
///
/// # Errors
/// What this rewriting does not handle, with file and line.
pub fn rewrite(text: &str, file: &str) -> Result<Rewritten, MslError> {
    let source = Source::new(text, file);
    refuse_threadgroup_in_macros(&source)?;
    refuse_wide_memory(&source)?;
    let found = find(&source)?;
    let sync = sync_functions(&found.bodies);
    let macro_sync = (0..source.tokens.len()).any(|at| source.in_directive[at] && is_sync(source.tokens[at].text));
    let kernels = found
        .kernels
        .iter()
        .map(|place| source.kernel_source(place, macro_sync || sync.contains(place.name.as_str())))
        .collect::<Result<Vec<_>, _>>()?;

    let mut out: Vec<String> = source
        .tokens
        .iter()
        .map(|token| match token.kind {
            TokenKind::Comment => blanked(token.text),
            TokenKind::Number => half_literal(token.text).unwrap_or_else(|| token.text.to_owned()),
            _ => token.text.to_owned(),
        })
        .collect();
    rewrite_vector_constructors(&source, &mut out);
    let threadgroup_variables = source.rewrite_bodies(&mut out)?;
    Ok(Rewritten { body: out.concat(), kernels, threadgroup_variables })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_left_to_the_compiler_and_lines_where_they_are() {
        let text = "inline void f() {\n    #pragma clang loop unroll(full)\n    for (int i = 0; i < 4; ++i) {}\n}\n";
        let cpp = rewrite(text, "f.metal").expect("is MSL").cpp("f.metal");
        assert!(cpp.contains("inline void f() {\n\n    for ("), "{cpp}");
    }
}
