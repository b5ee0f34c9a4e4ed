//! Numbers for Prometheus, in the OpenMetrics text format, at `/metrics`.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::super::generation::{Finish, Summary};
use super::super::slots::Tier;
use super::super::{Error, Result};
use super::worker::Shown;

/// Labels by name.
type Labels<const N: usize> = [(&'static str, String); N];

fn tier_label(tier: Tier) -> Labels<1> {
    [("tier", tier.name().to_owned())]
}

/// What is counted.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Labels<2>, Counter>,
    cancelled: Counter,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    generated_tokens: Counter,
    guessed_tokens: Counter,
    right_tokens: Counter,
    forced_tokens: Counter,
    cache_hits: Family<Labels<1>, Counter>,
    cache_bytes: Family<Labels<1>, Gauge>,
    queue: Histogram,
    prefill: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    slots: Gauge,
    slots_busy: Gauge,
    waiting: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        // From 10 ms to some minutes; a prompt of 100,000 tokens takes as long.
        let waits = || Histogram::new(exponential_buckets(0.01, 2.0, 16));
        // From 1 ms to some seconds.
        let gaps = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let mut metrics = Self {
            registry: Registry::with_prefix("forge"),
            requests: Family::default(),
            cancelled: Counter::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            guessed_tokens: Counter::default(),
            right_tokens: Counter::default(),
            forced_tokens: Counter::default(),
            cache_hits: Family::default(),
            cache_bytes: Family::default(),
            queue: waits(),
            prefill: waits(),
            first_token: waits(),
            inter_token: gaps,
            slots: Gauge::default(),
            slots_busy: Gauge::default(),
            waiting: Gauge::default(),
        };
        // All are there from the beginning, so that rates of them are known from the first hit on.
        for tier in Tier::ALL {
            drop(metrics.cache_hits.get_or_create(&tier_label(tier)));
        }
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests by API and status of the answer", metrics.requests.clone());
        let words = "Generations that ended because their client went away, or the server stopped";
        registry.register("cancelled_generations", words, metrics.cancelled.clone());
        registry.register("prompt_tokens", "Tokens of prompts", metrics.prompt_tokens.clone());
        let words = "Tokens of prompts that were not run again";
        registry.register("cached_prompt_tokens", words, metrics.cached_tokens.clone());
        registry.register("generated_tokens", "Tokens chosen", metrics.generated_tokens.clone());
        registry.register("guessed_tokens", "Tokens guessed", metrics.guessed_tokens.clone());
        let words = "Tokens guessed that were right; each saved a step";
        registry.register("right_guessed_tokens", words, metrics.right_tokens.clone());
        let words = "Tokens that a form forced and that were run with others; each saved a step";
        registry.register("forced_tokens", words, metrics.forced_tokens.clone());
        let words = "Prompts that were reused in part or in whole, by where that came from";
        registry.register("cache_hits", words, metrics.cache_hits.clone());
        let words = "What is kept of the states of sequences beside the slots";
        registry.register_with_unit("cache", words, Unit::Bytes, metrics.cache_bytes.clone());
        for (name, words, histogram) in [
            ("queue", "Time from a request to its slot", &metrics.queue),
            ("prefill", "Time from its slot to its first token", &metrics.prefill),
            ("time_to_first_token", "Time from a request to its first token", &metrics.first_token),
            ("inter_token", "Time between two pieces of a text, as its client gets them", &metrics.inter_token),
        ] {
            registry.register_with_unit(name, words, Unit::Seconds, histogram.clone());
        }
        registry.register("slots", "Sequences that can run side by side", metrics.slots.clone());
        registry.register("slots_busy", "Sequences that run", metrics.slots_busy.clone());
        registry.register("requests_waiting", "Requests that wait for a slot", metrics.waiting.clone());
        metrics
    }

    /// A request to this API was answered so.
    pub(super) fn answered(&self, api: &str, status: Option<StatusCode>) {
        // There is none where the client left before its answer.
        let status = status.map_or_else(|| "none".to_owned(), |status| status.as_str().to_owned());
        let labels = [("api", api.to_owned()), ("status", status)];
        self.requests.get_or_create(&labels).inc();
    }

    /// A generation ended so.
    pub(super) fn ended(&self, result: &Result<Summary>) {
        let summary = match result {
            Ok(summary) => summary,
            Err(Error::Cancelled) => {
                self.cancelled.inc();
                return;
            }
            Err(_) => return,
        };
        if summary.finish == Finish::Cancelled {
            self.cancelled.inc();
        }
        self.prompt_tokens.inc_by(summary.prompt_tokens as u64);
        self.generated_tokens.inc_by(summary.completion_tokens as u64);
        self.guessed_tokens.inc_by(summary.guessed_tokens as u64);
        self.right_tokens.inc_by(summary.right_tokens as u64);
        self.forced_tokens.inc_by(summary.forced_tokens as u64);
        if summary.reused_tokens > 0 {
            self.cached_tokens.inc_by(summary.reused_tokens as u64);
        }
        if let Some(tier) = summary.tier {
            self.cache_hits.get_or_create(&tier_label(tier)).inc();
        }
        self.queue.observe(summary.queue_time.as_secs_f64());
        if summary.completion_tokens > 0 {
            self.prefill.observe(summary.prompt_time.as_secs_f64());
            self.first_token.observe((summary.queue_time + summary.prompt_time).as_secs_f64());
        }
    }

    /// So long after the piece before it a piece of text came.
    pub(super) fn gap(&self, gap: Duration) {
        self.inter_token.observe(gap.as_secs_f64());
    }

    /// All of it, with what the model thread shows.
    pub(super) fn page(&self, shown: &Shown) -> Response {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.slots.set(gauge(shown.slots.len()));
        self.slots_busy.set(gauge(shown.slots.iter().filter(|slot| slot.request.is_some()).count()));
        self.waiting.set(gauge(shown.waiting));
        self.cache_bytes.get_or_create(&tier_label(Tier::Memory)).set(gauge(shown.kept_bytes));
        let stored = i64::try_from(shown.stored_bytes).unwrap_or(i64::MAX);
        self.cache_bytes.get_or_create(&tier_label(Tier::Disk)).set(stored);
        let mut text = String::new();
        // Nothing fails to be written to a string.
        let _ = encode(&mut text, &self.registry);
        let mut response = Response::new(Body::from(text));
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
