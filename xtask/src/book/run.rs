//! The commands of the book, run in the order of its pages in one folder, as a reader would: what the first page generates is what the
//! others use. In the folder are the demo's checkpoint as `model.Q8_0.gguf` and a text as `text.txt`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::blocks::{self, Block, Marker};
use super::help::{self, Help};
use super::page::Page;
use super::{Options, read, report};
use crate::forge::Forge;
use crate::{clang, demo, shared, shell};

/// The folder of the project that the first page makes, and its program.
const PROJECT: &str = "my-model";
/// A command that takes longer hangs; the first build of a project takes minutes.
const LIMIT: Duration = Duration::from_secs(1800);
/// The port that the book's servers have. Here they get one that is free.
const PORT: &str = "8080";
/// A text that is there for commands that want one.
const TEXT: &str = "Once upon a time, there was a little fox who lived near the river. One day, the fox found a lantern in the grass.\n\
    \"What a bright light!\" said the fox. She took it home and showed it to her mother. They were happy all evening.\n";
/// Pages that are made from what programs say of themselves: file, title and what stands above.
const PAGES: [(&str, &str, &str); 2] = [
    (
        "docs/commands-forge.md",
        "Commands of forge",
        "What `forge --help` says, command by command; `cargo xtask book --write` makes this page. Errors are one line, and exit codes are \
         0, 1 for an error, 2 for a command line that does not parse and 130 after Ctrl-C.",
    ),
    (
        "docs/commands-program.md",
        "Commands of a program",
        "What a generated program says with `--help`, here one called `my-model`; `cargo xtask book --write` makes this page. Answers go \
         to standard output, everything else to standard error; exit codes are 0, 1 for an error and 2 for a command line that does not \
         parse.",
    ),
];

/// Runs what can run of the pages, and says what cannot.
///
/// # Errors
/// Whatever does not do what the book says; each is printed with its page.
pub(super) fn main(pages: &[Page], options: &Options) -> Result<()> {
    clang::ensure()?;
    let forge = Forge::build()?.command().get_program().into();
    let mut reader = Reader::new(shell::target_dir().join("book"), forge)?;
    let mut problems = Vec::new();
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    let mut not_run = Vec::new();
    for page in pages {
        let start = Instant::now();
        let has_project = reader.folder.join(PROJECT).exists();
        let chosen = options.only.is_empty()
            || options.only.iter().any(|name| page.name.ends_with(&format!("/{name}.md")))
            || !has_project;
        let mut count = 0;
        reader.place.clone_from(&reader.folder);
        for block in page.blocks.iter().filter(|block| block.commands()) {
            if let Some(Marker::NotRun(reason)) = &block.marker {
                *skipped.entry(reason).or_default() += 1;
                not_run.push((page, block));
            } else if chosen {
                count += 1;
                if let Err(error) = reader.run(block) {
                    problems.push(at(page, block, &format!("{error:#}")));
                }
            }
        }
        for block in page.blocks.iter().filter(|block| chosen && block.language.as_deref() == Some("xml")) {
            if let Err(error) = plist(&block.text) {
                problems.push(at(page, block, &format!("{error:#}")));
            }
        }
        if let Err(error) = reader.stop() {
            problems.push(format!("{}: {error:#}", page.name));
        }
        if count > 0 {
            println!("{}: {count} blocks, {:.1} s", page.name, start.elapsed().as_secs_f64());
        }
    }
    for (page, block) in not_run {
        let unknown = reader.unknown_options(block).unwrap_or_else(|error| vec![format!("{error:#}")]);
        problems.extend(unknown.iter().map(|text| at(page, block, text)));
    }
    match made_pages(&reader.forge) {
        Ok(made) => {
            for (name, text) in made {
                if read(name)? != text {
                    problems.push(format!("{name}: not what the program says; cargo xtask book --write"));
                }
            }
        }
        Err(error) => problems.push(format!("{error:#}")),
    }
    for (reason, count) in &skipped {
        println!("not run: {count} blocks: {reason}");
    }
    println!("{} commands run", reader.commands);
    report("book", &problems)
}

fn at(page: &Page, block: &Block, text: &str) -> String {
    format!("{}:{}: {text}", page.name, block.line)
}

/// Writes the pages that are made from what programs say.
///
/// # Errors
/// A program that is not there or fails.
pub(super) fn write_pages() -> Result<()> {
    for (name, text) in made_pages(Forge::build()?.command().get_program().as_ref())? {
        fs::write(shell::root().join(name), text).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// Those pages: names and texts.
fn made_pages(forge: &Path) -> Result<Vec<(&'static str, String)>> {
    let programs = [forge.to_owned(), program()];
    let page = |((name, title, opening), program): (_, PathBuf)| Ok((name, help::page(title, opening, &program)?));
    PAGES.into_iter().zip(programs).map(page).collect()
}

/// The program of the project that the first page makes.
fn program() -> PathBuf {
    shell::projects_target_dir().join("release").join(PROJECT)
}

/// Whether a page is made from what a program says.
pub(super) fn is_made(name: &str) -> bool {
    PAGES.iter().any(|(page, ..)| *page == name)
}

/// A property list is one, as Python reads them; `plutil` is a Mac's.
fn plist(text: &str) -> Result<()> {
    let Some(python) = shell::which("python3") else {
        ensure!(!shell::in_ci(), "no python3 to read a property list");
        return Ok(());
    };
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    let read = "import plistlib, sys; plistlib.load(open(sys.argv[1], 'rb'))";
    shell::capture(Command::new(python).args(["-c", read]).arg(file.path())).map(drop)
}

/// Who follows the book.
struct Reader {
    forge: PathBuf,
    /// Where all pages begin.
    folder: PathBuf,
    /// Where this page's commands have come to.
    place: PathBuf,
    port: String,
    server: Option<Child>,
    commands: usize,
    /// What programs said of their commands.
    helps: BTreeMap<(PathBuf, Option<String>), Help>,
}

impl Reader {
    fn new(folder: PathBuf, forge: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(&folder)?;
        fs::copy(shell::root().join(demo::CHECKPOINT), folder.join("model.Q8_0.gguf"))?;
        fs::write(folder.join("text.txt"), TEXT)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        Ok(Self { forge, place: folder.clone(), folder, port, server: None, commands: 0, helps: BTreeMap::new() })
    }

    /// A shell that runs a script, where the last one of this page left off.
    fn script(&self, text: &str) -> Result<Command> {
        let mut command = Command::new("bash");
        let text = text.replace(&format!(":{PORT}"), &format!(":{}", self.port));
        let text = text.replace(&format!("--port {PORT}"), &format!("--port {}", self.port));
        command.args(["-euo", "pipefail", "-c", &text]).current_dir(&self.place).stdin(Stdio::null());
        let mut path = vec![self.forge.parent().context("a program has a folder")?.to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        command.env("PATH", std::env::join_paths(path)?).envs([shell::kernels_cache()]);
        // Each project has its own, which here are one.
        command.env_remove("CARGO_TARGET_DIR");
        // The book's machine has no models but those in the folder.
        for name in ["HF_HUB_CACHE", "OLLAMA_MODELS"] {
            command.env(name, self.folder.join("empty"));
        }
        Ok(command)
    }

    fn run(&mut self, block: &Block) -> Result<()> {
        let before = self.place.clone();
        if block.marker == Some(Marker::Repository) {
            shell::root().clone_into(&mut self.place);
        }
        let result = match block.language.as_deref() {
            Some("console") => self.console(&block.text),
            _ if block.marker == Some(Marker::Server) => self.serve(&block.text),
            _ => self.succeed(&block.text),
        };
        if block.marker == Some(Marker::Repository) {
            self.place = before;
        }
        if block.text.contains("forge gen") {
            self.share_builds()?;
        }
        result
    }

    /// Generated projects are built in the folder that all of them share.
    fn share_builds(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let project = entry?.path();
            let target = project.join("target");
            if project.join("runtime").is_dir() {
                shared::align(&project)?;
                if !target.exists() {
                    fs::create_dir_all(shell::projects_target_dir())?;
                    std::os::unix::fs::symlink(shell::projects_target_dir(), &target)?;
                }
            }
        }
        Ok(())
    }

    fn succeed(&mut self, text: &str) -> Result<()> {
        let (status, output) = self.say(text)?;
        self.commands += text.lines().filter(|line| blocks::is_command(line)).count();
        ensure!(status.success(), "{status}\n{}", output.trim_end());
        Ok(())
    }

    fn console(&mut self, text: &str) -> Result<()> {
        for typed in blocks::typed(text).map_err(anyhow::Error::msg)? {
            let (status, output) = self.say(typed.command)?;
            self.commands += 1;
            ensure!(status.success() != typed.fails(), "{}: {status}\n{}", typed.command, output.trim_end());
            let found: Vec<&str> = output.trim_end().lines().collect();
            let end = typed.expected.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |at| at + 1);
            ensure!(blocks::matches(&typed.expected[..end], &found), "{} prints\n{}", typed.command, found.join("\n"));
        }
        Ok(())
    }

    /// Runs a script; what it prints on either stream.
    fn say(&mut self, text: &str) -> Result<(ExitStatus, String)> {
        let place = tempfile::NamedTempFile::new()?;
        let trap = format!("trap 'pwd >{}' EXIT\n{text}", place.path().display());
        let out = tempfile::NamedTempFile::new()?;
        let file = out.reopen()?;
        let mut command = self.script(&trap)?;
        let mut child = command.stdout(file.try_clone()?).stderr(file).spawn().context("bash")?;
        let status = wait(&mut child, LIMIT).with_context(|| text.to_owned())?;
        self.place = fs::read_to_string(place.path())?.trim_end().into();
        let output = String::from_utf8_lossy(&fs::read(out.path())?).replace(&self.port, PORT);
        Ok((status, output))
    }

    /// Starts a server and waits until it is ready.
    fn serve(&mut self, text: &str) -> Result<()> {
        self.stop()?;
        ensure!(text.contains(&format!("--port {PORT}")), "a server of the book names its port, {PORT}");
        self.commands += 1;
        let text = text.trim_end();
        let (before, last) = text.rsplit_once('\n').map_or(("", text), |(before, last)| (before, last));
        let words = last.split(' ').position(|word| !word.contains('=')).unwrap_or(0);
        let variables: Vec<&str> = last.split(' ').take(words).collect();
        let program: Vec<&str> = last.split(' ').skip(words).collect();
        let text = format!("{before}\n{} exec {}", variables.join(" "), program.join(" "));
        let log = self.folder.join("server.log");
        let file = File::create(&log)?;
        let mut child = self.script(&text)?.stdout(file.try_clone()?).stderr(file).spawn()?;
        let start = Instant::now();
        while !self.is_ready() {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended: {status}\n{}", fs::read_to_string(&log)?);
            }
            ensure!(start.elapsed() < LIMIT, "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.server = Some(child);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(format!("127.0.0.1:{}", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Ends the page's server as a system would.
    fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        shell::run(Command::new("kill").args(["-TERM", &server.id().to_string()]))?;
        let status = wait(&mut server, Duration::from_secs(60)).context("the server does not stop")?;
        ensure!(status.success(), "the server ends with {status}");
        Ok(())
    }

    /// Options in a block that is not run which its commands do not have.
    fn unknown_options(&mut self, block: &Block) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for line in block.text.lines() {
            let line = line.strip_prefix("$ ").unwrap_or(line).split(" #").next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().skip_while(|word| word.contains('=')).collect();
            let (program, args) = match words.as_slice() {
                ["forge", args @ ..] => (self.forge.clone(), args),
                ["cargo", "run", "--release", "--", args @ ..] => (program(), args),
                ["cargo", "xtask", args @ ..] => (std::env::current_exe()?, args),
                [first, args @ ..] if *first == PROJECT || first.ends_with(&format!("release/{PROJECT}")) => {
                    (program(), args)
                }
                _ => continue,
            };
            let top = self.help(&program, None)?;
            let Some(name) = args.first().filter(|word| !word.starts_with('-')) else { continue };
            if !top.commands().contains(name) {
                problems.push(format!("{} has no command {name}", words[0]));
                continue;
            }
            let name = (*name).to_owned();
            let help = self.help(&program, Some(&name))?;
            // Of `bench` the options are those of what it measures.
            for option in args.iter().filter(|word| word.starts_with("--") && word.len() > 2 && name != "bench") {
                let option = option.split('=').next().unwrap_or_default();
                if !help.has(option) {
                    problems.push(format!("{name} has no option {option}"));
                }
            }
        }
        Ok(problems)
    }

    fn help(&mut self, program: &Path, command: Option<&str>) -> Result<&Help> {
        let key = (program.to_owned(), command.map(str::to_owned));
        if !self.helps.contains_key(&key) {
            let help = Help::of(program, command)?;
            self.helps.insert(key.clone(), help);
        }
        Ok(&self.helps[&key])
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Waits for a process, which is ended when it takes too long.
fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            bail!("not done after {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_do_as_it_says_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(folder.path().join("book"), "bin/forge".into()).unwrap();
        let mut run = |language: &str, text: &str| {
            let block = Block { line: 1, language: Some(language.to_owned()), marker: None, text: text.to_owned() };
            reader.run(&block).map_err(|error| error.to_string())
        };
        assert_eq!(run("sh", "ls model.Q8_0.gguf text.txt\nmkdir one"), Ok(()));
        // The next block of a page begins where this one ends.
        assert_eq!(run("sh", "cd one\ntouch here"), Ok(()));
        assert_eq!(run("console", "$ ls\nhere\n\n$ cd ..\n$ ls -d one\no...e\n$ echo one two\none ...\n"), Ok(()));
        assert!(run("sh", "true\nfalse | cat\ntrue").unwrap_err().contains("exit status: 1"));
        assert!(run("sh", "echo $undefined").is_err());
        assert!(run("console", "$ echo a\nb\n").unwrap_err().contains("echo a prints\na"));
        assert!(run("console", "$ false\n").is_err());
        let fails = "echo 'error: no' >&2; exit 1";
        assert_eq!(run("console", &format!("$ {fails}\nerror: no\n")), Ok(()));
        assert!(run("console", "$ echo 'error: no'\nerror: no\n").is_err());
        assert!(run("console", &format!("$ {fails}\n...\n")).is_err());
    }

    #[test]
    fn property_lists_are_read() {
        assert!(plist("<plist version=\"1.0\"><dict><key>a</key><true/></dict></plist>").is_ok());
        if shell::which("python3").is_some() {
            assert!(plist("<plist version=\"1.0\"><dict><key>a</key></plist>").is_err());
        }
    }
}
