//! Spans on their way out: workers put those of sampled requests into one bounded queue, and never wait. A full queue means that
//! the collector is behind: the newest are dropped, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use standfast_runtime::Rng;
use tokio::sync::mpsc;

use crate::explain::{self, Record};
use crate::trace::TraceContext;

/// Requests whose spans may wait to be sent; those of further ones are dropped and counted. With the texts of a request cut to half
/// a KiB each, this is some megabytes at most.
const WAITING_MAX: usize = 2_048;

/// What became of spans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The collector took them.
    pub sent: u64,
    /// The queue was full.
    pub dropped: u64,
    /// The collector refused them, or could not be reached for too long.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// Where workers put spans, and which traces are sampled. The other end is a [`SpanQueue`].
#[derive(Debug)]
pub struct Spans {
    sample: f64,
    queue: mpsc::Sender<RequestSpans>,
    shared: Arc<Shared>,
}

/// Where an exporter takes spans from. It ends when its [`Spans`] is dropped.
#[derive(Debug)]
pub struct SpanQueue {
    pub(crate) queue: mpsc::Receiver<RequestSpans>,
    pub(crate) shared: Arc<Shared>,
}

impl Spans {
    /// A queue. `sample` is the share of traces that begin here and are sampled, from 0 to 1.
    pub fn new(sample: f64) -> (Self, SpanQueue) {
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        let shared = Arc::<Shared>::default();
        (Self { sample, queue: sender, shared: Arc::clone(&shared) }, SpanQueue { queue, shared })
    }

    /// What became of spans so far.
    pub fn counts(&self) -> Counts {
        let Shared { sent, dropped, failed } = &*self.shared;
        let [sent, dropped, failed] = [sent, dropped, failed].map(|count| count.load(Ordering::Relaxed));
        Counts { sent, dropped, failed }
    }

    /// Whether a trace that begins now is sampled.
    pub(crate) fn takes_root(&self, rng: &mut Rng) -> bool {
        self.sample >= 1.0 || self.sample > 0.0 && rng.fraction() < self.sample
    }

    /// Hands over the spans of one request.
    pub(crate) fn send(&self, mut spans: RequestSpans) {
        spans.cut();
        if let Err(error) = self.queue.try_send(spans) {
            self.shared.dropped.fetch_add(error.into_inner().count(), Ordering::Relaxed);
        }
    }
}

/// The name of a span.
pub(crate) type SpanId = [u8; 8];

/// One request as its trace tells it: a span of the gateway's own, and one for each attempt.
#[derive(Debug, Clone)]
pub(crate) struct RequestSpans {
    pub(crate) trace: TraceContext,
    /// The span of whoever sent the request; `None` where the trace began here.
    pub(crate) parent: Option<SpanId>,
    /// `tracestate` as it came.
    pub(crate) state: Option<String>,
    pub(crate) host: String,
    pub(crate) protocol: &'static str,
    pub(crate) user_agent: Option<String>,
    pub(crate) record: Record,
    /// Of the record's attempts, in their order.
    pub(crate) attempts: Vec<SpanId>,
}

impl RequestSpans {
    /// How many spans these are.
    pub(crate) fn count(&self) -> u64 {
        1 + self.attempts.len() as u64
    }

    /// Bounds what it takes up.
    fn cut(&mut self) {
        self.attempts.drain(explain::surplus(self.attempts.len()));
        self.record.cut();
        explain::cut_text(&mut self.host);
        for text in [&mut self.state, &mut self.user_agent].into_iter().flatten() {
            explain::cut_text(text);
        }
    }
}
