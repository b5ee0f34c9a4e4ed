//! Where a kernel file has barriers, which kernels reach each, and the file with one of them changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use metal_sim::msl::{TokenKind, lex};

/// What a mutant has in place of a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing.
    Removed,
    /// The same barrier with these memory flags, which do not cover the right ones.
    Flags(&'static str),
}

impl Change {
    /// The heading of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Flags(flags) => flags,
        }
    }
}

/// A barrier statement of a kernel file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The line it begins on, from 1.
    pub line: u32,
    /// The function that it stands in.
    pub function: String,
    /// `threadgroup_barrier` or `simdgroup_barrier`.
    pub barrier: String,
    /// The kernels whose text reaches it.
    pub kernels: BTreeSet<String>,
    flags: Vec<String>,
    call: Range<usize>,
    arguments: Range<usize>,
}

impl Site {
    /// The changes that must be noticed.
    pub fn changes(&self) -> Vec<Change> {
        let memory = |name: &str| self.flags.iter().any(|flag| flag == name);
        let covers = |name| match name {
            "mem_none" => !memory("mem_device") && !memory("mem_threadgroup"),
            "mem_device" => !memory("mem_threadgroup"),
            _ => !memory("mem_device"),
        };
        let wrong = ["mem_none", "mem_device", "mem_threadgroup"].into_iter().filter(|name| !covers(name));
        [Change::Removed].into_iter().chain(wrong.map(Change::Flags)).collect()
    }
}

/// What chooses the mutant of a [`switched`] file, by its [`code`] or by [`TRAPS`].
pub const SWITCH: &str = "FORGE_MUTANT";

/// Codes of one barrier.
const CODES: usize = 4;

/// The value of [`SWITCH`] that changes this barrier.
pub fn code(site: usize, change: Change) -> usize {
    let change = match change {
        Change::Removed => 0,
        Change::Flags("mem_none") => 1,
        Change::Flags("mem_device") => 2,
        Change::Flags(_) => 3,
    };
    site * CODES + change
}

/// The value of [`SWITCH`] with a fault just before every barrier, on the barrier's line, after which a kernel goes on: those that come to a
/// barrier are reported. Which those are no words tell where a constant decides.
pub const TRAPS: usize = 1 << 30;

/// `text` with every change of every barrier, one of them chosen when it is loaded, so that all mutants are compiled at once;
/// none where [`SWITCH`] is not set. Every line stays where it is.
pub fn switched(text: &str, sites: &[Site]) -> String {
    let switch = format!(
        " extern \"C\" {{ char* getenv(const char*); int atoi(const char*); }} static int mutant_of_all() {{ \
         const char* code = getenv(\"{SWITCH}\"); return code ? atoi(code) : -1; }} static const int MUTANT = mutant_of_all();"
    );
    let using = "using namespace metal;";
    let at = text.find(using).map_or(0, |at| at + using.len());
    let mut out = [&text[..at], &switch].concat();
    let mut done = at;
    for (number, site) in sites.iter().enumerate().filter(|(_, site)| site.call.start >= at) {
        let removed = code(number, Change::Removed);
        let flags = |name: &'static str| format!("MUTANT == {} ? mem_flags::{name}", code(number, Change::Flags(name)));
        let flags = ["mem_none", "mem_device", "mem_threadgroup"].map(flags).join(" : ");
        out += &text[done..site.call.start];
        out += &format!(
            "{{ if (MUTANT == {TRAPS}) {{ volatile uint far = 32; far = 1u << far; }} if (MUTANT != {removed}) {}({flags} : ({})); }}",
            site.barrier,
            &text[site.arguments.clone()]
        );
        done = site.call.end;
    }
    out + &text[done..]
}

/// A function or type at the top of the file, and the words in it.
#[derive(Default)]
struct Block<'a> {
    words: BTreeSet<&'a str>,
    kernel: bool,
}

/// The barriers of a kernel file, in order.
pub fn find(text: &str) -> Vec<Site> {
    let mut offset = 0;
    let mut tokens = Vec::new();
    for token in lex(text) {
        let start = offset;
        offset += token.text.len();
        if token.is_significant() {
            tokens.push((token, start));
        }
    }
    let at = |index: usize| tokens.get(index).map_or("", |(token, _)| token.text);
    let mut blocks: BTreeMap<&str, Block<'_>> = BTreeMap::new();
    let mut sites = Vec::new();
    let (mut depth, mut head, mut name) = (0, 0, "");
    for index in 0..tokens.len() {
        let (token, start) = &tokens[index];
        match token.text {
            "{" => {
                if depth == 0 {
                    let words: Vec<&str> = (head..index).map(at).collect();
                    name = block_name(&words);
                    blocks.entry(name).or_default().kernel |= words.contains(&"kernel");
                }
                depth += 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    head = index + 1;
                }
            }
            ";" if depth == 0 => head = index + 1,
            word if depth > 0 && token.kind == TokenKind::Identifier => {
                blocks.entry(name).or_default().words.insert(word);
                if matches!(word, "threadgroup_barrier" | "simdgroup_barrier") && at(index + 1) == "(" {
                    let close = (index..tokens.len()).find(|&at| tokens[at].0.text == ")").unwrap_or(index + 1);
                    let flags =
                        (index + 2..close).map(at).filter(|word| word.starts_with("mem_") && *word != "mem_flags");
                    sites.push(Site {
                        line: token.line,
                        function: name.to_owned(),
                        barrier: word.to_owned(),
                        kernels: BTreeSet::new(),
                        flags: flags.map(str::to_owned).collect(),
                        call: *start..tokens[close].1 + 1,
                        arguments: tokens[index + 1].1 + 1..tokens[close].1,
                    });
                }
            }
            _ => {}
        }
    }
    for (kernel, _) in blocks.iter().filter(|(_, block)| block.kernel) {
        let reached = reachable(&blocks, kernel);
        for site in &mut sites {
            if reached.contains(site.function.as_str()) {
                site.kernels.insert((*kernel).to_owned());
            }
        }
    }
    sites
}

/// The name in the words before a block: a type's, else what stands before the parameters.
fn block_name<'a>(words: &[&'a str]) -> &'a str {
    if let Some(at) = words.iter().rposition(|word| *word == "struct") {
        return words.get(at + 1).copied().unwrap_or_default();
    }
    // An attribute is `[[...]]`, with parentheses of its own.
    let mut brackets = 0;
    for (at, word) in words.iter().enumerate() {
        match *word {
            "[" => brackets += 1,
            "]" => brackets -= 1,
            "(" if brackets == 0 && at > 0 => return words[at - 1],
            _ => {}
        }
    }
    ""
}

/// The blocks that `from` names, and those that they name.
fn reachable<'a>(blocks: &BTreeMap<&'a str, Block<'a>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        for &word in blocks.get(name).map(|block| &block.words).into_iter().flatten() {
            if blocks.contains_key(word) && reached.insert(word) {
                open.push(word);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::{Change, TRAPS, code, find, switched};

    const TEXT: &str = "#include <metal_stdlib>
using namespace metal;
struct Pair { float apply(float x) { return x; } };
template <uint N>
inline float sum(threadgroup float* s) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return s[0];
}
inline void other(device float* x) {
    // threadgroup_barrier(mem_flags::mem_none);
    simdgroup_barrier(
        mem_flags::mem_device | mem_flags::mem_threadgroup);
}
[[max_total_threads_per_threadgroup(32)]]
kernel void a(device float* x [[buffer(0)]]) { threadgroup float s[4]; x[0] = sum<4>(s); }
kernel void b(device float* x [[buffer(0)]]) { threadgroup float s[4]; x[0] = sum<4>(s); other(x); }
";

    #[test]
    fn barriers_have_their_kernels_and_wrong_flags() {
        let sites = find(TEXT);
        let shown: Vec<_> = sites
            .iter()
            .map(|site| {
                let kernels: Vec<_> = site.kernels.iter().map(String::as_str).collect();
                let changes: Vec<_> = site.changes().into_iter().map(Change::name).collect();
                (site.line, site.function.as_str(), kernels.join(" "), changes.join(" "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                (6, "sum", "a b".to_owned(), "removed mem_none mem_device".to_owned()),
                (11, "other", "b".to_owned(), "removed mem_none mem_device mem_threadgroup".to_owned()),
            ]
        );
    }

    #[test]
    fn a_switch_stands_at_every_barrier() {
        let sites = find(TEXT);
        let text = switched(TEXT, &sites);
        assert_eq!(text.lines().count(), TEXT.lines().count());
        for (number, site) in sites.iter().enumerate() {
            let removed = format!("if (MUTANT != {}) {}(", code(number, Change::Removed), site.barrier);
            assert_eq!(text.matches(&removed).count(), 1, "{text}");
            for change in ["mem_none", "mem_device", "mem_threadgroup"] {
                let flags = format!("MUTANT == {} ? mem_flags::{change} :", code(number, Change::Flags(change)));
                assert_eq!(text.matches(&flags).count(), 1, "{text}");
            }
        }
        assert_eq!(text.matches(&format!("if (MUTANT == {TRAPS}) {{")).count(), sites.len(), "{text}");
        let line = text.lines().nth(5).expect("a line");
        assert!(line.ends_with(" : (mem_flags::mem_threadgroup)); };"), "{line}");
    }
}
