//! Leaves out of a Metal source what none of its kernels reaches, so that every definition of an emitted `kernels.metal` is in
//! use.
//!
//! A source is cut into its top-level definitions, each with the comment lines right above it. A definition is reached when
//! a kernel, or a reached definition, has its name in it: overloads, specialisations and parameters of that name count
//! alike, so that what is left out is certainly unused. Operators have no name to be called by and go with the types that
//! they are for. What this cannot see through (pasted names, unmatched brackets) is left as it is.

use std::collections::BTreeSet;

use metal_sim::msl::{Token, TokenKind, directives, lex};

/// `source` without the definitions that neither its kernels nor those of `others` reach; `others` is compiled after it.
/// A comment that stands alone stays while a definition does between it and the next such comment.
pub fn reachable(source: &str, others: &str) -> String {
    let Some(parts) = parts(source) else { return source.to_owned() };
    let kept = keep(&parts, others);
    let mut text = String::with_capacity(source.len());
    // Line ends before a part, the most of those before the parts that were left out since the last.
    let mut lines = 0;
    for (part, kept) in parts.iter().zip(kept) {
        lines = lines.max(part.lines_before);
        if kept {
            text.extend(std::iter::repeat_n('\n', lines));
            text.push_str(part.text);
            lines = 0;
        }
    }
    text.push('\n');
    text
}

/// What a part of a source is.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// A comment with an empty line after it.
    Comment,
    /// A kernel, an instantiation, an include: what is there for its own sake.
    Root,
    /// A definition of these names.
    Named(Vec<&'a str>),
    /// An operator, with the words of its parameters.
    Operator(BTreeSet<&'a str>),
}

/// One comment, directive or definition.
#[derive(Debug)]
struct Part<'a> {
    kind: Kind<'a>,
    /// Its text, with the comments that belong to it.
    text: &'a str,
    /// Every word in it.
    words: BTreeSet<&'a str>,
    /// Line ends between it and the part before.
    lines_before: usize,
    /// Whether it is for the preprocessor.
    directive: bool,
}

impl<'a> Part<'a> {
    fn names(&self) -> &[&'a str] {
        match &self.kind {
            Kind::Named(names) => names,
            _ => &[],
        }
    }

    fn is_macro(&self) -> bool {
        self.directive && !self.names().is_empty()
    }
}

/// Which parts stay.
fn keep(parts: &[Part<'_>], others: &str) -> Vec<bool> {
    let defined: BTreeSet<&str> = parts.iter().flat_map(Part::names).copied().collect();
    let mut words: BTreeSet<&str> =
        lex(others).iter().filter(|token| token.kind == TokenKind::Identifier).map(|token| token.text).collect();
    let mut kept = vec![false; parts.len()];
    loop {
        let before = kept.iter().filter(|kept| **kept).count();
        for (part, kept) in parts.iter().zip(&mut kept).filter(|(_, kept)| !**kept) {
            *kept = match &part.kind {
                Kind::Comment => false,
                Kind::Root => true,
                Kind::Named(names) => names.iter().any(|name| words.contains(name)),
                Kind::Operator(parameters) => parameters.intersection(&defined).all(|name| words.contains(name)),
            };
            if *kept {
                words.extend(&part.words);
            }
        }
        if kept.iter().filter(|kept| **kept).count() == before {
            break;
        }
    }
    // From the end, so that each comment knows what comes after it.
    let mut needed = false;
    for (part, kept) in parts.iter().zip(&mut kept).rev() {
        if part.kind == Kind::Comment {
            *kept = std::mem::take(&mut needed);
        } else {
            needed |= *kept;
        }
    }
    kept
}

/// The parts of a source; `None` where it cannot be cut.
fn parts(source: &str) -> Option<Vec<Part<'_>>> {
    let tokens = lex(source);
    let in_directive = directives(&tokens);
    let mut offsets: Vec<usize> = vec![0];
    offsets.extend(tokens.iter().scan(0, |end, token| {
        *end += token.text.len();
        Some(*end)
    }));
    if (0..tokens.len()).any(|at| in_directive[at] && is_paste(&tokens[at..])) {
        return None;
    }
    let code: Vec<usize> = (0..tokens.len()).filter(|&at| tokens[at].is_significant() && !in_directive[at]).collect();
    let mut parts = Vec::new();
    // Where the comments begin that may belong to what comes next, and line ends before them.
    let (mut at, mut start, mut lines_before) = (0, None, 0);
    while at < tokens.len() {
        let token = &tokens[at];
        let lines = token.text.matches('\n').count();
        match token.kind {
            TokenKind::Blank => {
                if lines > 1
                    && let Some(start) = start.take()
                {
                    parts.push(Part {
                        kind: Kind::Comment,
                        text: source[offsets[start]..offsets[at]].trim_end(),
                        words: BTreeSet::new(),
                        lines_before,
                        directive: false,
                    });
                }
                if start.is_none() {
                    lines_before = lines;
                }
                at += 1;
            }
            TokenKind::Comment => {
                start.get_or_insert(at);
                at += 1;
            }
            _ => {
                let (end, kind) = if in_directive[at] {
                    directive(&tokens, &in_directive, at)
                } else {
                    definition(&tokens, &code[code.partition_point(|&code| code < at)..])?
                };
                let end = with_remark(&tokens, end);
                let words = words(&tokens[at..end]);
                let text = source[offsets[start.take().unwrap_or(at)]..offsets[end]].trim_end();
                parts.push(Part { kind, text, words, lines_before, directive: in_directive[at] });
                lines_before = 0;
                at = end;
            }
        }
    }
    if let Some(start) = start {
        let text = source[offsets[start]..].trim_end();
        parts.push(Part { kind: Kind::Root, text, words: BTreeSet::new(), lines_before, directive: false });
    }
    // What begins with a macro is whatever the macro makes of it.
    let macros: BTreeSet<&str> = parts.iter().filter(|part| part.is_macro()).flat_map(Part::names).copied().collect();
    for part in &mut parts {
        if !part.is_macro() && part.names().iter().any(|name| macros.contains(name)) {
            part.kind = Kind::Root;
        }
    }
    Some(parts)
}

/// `##`, which makes names that nobody can look for.
fn is_paste(tokens: &[Token<'_>]) -> bool {
    tokens.len() > 1 && tokens[0].text == "#" && tokens[1].text == "#"
}

fn words<'a>(tokens: &[Token<'a>]) -> BTreeSet<&'a str> {
    tokens.iter().filter(|token| token.kind == TokenKind::Identifier).map(|token| token.text).collect()
}

/// The end of a part together with a comment on its last line.
fn with_remark(tokens: &[Token<'_>], end: usize) -> usize {
    let blank = |at: usize| tokens.get(at).is_some_and(|token| token.kind == TokenKind::Blank);
    let remark = if blank(end) && !tokens[end].text.contains('\n') { end + 1 } else { end };
    if tokens.get(remark).is_some_and(|token| token.kind == TokenKind::Comment) { remark + 1 } else { end }
}

/// The end and the kind of the preprocessor directive at `start`.
fn directive<'a>(tokens: &[Token<'a>], in_directive: &[bool], start: usize) -> (usize, Kind<'a>) {
    let mut last = start;
    let mut line = tokens[start].line;
    for at in start + 1..tokens.len() {
        let token = &tokens[at];
        if !token.is_significant() {
            continue;
        }
        // A directive right after another one is its own.
        if !in_directive[at] || (token.text == "#" && token.line > line && tokens[last].text != "\\") {
            break;
        }
        (last, line) = (at, token.line);
    }
    let mut significant = tokens[start..=last].iter().filter(|token| token.is_significant()).skip(1);
    let kind = match (significant.next(), significant.next()) {
        (Some(word), Some(name)) if word.text == "define" => Kind::Named(vec![name.text]),
        _ => Kind::Root,
    };
    (last + 1, kind)
}

/// The end and the kind of the declaration or definition that the first of `all` begins, the tokens from there on that are neither
/// blanks nor comments nor for the preprocessor.
fn definition<'a>(tokens: &[Token<'a>], all: &[usize]) -> Option<(usize, Kind<'a>)> {
    let text = |at: usize| all.get(at).map_or("", |&token| tokens[token].text);
    let is_word = |at: usize| all.get(at).is_some_and(|&token| tokens[token].kind == TokenKind::Identifier);
    // The heading: indices of what stands outside of brackets and of the parameters of a template.
    let mut heading: Vec<usize> = Vec::new();
    let mut root = false;
    let mut operator = None;
    let (mut at, mut body) = (0, None);
    let end = loop {
        match text(at) {
            "" => return None,
            "template" if text(at + 1) == "<" => {
                at = angle_end(&text, at + 1)?;
            }
            // An instantiation.
            "template" => root = true,
            "kernel" | "vertex" | "fragment" | "static_assert" | "namespace" | "extern" => {
                root = true;
                heading.push(at);
            }
            "operator" => {
                // Up to its parameters, past the brackets of `operator()` and `operator[]`.
                let skipped = if matches!(text(at + 1), "(" | "[") { at + 3 } else { at + 1 };
                let list = (skipped..all.len()).find(|&next| text(next) == "(")?;
                let class = at.checked_sub(2).filter(|_| text(at - 1) == "::");
                operator = Some(class.into_iter().chain(list..bracket_end(&text, list)?).collect::<Vec<_>>());
                heading.push(at);
                at = list - 1;
            }
            ")" | "]" | "}" => return None,
            "[" | "(" => {
                let close = bracket_end(&text, at)?;
                root |= (at..close).any(|inside| matches!(text(inside), "kernel" | "host_name") && text(at + 1) == "[");
                let attribute = ["alignas", "decltype", "__attribute__"];
                let of_attribute =
                    heading.last().is_some_and(|&last| last + 1 == at && attribute.contains(&text(last)));
                if of_attribute {
                    heading.pop();
                } else if text(at) == "(" {
                    heading.push(at);
                }
                at = close;
            }
            "{" => {
                let close = bracket_end(&text, at)?;
                body.get_or_insert(at..close);
                // A member's initialiser is followed by more of them or by the body.
                let of_member = at > 0 && is_word(at - 1) && heading.iter().any(|&heading| text(heading) == ":");
                if ends_with_body(&heading, &text) && !of_member {
                    break close + 1;
                }
                at = close;
            }
            ";" => break at + 1,
            _ => heading.push(at),
        }
        at += 1;
    };
    let last = all[end - 1];
    if root {
        return Some((last + 1, Kind::Root));
    }
    if let Some(list) = operator {
        let parameters = list.into_iter().filter(|&at| is_word(at)).map(text).collect();
        return Some((last + 1, Kind::Operator(parameters)));
    }
    let mut names = names(&heading, &text, &is_word);
    if heading.iter().any(|&at| text(at) == "enum") {
        names.extend(body.into_iter().flatten().filter(|&at| is_word(at)).map(text));
    }
    let kind = if names.is_empty() { Kind::Root } else { Kind::Named(names) };
    Some((last + 1, kind))
}

/// Whether a definition with this heading ends where its body does, as those of functions do, and not at a semicolon.
fn ends_with_body<'a>(heading: &[usize], text: &impl Fn(usize) -> &'a str) -> bool {
    let has = |word: &str| heading.iter().any(|&at| text(at) == word);
    !has("=") && (has("(") || has("operator") || has("namespace") || has("extern"))
}

/// The names that a definition with this heading is called by.
fn names<'a>(heading: &[usize], text: &impl Fn(usize) -> &'a str, is_word: &impl Fn(usize) -> bool) -> Vec<&'a str> {
    const TYPES: [&str; 5] = ["struct", "class", "union", "enum", "typedef"];
    let at = |index: usize| heading.get(index).map_or(";", |&at| text(at));
    let words = || (0..heading.len()).filter(|&index| is_word(heading[index]));
    let place = |word: &str| (0..heading.len()).find(|&index| at(index) == word);
    match place("(") {
        // A function: the word before its parameters, past the arguments of a specialisation, and the classes it is of.
        Some(list) if place("=").is_none_or(|equals| list < equals) && at(0) != "typedef" => {
            let Some(mut name) = list.checked_sub(1) else { return Vec::new() };
            let mut depth = 0_usize;
            while name > 0 && (depth > 0 || at(name) == ">") {
                match at(name) {
                    ">" => depth += 1,
                    ">>" => depth += 2,
                    "<" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                name -= 1;
            }
            let mut names = vec![at(name)];
            while name >= 2 && at(name - 1) == "::" {
                name -= 2;
                names.push(at(name));
            }
            names
        }
        _ if at(0) == "using" && place("=").is_none() => Vec::new(),
        // All there are, tags and variables: too many keep too much, and too few would leave out what is needed.
        _ if words().any(|word| TYPES.contains(&at(word))) => {
            words().map(at).filter(|word| !TYPES.contains(word)).collect()
        }
        // Variables and aliases: up to an initialiser, and again from the comma after it.
        _ => {
            let mut declares = true;
            let mut names = Vec::new();
            for (index, &token) in heading.iter().enumerate() {
                declares = at(index) == "," || (declares && at(index) != "=");
                if declares && is_word(token) && matches!(at(index + 1), "=" | "," | ";") {
                    names.push(at(index));
                }
            }
            names
        }
    }
}

/// The index of the bracket that closes the one at `open`.
fn bracket_end<'a>(text: &impl Fn(usize) -> &'a str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for at in open.. {
        match text(at) {
            "" => return None,
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The index of the `>` that closes the `<` at `open`.
fn angle_end<'a>(text: &impl Fn(usize) -> &'a str, open: usize) -> Option<usize> {
    let (mut at, mut depth) = (open, 0_usize);
    loop {
        match text(at) {
            "" => return None,
            "(" | "[" | "{" => at = bracket_end(text, at)?,
            "<" => depth += 1,
            ">" => depth -= 1,
            ">>" => depth = depth.saturating_sub(2),
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `source` that are left out.
    fn left_out(source: &str, others: &str) -> Vec<String> {
        let text = reachable(source, others);
        let mut kept = text.lines().peekable();
        let mut out = Vec::new();
        for line in source.lines() {
            if kept.next_if_eq(&line).is_none() && !line.is_empty() {
                out.push(line.to_owned());
            }
        }
        assert_eq!(kept.next(), None, "more than deletions:\n{text}");
        assert_eq!(reachable(&text, others), text, "not everything at once");
        out
    }

    const KERNEL: &str = "[[max_total_threads_per_threadgroup(32)]]\nkernel void run(device float* y [[buffer(0)]])\n{\n    *y = used(1.0f);\n}\n";

    /// What a kernel that calls `used` leaves out of these definitions.
    fn dead(definitions: &str) -> Vec<String> {
        left_out(&format!("#include <metal_stdlib>\nusing namespace metal;\n\n{definitions}\n{KERNEL}"), "")
    }

    #[test]
    fn functions_that_nobody_calls_go_with_their_comments() {
        let source = "// Helps `used`.\ninline float deep(float x) { return x; } // this too\n\n\
             // Long gone.\n// Both lines.\ntemplate <uint N>\ninline float gone(float x) {\n    return deep(x);\n}\n\n\
             inline float used(float x) { return deep(x); }\n";
        let gone = ["// Long gone.", "// Both lines.", "template <uint N>", "inline float gone(float x) {"];
        assert_eq!(dead(source)[..4], gone);
        assert_eq!(dead(source).len(), 6);
        let text = reachable(&format!("{source}\n{KERNEL}"), "");
        assert!(text.contains("// this too\n\ninline float used"), "{text}");
    }

    #[test]
    fn two_that_call_only_each_other_go() {
        let source = "float ping(float x);\nfloat pong(float x) { return ping(x); }\nfloat ping(float x) { return pong(x); }\n\
             float used(float x) { return x; }\n";
        assert_eq!(dead(source).len(), 3);
    }

    #[test]
    fn overloads_specialisations_and_members_stay_with_their_name() {
        let source = "float used(float x) { return helper<float>(x) + Box<4>::make(x).value; }\nfloat used(int x) { return 1.0f; }\n\
             template <typename T> inline T helper(T x) { return x; }\ntemplate <> inline float helper<float>(float x) { return x; }\n\
             template <uint N, typename T = vec<vec<float, 4>, 2>> struct Box {\n    float value;\n    static Box make(float x);\n};\n\
             template <> struct Box<2> { float value; };\ntemplate <uint N>\nBox<N> Box<N>::make(float x) { return Box{x}; }\n\
             Other::Other(float x) : value{x}, more(x) { value = 1.0f; }\nstruct Other { float value; float more; Other(float x); };\n\
             inline Other elsewhere(float x) { return Other(x); }\n";
        assert_eq!(
            dead(source),
            [
                "Other::Other(float x) : value{x}, more(x) { value = 1.0f; }",
                "struct Other { float value; float more; Other(float x); };",
                "inline Other elsewhere(float x) { return Other(x); }",
            ]
        );
    }

    #[test]
    fn operators_go_with_the_types_they_are_for() {
        let source = "struct Pair { float a; };\nstruct Odd { float a; };\ninline Pair operator+(Pair a, Pair b) { return a; }\n\
             inline bool operator()(Odd a) { return true; }\ninline Odd operator-(thread const Odd& a) { return a; }\n\
             inline float2 operator*(float2x2 m, char2 v) { return float2(0.0f); }\n\
             float used(float x) { Pair p = {x}; return (p + p).a; }\n";
        let gone = ["struct Odd { float a; };", "inline bool operator()(Odd a) { return true; }"];
        assert_eq!(dead(source)[..2], gone);
        assert_eq!(dead(source).len(), 3);
    }

    #[test]
    fn constants_types_enumerators_and_macros_are_definitions_too() {
        let source = "constant constexpr uint LANES = 32, TILE = LANES * 2;\nconstant float TABLE[2] = {1.0f, 2.0f};\nconstant uint UNUSED = 3;\n\
             enum Kind : uint { FIRST, SECOND };\nenum Other { THIRD };\nusing Row = float4;\nusing Column = float4;\n\
             #define HALF(x) \\\n    (0.5f * (x))\n#define DOUBLE(x) (2.0f * (x))\n#define QUARTER(x) HALF(HALF(x))\n\
             constant Old OLD{1};\nstatic_assert(LANES == 32, \"THIRD\");\n\
             float used(float x) { Row r = TABLE[SECOND]; return QUARTER(x) + r.x; }\n";
        let gone = [
            "constant uint UNUSED = 3;",
            "enum Other { THIRD };",
            "using Column = float4;",
            "#define DOUBLE(x) (2.0f * (x))",
            "constant Old OLD{1};",
        ];
        assert_eq!(dead(source), gone);
    }

    #[test]
    fn words_in_comments_and_strings_call_nothing() {
        let source =
            "// As gone() does.\nfloat used(float x) { return x; /* gone(x) */ }\nfloat gone(float x) { return x; }\n";
        assert_eq!(dead(source), ["float gone(float x) { return x; }"]);
    }

    #[test]
    fn a_comment_of_a_section_stays_while_any_of_it_does() {
        let source = "// First section.\n\nfloat gone(float x) { return x; }\n\n// Second section.\n\nfloat used(float x) { return x; }\n\n\
             // Third section.\n\n// Of `late`.\nfloat late(float x) { return x; }\n\n// Kernels.\n";
        let gone = [
            "// First section.",
            "float gone(float x) { return x; }",
            "// Third section.",
            "// Of `late`.",
            "float late(float x) { return x; }",
        ];
        assert_eq!(dead(source), gone);
    }

    #[test]
    fn what_is_there_for_its_own_sake_stays() {
        let source = "#if __METAL_VERSION__ >= 310\n#pragma METAL fp math_mode(safe)\n#endif\nnamespace detail { float inner(float x); }\n\
             extern \"C\" { float outer(float x); }\ntemplate <uint N> [[kernel]] void many(device float* y) { *y = N; }\n\
             template [[host_name(\"many_4\")]] [[kernel]] decltype(many<4>) many<4>;\n\
             #define DEFINE(name) float name(float x) { return x; }\nDEFINE(used)\nfloat plain(float x) { return x; }\n";
        assert!(dead(source).is_empty());
    }

    #[test]
    fn other_sources_call_too() {
        let source = "float used(float x) { return x; }\nfloat tried(float x) { return x; }\nfloat gone(float x) { return x; }\n";
        let source = format!("{source}{KERNEL}");
        assert_eq!(left_out(&source, "kernel void other() { tried(1.0f); }"), ["float gone(float x) { return x; }"]);
    }

    #[test]
    fn what_cannot_be_cut_is_left_as_it_is() {
        for odd in
            ["float gone() {", "float gone(float x) { return x; } }", "#define MAKE(a) a##_gone", "float gone( { )"]
        {
            let source = format!("{KERNEL}{odd}\nfloat other() {{ return 1.0f; }}\n");
            assert_eq!(reachable(&source, ""), source, "{odd}");
        }
    }
}
