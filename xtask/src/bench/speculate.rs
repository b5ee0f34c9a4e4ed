//! `cargo xtask bench speculate`: what guessed and forced tokens cost and save. Every request goes to a server that guesses and to one that does not,
//! whichever is first in turn, so that what else the machine does meets both; their texts have to be the same.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::verdict;
use crate::forge::{Forge, build_project};
use crate::python::Server;
use crate::{demo, pypi, shell};

/// Tokens of an answer of which nothing can be guessed.
const TOKENS: usize = 64;
/// Tokens of each of the texts that are compared.
const SHORT: usize = 24;
/// Sequences of the demo project.
const SLOTS: usize = 4;
/// Tokens that are guessed wherever there is something to guess from, to see what steps that saves.
const DEPTH: &str = "7";
/// What guesses may cost at most.
const LEAST: f64 = 0.97;
/// Pairs that do not count: the first answers are about what the machine has in its caches.
const WARM_UP: usize = 2;
/// How often it is said how far it is.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Texts that are to be written again.
const PASSAGES: [&str; 3] = [
    "Once upon a time there was a little fox. The fox had a red lantern. Every night the fox took the lantern and walked to the river to look for his friend, the old frog.",
    "The store opens at nine in the morning and closes at six in the evening. On Sundays the store opens at noon and closes at four in the afternoon.",
    "def area(width, height):\n    return width * height\n\ndef volume(width, height, depth):\n    return area(width, height) * depth\n",
];

/// Prints the figures.
///
/// # Errors
/// A step that fails, and a text that is another with guesses.
pub fn main(pairs: usize, prompts: usize, demo_alone: bool) -> Result<()> {
    let slots = SLOTS.to_string();
    let program = project("speculate", &shell::root().join(demo::CHECKPOINT), &["--slots", &slots])?;
    let pair = Pair::start("demo", &program, "auto")?;
    pair.unpredictable(pairs)?;
    pair.edits("edits where they pay")?;
    pair.forms()?;
    let bodies = bodies(prompts);
    let plain = side_by_side("demo, plain", pair.plain.address(), &bodies, 1)?;
    drop(pair);
    Pair::start("demo", &program, DEPTH)?.edits("edits always")?;
    for speculate in ["auto", "3"] {
        let server = Server::start_with(&program, &["--quiet", "--speculate", speculate])?;
        compare("demo", &server, speculate, &bodies, &plain)?;
    }
    if demo_alone {
        return Ok(());
    }
    let program = project("speculate-smollm2", &pypi::smollm2()?, &["--context", "2048"])?;
    let pair = Pair::start("SmolLM2-135M-Instruct", &program, "auto")?;
    pair.edits("edits where they pay")?;
    pair.forms()?;
    // Of fewer one slow moment is the figure.
    pair.unpredictable(pairs.div_ceil(4).max(4))?;
    drop(pair);
    Pair::start("SmolLM2-135M-Instruct", &program, DEPTH)?.edits("edits always")
}

fn project(name: &str, checkpoint: &Path, args: &[&str]) -> Result<std::path::PathBuf> {
    let folder = shell::scratch("bench")?.join(name);
    Forge::build()?.must_generate(checkpoint, &folder, &[&["--name", name, "--force"], args].concat())?;
    build_project(&folder)
}

/// A server that guesses, and one that does not.
struct Pair {
    name: &'static str,
    guesses: Server,
    plain: Server,
}

/// What came of a request on one of them.
struct Answer {
    text: String,
    timings: Value,
    /// Seconds of processors.
    processors: f64,
}

impl Answer {
    fn count(&self, name: &str) -> u64 {
        self.timings[name].as_u64().unwrap_or(0)
    }

    /// Steps that chose a token.
    fn steps(&self) -> u64 {
        self.count("predicted_n") - self.count("draft_n_accepted") - self.count("forced_n")
    }

    fn seconds(&self) -> f64 {
        self.timings["predicted_ms"].as_f64().unwrap_or(f64::NAN) / 1e3
    }
}

impl Pair {
    fn start(name: &'static str, program: &Path, speculate: &str) -> Result<Self> {
        Ok(Self {
            name,
            guesses: Server::start_with(program, &["--quiet", "--speculate", speculate])?,
            plain: Server::start_with(program, &["--quiet", "--speculate", "off"])?,
        })
    }

    /// The same request on both, with guesses and without.
    fn ask(&self, path: &str, body: &Value, guesses_first: bool) -> Result<[Answer; 2]> {
        let on = |server: &Server| -> Result<Answer> {
            let before = processor_seconds(server.id())?;
            let answer = post(server.address(), path, body)?;
            Ok(Answer {
                text: text(&answer)?,
                timings: answer["timings"].clone(),
                processors: processor_seconds(server.id())? - before,
            })
        };
        let answers = if guesses_first {
            let guesses = on(&self.guesses)?;
            [guesses, on(&self.plain)?]
        } else {
            let plain = on(&self.plain)?;
            [on(&self.guesses)?, plain]
        };
        let [guesses, plain] = &answers;
        ensure!(guesses.text == plain.text, "{}: {:?} with guesses, else {:?}", self.name, guesses.text, plain.text);
        Ok(answers)
    }

    /// Texts at a high temperature, of which nothing can be guessed: what that costs.
    fn unpredictable(&self, pairs: usize) -> Result<()> {
        let (mut wall, mut processors, mut guessed) = (Vec::new(), Vec::new(), 0);
        let progress = Progress::new(&format!("{}, unpredictable text", self.name), WARM_UP + pairs);
        for pair in 0..WARM_UP + pairs {
            let messages = json!([{ "role": "user", "content": format!("Tell me something new, number {pair}.") }]);
            let body = json!({ "messages": messages, "max_tokens": TOKENS, "temperature": 1.5, "seed": pair });
            let [guesses, plain] = self.ask("/v1/chat/completions", &body, pair % 2 == 0)?;
            progress.one();
            if pair >= WARM_UP && plain.count("predicted_n") > 16 {
                wall.push(plain.seconds() / guesses.seconds());
                processors.push(plain.processors / guesses.processors);
                guessed += guesses.count("draft_n");
            }
        }
        let (wall, processors) = (Quartiles::of(wall)?, Quartiles::of(processors)?);
        println!(
            "speculate: {} on unpredictable text: {wall} of plain speed, {processors} by processor time, {guessed} tokens guessed (at least {LEAST}): {}",
            self.name,
            verdict(wall.median.max(processors.median) >= LEAST)
        );
        Ok(())
    }

    /// Texts that are written again: what is saved of each, and of all.
    fn edits(&self, what: &str) -> Result<()> {
        let (mut steps, mut all) = (0, 0);
        for passage in PASSAGES {
            let half =
                passage.char_indices().nth(passage.chars().count() / 3).map_or(passage, |(at, _)| &passage[..at]);
            let again = format!("{passage}\n\n{half}");
            let question = format!("Write this text again, word for word, and nothing else:\n\n{passage}");
            let messages = json!([{ "role": "user", "content": question }]);
            for (what, path, body) in [
                ("again", "/v1/completions", json!({ "prompt": again, "max_tokens": TOKENS, "temperature": 0 })),
                (
                    "edit",
                    "/v1/chat/completions",
                    json!({ "messages": messages, "max_tokens": TOKENS, "temperature": 0 }),
                ),
            ] {
                let [guesses, plain] = self.ask(path, &body, false)?;
                self.print_saved(what, &guesses, &plain);
                steps += guesses.steps();
                all += guesses.count("predicted_n");
            }
        }
        println!("speculate: {}, {what}: {steps} steps in place of {all}", self.name);
        Ok(())
    }

    /// Answers that are held to a schema: what is saved.
    fn forms(&self) -> Result<()> {
        let text = json!({ "type": "string", "maxLength": 12 });
        let number = json!({ "type": "integer", "minimum": 0, "maximum": 99 });
        let person = json!({
            "type": "object", "additionalProperties": false, "required": ["firstname", "lastname", "birthyear"],
            "properties": { "firstname": text, "lastname": text, "birthyear": number },
        });
        let weather = json!({
            "type": "object", "additionalProperties": false, "required": ["temperature_celsius", "conditions"],
            "properties": {
                "temperature_celsius": number,
                "conditions": { "enum": ["thunderstorm", "light_snow", "overcast_clouds"] },
            },
        });
        for (name, schema) in [("person", person), ("weather", weather)] {
            let messages = json!([{ "role": "user", "content": format!("Tell me about a {name} as JSON.") }]);
            let format =
                json!({ "type": "json_schema", "json_schema": { "name": name, "schema": schema, "strict": true } });
            let body = json!({ "messages": messages, "max_tokens": 160, "temperature": 0.7, "seed": 3, "response_format": format });
            let [guesses, plain] = self.ask("/v1/chat/completions", &body, false)?;
            self.print_saved(&format!("schema of a {name}"), &guesses, &plain);
        }
        Ok(())
    }

    fn print_saved(&self, what: &str, guesses: &Answer, plain: &Answer) {
        let [tokens, guessed, right, forced] =
            ["predicted_n", "draft_n", "draft_n_accepted", "forced_n"].map(|name| guesses.count(name));
        println!(
            "speculate: {}, {what}: {} steps in place of {tokens}; {right} of {guessed} guessed tokens right, {forced} forced; {:.2} of plain speed, {:.2} by processor time",
            self.name,
            guesses.steps(),
            plain.seconds() / guesses.seconds(),
            plain.processors / guesses.processors
        );
    }
}

/// Requests for texts at three temperatures.
fn bodies(prompts: usize) -> Vec<Value> {
    let of_prompt = |prompt: usize| {
        let passage = PASSAGES[prompt % PASSAGES.len()];
        let begin = passage.char_indices().nth(7 * (prompt / 3) % 90).map_or(0, |(at, _)| at);
        let words = &passage[begin..];
        [0.0, 0.7, 1.5].map(|temperature| {
            json!({
                "prompt": format!("{words} {words}"), "max_tokens": SHORT, "temperature": temperature, "seed": prompt,
                "frequency_penalty": if prompt % 10 == 9 { 0.5 } else { 0.0 },
            })
        })
    };
    (0..prompts).flat_map(of_prompt).collect()
}

/// Texts with guesses, alone and four at a time: whether they are those without.
fn compare(name: &str, server: &Server, speculate: &str, bodies: &[Value], plain: &[Value]) -> Result<()> {
    let (mut guessed, mut right) = (0, 0);
    for clients in [1, SLOTS] {
        let what = format!("{name}, --speculate {speculate}, {clients} at a time");
        let found = side_by_side(&what, server.address(), bodies, clients)?;
        for ((body, found), plain) in bodies.iter().zip(&found).zip(plain) {
            ensure!(text(found)? == text(plain)?, "{body}: {:?}, else {:?}", text(found)?, text(plain)?);
            guessed += found["timings"]["draft_n"].as_u64().unwrap_or(0);
            right += found["timings"]["draft_n_accepted"].as_u64().unwrap_or(0);
        }
    }
    println!(
        "speculate: {name} with --speculate {speculate}: {} prompts at temperatures 0, 0.7 and 1.5, alone and {SLOTS} at a time: the same texts; {right} of {guessed} guessed tokens right",
        bodies.len() / 3
    );
    Ok(())
}

/// How far something is, on stderr.
struct Progress {
    what: String,
    of: usize,
    start: Instant,
    /// How many are done, and when that was said last.
    said: Mutex<(usize, Instant)>,
}

impl Progress {
    fn new(what: &str, of: usize) -> Self {
        let now = Instant::now();
        Self { what: what.to_owned(), of, start: now, said: Mutex::new((0, now)) }
    }

    /// One more is done.
    fn one(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.0 += 1;
        if said.1.elapsed() >= SAID_EVERY || said.0 == self.of {
            said.1 = Instant::now();
            eprintln!(
                "speculate: {}: {} of {}, {:.0} s",
                self.what,
                said.0,
                self.of,
                self.start.elapsed().as_secs_f64()
            );
        }
    }
}

/// Answers to completions, asked for by so many clients at a time.
fn side_by_side(what: &str, address: SocketAddr, bodies: &[Value], clients: usize) -> Result<Vec<Value>> {
    let progress = Progress::new(what, bodies.len());
    std::thread::scope(|scope| {
        let ask = |client: usize| {
            let (own, progress) = (bodies.iter().skip(client).step_by(clients), &progress);
            let one = move |body| post(address, "/v1/completions", body).inspect(|_| progress.one());
            scope.spawn(move || own.map(one).collect::<Result<Vec<Value>>>())
        };
        let threads: Vec<_> = (0..clients).map(ask).collect();
        let mut answers = vec![Value::Null; bodies.len()];
        for (client, thread) in threads.into_iter().enumerate() {
            let own = thread.join().unwrap_or_else(|_| bail!("a client panicked"))?;
            answers.iter_mut().skip(client).step_by(clients).zip(own).for_each(|(place, answer)| *place = answer);
        }
        Ok(answers)
    })
}

/// A list's median, and what a quarter of it is below and above.
struct Quartiles {
    median: f64,
    low: f64,
    high: f64,
}

impl Quartiles {
    fn of(mut list: Vec<f64>) -> Result<Self> {
        list.retain(|number| number.is_finite());
        list.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| list.get(((list.len() as f64 - 1.0) * share).round() as usize).copied();
        let all = || Some(Self { median: at(0.5)?, low: at(0.25)?, high: at(0.75)? });
        all().context("no pair was measured")
    }
}

impl std::fmt::Display for Quartiles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:.3} ({:.3} to {:.3})", self.median, self.low, self.high)
    }
}

/// Time that a process has had of all processors.
fn processor_seconds(process: u32) -> Result<f64> {
    // Linux's ticks for programs, whatever those of the kernel are.
    const TICKS: f64 = 100.0;
    let line = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Its name, which may hold anything, is in parentheses; user and system time are the 12th and the 13th word after it.
    let words = line.rsplit_once(')').context("no process")?.1.split_whitespace();
    Ok(words.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS)
}

/// What was generated.
fn text(answer: &Value) -> Result<String> {
    let choice = &answer["choices"][0];
    let text = choice["text"].as_str().or_else(|| choice["message"]["content"].as_str());
    text.map(str::to_owned).with_context(|| format!("no answer: {answer}"))
}

/// A whole answer.
fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, json) = answer.split_once("\r\n\r\n").context("no answer")?;
    serde_json::from_str(json).with_context(|| format!("no JSON: {json}"))
}
