//! `serve`: the HTTP server.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sha2::{Digest, Sha256};

use super::super::server::{self, Limits};
use super::super::snapshots::Folder;
use super::super::{Error, LanguageModel, Result, weights};
use super::{Guesses, Program, terminal};

/// Variable with a key that clients must bring; unlike an option, other users of the machine do not see it.
const KEY_VARIABLE: &str = "FORGE_API_KEY";

/// Files that are no connections.
const OTHER_FILES: usize = 32;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Address to listen on: an IP address, or localhost. Beyond this machine it needs --api-key or --no-key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address)]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Let pages of this origin use the server from a browser, besides those of this machine: scheme://host[:port], or * for
    /// all; none lets in not even those of this machine. Can be given several times.
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<server::Origin>,
    /// Let clients call the server by this name, or by any for *. Addresses, names without a dot, and names below localhost,
    /// local, internal and home.arpa are always right. Can be given several times.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Ask every request but /health for this key (authorization: Bearer KEY). Can be given several times. The variable
    /// FORGE_API_KEY does the same, and is not seen by other users of the machine.
    #[arg(long, value_name = "KEY")]
    api_key: Vec<server::ApiKey>,
    /// Ask for no key, also beyond this machine.
    #[arg(long, conflicts_with = "api_key")]
    no_key: bool,
    /// Requests that may wait while others run; more are told to come again (status 429).
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue)]
    queue: usize,
    /// MiB for what slots held, so that conversations are not run again [default: a quarter of what is left beside the model].
    #[arg(long, value_name = "MIB")]
    cache_ram: Option<usize>,
    /// Keep what slots held in files of this folder too, where the next server finds it. They hold prompts and answers; nobody but
    /// their owner may read them.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Most that files of that folder may take, as in 500M, 20G or 1T.
    #[arg(long, value_name = "SIZE", default_value = "20G", value_parser = size, requires = "cache_dir")]
    cache_disk: u64,
    #[command(flatten)]
    guesses: Guesses,
    /// Longest request body in MiB (status 413).
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().body_bytes >> 20, value_parser = mebibytes)]
    max_body: usize,
    /// Connections at a time; for more, those idle longest are closed.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    connections: usize,
    /// Seconds for answers under way once the server is told to stop; then they are cancelled.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().grace.as_secs())]
    grace: u64,
    /// Take special tokens that are written out in messages for special; otherwise they are the text that they are.
    #[arg(long)]
    trust_special: bool,
    /// No line on stderr for each request.
    #[arg(long)]
    quiet: bool,
}

fn address(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        _ => text.parse().map_err(|_| "neither an IP address nor localhost".to_owned()),
    }
}

fn mebibytes(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|mebibytes| (1..=1024).contains(mebibytes));
    number.ok_or_else(|| "a number from 1 to 1024".to_owned())
}

/// A number and its unit, a power of 1024.
fn size(text: &str) -> Result<u64, String> {
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let size = units.into_iter().find_map(|(unit, shift)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
    });
    size.ok_or_else(|| "a number with K, M, G or T behind it".to_owned())
}

impl Options {
    fn keys(&self) -> Result<server::ApiKeys> {
        let mut keys = self.api_key.clone();
        if !self.no_key
            && let Some(key) = std::env::var_os(KEY_VARIABLE).filter(|key| !key.is_empty())
        {
            let key = key.into_string().map_err(|_| Error::Usage(format!("{KEY_VARIABLE} is not UTF-8")))?;
            keys.push(key.parse().map_err(|words| Error::Usage(format!("{KEY_VARIABLE}: {words}")))?);
        }
        if keys.is_empty() && !self.no_key && !self.host.is_loopback() {
            let words = "lets in everybody who reaches the port; give --api-key KEY, or --no-key if that is meant";
            return Err(Error::Usage(format!("--host {} {words}", self.host)));
        }
        Ok(keys.into_iter().collect())
    }

    fn server(&self) -> Result<server::Options> {
        let log = if self.quiet {
            server::Log::default()
        } else {
            let io = |source| Error::Io { path: "log".into(), source };
            server::Log::to(std::io::stderr()).map_err(io)?
        };
        Ok(server::Options {
            limits: Limits {
                queue: self.queue,
                body_bytes: self.max_body << 20,
                connections: self.connections,
                grace: Duration::from_secs(self.grace),
                kept_bytes: self.cache_ram.map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
                ..Limits::default()
            },
            origins: server::Origins::default().with(self.cors.iter().cloned()),
            hosts: server::Hosts::default().with(self.allow_host.iter().cloned()),
            keys: self.keys()?,
            log,
            trust_special: self.trust_special,
            folder: None,
            speculation: self.guesses.speculate,
        })
    }

    /// Where snapshots are kept. What they are of is known by weights and kernels.
    fn folder<M>(&self, program: &Program<M>) -> Result<Option<Folder>>
    where
        M: LanguageModel + 'static,
    {
        let Some(path) = self.cache_dir.clone() else { return Ok(None) };
        let weights = weights::fingerprint(&program.load_options()?.weights, program.info)?;
        let kernels = Sha256::digest(program.checks.source.metal);
        let kernels: String = kernels.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Folder { path, bytes: self.cache_disk, model: format!("weights {weights}, kernels {kernels}") }))
    }
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let mut serving = options.server()?;
    if let Some(files) = server::raise_file_limit() {
        serving.limits.connections = serving.limits.connections.min(files.saturating_sub(OTHER_FILES));
    }
    serving.folder = options.folder(&program)?;
    let text = program.text()?;
    let address = (options.host, options.port).into();
    // Taken before the model is loaded, so that a port in use is known at once.
    let listener = server::bind(address)?;
    let (info, context) = (program.info, program.load_options()?.context_for(program.info)?);
    if !text.templates.is_empty() {
        let calls = server::tools::CallForm::of(&text)
            .map_or("in no known form, left in the text".into(), |form| form.describe());
        let reasoning = server::tools::Thinking::of(&text).describe();
        terminal::note(&format!("tool calls: {calls}; reasoning: {reasoning}"));
    }
    let parts = server::Parts { listener, info, context, load: move || program.model(), text };
    server::run(parts, serving, |address| {
        terminal::note(&format!("listening on http://{address}; try http://{address}/v1/models"));
    })
}
