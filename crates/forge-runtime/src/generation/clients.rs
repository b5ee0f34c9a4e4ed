//! Requests from other threads, and the one engine that works on all of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::{Error, LanguageModel, Result};
use super::{Audience, Engine, Id, Listener, Request, Summary};

/// Hears the text of a request, and what it came to.
pub trait Answered: Listener {
    /// The end; nothing comes after it.
    fn end(self, result: Result<Summary>);
}

/// A request, and who is to hear of it.
#[derive(Debug)]
pub struct Job<C> {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub client: C,
}

/// Where requests come from.
pub trait Queue<C> {
    /// Waits for the next one; `None` where there will be none.
    fn wait(&mut self) -> Option<Job<C>>;

    /// The next one, if it is there.
    fn poll(&mut self) -> Option<Job<C>>;
}

/// Those whose requests the engine has.
struct Clients<C> {
    clients: BTreeMap<Id, C>,
    /// Listens for those that are gone.
    nobody: Nobody,
}

impl<C: Answered> Audience for Clients<C> {
    fn listener(&mut self, id: Id) -> &mut dyn Listener {
        match self.clients.get_mut(&id) {
            Some(client) => client,
            None => &mut self.nobody,
        }
    }
}

impl<C: Answered> Clients<C> {
    fn take<M: LanguageModel>(&mut self, engine: &mut Engine<M>, job: Job<C>) {
        let Job { request, mut client } = job;
        if !client.keep_going() {
            return client.end(Err(Error::Cancelled));
        }
        match engine.take(&request) {
            Ok(id) => drop(self.clients.insert(id, client)),
            Err(error) => client.end(Err(error)),
        }
    }

    fn end(&mut self, id: Id, result: Result<Summary>) {
        if let Some(client) = self.clients.remove(&id) {
            client.end(result);
        }
    }
}

/// Works on what comes until there will be nothing more, and all of it has ended. `show` sees the engine after each turn, before those
/// whose requests ended hear of it.
pub fn work<M: LanguageModel, C: Answered>(
    engine: &mut Engine<M>,
    queue: &mut impl Queue<C>,
    mut show: impl FnMut(&mut Engine<M>),
) {
    let mut clients = Clients { clients: BTreeMap::new(), nobody: Nobody };
    loop {
        if engine.is_idle() {
            match queue.wait() {
                Some(job) => clients.take(engine, job),
                None => return,
            }
        }
        while let Some(job) = queue.poll() {
            clients.take(engine, job);
        }
        // A fault must not take the others down; what was running is given up, what waits goes on.
        let ended = catch_unwind(AssertUnwindSafe(|| engine.turn(&mut clients))).unwrap_or_else(|_| {
            let failed = |id| (id, Err(Error::Usage("the model failed on this request".into())));
            engine.reset().into_iter().map(failed).collect()
        });
        // Who hears of an end and looks finds the slot free.
        show(engine);
        ended.into_iter().for_each(|(id, result)| clients.end(id, result));
    }
}

struct Nobody;

impl Listener for Nobody {
    fn text(&mut self, _: &str) -> bool {
        false
    }

    fn keep_going(&mut self) -> bool {
        false
    }
}
