//! Words that MSL does not have, or has only in a newer version or on some GPUs.

use crate::text::{Fault, Text};

/// C++ that MSL leaves out ("Metal Shading Language Specification", restrictions of C++14), with what to say.
const MISSING: &[(&str, &str)] = &[
    ("double", "double does not exist in MSL"),
    ("goto", "goto does not exist in MSL"),
    ("virtual", "virtual functions do not exist in MSL"),
    ("try", "exceptions do not exist in MSL"),
    ("catch", "exceptions do not exist in MSL"),
    ("throw", "exceptions do not exist in MSL"),
    ("noexcept", "noexcept does not exist in MSL"),
    ("new", "new does not exist in MSL"),
    ("delete", "delete does not exist in MSL"),
    ("dynamic_cast", "dynamic_cast does not exist in MSL"),
    ("typeid", "typeid does not exist in MSL"),
    ("thread_local", "thread_local does not exist in MSL"),
    ("asm", "asm does not exist in MSL"),
    ("union", "unions are not in every MSL compiler; use as_type<>"),
];

/// Names of a newer MSL, with its version.
const NEWER: &[(&str, (u32, u32))] = &[
    ("bfloat", (3, 1)),
    ("bfloat2", (3, 1)),
    ("bfloat3", (3, 1)),
    ("bfloat4", (3, 1)),
    ("packed_bfloat2", (3, 1)),
    ("packed_bfloat3", (3, 1)),
    ("packed_bfloat4", (3, 1)),
    ("simdgroup_bfloat8x8", (3, 1)),
    ("os_log", (3, 2)),
    ("os_log_default", (3, 2)),
    ("metal_logging", (3, 2)),
    ("atomic_thread_fence", (3, 2)),
    ("memory_order_acquire", (3, 2)),
    ("memory_order_release", (3, 2)),
    ("memory_order_acq_rel", (3, 2)),
    ("memory_order_seq_cst", (3, 2)),
];

/// Names that some GPUs of the families in use lack.
const HARDWARE: &[(&str, &str)] = &[
    ("atomic_ulong", "atomic_ulong is on Apple9 and some Apple8 GPUs only"),
    ("simd_shuffle_and_fill_down", "simd_shuffle_and_fill_down is on Apple8 GPUs and newer only, not on M1"),
    ("simd_shuffle_and_fill_up", "simd_shuffle_and_fill_up is on Apple8 GPUs and newer only, not on M1"),
];

const KEYWORDS: [&str; 9] = [
    "device",
    "constant",
    "thread",
    "threadgroup",
    "threadgroup_imageblock",
    "kernel",
    "vertex",
    "fragment",
    "ray_data",
];

fn lookup<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

/// Whether the keyword at `at` stands where only a name can.
fn is_used_as_name(text: &Text<'_>, at: usize) -> bool {
    let next = text.at(at + 1);
    // `[[kernel]]`, `#define kernel`
    let attribute = text.before(at) == "[" && next == "]";
    let follows = text.is_identifier(at + 1) || matches!(next, "*" | "&" | "::" | ">" | "(") || next.is_empty();
    !attribute && !text.in_directive(at) && !follows
}

fn newer(name: &str, needed: (u32, u32), have: (u32, u32)) -> Option<String> {
    (needed > have)
        .then(|| format!("{name} needs MSL {}.{}, the host asks for {}.{}", needed.0, needed.1, have.0, have.1))
}

/// A lambda begins at `at`: `[` where no index can be.
fn is_lambda(text: &Text<'_>, at: usize) -> bool {
    let index = at > 0
        && (text.is_identifier(at - 1) && text.before(at) != "return" || matches!(text.before(at), ")" | "]" | "["));
    let end = text.matching(at, "[", "]");
    text.at(at) == "[" && text.at(at + 1) != "[" && !index && matches!(text.at(end + 1), "(" | "{")
}

/// Faults of single words, for a host that asks for `version`.
pub(crate) fn check(text: &Text<'_>, version: (u32, u32)) -> Vec<Fault> {
    let mut found = Vec::new();
    for at in 0..text.len() {
        let (word, next) = (text.at(at), text.at(at + 1));
        let mut fault = |message: String| found.push((text.line(at), message));
        // a member or a macro's name may be called anything
        let own = matches!(text.before(at), "." | "->");
        if own {
            continue;
        }
        // `= delete` and `= default` are no expressions
        if let Some(message) = lookup(MISSING, word).filter(|_| !(word == "delete" && text.before(at) == "=")) {
            fault(message.to_owned());
        } else if let Some(message) = lookup(NEWER, word).and_then(|needed| newer(word, needed, version)) {
            fault(message);
        } else if let Some(message) = lookup(HARDWARE, word) {
            fault(message.to_owned());
        } else if word == "long" && next == "long" {
            fault("long long does not exist in MSL; long has 64 bits".to_owned());
        } else if word == "long" && next == "double" {
            fault("long double does not exist in MSL".to_owned());
        } else if word == "std" && next == "::" {
            fault("std:: does not exist in MSL".to_owned());
        } else if word == "if" && next == "constexpr" {
            newer("if constexpr", (4, 0), version).into_iter().for_each(&mut fault);
        } else if word == "auto" && next == "[" {
            newer("a structured binding", (4, 0), version).into_iter().for_each(&mut fault);
        } else if is_lambda(text, at) {
            newer("a lambda", (3, 2), version).into_iter().for_each(&mut fault);
        } else if KEYWORDS.contains(&word) && is_used_as_name(text, at) {
            fault(format!("{word} is a keyword of MSL"));
        } else if text.is_number(at) && is_wide_literal(word) {
            fault(format!("{word}: MSL has no literal of this type"));
        } else if word == "#" && next == "include" {
            found.extend(include(text, at));
        }
    }
    // `long double` is also a double
    found.dedup_by(|second, first| {
        second.0 == first.0 && first.1.starts_with("long double") && second.1.starts_with("double")
    });
    found
}

/// `1.0l`, `1ll`.
fn is_wide_literal(number: &str) -> bool {
    let lower = number.to_ascii_lowercase();
    let hexadecimal = lower.starts_with("0x");
    let float = !hexadecimal && lower.contains(['.', 'e']);
    lower.ends_with("ll") || lower.ends_with("llu") || (float && lower.ends_with('l'))
}

fn include(text: &Text<'_>, at: usize) -> Option<Fault> {
    let mut name = String::new();
    let mut token = at + 2;
    while text.line(token) == text.line(at) && token < text.len() {
        name += text.at(token);
        token += 1;
    }
    let header = name.strip_prefix('<').and_then(|name| name.strip_suffix('>'));
    let known = header.is_some_and(|header| header.starts_with("metal_"));
    (!known).then(|| {
        (text.line(at), format!("#include {name}: only the metal_ headers exist where the kernels are compiled"))
    })
}
