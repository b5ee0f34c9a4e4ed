//! `serve`: the HTTP server.

use std::net::IpAddr;

use clap::Args;

use super::super::{LanguageModel, Result, server};
use super::{Program, terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Let pages of this origin use the server from a browser, besides those of this machine: scheme://host[:port], or * for
    /// all; none lets in not even those of this machine. Can be given several times.
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<server::Origin>,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let text = program.text()?;
    let address = (options.host, options.port).into();
    // Taken before the model is loaded, so that a port in use is known at once.
    let listener = server::bind(address)?;
    let model = program.model()?;
    if !text.templates.is_empty() {
        let calls = server::tools::CallForm::of(&text)
            .map_or("in no known form, left in the text".into(), |form| form.describe());
        terminal::note(&format!("tool calls: {calls}"));
    }
    let origins = server::Origins::default().with(options.cors.iter().cloned());
    server::run(listener, model, text, server::Options { origins, ..Default::default() }, |address| {
        terminal::note(&format!("listening on http://{address}; try http://{address}/v1/models"));
    })
}
