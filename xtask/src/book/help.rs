//! The pages of commands, made from what the programs say with `--help`: so they have every command and every option, and a test sees
//! when they do not.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// What a program says of one of its commands, or of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Help {
    about: Vec<String>,
    usage: String,
    /// Commands, arguments, options: each a title with its entries.
    lists: Vec<(String, Vec<Entry>)>,
    /// What stands behind them: examples and more.
    after: String,
}

/// An entry of a list: what is typed, and what it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    head: String,
    /// Paragraphs.
    text: Vec<String>,
    /// Possible values with what each is.
    values: Vec<String>,
}

/// Options that every command has.
const COMMON: [&str; 2] = ["-h, --help", "-V, --version"];

/// Names of the commands of a help text.
impl Help {
    /// Runs `program SUBCOMMAND --help` and reads what it says.
    ///
    /// # Errors
    /// A program that fails, or help in another form than clap's.
    pub(super) fn of(program: &Path, subcommand: Option<&str>) -> Result<Self> {
        let mut command = Command::new(program);
        let text = shell::capture(command.args(subcommand).arg("--help"))?;
        Self::parse(&text).with_context(|| shell::display(&command))
    }

    /// Names of its commands.
    pub(super) fn commands(&self) -> Vec<&str> {
        let entries = self.lists.iter().filter(|(title, _)| title == "Commands").flat_map(|(_, entries)| entries);
        entries.map(|entry| entry.head.as_str()).filter(|name| *name != "help").collect()
    }

    /// Whether it has this option, as `--name` or `-n`.
    pub(super) fn has(&self, option: &str) -> bool {
        let entries = self.lists.iter().flat_map(|(_, entries)| entries);
        entries.flat_map(|entry| entry.head.split([' ', ','])).any(|word| word == option)
    }

    /// Clap's long form (what an entry is stands below it) and its short one (beside it).
    fn parse(text: &str) -> Result<Self> {
        let mut help = Self::default();
        let mut after = Vec::new();
        let mut list: Option<(String, Vec<Entry>)> = None;
        for line in text.lines() {
            let indent = line.len() - line.trim_start().len();
            let content = line.trim();
            if let Some(usage) = line.strip_prefix("Usage: ") {
                content.clone_into(&mut help.usage);
                usage.clone_into(&mut help.usage);
            } else if help.usage.is_empty() {
                help.about.push(content.to_owned());
            } else if !after.is_empty() || line == "Examples:" {
                after.push(line);
            } else if indent == 0 && content.ends_with(':') {
                help.lists.extend(list.replace((content.trim_end_matches(':').to_owned(), Vec::new())));
            } else if content.is_empty() {
                if let Some(entry) = list.as_mut().and_then(|(_, entries)| entries.last_mut()) {
                    entry.text.push(String::new());
                }
            } else if let Some((_, entries)) = &mut list {
                help_line(entries, indent, content)?;
            } else {
                bail!("what is this: {line}");
            }
        }
        help.lists.extend(list);
        for entry in help.lists.iter_mut().flat_map(|(_, entries)| entries) {
            entry.text.retain(|text| !text.is_empty());
        }
        help.about.retain(|line| !line.is_empty());
        help.after = after.join("\n").trim().to_owned();
        ensure!(!help.usage.is_empty() && !help.lists.is_empty(), "no help of clap's:\n{text}");
        Ok(help)
    }

    /// As a section of a page.
    fn section(&self, level: usize, title: &str, out: &mut String) {
        let _ = writeln!(out, "{} {title}\n", "#".repeat(level));
        for line in &self.about {
            let _ = writeln!(out, "{}\n", sentence(line));
        }
        let _ = writeln!(out, "```text\n{}\n```\n", self.usage);
        for (title, entries) in &self.lists {
            let entries: Vec<&Entry> = entries.iter().filter(|entry| !COMMON.contains(&entry.head.as_str())).collect();
            if entries.is_empty() || title == "Commands" {
                continue;
            }
            let _ = writeln!(out, "| {} | |\n| --- | --- |", title.to_lowercase());
            for entry in entries {
                let mut text: Vec<String> = entry.text.iter().map(|text| escape(text)).collect();
                if !entry.values.is_empty() {
                    text.push(entry.values.iter().map(|value| escape(value)).collect::<Vec<_>>().join("; "));
                }
                let _ = writeln!(out, "| `{}` | {} |", entry.head.replace('|', "\\|"), text.join("<br>"));
            }
            out.push('\n');
        }
        if !self.after.is_empty() {
            let _ = writeln!(out, "```text\n{}\n```\n", self.after);
        }
    }
}

/// A line of a list.
fn help_line(entries: &mut Vec<Entry>, indent: usize, content: &str) -> Result<()> {
    // Heads are at 2 blanks, or at 6 where there is no short option; texts of the long form at 10.
    if indent < 8 {
        let (head, text) = content.split_once("  ").unwrap_or((content, ""));
        let text = Vec::from_iter(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
        entries.push(Entry { head: head.to_owned(), text, values: Vec::new() });
        return Ok(());
    }
    let Some(entry) = entries.last_mut() else { bail!("text before any entry: {content}") };
    if let Some(value) = content.strip_prefix("- ") {
        entry.values.push(value.split_whitespace().collect::<Vec<_>>().join(" "));
        return Ok(());
    }
    if content == "Possible values:" {
        return Ok(());
    }
    match entry.text.last_mut().filter(|last| !last.is_empty()) {
        Some(last) => {
            last.push(' ');
            last.push_str(content);
        }
        None => entry.text.push(content.to_owned()),
    }
    Ok(())
}

/// What Markdown would take for something else in a cell of a table.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('[', "\\[").replace('*', "\\*")
}

/// As a sentence of a page.
fn sentence(text: &str) -> String {
    let text = escape(text);
    if text.ends_with('.') { text } else { format!("{text}.") }
}

/// A page: what the program says of itself, and of each of its commands.
///
/// # Errors
/// A program that fails, or help in another form than clap's.
pub(super) fn page(title: &str, opening: &str, program: &Path) -> Result<String> {
    let top = Help::of(program, None)?;
    let mut out = format!("# {title}\n\n{opening}\n\n");
    let commands = top.commands();
    let links = commands.iter().map(|name| format!("[`{name}`](#{name})")).collect::<Vec<_>>();
    let _ = writeln!(out, "{}\n", links.join(", "));
    for name in commands {
        Help::of(program, Some(name))?.section(2, &format!("`{name}`"), &mut out);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "Generate a project\n\nUsage: forge gen [OPTIONS] <CHECKPOINT>\n\nArguments:\n  <CHECKPOINT>\n          A file | a folder\n\n\
        Options:\n      --kv <KV>\n          Element type\n\n          Possible values:\n          - f16: half\n          - f32: float\n          \n          \
        [default: f16]\n\n  -h, --help\n          Print help\n\nExamples:\n  forge gen x\n\nMore.\n";
    const SHORT: &str = "Answer one prompt.\n\nUsage: demo [OPTIONS] <COMMAND>\n\nCommands:\n  generate  Answer\n  chat      Talk\n  help      Print this\n\n\
        Options:\n      --seed <N>  The same seed\n  -h, --help      Print help\n";

    #[test]
    fn both_forms_are_read() {
        let help = Help::parse(LONG).unwrap();
        assert!(help.has("--kv") && help.has("-h") && !help.has("--k"));
        let mut out = String::new();
        help.section(2, "`gen`", &mut out);
        assert_eq!(
            out,
            "## `gen`\n\nGenerate a project.\n\n```text\nforge gen [OPTIONS] <CHECKPOINT>\n```\n\n\
             | arguments | |\n| --- | --- |\n| `<CHECKPOINT>` | A file \\| a folder |\n\n\
             | options | |\n| --- | --- |\n| `--kv <KV>` | Element type<br>\\[default: f16]<br>f16: half; f32: float |\n\n\
             ```text\nExamples:\n  forge gen x\n\nMore.\n```\n\n"
        );
        let help = Help::parse(SHORT).unwrap();
        assert_eq!(help.commands(), ["generate", "chat"]);
        assert!(help.has("--seed"));
        assert!(Help::parse("Usage: x\n\nwhat?\n").is_err() && Help::parse("").is_err());
    }
}
