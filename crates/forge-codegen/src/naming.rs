//! Names in emitted sources: packages, identifiers, constants, types.

use std::collections::{BTreeMap, BTreeSet};

use forge_spec::Format;

/// Words that Rust (2024) reserves, and a few that MSL does. For what else MSL reserves see [`METAL`].
const KEYWORDS: &[&str] = &[
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "constant",
    "continue",
    "crate",
    "device",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "half",
    "if",
    "impl",
    "in",
    "kernel",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "struct",
    "super",
    "test",
    "thread",
    "threadgroup",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Words that C++14 and MSL reserve or give a meaning in every scope, beside those of [`KEYWORDS`] (Metal Shading Language
/// Specification 3.2, sections 1.5, 2 and 4).
const METAL: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "array",
    "array_ref",
    "asm",
    "atomic_bool",
    "atomic_float",
    "atomic_int",
    "atomic_uint",
    "auto",
    "bfloat",
    "bitand",
    "bitor",
    "bool",
    "case",
    "catch",
    "char",
    "class",
    "compl",
    "const_cast",
    "constexpr",
    "decltype",
    "default",
    "delete",
    "double",
    "dynamic_cast",
    "explicit",
    "export",
    "float",
    "fragment",
    "friend",
    "goto",
    "imageblock",
    "inline",
    "int",
    "int16_t",
    "int32_t",
    "int64_t",
    "int8_t",
    "long",
    "main",
    "matrix",
    "mesh",
    "metal",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "nullptr",
    "nullptr_t",
    "object",
    "object_data",
    "operator",
    "or",
    "or_eq",
    "packed",
    "patch_control_point",
    "private",
    "protected",
    "ptrdiff_t",
    "public",
    "quad",
    "ray_data",
    "register",
    "reinterpret_cast",
    "sampler",
    "short",
    "signed",
    "size_t",
    "sizeof",
    "static_assert",
    "static_cast",
    "switch",
    "template",
    "texture",
    "this",
    "thread_local",
    "threadgroup_imageblock",
    "throw",
    "typedef",
    "typeid",
    "typename",
    "uchar",
    "uint",
    "uint16_t",
    "uint32_t",
    "uint64_t",
    "uint8_t",
    "ulong",
    "unsigned",
    "ushort",
    "using",
    "vec",
    "vertex",
    "visible",
    "void",
    "volatile",
    "wchar_t",
    "xor",
    "xor_eq",
];

/// Vector and matrix types of MSL: one of these with 2, 3 or 4, or with two of them and an x between.
const METAL_SCALARS: &[&str] =
    &["bfloat", "bool", "char", "float", "half", "int", "long", "short", "uchar", "uint", "ulong", "ushort"];

/// What `model.rs` has itself where it has names of a plan: fields of `Model`, and constants.
const MODEL: &[&str] = &[
    "BLOCKS",
    "CACHES",
    "CACHE_OF_LAYER",
    "CONTEXT",
    "FEW_ROWS",
    "HIDDEN",
    "INFO",
    "KERNELS",
    "LAYERS",
    "LOGITS_TILE",
    "PREFILL_LAYERS",
    "PREFILL_TILE",
    "SLOTS",
    "SOURCE",
    "STEPS",
    "VOCAB",
    "caches",
    "chosen",
    "context",
    "gpu",
    "layers",
    "logits",
    "next_step",
    "sampler",
    "seen",
    "step",
    "step_records",
    "tile",
    "tile_logits",
    "tile_records",
];

/// The identifier of emitted Rust and MSL that a name of a checkpoint or a plan becomes: itself where it is one that is not
/// taken. Other characters become `_`, and what is taken has a `_` after it.
pub fn identifier(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        // Two of them in a row are the compiler's own in C++, and no snake case in Rust.
        if c != '_' || !(text.is_empty() || text.ends_with('_')) {
            text.push(c);
        }
    }
    let mut text = text.trim_end_matches('_').to_owned();
    if text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert_str(0, if text.is_empty() { "unnamed" } else { "n" });
    }
    if KEYWORDS.contains(&text.as_str()) || METAL.contains(&text.as_str()) || is_metal_vector(&text) {
        text.push('_');
    }
    text
}

/// [`identifier`] beside the ones that `model.rs` has itself.
pub fn model_identifier(name: &str) -> String {
    let mut text = identifier(name);
    if MODEL.contains(&text.as_str()) {
        text.push('_');
    }
    text
}

/// `float4`, `half4x4`, `packed_float3`.
fn is_metal_vector(name: &str) -> bool {
    let name = name.strip_prefix("packed_").unwrap_or(name);
    let Some(sizes) = METAL_SCALARS.iter().find_map(|scalar| name.strip_prefix(scalar)) else { return false };
    matches!(sizes.as_bytes(), [b'2'..=b'4'] | [b'2'..=b'4', b'x', b'2'..=b'4'])
}

/// Name of a packed format in identifiers, what stands beside codes told apart: `affine4_g64_bf16`, `affine4_g128_zeros`.
pub fn packed_name(format: Format) -> String {
    let name = format_name_of(format);
    let Format::Affine { bf16, zeros, .. } = format else { return name };
    name + if bf16 { "_bf16" } else { "" } + if zeros { "_zeros" } else { "" }
}

/// Name of a packed format in comments.
pub fn format_name_of(format: Format) -> String {
    forge_plan::format_name(forge_plan::stored(format))
}

/// Folders that Cargo keeps beside the programs it builds (`cargo::util::restricted_names`).
const FOLDERS: &[&str] = &["build", "deps", "examples", "incremental"];

/// Crates of the standard library, and primitive types, which a crate of their name would hide.
const STANDARD: &[&str] = &[
    "alloc",
    "bool",
    "char",
    "core",
    "f16",
    "f32",
    "f64",
    "f128",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "isize",
    "proc-macro",
    "std",
    "str",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
];

/// What the program imports by its name, which cannot be that of what it is imported from; and the name that the runtime's
/// crate has in a project.
const OWN: &[&str] = &["cli", "runtime"];

/// Files that Windows reserves, some with a digit at their end.
const DEVICES: &[&str] = &["aux", "con", "nul", "prn"];
/// See [`DEVICES`].
const NUMBERED_DEVICES: &[&str] = &["com", "lpt"];

/// Versions that this workspace is tested with, where the runtime's are too.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Longest package name. File names that the compiler makes of it may have 255 bytes and are up to 100 bytes longer; crates.io
/// has the same limit.
const LONGEST: usize = 64;

/// A package name, and why it is not the text it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageName {
    /// Lower-case ASCII letters, digits and single `-`; 1 to 64 bytes.
    pub name: String,
    /// Reasons, in the order of the changes; empty where the name is the text.
    pub changes: Vec<&'static str>,
}

/// The name of a Cargo package, its library and its program, made from any text. Cargo, Rust, the linker and the project's own
/// dependencies leave it alone; a name it has made is made from itself again.
pub fn package_name(text: &str) -> PackageName {
    let mut changes = Vec::new();
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let mut name = name.trim_end_matches('-').to_owned();
    if name != text && !name.is_empty() {
        changes.push("names consist of lower-case letters a to z, digits and single hyphens");
    }
    if name.len() > LONGEST {
        changes.push("names have at most 64 characters");
        name = shorten(name);
    }
    if name.is_empty() {
        "model".clone_into(&mut name);
        changes.push("nothing of it can stand in a name");
    } else if let Some(reason) = taken(&name) {
        changes.push(reason);
        name = shorten(format!("model-{name}"));
    }
    PackageName { name, changes }
}

fn shorten(mut name: String) -> String {
    name.truncate(LONGEST);
    name.truncate(name.trim_end_matches('-').len());
    name
}

/// Who has the name already.
fn taken(name: &str) -> Option<&'static str> {
    let numbered =
        |device: &&str| name.strip_prefix(*device).is_some_and(|digit| matches!(digit.as_bytes(), [b'0'..=b'9']));
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        Some("names begin with a letter")
    } else if KEYWORDS.contains(&name) {
        Some("the name is a keyword")
    } else if FOLDERS.contains(&name) {
        Some("Cargo keeps a folder of the name beside its programs")
    } else if STANDARD.contains(&name) {
        Some("the name is one of the standard library's")
    } else if OWN.contains(&name) {
        Some("the project has a crate or a module of the name")
    } else if DEVICES.contains(&name) || NUMBERED_DEVICES.iter().any(numbered) {
        Some("the name is a device's on Windows")
    } else if dependencies().iter().any(|package| crate_name(package) == crate_name(name)) {
        Some("a package that the project depends on has the name")
    } else {
        None
    }
}

/// Names of the packages that the runtime needs, directly or not, on any platform, and of those that its tests need.
fn dependencies() -> BTreeSet<&'static str> {
    let mut packages: BTreeMap<_, Vec<_>> = BTreeMap::new();
    // There may be several versions of one.
    for (name, needs) in LOCK.split("[[package]]\n").filter_map(package) {
        packages.entry(name).or_default().extend(needs);
    }
    let mut found = BTreeSet::new();
    let mut wanted = vec!["forge-runtime"];
    while let Some(name) = wanted.pop() {
        if found.insert(name) {
            wanted.extend(packages.get(name).into_iter().flatten());
        }
    }
    found
}

/// A package of a lock file: its name and the names of its dependencies.
fn package(entry: &'static str) -> Option<(&'static str, Vec<&'static str>)> {
    let name = entry.strip_prefix("name = \"")?.split('"').next()?;
    // ` "libc",`, or with a version where there are several.
    let dependency = |line: &'static str| line.strip_prefix(" \"")?.split([' ', '"']).next();
    Some((name, entry.lines().filter_map(dependency).collect()))
}

/// The library's name in Rust code.
pub fn crate_name(package: &str) -> String {
    package.replace('-', "_")
}

/// `QKV_PROJ` for `qkv_proj`.
pub fn constant(name: &str) -> String {
    let upper = identifier(name).trim_end_matches('_').to_uppercase();
    model_identifier(&upper)
}

/// `SlidingLayer` for `sliding_layer`.
pub fn variant(name: &str) -> String {
    let name: String = identifier(name)
        .split('_')
        .map(|word| {
            let mut chars = word.chars();
            chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
        })
        .collect();
    // The one keyword that begins with a capital letter.
    if name == "Self" { "Self_".to_owned() } else { name }
}

/// A float as MSL writes it: shortest text that reads back the same.
pub fn float(value: f32) -> String {
    let text = format!("{value:?}");
    let text = if text.contains(['.', 'e']) { text } else { format!("{text}.0") };
    format!("{text}f")
}

/// An integer as Rust writes it: `1_234_567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('_');
        }
        text.push(c);
    }
    text
}

/// Items of an array literal packed into lines of at most `width` characters, each item followed by a comma; the last
/// line's comma too, as rustfmt leaves them.
pub fn wrap(items: impl IntoIterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.len() + item.len() + 2 <= width => {
                line.push(' ');
                line.push_str(&item);
                line.push(',');
            }
            _ => lines.push(format!("{item},")),
        }
    }
    lines
}

/// Text as it may stand in a Rust or MSL comment or between double quotes: one line, no quote, no backslash.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '"' || c == '\\' { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules themselves, apart from how names are made.
    fn is_sound(name: &str) -> bool {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        plain
            && (1..=LONGEST).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && !name.contains("--")
            && taken(name).is_none()
    }

    #[test]
    fn identifiers_are_free() {
        for name in ["q_proj", "lm_head", "gate_up_proj_tile_q4_k", "x", "float_scale", "half5", "QKV_PROJ"] {
            assert_eq!(identifier(name), name);
        }
        for (name, made) in [
            ("half", "half_"),
            ("loop", "loop_"),
            ("float4", "float4_"),
            ("half4x4", "half4x4_"),
            ("packed_float3", "packed_float3_"),
            ("operator", "operator_"),
            ("blk.0 - q__proj-", "blk_0_q_proj"),
            ("4bit", "n4bit"),
            ("", "unnamed"),
            ("模型", "unnamed"),
        ] {
            assert_eq!(identifier(name), made, "{name:?}");
        }
        for word in KEYWORDS.iter().chain(METAL) {
            assert_eq!(identifier(word), format!("{word}_"));
            assert_eq!(model_identifier(word), format!("{word}_"));
        }
        for word in MODEL {
            assert_eq!(model_identifier(word), format!("{word}_"));
        }
        assert_eq!(["half", "layers", "q_proj"].map(constant), ["HALF", "LAYERS_", "Q_PROJ"]);
        assert_eq!(["loop", "self", "sliding_layer"].map(variant), ["Loop", "Self_", "SlidingLayer"]);
    }

    #[test]
    fn good_names_stay() {
        for name in
            ["llama", "my-model", "qwen3-0-6b", "a", "model", "model-build", "builds", "tokio-model", "com", "console"]
        {
            assert_eq!(package_name(name), PackageName { name: name.into(), changes: Vec::new() });
        }
        assert_eq!(package_name("Qwen3-0.6B").name, "qwen3-0-6b");
        assert_eq!(package_name("my_model ").name, "my-model");
    }

    #[test]
    fn every_text_gives_a_name_that_stays() {
        let long = ["x".repeat(200), "1".repeat(200), format!("{}-{}", "y".repeat(63), "z".repeat(200))];
        let odd = [
            "", "-", "...", "模型", "Größe", "7b", "-o", "a--b", "../x", "a\"b", "é", "\u{0}", "BUILD", "Serde",
            "com7.x",
        ];
        let words = KEYWORDS.iter().chain(FOLDERS).chain(STANDARD).chain(DEVICES).copied();
        let words = words.chain(odd).chain(dependencies()).map(str::to_owned);
        for text in words.chain(long) {
            let text = text.as_str();
            let made = package_name(text);
            assert!(is_sound(&made.name), "{text:?} gives {made:?}");
            assert_eq!(made.name == text, made.changes.is_empty(), "{text:?} gives {made:?}");
            assert_eq!(
                package_name(&made.name),
                PackageName { name: made.name.clone(), changes: Vec::new() },
                "{text:?}"
            );
        }
    }

    #[test]
    fn names_of_others_are_not_taken() {
        for name in [
            "build",
            "deps",
            "serde",
            "serde_json",
            "Tokio",
            "metal-sim",
            "proc_macro",
            "objc2-metal",
            "test",
            "u8",
            "nul",
            "lpt1",
        ] {
            let made = package_name(name);
            assert!(made.name.starts_with("model-") && !made.changes.is_empty(), "{name} gives {made:?}");
        }
        assert!(dependencies().len() > 100, "the lock file is read");
    }
}
