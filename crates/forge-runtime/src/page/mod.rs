//! Pages of one file: the policy that lets a page run its own script and nothing else, and the page that draws a plan or a profile.
//!
//! The drawing code is written here once. `forge` compiles this folder too, for `inspect --html`; so it refers to nothing else.

use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

/// What the browser lets a page do: run its one script with its one style. Nothing is fetched and nothing is sent.
pub fn policy(page: &str) -> String {
    let [script, style] = ["script", "style"].map(|name| base64(&Sha256::digest(inside(page, name))));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    )
}

/// The page that draws a document: a plan as `forge inspect --plan --json` has it, or a profile. The document is in it as it is, but for
/// `<`, which JSON has in strings alone and which is escaped there, so that no text ends the element.
pub fn page(json: &str) -> String {
    let (before, after) = PAGE.split_once("{data}").expect("a place for the document");
    before.replacen("{policy}", &policy(PAGE), 1) + json.trim_end().replace('<', "\\u003c").as_str() + after
}

/// What stands in a page's one element of this name without attributes.
fn inside<'a>(page: &'a str, name: &str) -> &'a str {
    let rest = page.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("</{name}>")).map_or("", |(inside, _)| inside)
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0, |bits, (index, byte)| bits | u32::from(*byte) << (16 - 8 * index));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}
