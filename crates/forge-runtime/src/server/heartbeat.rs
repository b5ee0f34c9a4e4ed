//! Events, and signs of life where there are none.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;

/// A stream of what a channel brings, with `None` after each `silence`.
pub(super) struct Heartbeat<T> {
    events: UnboundedReceiver<T>,
    silence: Duration,
    next: Pin<Box<Sleep>>,
}

impl<T> Heartbeat<T> {
    pub(super) fn new(events: UnboundedReceiver<T>, silence: Duration) -> Self {
        Self { events, silence, next: Box::pin(sleep(silence)) }
    }
}

impl<T> Stream for Heartbeat<T> {
    type Item = Option<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Option<T>>> {
        let this = &mut *self;
        let event = match this.events.poll_recv(context) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(event) => event,
            Poll::Pending if this.next.as_mut().poll(context).is_ready() => None,
            Poll::Pending => return Poll::Pending,
        };
        this.next.as_mut().reset(Instant::now() + this.silence);
        Poll::Ready(Some(event))
    }
}
