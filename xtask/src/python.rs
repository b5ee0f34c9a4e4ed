//! The `openai` Python package against a served project.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::test::Outcome;
use crate::{demo, shell};

/// The packages of `tests/python`, as pip takes them.
const PACKAGES: [&str; 1] = ["openai>=1.40,<3"];
/// How long the server may take until it answers.
const START: Duration = Duration::from_secs(60);

/// Serves the demo project and runs `tests/python/openai_client.py` against it.
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
    let script = shell::root().join("tests/python/openai_client.py");
    let url = format!("http://{}/v1", server.address);
    shell::run(Command::new(python).arg(script).args(["--base-url", &url]))?;
    Ok(Outcome::Passed)
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
        // The listener is closed before the server binds the port it was given.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program);
        command.args(["serve", "--port", &address.port().to_string()]);
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
