//! Python packages of OpenAI, Anthropic and others against a served project, and these and npm's against a server whose model calls functions.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::forge::Forge;
use crate::test::Outcome;
use crate::{demo, shell};

/// The packages of `tests/python`, as pip takes them.
const PACKAGES: [&str; 5] =
    ["openai==3.57.0", "anthropic==2.14.0", "litellm==1.110.2", "langchain-openai==1.7.4", "llm==0.36"];
/// The packages of `tests/node`, as npm takes them.
const NODE_PACKAGES: [&str; 4] =
    ["openai@6.49.0", "@anthropic-ai/sdk@1.14.0", "ai@6.0.326", "@ai-sdk/openai-compatible@2.0.92"];
/// What opens the page, and browsers that it may open it in.
const PAGE_PACKAGES: [&str; 1] = ["playwright==1.65.2"];
const BROWSERS: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];
/// What runs the packages, in `tests/python`.
const SCRIPTS: [&str; 3] = ["openai_client.py", "anthropic_client.py", "other_clients.py"];
/// How long the server may take until it answers.
const START: Duration = Duration::from_secs(60);

/// Checkpoints whose plans are looked at in a browser: dense, the first; a mixture; a hybrid.
const PLANS: [&str; 3] = [
    demo::CHECKPOINT,
    "crates/forge-frontend/tests/fixtures/tiny/qwen2-moe/hf",
    "crates/forge-frontend/tests/fixtures/tiny/qwen35/hf",
];

/// Opens the page of a server with a hostile model in a browser, and uses it (`tests/python/page.py`); then the pages that draw plans and a
/// profile (`tests/python/plan_page.py`).
///
/// # Errors
/// A failed check; under CI also packages that cannot be installed.
pub fn page() -> Result<Outcome> {
    let Some(browser) = BROWSERS.iter().find_map(|name| shell::which(name)) else {
        return Ok(Outcome::Skipped(format!("no browser: {}", BROWSERS.join(", "))));
    };
    let python = match environment("python-page", &PAGE_PACKAGES) {
        Ok(python) => python,
        Err(error) if !shell::in_ci() => return Ok(Outcome::Skipped(format!("{error:#}"))),
        Err(error) => return Err(error),
    };
    let scripted = Scripted::start(&["--hostile"])?;
    let script = shell::root().join("tests/python/page.py");
    let mut command = Command::new(&python);
    shell::run(command.arg(script).args(["--url", &scripted.url, "--chromium"]).arg(&browser))?;
    let forge = Forge::build()?;
    let (_, program) = demo::project()?;
    let mut command = Command::new(&python);
    command.current_dir(shell::root()).arg("tests/python/plan_page.py").arg("--forge").arg(forge.program());
    command.arg("--program").arg(program).arg("--chromium").arg(&browser);
    shell::run(command.arg("--out").arg(shell::scratch("pages")?).args(PLANS))?;
    Ok(Outcome::Passed)
}

/// Serves the demo project, and a model whose answers are given, and lets the clients of `tests/python` ask both.
///
/// # Errors
/// A failed check; under CI also packages that cannot be installed.
pub fn main() -> Result<Outcome> {
    let python = match environment("python", &PACKAGES) {
        Ok(python) => python,
        Err(error) if !shell::in_ci() => return Ok(Outcome::Skipped(format!("{error:#}"))),
        Err(error) => return Err(error),
    };
    let (_, program) = demo::project()?;
    let server = Server::start(&program)?;
    let scripted = Scripted::start(&[])?;
    let served = format!("http://{}", server.address);
    for script in SCRIPTS {
        let script = shell::root().join("tests/python").join(script);
        let mut command = Command::new(&python);
        shell::run(command.arg(script).args(["--base-url", &served, "--scripted-url", &scripted.url]))?;
    }
    let modules = match node_modules("node", &NODE_PACKAGES) {
        Ok(modules) => modules,
        Err(error) if !shell::in_ci() => return Ok(Outcome::Skipped(format!("npm's clients: {error:#}"))),
        Err(error) => return Err(error),
    };
    // Modules are looked for from where the script is.
    let script = modules.join("clients.mjs");
    std::fs::copy(shell::root().join("tests/node/clients.mjs"), &script)?;
    shell::run(Command::new("node").arg(script).arg(&scripted.url))?;
    Ok(Outcome::Passed)
}

/// A folder with these npm packages, `name` in the target directory, made when missing.
///
/// # Errors
/// No npm, or packages that cannot be installed.
fn node_modules(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = shell::target_dir().join(name);
    let stamp = folder.join("packages.txt");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    if shell::which("node").is_none() || shell::which("npm").is_none() {
        bail!("no node or npm");
    }
    println!("installing {} into {}", packages.join(", "), folder.display());
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), "{ \"private\": true }\n")?;
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["install", "--silent", "--no-audit", "--no-fund"]).args(packages);
    shell::capture(&mut npm).map_err(|error| first_line(&error)).context("npm")?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(folder)
}

/// The server of `crates/forge-runtime/examples/scripted_server.rs`, which ends when dropped.
#[derive(Debug)]
struct Scripted {
    child: Child,
    url: String,
}

impl Scripted {
    fn start(args: &[&str]) -> Result<Self> {
        let mut command = shell::cargo();
        command.args(["run", "--quiet", "--package", "forge-runtime", "--example", "scripted_server", "--"]).args(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", shell::display(&command)))?;
        let mut url = String::new();
        let output = child.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut url)?;
        let url = url.trim().to_owned();
        let scripted = Self { child, url };
        if scripted.url.is_empty() {
            bail!("{} does not serve", shell::display(&command));
        }
        Ok(scripted)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A virtual environment with the packages, `name` in the target directory, made when missing; returns its Python.
///
/// # Errors
/// No `venv` module, or packages that cannot be installed.
pub fn environment(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = shell::target_dir().join(name);
    let python = folder.join("bin/python");
    let stamp = folder.join("packages.txt");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing {} into {}", packages.join(", "), folder.display());
    shell::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        .map_err(|error| first_line(&error))
        .context("no virtual environment (Debian's package is python3-venv)")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    shell::capture(&mut pip).map_err(|error| first_line(&error)).context("pip")?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// An error without the pages that pip prints.
fn first_line(error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// A served project, stopped when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the program and waits until it answers.
    ///
    /// # Errors
    /// It ends, or takes too long.
    pub fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(program: &Path, args: &[&str]) -> Result<Self> {
        // The listener is closed before the server binds the port it was given.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program);
        command.args(["serve", "--port", &address.port().to_string()]).args(args);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", shell::display(&command)))?;
        let mut server = Self { child, address };
        let start = Instant::now();
        while !healthy(address) {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended ({status})", shell::display(&command));
            }
            if start.elapsed() > START {
                bail!("{} does not answer", shell::display(&command));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True when `/health` answers 200.
fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
