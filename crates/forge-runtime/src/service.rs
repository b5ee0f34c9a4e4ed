//! A model as other code uses it: loaded once, asked from any thread.
//!
//! A [`Service`] has an [`Engine`] on a thread of its own. As many texts are generated side by side as the model has slots; what else is asked
//! waits its turn. All methods take `&self`, so that one service behind a reference or an `Arc` is enough for all threads. Dropping it ends what
//! is under way and gives the model's memory back.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use serde_json::Value;

use super::assets::{SamplingOptions, Text};
use super::generation::{Answered, Engine, Finish, Job, Listener, Queue, Request, Summary, work};
use super::weights::{self, Embedded};
use super::{Assets, Error, LanguageModel, LoadOptions, ModelInfo, Result};

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The weights file, or the folder it is in; looked for where [`weights::locate`] says if not given.
    pub weights: Option<PathBuf>,
    /// The weights, where they are part of the program.
    pub embedded: Option<Embedded>,
    /// Tokens of context of each slot, up to [`ModelInfo::trained_context`]; [`ModelInfo::default_context`] if not given.
    pub context: Option<usize>,
}

/// A model that is loaded, and the thread that it runs on.
pub struct Service {
    info: &'static ModelInfo,
    context: usize,
    text: Arc<Text>,
    queue: Option<Sender<Job<Caller>>>,
    closing: Stop,
    thread: Option<JoinHandle<()>>,
}

/// Ends a generation, or all of them, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends it with the next token, or the next tile of its prompt. One that has ended already is left as it is.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the model's thread tells of a request.
enum Event {
    Text(String),
    Done(Result<Summary>),
}

/// Who asked, on the model's thread.
struct Caller {
    events: Sender<Event>,
    stop: Stop,
    closing: Stop,
}

impl Listener for Caller {
    fn text(&mut self, text: &str) -> bool {
        self.events.send(Event::Text(text.to_owned())).is_ok()
    }

    fn keep_going(&mut self) -> bool {
        !self.stop.is_asked() && !self.closing.is_asked()
    }
}

impl Answered for Caller {
    fn end(self, result: Result<Summary>) {
        // One that is gone does not hear it.
        let _ = self.events.send(Event::Done(result));
    }
}

impl<C> Queue<C> for Receiver<Job<C>> {
    fn wait(&mut self) -> Option<Job<C>> {
        self.recv().ok()
    }

    fn poll(&mut self) -> Option<Job<C>> {
        self.try_recv().ok()
    }
}

impl Service {
    /// Finds the weights and loads the model with `load`, on the thread that it runs on from there. A project has this as its `load`.
    ///
    /// # Errors
    /// Those of [`Text::load`], [`weights::locate`] and `load`; [`Error::ContextOutOfRange`]; [`Error::Stopped`] where `load` panics.
    pub fn load<M: LanguageModel + 'static>(
        assets: &Assets,
        options: &Options,
        load: impl FnOnce(&LoadOptions) -> Result<M> + Send + 'static,
    ) -> Result<Self> {
        let assets = Assets { weights: options.embedded.or(assets.weights), ..*assets };
        let text = Arc::new(Text::load(&assets)?);
        let weights = weights::locate(options.weights.as_deref(), &assets)?;
        let options = LoadOptions { weights, context: options.context };
        // One type for every model, so that engine and thread are compiled here, once.
        Self::start(text, Box::new(move || load(&options).map(|model| Box::new(model) as Box<dyn LanguageModel>)))
    }

    fn start(text: Arc<Text>, load: Box<dyn FnOnce() -> Result<Box<dyn LanguageModel>> + Send>) -> Result<Self> {
        let (queue, mut jobs) = channel::<Job<Caller>>();
        let (loaded, outcome) = channel();
        let engines = text.clone();
        let thread = std::thread::Builder::new().name("model".into()).spawn(move || {
            let model = match load() {
                Ok(model) => model,
                // Who asked hears of it, or is gone.
                Err(error) => return drop(loaded.send(Err(error))),
            };
            let known = (model.info(), model.context());
            let mut engine = Engine::new(model, engines);
            if loaded.send(Ok(known)).is_ok() {
                work(&mut engine, &mut jobs, |_| {});
            }
        });
        let thread = thread.map_err(|source| Error::Io { path: "a thread for the model".into(), source })?;
        let (info, context) = outcome.recv().unwrap_or(Err(Error::Stopped))?;
        Ok(Self { info, context, text, queue: Some(queue), closing: Stop::default(), thread: Some(thread) })
    }

    /// The model's constants: name, sizes, how many [slots](ModelInfo::slots) it has.
    pub fn info(&self) -> &'static ModelInfo {
        self.info
    }

    /// Tokens of context of each slot.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokenizer, chat templates and the checkpoint's defaults.
    pub fn text(&self) -> &Arc<Text> {
        &self.text
    }

    /// A request for what follows `text`, sampled as the checkpoint says, up to the context's end.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], and [`Error::PromptTooLong`] for a text that cannot fit.
    pub fn continuation(&self, text: &str) -> Result<Request> {
        let prompt = self.text.tokenizer.encode_within(text, true, self.context)?;
        Ok(Request { prompt, continues_prompt: true, ..self.request()? })
    }

    /// A request for the answer to a chat, sampled as the checkpoint says, up to the context's end. `chat` is as [`Text::prompt_of`] takes it.
    ///
    /// # Errors
    /// Those of [`Text::prompt_of`] and [`Service::continuation`].
    pub fn answer(&self, chat: &Value) -> Result<Request> {
        let prompt = self.text.prompt_of(chat)?;
        // The template writes special tokens itself.
        let prompt = self.text.tokenizer.encode_within(&prompt, false, self.context)?;
        Ok(Request { prompt, ..self.request()? })
    }

    fn request(&self) -> Result<Request> {
        Ok(Request { sampling: self.text.defaults.sampling(&SamplingOptions::default())?, ..Request::default() })
    }

    /// Generates a text, of which `on_text` gets each piece as it comes; where it says `false`, the text ends there, with
    /// [`Finish::Cancelled`].
    ///
    /// # Errors
    /// Those of [`Engine::generate`], and [`Error::Stopped`].
    pub fn generate(&self, request: &Request, mut on_text: impl FnMut(&str) -> bool) -> Result<Summary> {
        let mut stream = self.stream(request)?;
        while let Some(piece) = stream.next() {
            if !on_text(&piece?) {
                stream.stop.stop();
                return Ok(Summary { finish: Finish::Cancelled, stop: None, ..stream.finish()? });
            }
        }
        stream.finish()
    }

    /// Starts a text and gives its pieces as they come. The model does not wait for who reads them.
    ///
    /// # Errors
    /// [`Error::Stopped`]. What is wrong with the request is told by the stream.
    pub fn stream(&self, request: &Request) -> Result<Stream> {
        let (events, pieces) = channel();
        let stop = Stop::default();
        let client = Caller { events, stop: stop.clone(), closing: self.closing.clone() };
        let queue = self.queue.as_ref().ok_or(Error::Stopped)?;
        queue.send(Job { request: request.clone(), client }).map_err(|_| Error::Stopped)?;
        Ok(Stream { pieces, stop, ended: None })
    }

    /// Ends all that is under way and asked for, as dropping does, while others may still hold the service. They get
    /// [`Finish::Cancelled`] or [`Error::Cancelled`], now and for whatever else they ask.
    pub fn close(&self) {
        self.closing.stop();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.closing.stop();
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It ends in a panic only where its model does, of which all who waited have heard.
            let _ = thread.join();
        }
    }
}

/// A text on its way: the iterator gives its pieces, and the error that it ends with if it does. Dropping it ends the generation.
pub struct Stream {
    pieces: Receiver<Event>,
    stop: Stop,
    /// What it came to; `None` inside once an error was told.
    ended: Option<Option<Summary>>,
}

impl Stream {
    /// What ends the generation, to be kept by another thread.
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// What the text came to, once the iterator has come to its end without an error.
    pub fn summary(&self) -> Option<&Summary> {
        self.ended.as_ref()?.as_ref()
    }

    /// Waits for the end; pieces that were not read are lost.
    ///
    /// # Errors
    /// The error that the text ended with; [`Error::Stopped`] where the iterator has told it.
    pub fn finish(mut self) -> Result<Summary> {
        for piece in self.by_ref() {
            piece?;
        }
        self.ended.take().flatten().ok_or(Error::Stopped)
    }
}

impl Iterator for Stream {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        if self.ended.is_some() {
            return None;
        }
        match self.pieces.recv() {
            Ok(Event::Text(text)) => Some(Ok(text)),
            Ok(Event::Done(Ok(summary))) => {
                self.ended = Some(Some(summary));
                None
            }
            Ok(Event::Done(Err(error))) => {
                self.ended = Some(None);
                Some(Err(error))
            }
            Err(_) => {
                self.ended = Some(None);
                Some(Err(Error::Stopped))
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.stop();
    }
}
