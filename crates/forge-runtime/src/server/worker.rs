//! The model thread: owns the model, works through the queue, one request after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};

use super::super::assets::Text;
use super::super::generation::{Engine, Listener, Request, Summary};
use super::super::{Error, LanguageModel};
use super::admission::Place;
use super::api_error::ApiError;

/// What the model thread tells of a request.
pub(super) enum Event {
    /// The next piece of text.
    Text(String),
    /// The end; nothing comes after it.
    Done(Result<Summary, Error>),
}

struct Job {
    request: Request,
    /// Special tokens that stand for text.
    shown: Arc<[(u32, String)]>,
    /// Its other end is dropped when the client goes away.
    events: UnboundedSender<Event>,
    /// Given up when the job is done.
    _place: Place,
}

/// The way to the model thread.
pub(super) struct Worker {
    queue: Sender<Job>,
    canceller: Canceller,
}

/// Ends everything that runs or waits.
#[derive(Clone)]
pub(super) struct Canceller(Arc<AtomicBool>);

impl Canceller {
    pub(super) fn cancel_all(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Worker {
    /// Starts the thread; it ends when the worker is dropped.
    pub(super) fn start<M: LanguageModel + 'static>(
        model: M,
        text: Arc<Text>,
        queue: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        // As many as there are places.
        let (sender, receiver) = channel(queue.saturating_add(1).min(Semaphore::MAX_PERMITS));
        let canceller = Canceller(Arc::new(AtomicBool::new(false)));
        let engine = Engine::new(model, text);
        let cancelled = canceller.clone();
        let thread =
            std::thread::Builder::new().name("model".into()).spawn(move || work(engine, receiver, &cancelled))?;
        Ok((Self { queue: sender, canceller }, thread))
    }

    pub(super) fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Queues a request; `shown` are special tokens that stand for text in its answer. Dropping the receiver cancels it.
    pub(super) fn submit(
        &self,
        request: Request,
        shown: Arc<[(u32, String)]>,
        place: Place,
    ) -> Result<UnboundedReceiver<Event>, ApiError> {
        let (events, receiver) = unbounded_channel();
        match self.queue.try_send(Job { request, shown, events, _place: place }) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(ApiError::overloaded()),
            Err(TrySendError::Closed(_)) => Err(ApiError::internal("the model has stopped".into())),
        }
    }
}

fn work<M: LanguageModel>(mut engine: Engine<M>, mut queue: Receiver<Job>, cancelled: &Canceller) {
    while let Some(Job { request, shown, events, _place }) = queue.blocking_recv() {
        let mut listener = Client { events: &events, shown: &shown, cancelled };
        if !listener.keep_going() {
            // Cancelled before its turn; a client that is gone does not hear it.
            let _ = events.send(Event::Done(Err(Error::Cancelled)));
            continue;
        }
        // A fault in one request must not take the server down; the sequence it leaves behind is given up.
        let result = catch_unwind(AssertUnwindSafe(|| engine.generate(&request, &mut listener)));
        let result = result.unwrap_or_else(|_| {
            engine.reset();
            Err(Error::Usage("the model failed on this request".into()))
        });
        // A client that is gone does not hear it.
        let _ = events.send(Event::Done(result));
    }
}

struct Client<'a> {
    events: &'a UnboundedSender<Event>,
    shown: &'a [(u32, String)],
    cancelled: &'a Canceller,
}

impl Listener for Client<'_> {
    fn text(&mut self, text: &str) -> bool {
        self.events.send(Event::Text(text.to_owned())).is_ok()
    }

    fn special(&self, token: u32) -> Option<&str> {
        self.shown.iter().find(|(id, _)| *id == token).map(|(_, text)| text.as_str())
    }

    fn keep_going(&mut self) -> bool {
        !self.events.is_closed() && !self.cancelled.is_cancelled()
    }
}
