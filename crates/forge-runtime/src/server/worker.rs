//! The model thread: owns the model, takes requests out of the queue, and lets the engine work on all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::watch;

use super::super::assets::Text;
use super::super::generation::speculation::Speculation;
use super::super::generation::{Answered, Engine, Job, Listener, Queue, Request, Scored, Status, Summary, work};
use super::super::service::Stop;
use super::super::snapshots::Folder;
use super::super::{Error, LanguageModel};
use super::admission::Place;
use super::api_error::ApiError;
use super::log::Log;
use super::metrics::Metrics;

/// The part of what is left beside the model that may be kept: other programs have their work to do.
const SHARE_KEPT: usize = 4;

/// Time in which what slots and memory hold is written to files at the end.
const STORING: Duration = Duration::from_secs(10);

/// What is kept beside slots.
pub(super) struct Keeping {
    /// Bytes in memory; as many as there is room for unless given.
    pub(super) bytes: Option<usize>,
    /// Where files are, if anywhere.
    pub(super) folder: Option<Folder>,
    /// How many tokens are guessed.
    pub(super) speculation: Speculation,
    /// Who is told of them.
    pub(super) log: Log,
}

/// What the model thread tells of a request.
pub(super) enum Event {
    /// The log-probability of the prompt's next token.
    PromptScored(Scored),
    /// The log-probability of the next token, whose text begins so many bytes into the whole.
    Scored(Scored, usize),
    /// The next piece of text.
    Text(String),
    /// The end; nothing comes after it.
    Done(Result<Summary, Error>),
}

/// What the model thread tells of one choice of a request.
pub(super) type OfChoice = (usize, Event);

/// The way to the model thread.
pub(super) struct Worker {
    queue: Sender<Job<Client>>,
    stop: Stop,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
}

/// What the model thread shows of its work.
#[derive(Default)]
pub(super) struct Board(Mutex<Shown>);

/// See [`Board`].
#[derive(Debug, Default, Clone)]
pub(super) struct Shown {
    /// The slots.
    pub(super) slots: Vec<Status>,
    /// Requests without one.
    pub(super) waiting: usize,
    /// Bytes that are kept beside them.
    pub(super) kept_bytes: usize,
    /// Bytes that are kept in files.
    pub(super) stored_bytes: u64,
}

impl Board {
    pub(super) fn read(&self) -> Shown {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, shown: Shown) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

/// How far the model thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loading {
    /// The model is being loaded.
    Underway,
    /// It answers.
    Done,
    /// There is no model.
    Failed,
}

/// A model thread that was started.
pub(super) struct Started {
    /// The way to it.
    pub(super) worker: Worker,
    /// How far it is.
    pub(super) loading: watch::Receiver<Loading>,
    /// What it ends with.
    pub(super) thread: JoinHandle<Result<(), Error>>,
}

impl Worker {
    /// Starts the thread, which loads the model first; it ends when the worker is dropped, or where there is no model.
    pub(super) fn start<M: LanguageModel + 'static>(
        load: impl FnOnce() -> Result<M, Error> + Send + 'static,
        text: Arc<Text>,
        metrics: Arc<Metrics>,
        places: usize,
        keeping: Keeping,
    ) -> std::io::Result<Started> {
        let (sender, mut receiver) = channel(places.clamp(1, Semaphore::MAX_PERMITS));
        let stop = Stop::default();
        let (loading, loaded) = watch::channel(Loading::Underway);
        let board = Arc::new(Board::default());
        let worker = Self { queue: sender, stop: stop.clone(), metrics, board: board.clone() };
        let thread = std::thread::Builder::new().name("model".into()).spawn(move || {
            let model = load().inspect_err(|_| {
                loading.send_replace(Loading::Failed);
            })?;
            let room = keeping.bytes.unwrap_or_else(|| model.spare_bytes() / SHARE_KEPT);
            let mut engine = Engine::new(model, text);
            engine.keep_in_memory(room);
            if let Some(folder) = &keeping.folder {
                engine.keep_on_disk(folder).inspect_err(|_| {
                    loading.send_replace(Loading::Failed);
                })?;
            }
            // Who asked for a number of them is told.
            if let (Err(reason), Speculation::Depth(_)) = (engine.speculate(keeping.speculation), keeping.speculation) {
                keeping.log.note(&format!("no tokens are guessed: {reason}"));
            }
            show(&mut engine, &board, &keeping.log);
            loading.send_replace(Loading::Done);
            work(&mut engine, &mut receiver, |engine| show(engine, &board, &keeping.log));
            engine.store_all(Instant::now() + STORING);
            show(&mut engine, &board, &keeping.log);
            Ok(())
        })?;
        Ok(Started { worker, loading: loaded, thread })
    }

    /// What ends everything that runs or waits.
    pub(super) fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// What runs and waits.
    pub(super) fn shown(&self) -> Shown {
        self.board.read()
    }

    /// Queues a request for each choice of an answer, of which each takes one of the `places`; `shown` are special tokens that stand for text in the
    /// answer. Dropping the receiver cancels all.
    pub(super) fn submit(
        &self,
        requests: Vec<Request>,
        shown: &Arc<[(u32, String)]>,
        mut places: Place,
    ) -> Result<UnboundedReceiver<OfChoice>, ApiError> {
        let (events, receiver) = unbounded_channel();
        for (choice, request) in requests.into_iter().enumerate() {
            let client = Client {
                events: events.clone(),
                choice,
                shown: shown.clone(),
                stop: self.stopper(),
                metrics: self.metrics.clone(),
                last: None,
                _place: places.split(1),
            };
            self.queue.try_send(Job { request, client }).map_err(|error| match error {
                TrySendError::Full(_) => ApiError::overloaded(),
                TrySendError::Closed(_) => ApiError::internal("the model has stopped".into()),
            })?;
        }
        Ok(receiver)
    }
}

/// Shows what the engine is at.
fn show<M: LanguageModel>(engine: &mut Engine<M>, board: &Board, log: &Log) {
    engine.take_notices().iter().for_each(|words| log.note(words));
    board.show(Shown {
        slots: engine.status(),
        waiting: engine.waiting(),
        kept_bytes: engine.kept_bytes(),
        stored_bytes: engine.bytes_on_disk(),
    });
}

impl Queue<Client> for Receiver<Job<Client>> {
    fn wait(&mut self) -> Option<Job<Client>> {
        self.blocking_recv()
    }

    fn poll(&mut self) -> Option<Job<Client>> {
        self.try_recv().ok()
    }
}

struct Client {
    /// Its other end is dropped when the client goes away.
    events: UnboundedSender<OfChoice>,
    /// Which of the answer's choices it hears.
    choice: usize,
    /// Special tokens that stand for text.
    shown: Arc<[(u32, String)]>,
    stop: Stop,
    metrics: Arc<Metrics>,
    /// When the last piece of its text came.
    last: Option<Instant>,
    /// Given up when the job is done.
    _place: Option<Place>,
}

impl Client {
    /// Says whether anybody hears it.
    fn tell(&self, event: Event) -> bool {
        self.events.send((self.choice, event)).is_ok()
    }
}

impl Listener for Client {
    fn text(&mut self, text: &str) -> bool {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.metrics.gap(now - last);
        }
        self.tell(Event::Text(text.to_owned()))
    }

    fn scored(&mut self, scored: Scored, at: usize) {
        self.tell(Event::Scored(scored, at));
    }

    fn prompt_scored(&mut self, scored: Scored) {
        self.tell(Event::PromptScored(scored));
    }

    fn special(&self, token: u32) -> Option<&str> {
        self.shown.iter().find(|(id, _)| *id == token).map(|(_, text)| text.as_str())
    }

    fn keep_going(&mut self) -> bool {
        !self.events.is_closed() && !self.stop.is_asked()
    }
}

impl Answered for Client {
    fn end(self, result: Result<Summary, Error>) {
        self.metrics.ended(&result);
        self.tell(Event::Done(result));
    }
}
