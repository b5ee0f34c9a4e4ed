//! A text that is read piece by piece into buffers of the caller.

use std::sync::{Mutex, PoisonError};

use model::runtime::service::{Stop, Stream};

use crate::failure::{Failure, ForgeStatus};
use crate::types::ForgeSummary;

/// Bytes of the longest character and of the zero byte behind it: the least a buffer has to have.
pub(crate) const LEAST: usize = 5;

/// A text on its way.
pub(crate) struct Generation {
    stop: Stop,
    reading: Mutex<Reading>,
}

struct Reading {
    stream: Stream,
    /// What a buffer had no room for.
    held: String,
    /// The error that it ended with.
    failure: Option<(ForgeStatus, String)>,
}

impl Generation {
    pub(crate) fn new(stream: Stream) -> Self {
        let stop = stream.stopper();
        Self { stop, reading: Mutex::new(Reading { stream, held: String::new(), failure: None }) }
    }

    /// Ends it, whoever reads it.
    pub(crate) fn cancel(&self) {
        self.stop.stop();
    }

    /// The next text of at most `bytes` bytes, whole characters; an empty one at its end.
    pub(crate) fn next(&self, bytes: usize) -> Result<String, Failure> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        while reading.held.is_empty() {
            match reading.stream.next() {
                Some(Ok(text)) => reading.held = text,
                Some(Err(error)) => {
                    let failure = Failure::from(error);
                    reading.failure = Some((failure.status, failure.message().to_owned()));
                    return Err(failure);
                }
                None => return reading.failed().map_or(Ok(String::new()), Err),
            }
        }
        let whole = (0..=bytes.min(reading.held.len())).rev().find(|&at| reading.held.is_char_boundary(at));
        let rest = reading.held.split_off(whole.unwrap_or(0));
        Ok(std::mem::replace(&mut reading.held, rest))
    }

    /// What it came to.
    pub(crate) fn summary(&self) -> Result<ForgeSummary, Failure> {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = reading.failed() {
            return Err(failure);
        }
        match reading.stream.summary() {
            Some(summary) if reading.held.is_empty() => Ok(summary.into()),
            _ => Err(Failure::new(ForgeStatus::Unfinished, "the text has not been read to its end")),
        }
    }
}

impl Reading {
    fn failed(&self) -> Option<Failure> {
        self.failure.as_ref().map(|(status, message)| Failure::new(*status, message.clone()))
    }
}
