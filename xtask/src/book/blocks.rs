//! Blocks of code in the book: which have commands, what a comment before them says of running them, and what they are to print.
//!
//! A block of `sh` is a script that has to succeed. A block of `console` has lines `$ COMMAND` with what each prints below it,
//! where `...` stands for anything; a command that prints a line `error: ...` has to fail. A comment before a block says more:
//!
//! * `<!-- not run: REASON -->`: it cannot run in the tests, or need not.
//! * `<!-- server -->`: what it starts runs until the page's end.
//! * `<!-- in the repository -->`: it runs there.

/// What a comment before a block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marker {
    NotRun(String),
    Server,
    Repository,
    /// Another comment.
    Unknown(String),
}

impl Marker {
    pub(super) fn new(text: &str) -> Self {
        match text.strip_prefix("not run: ") {
            Some(reason) => Self::NotRun(reason.trim().to_owned()),
            None if text == "server" => Self::Server,
            None if text == "in the repository" => Self::Repository,
            None => Self::Unknown(text.to_owned()),
        }
    }
}

/// A block of code.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) line: usize,
    /// The first word behind its fence; none for one that is indented.
    pub(super) language: Option<String>,
    pub(super) marker: Option<Marker>,
    pub(super) text: String,
}

impl Block {
    /// Whether it is one of commands.
    pub(super) fn commands(&self) -> bool {
        matches!(self.language.as_deref(), Some("sh" | "console"))
    }
}

/// Programs that a book of commands has.
const PROGRAMS: [&str; 24] = [
    "apt-get",
    "brew",
    "cargo",
    "cc",
    "codesign",
    "container",
    "curl",
    "docker",
    "forge",
    "git",
    "launchctl",
    "my-model",
    "nginx",
    "podman",
    "project",
    "python3",
    "rustup",
    "serve",
    "source",
    "sudo",
    "systemctl",
    "tar",
    "xcodebuild",
    "xcrun",
];

/// Whether a line of a block is one that a person types.
pub(super) fn is_command(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        })
    });
    let Some(first) = words.next() else { return false };
    let program = first.strip_prefix("target/release/").map_or(first, |_| "my-model");
    PROGRAMS.contains(&program) && words.next().is_some_and(|word| !word.starts_with(['=', ':']))
}

/// A command of a console with what it is to print.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed<'a> {
    pub(super) command: &'a str,
    /// Lines.
    pub(super) expected: Vec<&'a str>,
}

impl Typed<'_> {
    /// Whether it is to fail.
    pub(super) fn fails(&self) -> bool {
        self.expected.iter().any(|line| line.starts_with("error: "))
    }
}

/// The commands of a block of `console`.
///
/// # Errors
/// Text before the first of them.
pub(super) fn typed(text: &str) -> Result<Vec<Typed<'_>>, String> {
    let mut commands: Vec<Typed<'_>> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Typed { command, expected: Vec::new() }),
            (None, Some(command)) => command.expected.push(line),
            (None, None) => return Err(format!("text before the first command: {line}")),
        }
    }
    Ok(commands)
}

/// Whether `found` is what `expected` says: `...` alone on a line stands for any number of lines, within a line for any text.
pub(super) fn matches(expected: &[&str], found: &[&str]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((first, rest)) if first.trim() == "..." => (0..=found.len()).any(|skip| matches(rest, &found[skip..])),
        Some((first, rest)) => {
            found.split_first().is_some_and(|(line, found)| line_matches(first, line) && matches(rest, found))
        }
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let (expected, line) = (expected.trim_end(), line.trim_end());
    let mut parts = expected.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_other_text() {
        for line in [
            "cargo build",
            "FORGE_API_KEY=x target/release/demo serve",
            "  forge gen x -o y",
            "A=1 B=2 curl -s http://x",
        ] {
            assert!(is_command(line), "{line}");
        }
        for line in [
            "",
            "my-model = { path = \"x\" }",
            "cargo",
            "let forge = 1;",
            "project: name",
            "the forge gen",
            "=x cargo build",
        ] {
            assert!(!is_command(line), "{line}");
        }
    }

    #[test]
    fn consoles_are_commands_with_their_lines() {
        let commands = typed("$ forge list\none\n\n$ forge gen x\nerror: y\n").unwrap();
        assert_eq!(commands.len(), 2);
        assert_eq!(commands[0], Typed { command: "forge list", expected: vec!["one", ""] });
        assert!(!commands[0].fails() && commands[1].fails());
        assert!(typed("text\n$ x").is_err());
    }

    #[test]
    fn dots_stand_for_anything() {
        let fits = |expected: &str, found: &str| {
            matches(&expected.lines().collect::<Vec<_>>(), &found.lines().collect::<Vec<_>>())
        };
        assert!(fits("a\nb ... d", "a\nb c d"));
        assert!(fits("a\n...\nd", "a\nb\nc\nd"));
        assert!(fits("...\nd", "d"));
        assert!(fits("x...y...z", "x1y2yz") && fits("loaded in ... s", "loaded in 0.03 s"));
        assert!(!fits("a", "a\nb") && !fits("a\nb", "a") && !fits("a...c", "ab") && !fits("ab", "abc"));
        assert!(!fits("x...yz", "xz") && !fits("ab...bc", "abc"));
    }
}
