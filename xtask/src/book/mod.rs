//! The book (`docs/`): every page is in its summary, every link leads somewhere, every message that it explains is one of the
//! program's, the pages of commands are what the programs say of themselves, and every command in it is run, or says why not.

mod blocks;
mod help;
mod messages;
mod page;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;
use blocks::{Block, Marker};
use page::Page;

/// Options of `cargo xtask book`.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Only write the pages that are made from the programs' help; of a project the program that the last run built
    #[arg(long)]
    write: bool,
    /// Run the commands of this page alone, and of the first, which makes the project that others use (repeatable)
    #[arg(long, value_name = "PAGE")]
    only: Vec<String>,
}

/// Where the book is, in the repository.
const FOLDER: &str = "docs";
/// What lists its pages.
const SUMMARY: &str = "docs/SUMMARY.md";
/// The page of messages.
const MESSAGES: &str = "docs/troubleshooting.md";
/// Pages beside the book of which the links are looked at too.
const BESIDE: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// Looks at all pages, then runs their commands.
///
/// # Errors
/// Whatever does not hold; each is printed with its page.
pub fn main(options: &Options) -> Result<()> {
    if options.write {
        return run::write_pages();
    }
    report("book", &check(&files()?))?;
    let mut pages = Vec::new();
    for name in &summary(&read(SUMMARY)?).pages {
        pages.push(Page::new(name, &read(name)?));
    }
    run::main(&pages, options)
}

/// Prints problems, and fails where there are any.
fn report(what: &str, problems: &[String]) -> Result<()> {
    for problem in problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{what}: {} problems", problems.len());
    }
    Ok(())
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(shell::root().join(name)).with_context(|| name.to_owned())
}

/// What the texts of the repository hold that the book is checked against: its pages, and sources.
fn files() -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for name in BESIDE {
        files.push((name.to_owned(), read(name)?));
    }
    for folder in [FOLDER, "crates"] {
        for path in crate::snapshots::walk(&shell::root().join(folder))? {
            let name = path.strip_prefix(shell::root())?.to_string_lossy().into_owned();
            if (folder == FOLDER && name.ends_with(".md")) || (name.ends_with(".rs") && !name.contains("/target/")) {
                files.push((name, fs::read_to_string(&path).with_context(|| path.display().to_string())?));
            }
        }
    }
    Ok(files)
}

/// What is wrong with the texts alone. `files` are names and texts of the repository, as `cargo xtask tidy` has them.
pub fn check(files: &[(String, String)]) -> Vec<String> {
    let Some((_, text)) = files.iter().find(|(name, _)| name == SUMMARY) else {
        return vec![format!("{SUMMARY} is missing")];
    };
    let in_book = |name: &str| name.starts_with("docs/") && name.ends_with(".md") && name != SUMMARY;
    let mut problems = listed(&summary(text), files.iter().map(|(name, _)| name.as_str()).filter(|name| in_book(name)));
    let named = |name: &str| in_book(name) || BESIDE.contains(&name);
    let pages: BTreeMap<&str, Page> = files
        .iter()
        .filter(|(name, _)| named(name))
        .map(|(name, text)| (name.as_str(), Page::new(name, text)))
        .collect();
    for page in pages.values() {
        problems.extend(links(page, &pages, |path| shell::root().join(path).exists()));
        // What programs say of themselves has examples that are no commands of the book.
        if in_book(&page.name) && !run::is_made(&page.name) {
            problems.extend(page.blocks.iter().filter_map(|block| unmarked(&page.name, block)));
        }
    }
    if let Some(page) = pages.get(MESSAGES) {
        let sources = files.iter().filter(|(name, _)| name.starts_with("crates/") && name.contains("/src/"));
        problems.extend(messages::check(page, sources.map(|(_, text)| text.as_str())));
    }
    problems
}

/// Pages as a summary lists them.
struct Summary {
    /// With their folder, in order.
    pages: Vec<String>,
}

fn summary(text: &str) -> Summary {
    let page = Page::new(SUMMARY, text);
    Summary { pages: page.links.into_iter().map(|link| format!("{FOLDER}/{}", link.target)).collect() }
}

/// Pages that the summary lists and are not there, are there and not listed, or are listed twice.
fn listed<'a>(summary: &Summary, there: impl Iterator<Item = &'a str>) -> Vec<String> {
    let there: BTreeSet<&str> = there.collect();
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for name in summary.pages.iter().map(String::as_str) {
        if !there.contains(name) {
            problems.push(format!("{SUMMARY}: {name} is not there"));
        }
        if !seen.insert(name) {
            problems.push(format!("{SUMMARY}: {name} is listed twice"));
        }
    }
    problems.extend(there.difference(&seen).map(|name| format!("{name}: not in {SUMMARY}")));
    problems
}

/// Links of a page that lead nowhere.
fn links(page: &Page, pages: &BTreeMap<&str, Page>, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for link in &page.links {
        let mut problem = |what: &str| problems.push(format!("{}:{}: {}: {what}", page.name, link.line, link.target));
        // The world is not looked at.
        if ["https://", "http://", "mailto:"].iter().any(|scheme| link.target.starts_with(scheme)) {
            continue;
        }
        let (path, anchor) = link.target.split_once('#').map_or((&*link.target, None), |(path, id)| (path, Some(id)));
        let target = if path.is_empty() { Some(page.name.clone()) } else { beside(&page.name, path) };
        let Some(target) = target.filter(|target| exists(target)) else {
            problem("is not there");
            continue;
        };
        let Some(anchor) = anchor else { continue };
        match pages.get(target.as_str()) {
            Some(page) if page.anchors.contains(anchor) => {}
            Some(_) => problem("no such heading"),
            None => problem("an anchor of what is no page"),
        }
    }
    problems
}

/// A relative link's path from the root of the repository; none where it leads out of it.
fn beside(page: &str, link: &str) -> Option<String> {
    let mut path = PathBuf::from(page);
    path.pop();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path.to_string_lossy().into_owned())
}

/// Why a block is not as the book's blocks are: with a language, and with commands only where they are run.
fn unmarked(page: &str, block: &Block) -> Option<String> {
    let at = format!("{page}:{}", block.line);
    if block.commands() {
        return match &block.marker {
            Some(Marker::Unknown(text)) => Some(format!("{at}: no such marker: {text}")),
            _ => None,
        };
    }
    if let Some(line) = block.text.lines().find(|line| blocks::is_command(line)) {
        return Some(format!("{at}: a command outside of a block of sh or console: {}", line.trim()));
    }
    if block.language.as_deref() == Some("") {
        return Some(format!("{at}: a block without a language"));
    }
    block.marker.as_ref().map(|_| format!("{at}: a marker before a block without commands"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str, text: &str) -> Page {
        Page::new(name, text)
    }

    #[test]
    fn pages_are_listed_once() {
        let summary = summary("# Summary\n\n[A](a.md)\n\n# Part\n\n- [B](b.md)\n  - [C](c/c.md)\n- [A](a.md)\n");
        assert_eq!(summary.pages, ["docs/a.md", "docs/b.md", "docs/c/c.md", "docs/a.md"]);
        assert_eq!(
            listed(&summary, ["docs/a.md", "docs/c/c.md", "docs/d.md"].into_iter()),
            [
                "docs/SUMMARY.md: docs/b.md is not there",
                "docs/SUMMARY.md: docs/a.md is listed twice",
                "docs/d.md: not in docs/SUMMARY.md"
            ]
        );
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "# A `b` C, d!\n\n[1](#a-b-c-d) [2](#nothing) [3](b.md#there) [4](b.md#not) [5](none.md)\n\
            [6](../src/x.rs) [7](../src/x.rs#L1) [8](../../out.md) [9](https://example.org/#x) ![10](none.svg)\n";
        let pages = [page("docs/a.md", text), page("docs/b.md", "## There\n")];
        let pages: BTreeMap<&str, Page> =
            [("docs/a.md", 0), ("docs/b.md", 1)].map(|(name, at)| (name, pages[at].clone())).into();
        let there = ["docs/a.md", "docs/b.md", "src/x.rs"];
        let found = links(&pages["docs/a.md"], &pages, |path| there.contains(&path));
        assert_eq!(
            found,
            [
                "docs/a.md:3: #nothing: no such heading",
                "docs/a.md:3: b.md#not: no such heading",
                "docs/a.md:3: none.md: is not there",
                "docs/a.md:4: ../src/x.rs#L1: an anchor of what is no page",
                "docs/a.md:4: ../../out.md: is not there",
                "docs/a.md:4: none.svg: is not there",
            ]
        );
    }

    #[test]
    fn commands_stand_where_they_are_run() {
        let text = "    cargo build\n\nText.\n\n```\nx\n```\n\n```text\nX=1 forge gen\n```\n\n<!-- not run: a Mac -->\n```json\n{}\n```\n\n\
            <!-- not runn: x -->\n```sh\ntrue\n```\n\n```sh\nforge gen\n```\n\n    [dependencies]\n";
        let page = page("docs/a.md", text);
        let found: Vec<String> = page.blocks.iter().filter_map(|block| unmarked(&page.name, block)).collect();
        assert_eq!(
            found,
            [
                "docs/a.md:1: a command outside of a block of sh or console: cargo build",
                "docs/a.md:5: a block without a language",
                "docs/a.md:9: a command outside of a block of sh or console: X=1 forge gen",
                "docs/a.md:14: a marker before a block without commands",
                "docs/a.md:19: no such marker: not runn: x",
            ]
        );
    }
}
