//! Sends spans to a collector by OTLP over HTTP, in batches. Whatever the collector does, requests never notice: what it does not take
//! in time is given up and counted, and the queue behind is bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use standfast_model::OtlpEndpoint;
use standfast_runtime::http::Client;
use standfast_runtime::{Backoff, Clock, Net, Peer, Rng, Stop, with_causes};

use crate::otlp::{self, Sender};
use crate::spans::{RequestSpans, Shared, SpanQueue};

/// Requests whose spans go at a time.
const BATCH_MAX: usize = 256;
/// How long others are waited for, so that they go together.
const GATHER: Duration = Duration::from_millis(500);
/// How long the collector may take to answer.
const SEND_MAX: Duration = Duration::from_secs(5);
/// Its answer is not read beyond this.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a batch is tried again; then it is given up, and the next one tried.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The waits between two tries.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(15) };
/// How long the last spans are tried when the gateway ends.
const LAST_MAX: Duration = Duration::from_secs(2);

/// Sends what comes until the queue's other end is dropped, or a stop is asked for; then what waits is sent once, within two seconds.
pub async fn export_spans(
    queue: SpanQueue,
    endpoint: OtlpEndpoint,
    sender: Sender,
    net: Net,
    clock: Clock,
    stop: Stop,
) {
    let exporter = Exporter {
        http: Client::with_answer_limit(net, clock, ANSWER_BYTES_MAX),
        endpoint,
        sender,
        shared: Arc::clone(&queue.shared),
        rng: Rng::from_entropy(),
        failures: 0,
        is_told: false,
        clock,
        stop: stop.clone(),
    };
    let is_over = async {
        stop.requested().await;
        clock.sleep(LAST_MAX).await;
    };
    tokio::select! {
        biased;
        () = exporter.run(queue) => {}
        () = is_over => tracing::warn!("the last spans were not sent: the collector takes too long"),
    }
}

fn top_up(queue: &mut SpanQueue, batch: &mut Vec<RequestSpans>) {
    while batch.len() < BATCH_MAX
        && let Ok(spans) = queue.queue.try_recv()
    {
        batch.push(spans);
    }
}

struct Exporter {
    http: Client,
    endpoint: OtlpEndpoint,
    sender: Sender,
    shared: Arc<Shared>,
    rng: Rng,
    /// In a row.
    failures: u32,
    /// That spans are not taken has been logged.
    is_told: bool,
    clock: Clock,
    stop: Stop,
}

/// Why a batch was not taken.
enum Trouble {
    /// It may be taken another time.
    Passing(String),
    /// It never will.
    Lasting(String),
}

impl Exporter {
    async fn run(mut self, mut queue: SpanQueue) {
        let mut batch = Vec::new();
        while !self.stop.is_requested() {
            tokio::select! {
                biased;
                () = self.stop.requested() => break,
                count = queue.queue.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
            }
            if batch.len() < BATCH_MAX {
                let _stop_or_over = self.clock.timeout(GATHER, self.stop.requested()).await;
                top_up(&mut queue, &mut batch);
            }
            self.deliver(std::mem::take(&mut batch)).await;
        }
        queue.queue.close();
        loop {
            top_up(&mut queue, &mut batch);
            if batch.is_empty() {
                return;
            }
            self.deliver(std::mem::take(&mut batch)).await;
        }
    }

    /// Has a batch taken, or counts it as lost.
    async fn deliver(&mut self, batch: Vec<RequestSpans>) {
        let count: u64 = batch.iter().map(RequestSpans::count).sum();
        let body = Bytes::from(otlp::encode(&batch, &self.sender));
        drop(batch);
        let until = self.clock.now().plus(RETRY_MAX);
        let lost = loop {
            match self.post(body.clone()).await {
                Ok(refused) => {
                    self.is_well();
                    break refused.min(count);
                }
                Err(Trouble::Lasting(why)) => {
                    self.tell(&why);
                    break count;
                }
                Err(Trouble::Passing(why)) => {
                    self.tell(&why);
                    let wait = BACKOFF.wait(self.failures, &mut self.rng);
                    self.failures = self.failures.saturating_add(1);
                    let is_over = self.clock.now().plus(wait) >= until;
                    let has_stopped = self.clock.timeout(wait, self.stop.requested()).await.is_ok();
                    if is_over || has_stopped {
                        break count;
                    }
                }
            }
        };
        let add = |counter: &AtomicU64, more| counter.fetch_add(more, Ordering::Relaxed);
        add(&self.shared.failed, lost);
        add(&self.shared.sent, count - lost);
    }

    /// Posts a batch. Returns how many spans of it the collector says that it refused.
    async fn post(&self, body: Bytes) -> Result<u64, Trouble> {
        let passing = |error: &dyn std::error::Error| Trouble::Passing(with_causes(error));
        let OtlpEndpoint { host, port, path } = &self.endpoint;
        let looking = tokio::net::lookup_host((host.as_str(), *port));
        let found = self.clock.timeout(SEND_MAX, looking).await.map_err(|error| passing(&error))?;
        let address: Option<SocketAddr> = found.map_err(|error| passing(&error))?.next();
        let address = address.ok_or_else(|| Trouble::Passing(format!("`{host}` has no address")))?;
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let request = Request::post(path.as_str())
            .header("host", authority)
            .header("content-type", "application/json")
            .header("user-agent", concat!("standfast/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| Trouble::Lasting(with_causes(&error)))?;
        let answer = self.http.send(&Peer::Tcp(address), request, SEND_MAX).await;
        let answer = answer.map_err(|error| passing(&error))?;
        match answer.status() {
            status if status.is_success() => Ok(otlp::refused(answer.body())),
            // Those that OTLP says may be repeated.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(Trouble::Passing(format!("it answers {status}"))),
            status => Err(Trouble::Lasting(format!("it answers {status}"))),
        }
    }

    /// Logs the first of a row of troubles.
    fn tell(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(collector = %self.endpoint, why, "spans are not taken; requests go on as they do");
        }
    }

    fn is_well(&mut self) {
        self.failures = 0;
        if std::mem::take(&mut self.is_told) {
            tracing::info!(collector = %self.endpoint, "spans are taken again");
        }
    }
}
