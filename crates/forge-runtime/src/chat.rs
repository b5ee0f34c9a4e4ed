//! One chat template: the checkpoint's Jinja template, parsed as transformers' Jinja2 would ([`super::jinja`]), with the
//! functions that transformers adds.
//!
//! A template comes with a checkpoint that a stranger may have made: rendering has bounded fuel, time, memory and depth. A rendering
//! beyond its bounds is given up, and costs nobody else anything but what it holds; after [`MOST_GIVEN_UP`] there are no more.

use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use super::memory::bounded;
use super::{Error, Result, jinja};

/// Template instructions that one rendering may execute. Real templates need some hundred per message and tool.
const FUEL: u64 = 4_000_000;

/// Longest time for one rendering, unless a template is told another: a single instruction may repeat a string a hundred million times.
/// It counts only where the process had as much of a processor: one that is stopped, or starved by others, has no time.
const LONGEST: Duration = Duration::from_secs(20);

/// Most memory of one rendering, the prompt and all that leads to it; values that share their parts count once.
const MOST_MEMORY: usize = 512 << 20;

/// How often a rendering that takes long is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Most bytes of a prompt; no context holds as much.
const LONGEST_PROMPT: usize = 64 << 20;

/// Renderings of one template that may be given up and hold their memory still; then the template renders nothing more.
pub const MOST_GIVEN_UP: usize = 4;

/// A parsed chat template.
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// Renderings that took too long, or too much memory, and have not ended since.
    given_up: Arc<AtomicUsize>,
    /// Longest time for one rendering.
    longest: Duration,
}

/// How one rendering ended, as its thread and whoever waits for it agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Running,
    Ended,
    GivenUp,
}

/// What a rendering's thread and whoever waits for it share.
struct Rendering {
    course: Mutex<Course>,
    /// It asked for too much memory and will not go on.
    stopped: AtomicBool,
    /// It took too long: it ends when it next writes to the prompt.
    late: AtomicBool,
    given_up: Arc<AtomicUsize>,
}

impl Rendering {
    fn course(&self) -> std::sync::MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self) {
        let mut course = self.course();
        if *course == Course::Running {
            *course = Course::GivenUp;
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread's side of a rendering, dropped where that ends in whatever way.
struct Ends(Arc<Rendering>);

impl Drop for Ends {
    fn drop(&mut self) {
        if std::mem::replace(&mut *self.0.course(), Course::Ended) == Course::GivenUp {
            self.0.given_up.fetch_sub(1, Ordering::Relaxed);
        }
    }
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
        Ok(Self { environment: Arc::new(environment), given_up: Arc::default(), longest: LONGEST })
    }

    /// The same template, whose renderings are given up after `longest` of a processor's time instead of after 20 seconds.
    #[must_use]
    pub fn given_up_after(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// Renderings that were given up and hold their memory still.
    pub fn given_up(&self) -> usize {
        self.given_up.load(Ordering::Relaxed)
    }

    /// The prompt for `messages`. `extra` holds further variables, `tools` and whatever else the template knows.
    ///
    /// # Errors
    /// [`Error::Template`], with the template's own words if it refused the messages; [`Error::RenderingsGivenUp`].
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
            let (seconds, mebibytes) = (self.longest.as_secs_f64(), MOST_MEMORY >> 20);
            Error::Template(format!("rendering took longer than {seconds} seconds or more than {mebibytes} MiB"))
        };
        if self.given_up() >= MOST_GIVEN_UP {
            return Err(Error::RenderingsGivenUp { renderings: self.given_up() });
        }
        let (sender, receiver) = mpsc::channel();
        let environment = Arc::clone(&self.environment);
        let rendering = Arc::new(Rendering {
            course: Mutex::new(Course::Running),
            stopped: AtomicBool::new(false),
            late: AtomicBool::new(false),
            given_up: self.given_up.clone(),
        });
        let ends = Ends(rendering.clone());
        let work = move || {
            let Ends(rendering) = &ends;
            let rendered = bounded(MOST_MEMORY, &rendering.stopped, || {
                // What it writes and what it reads are dropped within the bound they were counted in.
                let mut prompt = Prompt { bytes: Vec::new(), late: &rendering.late };
                let template = environment.get_template(jinja::NAME)?;
                template.render_captured_to(Serde(&variables), &mut prompt).map(drop)?;
                // Only text is written to it.
                Ok(String::from_utf8_lossy(&prompt.bytes).into_owned())
            });
            drop(variables);
            // Where it took too long, nobody waits for it.
            let _ = sender.send(rendered.map_err(template_error));
        };
        let spawned = thread::Builder::new().name("chat template".into()).stack_size(jinja::STACK_BYTES).spawn(work);
        spawned.map_err(|error| Error::Template(format!("no thread to render it on: {error}")))?;
        let (start, worked) = (Instant::now(), processor_time());
        loop {
            match receiver.recv_timeout(GLANCE) {
                Ok(rendered) => return rendered,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let late = start.elapsed() > self.longest
                        && processor_time()
                            .zip(worked)
                            .is_none_or(|(now, then)| now.saturating_sub(then) > self.longest);
                    if late {
                        rendering.late.store(true, Ordering::Relaxed);
                    }
                    if late || rendering.stopped.load(Ordering::Relaxed) {
                        rendering.give_up();
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

/// Processor time of all threads of this process, none of which has had more; `None` where it is not known.
fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call is given a place of its type.
    let known = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } == 0;
    let part = |count: i64| u64::try_from(count).unwrap_or(0);
    known.then(|| Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec)))
}

/// A prompt that refuses to grow beyond [`LONGEST_PROMPT`], and once nobody waits for it.
struct Prompt<'a> {
    bytes: Vec<u8>,
    late: &'a AtomicBool,
}

impl io::Write for Prompt<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > LONGEST_PROMPT {
            return Err(io::Error::other(format!("the prompt is longer than {LONGEST_PROMPT} bytes")));
        }
        if self.late.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for the prompt any more"));
        }
        self.bytes.extend(bytes);
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
