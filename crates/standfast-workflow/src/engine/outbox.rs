//! Lifecycle events on their way to a sink: each record's are written in the commit of the record, so that none is lost and none is told
//! of what is not written; from there they are sent, in order, until the sink has taken them, and only then removed.
//!
//! **Invariant.** A record of a run is written before the next of that run is, so what is read from the beginning is in order for each
//! run, whatever runs write side by side. What was sent and not removed before a crash is sent again, with the same ids.

mod sending;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use standfast_model::Stamp;
use tokio::sync::Notify;

use super::{Engine, JournalError, Refused};

/// What the types of all lifecycle events begin and end with.
const TYPE: (&str, &str) = ("io.serverlessworkflow.", ".v1");
/// Most events of one request, unless the sink says less.
pub const SINK_BATCH: usize = 100;
/// Most bytes of events that wait for a sink: what comes then is not told, and counted.
const WAITING_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of an event; one that is larger is told without what its task or run yielded.
const EVENT_BYTES_MAX: usize = 384 << 10;
/// Most bytes of events under one key of the store, unless it is one event.
const ROW_BYTES_MAX: u64 = 256 << 10;

/// Where lifecycle events are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sink {
    /// The address: `http://` or `https://`; a service of the stack by its name.
    pub uri: String,
    /// Which events, by what their types have in the middle (`workflow.completed`); all when there are none.
    pub types: BTreeSet<String>,
    /// Most events in one request; with 1 each is sent by itself.
    pub batch: usize,
    /// The secret, a text, that is shown as a bearer token.
    pub bearer: Option<String>,
}

/// How far a sink is behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkStatus {
    /// Where to; `None` when there is no sink.
    pub uri: Option<String>,
    /// How many events wait until it takes them.
    pub waiting: u64,
    /// When the first of these happened.
    pub since: Option<Stamp>,
    /// How many it has taken since this process began.
    pub sent: u64,
    /// How many were not told, since too many waited or they waited for too long; since this process began.
    pub lost: u64,
    /// Why it did not take the last request, if it did not.
    pub error: Option<String>,
}

/// Events of one record, or some of them, as they are kept until they are taken.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    v: u32,
    at: Stamp,
    /// How many events and bytes of events were kept before these.
    before: (u64, u64),
    bytes: u64,
    events: Vec<Value>,
}

const FORMAT: u32 = 1;

impl Row {
    /// The same, unless another release wrote it in another form.
    pub(super) fn readable(self) -> Result<Self, JournalError> {
        match self.v {
            FORMAT => Ok(self),
            v => Err(JournalError::Unreadable(format!("format {v} of what records tell"))),
        }
    }
}

/// What is kept and sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    /// Something was written, or there is another sink.
    changed: Notify,
    lost: AtomicU64,
    sent: AtomicU64,
}

/// Counts are of events and of their bytes.
#[derive(Debug, Default)]
struct Inner {
    sink: Option<Arc<Sink>>,
    /// All that was ever kept.
    kept: (u64, u64),
    /// What was kept and not removed yet.
    waiting: (u64, u64),
    /// Records that are being written with what they tell, and how many were.
    writing: u64,
    written: u64,
    since: Option<Stamp>,
    error: Option<String>,
}

impl Inner {
    /// So much does not wait any more.
    fn forget(&mut self, many: (u64, u64)) {
        let (events, bytes) = self.waiting;
        self.waiting = (events.saturating_sub(many.0), bytes.saturating_sub(many.1));
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sink(&self) -> Option<Arc<Sink>> {
        self.lock().sink.clone()
    }

    /// What is to be written with a record of what it tells, and how much that is. Unless that is nothing, [`Outbox::was_written`] must
    /// follow.
    pub(super) fn rows(&self, at: Stamp, told: &[Value]) -> (Vec<Vec<u8>>, (u64, u64)) {
        const NOTHING: (Vec<Vec<u8>>, (u64, u64)) = (Vec::new(), (0, 0));
        let Some(sink) = self.lock().sink.clone() else { return NOTHING };
        let texts: Vec<String> = told.iter().filter(|event| sink.wants_event(event)).map(text_of).collect();
        let many = (texts.len() as u64, texts.iter().map(|text| text.len() as u64).sum());
        if texts.is_empty() {
            return NOTHING;
        }
        let mut inner = self.lock();
        if inner.waiting.1 >= WAITING_BYTES_MAX {
            self.lost.fetch_add(many.0, Ordering::SeqCst);
            return NOTHING;
        }
        let mut before = inner.kept;
        inner.kept = (before.0 + many.0, before.1 + many.1);
        inner.waiting = (inner.waiting.0 + many.0, inner.waiting.1 + many.1);
        inner.writing += 1;
        inner.since.get_or_insert(at);
        drop(inner);
        let mut rows = Vec::new();
        let mut rest = texts.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|text| {
                bytes += text.len() as u64;
                bytes <= ROW_BYTES_MAX
            });
            let (row, others) = rest.split_at(fits.count().max(1));
            let bytes: u64 = row.iter().map(|text| text.len() as u64).sum();
            rows.push(written(at, before, bytes, row));
            before = (before.0 + row.len() as u64, before.1 + bytes);
            rest = others;
        }
        (rows, many)
    }

    /// A record was written with so much that it tells, or could not be.
    pub(super) fn was_written(&self, many: (u64, u64), is_written: bool) {
        if many.0 == 0 {
            return;
        }
        let mut inner = self.lock();
        inner.writing -= 1;
        inner.written += 1;
        if !is_written {
            inner.forget(many);
            // What is counted twice now is counted once by the next process; what is not there at all would count as lost.
            inner.kept = (inner.kept.0.saturating_sub(many.0), inner.kept.1.saturating_sub(many.1));
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// How many were written, unless some are being written: then nothing is known of what is not there.
    fn written(&self) -> Option<u64> {
        let inner = self.lock();
        (inner.writing == 0).then_some(inner.written)
    }

    /// What was found to wait.
    fn found(&self, rows: &[(Vec<u8>, Row)], written_before: Option<u64>) {
        let mut inner = self.lock();
        inner.since = rows.first().map(|(_, row)| row.at).or(inner.since);
        let is_still = inner.writing == 0 && written_before == Some(inner.written);
        if rows.is_empty() && is_still {
            // What is not there any more was removed unsent, since it was too old.
            self.lost.fetch_add(inner.waiting.0, Ordering::SeqCst);
            (inner.waiting, inner.since) = ((0, 0), None);
        }
    }

    fn removed(&self, row: &Row) {
        let mut inner = self.lock();
        let (events, bytes) = inner.waiting;
        inner.waiting = (events.saturating_sub(row.events.len() as u64), bytes.saturating_sub(row.bytes));
    }

    pub(super) fn status(&self) -> SinkStatus {
        let inner = self.lock();
        SinkStatus {
            uri: inner.sink.as_ref().map(|sink| sink.uri.clone()),
            waiting: inner.waiting.0,
            since: inner.since.filter(|_| inner.waiting.0 > 0),
            sent: self.sent.load(Ordering::SeqCst),
            lost: self.lost.load(Ordering::SeqCst),
            error: inner.error.clone(),
        }
    }
}

/// An event as it is kept and sent.
fn text_of(event: &Value) -> String {
    let text = event.to_string();
    if text.len() <= EVENT_BYTES_MAX {
        return text;
    }
    // That it ended is told; what it yielded stands in the run.
    let mut event = event.clone();
    if let Some(data) = event.get_mut("data").and_then(Value::as_object_mut) {
        data.remove("output");
    }
    event.to_string()
}

/// A [`Row`] of these events, which are written already.
fn written(at: Stamp, before: (u64, u64), bytes: u64, events: &[String]) -> Vec<u8> {
    let at = at.as_micros();
    let (first, second) = before;
    let mut row = format!(
        "{{\"v\":{FORMAT},\"at\":{at},\"before\":[{first},{second}],\"bytes\":{bytes},\"events\":[{}",
        events[0]
    );
    for event in &events[1..] {
        row.push(',');
        row.push_str(event);
    }
    row.push_str("]}");
    row.into_bytes()
}

impl Sink {
    /// Whether it is told events of this type, by what is in its middle.
    pub(super) fn wants(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.contains(kind)
    }

    fn wants_event(&self, event: &Value) -> bool {
        let kind = event["type"].as_str().unwrap_or_default();
        let kind = kind.strip_prefix(TYPE.0).and_then(|kind| kind.strip_suffix(TYPE.1)).unwrap_or(kind);
        self.wants(kind)
    }
}

impl Engine {
    /// From now on lifecycle events are sent there, at least once each and in order for each run; to nobody when there is no sink. Kept
    /// over restarts: a process that begins goes on with what it was told last, and with the events that wait.
    ///
    /// # Errors
    /// [`Refused::Wrong`] when the address is none; when it cannot be written.
    pub async fn set_sink(&self, sink: Option<Sink>) -> Result<(), Refused> {
        if let Some(sink) = &sink {
            let uri = sink.uri.parse::<Uri>().ok();
            let is_http =
                |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
            if !uri.as_ref().is_some_and(is_http) {
                return Err(Refused::Wrong(format!(
                    "`{}` is no address that events can be sent to",
                    sink.uri
                )));
            }
        }
        if self.outbox().lock().sink.as_deref() == sink.as_ref() {
            return Ok(());
        }
        self.journal().put_sink(sink.as_ref()).await?;
        self.outbox().lock().sink = sink.map(Arc::new);
        self.outbox().changed.notify_one();
        Ok(())
    }

    /// How far the sink of lifecycle events is behind.
    pub fn sink_status(&self) -> SinkStatus {
        self.outbox().status()
    }

    /// A secret that is a text, as a bearer token.
    fn bearer(&self, name: &str) -> Result<HeaderValue, String> {
        let secrets = self.0.secrets.borrow();
        let secret =
            secrets.as_ref().and_then(|secrets| secrets.value().get(name)?.as_str().map(str::to_owned));
        let secret = secret.ok_or_else(|| format!("there is no secret `{name}` that is a text"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {secret}"))
            .map_err(|_| format!("the secret `{name}` cannot be sent in a header field"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What the process before was told, and what it left unsent.
    pub(super) async fn read_outbox(&self) -> Result<(), JournalError> {
        let sink = self.journal().sink().await?;
        let (first, last) = (self.journal().outbox(false).await?, self.journal().outbox(true).await?);
        let mut inner = self.outbox().lock();
        inner.sink = sink.map(Arc::new);
        if let (Some((_, first)), Some((_, last))) = (first.first(), last.first()) {
            inner.kept = (last.before.0 + last.events.len() as u64, last.before.1 + last.bytes);
            let of = |kept: u64, before: u64| kept.saturating_sub(before);
            inner.waiting = (of(inner.kept.0, first.before.0), of(inner.kept.1, first.before.1));
            inner.since = Some(first.at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outbox() -> Outbox {
        let outbox = Outbox::default();
        let sink = Sink { uri: "http://a/b".into(), types: BTreeSet::new(), batch: 1, bearer: None };
        outbox.lock().sink = Some(Arc::new(sink));
        outbox
    }

    #[test]
    fn what_is_kept_is_read_back_and_counted() {
        let outbox = outbox();
        let event = |n: usize| json!({"type": "x", "data": {"n": n, "output": "y".repeat(100 << 10)}});
        let told: Vec<Value> = (0..5).map(event).collect();
        let bytes: u64 = told.iter().map(|event| event.to_string().len() as u64).sum();
        let (rows, many) = outbox.rows(Stamp::from_micros(7), &told);
        assert_eq!((rows.len(), many), (3, (5, bytes)));
        let rows: Vec<Row> = rows.iter().map(|row| serde_json::from_slice(row).unwrap()).collect();
        assert_eq!(rows.iter().flat_map(|row| row.events.clone()).collect::<Vec<_>>(), told);
        assert_eq!((rows[1].at, rows[1].before.0, rows[2].before.0), (Stamp::from_micros(7), 2, 4));
        assert_eq!((outbox.status().waiting, outbox.written()), (5, None));
        outbox.was_written(many, true);
        let written = outbox.written();
        // What is not there though nothing is written was removed by the store.
        outbox.removed(&rows[0]);
        outbox.found(&[], written);
        assert_eq!((outbox.status().waiting, outbox.status().lost), (0, 3));
        let (_, many) = outbox.rows(Stamp::from_micros(8), &[event(1)]);
        outbox.was_written(many, false);
        outbox.found(&[], outbox.written());
        assert_eq!((outbox.status().waiting, outbox.status().lost), (0, 3), "it never was");
    }

    #[test]
    fn an_event_that_is_too_large_is_told_without_what_was_yielded_and_too_many_are_not_told() {
        let outbox = outbox();
        let large = json!({"type": "x", "data": {"task": "/do/0/a", "output": "\u{1}".repeat(200 << 10)}});
        let (rows, _) = outbox.rows(Stamp::EPOCH, &[large]);
        let row: Row = serde_json::from_slice(&rows[0]).unwrap();
        assert_eq!(row.events, [json!({"type": "x", "data": {"task": "/do/0/a"}})]);
        outbox.lock().waiting.1 = WAITING_BYTES_MAX;
        assert!(outbox.rows(Stamp::EPOCH, &[json!({"type": "x"})]).0.is_empty());
        assert_eq!(outbox.status().lost, 1);
    }
}
