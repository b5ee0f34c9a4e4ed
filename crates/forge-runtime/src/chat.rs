//! One chat template: the checkpoint's Jinja template, parsed as transformers' Jinja2 would ([`super::jinja`]), with the
//! functions that transformers adds.
//!
//! A template comes with a checkpoint that a stranger may have made: rendering has bounded fuel, time, memory and depth.

use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use super::memory::bounded;
use super::{Error, Result, jinja};

/// Template instructions that one rendering may execute. Real templates need some hundred per message and tool.
const FUEL: u64 = 4_000_000;

/// Longest time for one rendering: a single instruction may repeat a string a hundred million times.
const LONGEST: Duration = Duration::from_secs(20);

/// Most memory of one rendering, the prompt and all that leads to it; values that share their parts count once.
const MOST_MEMORY: usize = 512 << 20;

/// How often a rendering that takes long is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Most bytes of a prompt; no context holds as much.
const LONGEST_PROMPT: usize = 64 << 20;

/// A parsed chat template.
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// A rendering took too long, or too much memory, and was left where it is: there is no second one.
    given_up: &'static AtomicBool,
}

impl ChatTemplate {
    /// Parses `source`. `tokens` are variables such as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::Template`].
    pub fn new(source: &str, tokens: &Map<String, Value>) -> Result<Self> {
        let mut environment = jinja::parse(source).map_err(template_error)?;
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |message: String| -> Result<(), minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        for (name, value) in tokens {
            if !value.is_null() {
                environment.add_global(name.clone(), minijinja::Value::from(Serde(value)));
            }
        }
        Ok(Self { environment: Arc::new(environment), given_up: Box::leak(Box::new(AtomicBool::new(false))) })
    }

    /// The prompt for `messages`. `extra` holds further variables, `tools` and whatever else the template knows.
    ///
    /// # Errors
    /// [`Error::Template`], with the template's own words if it refused the messages.
    pub fn render(
        &self,
        messages: &[Value],
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String> {
        let mut variables = extra.clone();
        for unset in ["tools", "documents"] {
            variables.entry(unset).or_insert(Value::Null);
        }
        variables.insert("messages".into(), Value::Array(messages.to_vec()));
        variables.insert("add_generation_prompt".into(), Value::Bool(add_generation_prompt));
        self.render_apart(variables)
    }

    /// Renders on a thread of its own, for the sake of its stack, of the time and of the memory.
    fn render_apart(&self, variables: Map<String, Value>) -> Result<String> {
        let refusal = || {
            let (seconds, mebibytes) = (LONGEST.as_secs(), MOST_MEMORY >> 20);
            Error::Template(format!("rendering took longer than {seconds} seconds or more than {mebibytes} MiB"))
        };
        let given_up = self.given_up;
        if given_up.load(Ordering::Relaxed) {
            return Err(refusal());
        }
        let (sender, receiver) = mpsc::channel();
        let environment = Arc::clone(&self.environment);
        let work = move || {
            let mut prompt = Prompt(Vec::new());
            let rendered = bounded(MOST_MEMORY, given_up, || {
                let template = environment.get_template(jinja::NAME)?;
                template.render_captured_to(Serde(&variables), &mut prompt).map(drop)
            });
            // Only text is written to it.
            let rendered = rendered.map(|()| String::from_utf8_lossy(&prompt.0).into_owned()).map_err(template_error);
            // Where it took too long, nobody waits for it.
            let _ = sender.send(rendered);
        };
        let spawned = thread::Builder::new().name("chat template".into()).stack_size(jinja::STACK_BYTES).spawn(work);
        spawned.map_err(|error| Error::Template(format!("no thread to render it on: {error}")))?;
        let start = Instant::now();
        loop {
            match receiver.recv_timeout(GLANCE) {
                Ok(rendered) => return rendered,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if start.elapsed() > LONGEST {
                        given_up.store(true, Ordering::Relaxed);
                    }
                    if given_up.load(Ordering::Relaxed) {
                        return Err(refusal());
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Error::Template("could not be rendered".into()));
                }
            }
        }
    }
}

/// A prompt that refuses to grow beyond [`LONGEST_PROMPT`].
struct Prompt(Vec<u8>);

impl io::Write for Prompt {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_PROMPT {
            return Err(io::Error::other(format!("the prompt is longer than {LONGEST_PROMPT} bytes")));
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The local time as C's `strftime` writes it, which is what Python's does.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let refuse = || minijinja::Error::new(ErrorKind::InvalidOperation, format!("bad date format {format:?}"));
    // `strftime` gives 0 both for no room and for no text; with a blank at the end there always is text.
    let pattern = CString::new(format!("{format} ")).map_err(|_| refuse())?;
    let mut buffer = vec![0; 256 + 64 * format.len().min(1000)];
    // SAFETY: `time` and `localtime_r` are given places to write to, of which zeros are valid values; `strftime` writes at
    // most the buffer's length, from a pattern that ends in NUL.
    let length = unsafe {
        let seconds = libc::time(std::ptr::null_mut());
        let mut parts = std::mem::zeroed();
        if libc::localtime_r(&raw const seconds, &raw mut parts).is_null() {
            return Err(refuse());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), pattern.as_ptr(), &raw const parts)
    };
    let text = buffer.get(..length.saturating_sub(1)).filter(|_| length > 0).ok_or_else(refuse)?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn template_error(error: minijinja::Error) -> Error {
    // What a template says to `raise_exception` is meant for the user as it is.
    let place = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let words = match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
    Error::Template((words + &cause).replace('\n', " ") + &place)
}
