//! What is taken in, and how much of it at a time, so that memory is bounded whatever clients send.
//!
//! A request needs, one after the other: room for its body beyond [`FREE`], a place among those that run or wait, and its turn to be
//! made into a prompt. Who finds no room or no place is told to come again; turns are waited for.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use tokio::sync::watch::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, sleep_until, timeout, timeout_at};
use tokio_stream::StreamExt;

use super::Limits;
use super::api_error::ApiError;
use super::connections::{self, Stage};

/// Bytes of a body that need no room to be made for them.
const FREE: usize = 64 << 10;

/// Bytes of bodies that are read or made into prompts at a time, beyond what is free.
const ALL_BODIES: usize = 64 << 20;

/// What room is counted in.
const UNIT: usize = 1 << 10;

/// Requests that are made into prompts at a time: parsed, rendered and tokenized.
const PREPARING: usize = 2;

/// Longest time in which the rest of a refused body is read and thrown away, so that its client sees the answer and no reset.
const DRAIN: Duration = Duration::from_secs(5);

/// Who is let in.
pub(super) struct Admission {
    limits: Limits,
    /// Requests that the model works on at a time.
    slots: usize,
    places: Arc<Semaphore>,
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    stages: Receiver<Stage>,
}

/// The places of a request, one for each of its choices, held until their generations have ended.
pub(super) type Place = OwnedSemaphorePermit;

/// Requests that may run or wait.
pub(super) fn places(limits: Limits, slots: usize) -> usize {
    limits.queue.saturating_add(slots).min(Semaphore::MAX_PERMITS)
}

/// A body and the room that it takes.
pub(super) struct Taken {
    pub(super) bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Of a server whose model works on so many requests at a time.
    pub(super) fn new(limits: Limits, slots: usize, stages: Receiver<Stage>) -> Self {
        let room = ALL_BODIES.max(limits.body_bytes).div_ceil(UNIT);
        Self {
            limits,
            slots,
            places: Arc::new(Semaphore::new(places(limits, slots))),
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            turns: Arc::new(Semaphore::new(PREPARING)),
            stages,
        }
    }

    /// A place, if one is free.
    pub(super) fn place(&self) -> Result<Place, ApiError> {
        self.places.clone().try_acquire_owned().map_err(|_| ApiError::overloaded())
    }

    /// So many places instead of one, if they are free.
    pub(super) fn places(&self, mut first: Place, count: usize) -> Result<Place, ApiError> {
        let most = places(self.limits, self.slots);
        let more = u32::try_from(count.saturating_sub(1)).ok().filter(|_| count <= most);
        let more = more.ok_or_else(|| {
            let words = format!("n is {count}, at most {most} answers can run and wait here (--queue)");
            ApiError::invalid("n".to_owned(), words)
        })?;
        let more = self.places.clone().try_acquire_many_owned(more).map_err(|_| ApiError::overloaded())?;
        first.merge(more);
        Ok(first)
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.turns.clone().acquire_owned().await.map_err(|_| ApiError::stopping())
    }

    /// Reads a body, unless it is known already that its request will be refused.
    pub(super) async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Taken, ApiError> {
        let declared = body.size_hint().exact();
        let refusal = if declared.is_some_and(|bytes| bytes > self.limits.body_bytes as u64) {
            Some(self.too_large())
        } else {
            (self.places.available_permits() == 0).then(ApiError::overloaded)
        };
        let result = match refusal {
            Some(refusal) => Err(refusal),
            None => self.take(&mut body, declared).await,
        };
        // A client that asks before it sends is told by the answer itself.
        if result.as_ref().is_err_and(ApiError::is_about_amounts) && !headers.contains_key(EXPECT) {
            drain(body, 2 * self.limits.body_bytes).await;
        }
        result
    }

    fn too_large(&self) -> ApiError {
        ApiError::too_large(format!("the request body is longer than {} bytes", self.limits.body_bytes))
    }

    /// The whole body. A client that stops sending it keeps nothing waiting, least of all a server that stops.
    async fn take(&self, body: &mut Body, declared: Option<u64>) -> Result<Taken, ApiError> {
        let Limits { body_bytes, body_time, .. } = self.limits;
        let start = Instant::now();
        let mut stages = self.stages.clone();
        let mut parts = std::pin::Pin::new(body);
        let mut bytes: Vec<u8> = Vec::new();
        let mut room = None;
        loop {
            let mebibytes = u32::try_from(bytes.len() >> 20).unwrap_or(u32::MAX);
            let deadline = start + body_time.saturating_mul(1 + mebibytes);
            let part = tokio::select! {
                // What is here already is taken, also by a server that stops.
                biased;
                part = std::future::poll_fn(|context| parts.as_mut().poll_frame(context)) => part,
                () = connections::reached(&mut stages, Stage::Stopping) => return Err(ApiError::stopping()),
                () = sleep_until(deadline) => return Err(ApiError::too_slow()),
            };
            let part = match part {
                None => return Ok(Taken { bytes, _room: room }),
                // Nobody is left to answer to, unless its encoding is broken.
                Some(Err(error)) => {
                    return Err(ApiError::invalid(None, format!("the request body could not be read: {error}")));
                }
                // Trailers.
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            if part.len() > body_bytes - bytes.len() {
                return Err(self.too_large());
            }
            if room.is_none() && bytes.len() + part.len() > FREE {
                // For all of it at once: two that each wait for the other's room would wait for ever.
                let whole = declared.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(body_bytes);
                let units = u32::try_from(whole.div_ceil(UNIT)).unwrap_or(u32::MAX);
                room = Some(self.room(units, start + body_time, &mut stages).await?);
                if declared.is_some() {
                    bytes.reserve_exact(whole - bytes.len());
                }
            }
            bytes.extend_from_slice(&part);
        }
    }

    async fn room(
        &self,
        units: u32,
        deadline: Instant,
        stages: &mut Receiver<Stage>,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        tokio::select! {
            room = timeout_at(deadline, self.room.clone().acquire_many_owned(units)) => match room {
                Ok(Ok(room)) => Ok(room),
                _ => Err(ApiError::overloaded()),
            },
            () = connections::reached(stages, Stage::Stopping) => Err(ApiError::stopping()),
        }
    }
}

/// Reads and throws away at most `bytes`, for some seconds at most.
async fn drain(body: Body, mut bytes: usize) {
    let mut parts = body.into_data_stream();
    let all = async {
        while let Some(Ok(part)) = parts.next().await {
            match bytes.checked_sub(part.len()) {
                Some(left) => bytes = left,
                None => break,
            }
        }
    };
    let _ = timeout(DRAIN, all).await;
}
