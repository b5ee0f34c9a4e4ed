//! `cargo xtask bench serve`: what clients of the demo model's server see, over real sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::verdict;
use crate::forge::{Forge, build_project};
use crate::python::Server;
use crate::{demo, shell};

/// Clients at a time.
const CLIENTS: [usize; 5] = [1, 4, 8, 16, 64];
/// Tokens that each asks for.
const TOKENS: usize = 24;

/// When the pieces of one answer came, counted from its request.
struct Answer {
    pieces: Vec<Duration>,
    usage: Value,
}

/// Prints the figures.
///
/// # Errors
/// A step that fails, and an answer that is none.
pub fn main(slots: usize) -> Result<()> {
    let project = shell::scratch("bench")?.join("serve");
    let checkpoint = shell::root().join(demo::CHECKPOINT);
    let slots_text = slots.to_string();
    Forge::build()?.must_generate(&checkpoint, &project, &["--name", "serve", "--force", "--slots", &slots_text])?;
    let program = build_project(&project)?;
    println!("| clients | tokens/s | first token p50 | last | gap p99 | done |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for clients in CLIENTS {
        // A server of its own, so that no prompt is known.
        let server = Server::start_with(&program, &["--quiet"])?;
        load(server.address(), clients)?;
    }
    let server = Server::start_with(&program, &["--quiet"])?;
    beside_long_ones(server.address())
}

/// As many clients as that, all at once.
fn load(address: SocketAddr, clients: usize) -> Result<()> {
    let start = Instant::now();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = |client: usize| {
            let messages = json!([{ "role": "user", "content": format!("Tell me story number {client} of a fox.") }]);
            scope.spawn(move || chat(address, &messages, TOKENS, client))
        };
        let threads: Vec<_> = (0..clients).map(ask).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect::<Result<_>>()
    })?;
    let done = start.elapsed();
    let pieces: usize =
        answers.iter().map(|answer| answer.usage["completion_tokens"].as_u64().unwrap_or(0) as usize).sum();
    let mut first: Vec<Duration> = answers.iter().filter_map(|answer| answer.pieces.first().copied()).collect();
    let mut gaps: Vec<Duration> =
        answers.iter().flat_map(|answer| answer.pieces.windows(2).map(|pair| pair[1] - pair[0])).collect();
    first.sort_unstable();
    gaps.sort_unstable();
    let seconds = |list: &[Duration], share: f64| {
        let at = ((list.len() as f64 * share).ceil() as usize).clamp(1, list.len().max(1)) - 1;
        list.get(at).map_or(0.0, Duration::as_secs_f64)
    };
    println!(
        "| {clients} | {:.1} | {:.2} s | {:.2} s | {:.2} s | {:.1} s |",
        pieces as f64 / done.as_secs_f64(),
        seconds(&first, 0.5),
        seconds(&first, 1.0),
        seconds(&gaps, 0.99),
        done.as_secs_f64()
    );
    Ok(())
}

/// Three long answers, and beside them four of 8 tokens, one after the other.
fn beside_long_ones(address: SocketAddr) -> Result<()> {
    let message = |words: String| json!([{ "role": "user", "content": words }]);
    let worst = std::thread::scope(|scope| -> Result<Duration> {
        let long: Vec<_> = (0..3)
            .map(|client| {
                scope.spawn(move || chat(address, &message(format!("A long story, number {client}.")), 300, 7))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        let mut worst = Duration::ZERO;
        for client in 0..4 {
            let answer = chat(address, &message(format!("A short one, number {client}.")), 8, client)?;
            worst = worst.max(*answer.pieces.first().context("an answer without text")?);
        }
        for thread in long {
            thread.join().unwrap_or_else(|_| bail!("a client panicked"))?;
        }
        Ok(worst)
    })?;
    let seconds = worst.as_secs_f64();
    println!(
        "serve: first token of 8-token answers beside three long ones after {seconds:.2} s at most (under 2): {}",
        verdict(seconds < 2.0)
    );
    Ok(())
}

/// One streamed answer.
fn chat(address: SocketAddr, messages: &Value, tokens: usize, seed: usize) -> Result<Answer> {
    let body = json!({
        "messages": messages, "max_tokens": tokens, "seed": seed, "temperature": 0.8, "stream": true,
        "stream_options": { "include_usage": true },
    })
    .to_string();
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Answer { pieces: Vec::new(), usage: Value::Null };
    for line in BufReader::new(stream).lines() {
        let line = line?;
        // Chunks end between events, so that lines of chunk sizes are lines of their own.
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            return Ok(answer);
        }
        let event: Value = serde_json::from_str(data).with_context(|| format!("no JSON: {data}"))?;
        if !event["error"].is_null() {
            bail!("the server said {}", event["error"]);
        }
        if event["choices"][0]["delta"]["content"].as_str().is_some_and(|piece| !piece.is_empty()) {
            answer.pieces.push(start.elapsed());
        }
        if event["usage"].is_object() {
            answer.usage = event["usage"].clone();
        }
    }
    bail!("the server's answer has no end")
}
