//! A page of the book: what is in its Markdown that something can be wrong with.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::blocks::{Block, Marker};

/// A link or a picture.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) line: usize,
    pub(super) target: String,
}

/// A heading.
#[derive(Debug, Clone)]
pub(super) struct Heading {
    pub(super) line: usize,
    /// The code that it is, where it is nothing else.
    pub(super) code: Option<String>,
}

/// A page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Its path in the repository.
    pub(super) name: String,
    pub(super) links: Vec<Link>,
    pub(super) headings: Vec<Heading>,
    /// What follows a `#` in links to its headings.
    pub(super) anchors: BTreeSet<String>,
    pub(super) blocks: Vec<Block>,
}

impl Page {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let mut page = Self {
            name: name.to_owned(),
            links: Vec::new(),
            headings: Vec::new(),
            anchors: BTreeSet::new(),
            blocks: Vec::new(),
        };
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
        let mut marker = None;
        let mut heading: Option<(String, bool)> = None;
        let mut block: Option<Block> = None;
        let mut times = BTreeMap::new();
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            let line = 1 + text[..range.start].matches('\n').count();
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link { line, target: dest_url.into_string() });
                }
                Event::Start(Tag::Heading { .. }) => {
                    heading = Some((String::new(), true));
                    page.headings.push(Heading { line, code: None });
                }
                Event::End(TagEnd::Heading(_)) => {
                    let (title, only_code) = heading.take().unwrap_or_default();
                    page.anchors.insert(anchor(&title, &mut times));
                    if let Some(heading) = page.headings.last_mut().filter(|_| only_code) {
                        heading.code = Some(title);
                    }
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(info) => Some(info.split([' ', ',']).next().unwrap_or("").to_owned()),
                        CodeBlockKind::Indented => None,
                    };
                    block = Some(Block { line, language, marker: marker.take(), text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Html(html) => {
                    let comment = html.trim().strip_prefix("<!--").and_then(|html| html.strip_suffix("-->"));
                    marker = comment.map(|text| Marker::new(text.trim()));
                }
                Event::Text(text) => {
                    if let Some(block) = &mut block {
                        block.text.push_str(&text);
                    } else if let Some((title, only_code)) = &mut heading {
                        title.push_str(&text);
                        *only_code = false;
                    }
                }
                Event::Code(code) => {
                    if let Some((title, _)) = &mut heading {
                        title.push_str(&code);
                    }
                }
                // A place that is linked to and is no heading.
                Event::InlineHtml(html) => {
                    let id = html.split_once("<a id=\"").and_then(|(_, rest)| rest.split_once('"'));
                    page.anchors.extend(id.map(|(id, _)| id.to_owned()));
                    marker = None;
                }
                Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => {}
                // What stands between a comment and a block parts them.
                _ => marker = None,
            }
        }
        page
    }
}

/// What a heading is linked by, as mdBook and forge hosts make it.
fn anchor(title: &str, times: &mut BTreeMap<String, usize>) -> String {
    let name: String = title
        .trim()
        .chars()
        .filter_map(|c| match c {
            c if c.is_whitespace() => Some('-'),
            c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c),
            _ => None,
        })
        .flat_map(char::to_lowercase)
        .collect();
    let count = times.entry(name.clone()).or_insert(0);
    *count += 1;
    if *count == 1 { name } else { format!("{name}-{}", *count - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_links_and_blocks() {
        let text = "# Title\n\n<a id=\"place\"></a>Text.\n\n## `--kv q8_0`: keys\n## Same\n## Same\n### `error: ...`\n\n[a](b.md) ![c](d.svg)\n\n\
            <!-- not run: a Mac -->\n```sh\nx\n```\n\n<!-- server -->\n\nText.\n\n```console\n$ y\n```\n";
        let page = Page::new("docs/a.md", text);
        let anchors = ["--kv-q8_0-keys", "error-", "place", "same", "same-1", "title"];
        assert_eq!(page.anchors.iter().collect::<Vec<_>>(), anchors);
        let codes: Vec<_> = page.headings.iter().map(|heading| heading.code.as_deref()).collect();
        assert_eq!(codes, [None, None, None, None, Some("error: ...")]);
        assert_eq!(page.links.iter().map(|link| &*link.target).collect::<Vec<_>>(), ["b.md", "d.svg"]);
        let blocks: Vec<_> = page.blocks.iter().map(|b| (b.line, b.language.as_deref(), b.marker.clone())).collect();
        let mac = Marker::NotRun("a Mac".into());
        assert_eq!(blocks, [(13, Some("sh"), Some(mac)), (21, Some("console"), None)]);
    }
}
