//! Names in emitted sources: packages, constants, types.

use forge_spec::Format;

/// Words that Rust (2024) reserves, and a few that MSL does.
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

/// Name of a packed format in identifiers, scales and biases told apart: `affine4_g64_bf16`.
pub fn packed_name(format: Format) -> String {
    let bf16 = matches!(format, Format::Affine { bf16: true, .. });
    format_name_of(format) + if bf16 { "_bf16" } else { "" }
}

/// Name of a packed format in comments.
pub fn format_name_of(format: Format) -> String {
    forge_plan::format_name(forge_plan::stored(format))
}

/// A Cargo package name made from any text: lower-case ASCII letters, digits and `-`, not a keyword, never empty.
pub fn package_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() {
        "model".into()
    } else if KEYWORDS.contains(&name.as_str())
        || name.starts_with(|c: char| c.is_ascii_digit())
        || ["std", "core", "alloc", "runtime", "forge-runtime", "metal-sim", "model"].contains(&name.as_str())
    {
        format!("model-{name}")
    } else {
        name
    }
}

/// The library's name in Rust code.
pub fn crate_name(package: &str) -> String {
    package.replace('-', "_")
}

/// `QKV_PROJ` for `qkv_proj`.
pub fn constant(name: &str) -> String {
    name.to_uppercase()
}

/// `SlidingLayer` for `sliding_layer`.
pub fn variant(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let mut chars = word.chars();
            chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
        })
        .collect()
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
