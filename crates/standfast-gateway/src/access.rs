//! The access log: a line for each request that is chosen for it.
//!
//! Workers format lines into a buffer of their own and hand full buffers to one thread that writes them ([`AccessLog`]), by a
//! bounded queue: when the disk is too slow, buffers are dropped and counted, and no request ever waits. Buffers come back
//! empty, so that nothing is allocated in the long run. The thread opens the file anew when it was renamed or removed, and goes
//! on after errors such as a full disk; lines that could not be written are counted and never leave half a line before another.
//!
//! It ends when the [`AccessLog`] is dropped, after it has written what was handed over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use standfast_model::{AccessFormat, Instance, Stamp};
use standfast_runtime::{Clock, Rng};

use crate::explain::{Injection, Marks, Sample};

/// A worker's buffer is handed over when it holds this much, or when it is told to.
const BUFFER_BYTES: usize = 16 << 10;
/// Buffers that may wait for the writer; further ones are dropped and counted.
const WAITING_MAX: usize = 256;
/// Empty buffers that wait for a worker; further ones are freed.
const SPARE_MAX: usize = 8;
/// What is written at once at most, unless a single buffer is larger.
const WRITE_BYTES_MAX: usize = 256 << 10;
/// How often the writer looks whether the file is still the one of that name.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Bytes of what a client wrote, per field; what is longer is cut.
const METHOD_BYTES_MAX: usize = 32;
const HOST_BYTES_MAX: usize = 255;
const TARGET_BYTES_MAX: usize = 2_048;
const FIELD_BYTES_MAX: usize = 512;

/// What is written of one request. Nothing in it needs to be escaped or short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// When its head had arrived.
    pub(crate) at: Stamp,
    /// From then to the end of its answer.
    pub(crate) took: Duration,
    pub(crate) id: &'a str,
    pub(crate) trace_id: Option<&'a str>,
    pub(crate) client: IpAddr,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    /// Path and query as they were sent.
    pub(crate) target: &'a str,
    /// `HTTP/1.1`.
    pub(crate) protocol: &'static str,
    /// `None` when the client left before the answer.
    pub(crate) status: Option<u16>,
    /// `Standfast-Reason`, where the gateway made the answer.
    pub(crate) reason: Option<&'a str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) route: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    /// Which replica answered.
    pub(crate) instance: Option<&'a Instance>,
    pub(crate) attempts: u32,
    pub(crate) marks: Marks,
    /// The request whose answer was given again.
    pub(crate) replay_of: Option<&'a str>,
    /// The faults that have hit it on purpose.
    pub(crate) injected: &'a [Injection],
    pub(crate) user_agent: Option<&'a [u8]>,
    pub(crate) referer: Option<&'a [u8]>,
}

/// What became of lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// They are in the file.
    pub written: u64,
    /// The writer was behind.
    pub dropped: u64,
    /// The file could not be opened or written.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    is_reopen_asked: AtomicBool,
    is_ending: AtomicBool,
}

/// Whole lines on their way to the file.
struct Batch {
    text: Vec<u8>,
    lines: u64,
    /// Where the buffer goes when it is empty again.
    back: SyncSender<Vec<u8>>,
}

/// The thread that writes, and where workers get their end of it.
#[derive(Debug)]
pub struct AccessLog {
    settings: standfast_model::AccessLog,
    sender: SyncSender<Batch>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A worker's end.
#[derive(Debug)]
pub(crate) struct AccessWriter {
    format: AccessFormat,
    sample: Sample,
    buffer: Vec<u8>,
    lines: u64,
    sender: SyncSender<Batch>,
    back: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    shared: Arc<Shared>,
}

impl AccessLog {
    /// Starts the writer. That the file cannot be opened is no error here: it is tried again, and lines are counted as failed
    /// until then.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(settings: standfast_model::AccessLog, clock: Clock) -> io::Result<Self> {
        let (sender, batches) = sync_channel(WAITING_MAX);
        let shared = Arc::<Shared>::default();
        let sink = Sink::new(settings.path.clone(), clock, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("gateway-access-log".to_owned())
            .spawn(move || write_all(&batches, sink))?;
        Ok(Self { settings, sender, shared, thread: Some(thread) })
    }

    /// An end for one more worker.
    pub(crate) fn writer(&self) -> AccessWriter {
        let (back, spare) = sync_channel(SPARE_MAX);
        AccessWriter {
            format: self.settings.format,
            sample: Sample::one_in(self.settings.sample.max(1)),
            buffer: Vec::new(),
            lines: 0,
            sender: self.sender.clone(),
            back,
            spare,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Has the file opened anew, within a second.
    pub fn reopen(&self) {
        self.shared.is_reopen_asked.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// What became of lines so far.
    pub fn counts(&self) -> Counts {
        let Shared { written, dropped, failed, .. } = &*self.shared;
        let [written, dropped, failed] =
            [written, dropped, failed].map(|count| count.load(Ordering::Relaxed));
        Counts { written, dropped, failed }
    }

    /// Has the writer look at what it is asked to do; when its queue is full, it is not asleep.
    fn wake(&self) {
        let (back, _) = sync_channel(0);
        let _is_awake_when_full = self.sender.try_send(Batch { text: Vec::new(), lines: 0, back });
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the access log panicked");
        }
    }
}

impl AccessWriter {
    /// Writes a request down, if it is one of those that are. Never waits.
    pub(crate) fn write(&mut self, entry: &Entry<'_>, rng: &mut Rng) {
        if !self.sample.takes(entry.marks, rng) {
            return;
        }
        match self.format {
            AccessFormat::Json => json(&mut self.buffer, entry),
            AccessFormat::Combined => combined(&mut self.buffer, entry),
        }
        self.lines += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Hands over what has been written so far. To be called about twice a second, so that lines of quiet times are seen.
    pub(crate) fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let empty = self.spare.try_recv().unwrap_or_default();
        let text = std::mem::replace(&mut self.buffer, empty);
        let sent = self.sender.try_send(Batch { text, lines, back: self.back.clone() });
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = sent {
            self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
            self.buffer = batch.text;
            self.buffer.clear();
        }
    }
}

impl Drop for AccessWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The writer's thread: ends when it is told to, or when nobody can hand anything over any more, and the queue is empty.
fn write_all(batches: &Receiver<Batch>, mut sink: Sink) {
    let mut text = Vec::new();
    loop {
        let first = batches.recv_timeout(LOOK_PERIOD);
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        let mut next = first.ok();
        let mut lines = 0;
        let is_empty = loop {
            if let Some(mut batch) = next {
                text.extend_from_slice(&batch.text);
                lines += batch.lines;
                batch.text.clear();
                let _worker_may_have_enough = batch.back.try_send(batch.text);
            }
            if text.len() >= WRITE_BYTES_MAX {
                break false;
            }
            next = match batches.try_recv() {
                Ok(batch) => Some(batch),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break true,
            };
        };
        sink.look();
        sink.write(&text, lines);
        text.clear();
        if is_empty && sink.shared.is_ending.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// The file.
struct Sink {
    path: PathBuf,
    clock: Clock,
    shared: Arc<Shared>,
    file: Option<File>,
    looked: Stamp,
    /// The file's last line has no end.
    is_torn: bool,
    /// The last attempt failed: what is said once is not said again until it is over.
    is_failing: bool,
}

impl Sink {
    fn new(path: PathBuf, clock: Clock, shared: Arc<Shared>) -> Self {
        Self { path, clock, shared, file: None, looked: Stamp::EPOCH, is_torn: false, is_failing: false }
    }

    /// Lets go of a file that is no longer the one of its name, or when asked to, and opens the one that is.
    fn look(&mut self) {
        let now = self.clock.now();
        let is_asked = self.shared.is_reopen_asked.swap(false, Ordering::Relaxed);
        if is_asked || now.since(self.looked) >= LOOK_PERIOD {
            self.looked = now;
            if is_asked || self.file.as_ref().is_some_and(|file| !self.is_current(file)) {
                self.file = None;
            }
            if self.file.is_none() {
                let opened = self.open();
                self.note(opened.as_ref().err());
                self.file = opened.ok();
                self.is_torn = false;
            }
        }
    }

    fn is_current(&self, file: &File) -> bool {
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }

    fn open(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Addresses of clients are nobody else's business.
        File::options().create(true).append(true).mode(0o640).open(&self.path)
    }

    fn write(&mut self, text: &[u8], lines: u64) {
        if lines == 0 {
            return;
        }
        let Some(file) = &mut self.file else {
            self.shared.failed.fetch_add(lines, Ordering::Relaxed);
            return;
        };
        let (written, result) = write_lines(file, text, &mut self.is_torn);
        self.shared.written.fetch_add(written, Ordering::Relaxed);
        self.shared.failed.fetch_add(lines.saturating_sub(written), Ordering::Relaxed);
        self.note(result.as_ref().err());
    }

    /// Says when errors begin and when they are over.
    fn note(&mut self, error: Option<&io::Error>) {
        match error {
            Some(error) if !self.is_failing => {
                tracing::warn!(%error, file = %self.path.display(), "the access log cannot be written; lines are lost");
            }
            None if self.is_failing => {
                let failed = self.shared.failed.load(Ordering::Relaxed);
                tracing::info!(file = %self.path.display(), failed, "the access log is written again");
            }
            _ => {}
        }
        self.is_failing = error.is_some();
    }
}

/// Writes lines as far as possible, and returns how many are whole. A line that an earlier error cut off is ended first.
fn write_lines(out: &mut impl Write, text: &[u8], is_torn: &mut bool) -> (u64, io::Result<()>) {
    if *is_torn {
        if let Err(error) = out.write_all(b"\n") {
            return (0, Err(error));
        }
        *is_torn = false;
    }
    let mut done = 0;
    let result = loop {
        if done == text.len() {
            break Ok(());
        }
        match out.write(&text[done..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => done += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    *is_torn = done > 0 && text[done - 1] != b'\n';
    (text[..done].iter().filter(|byte| **byte == b'\n').count() as u64, result)
}

/// One JSON object. What does not apply is left out.
fn json(out: &mut Vec<u8>, entry: &Entry<'_>) {
    print(out, format_args!(r#"{{"at":"{}","id":""#, entry.at));
    json_text(out, entry.id.as_bytes(), FIELD_BYTES_MAX);
    print(out, format_args!(r#"","client":"{}""#, entry.client));
    json_field(out, "method", Some(entry.method.as_bytes()), METHOD_BYTES_MAX);
    json_field(out, "host", Some(entry.host.as_bytes()), HOST_BYTES_MAX);
    json_field(out, "target", Some(entry.target.as_bytes()), TARGET_BYTES_MAX);
    print(out, format_args!(r#","protocol":"{}""#, entry.protocol));
    if let Some(status) = entry.status {
        print(out, format_args!(r#","status":{status}"#));
    }
    let micros = entry.took.as_micros();
    print(out, format_args!(r#","took_ms":{}.{:03}"#, micros / 1_000, micros % 1_000));
    print(out, format_args!(r#","bytes_in":{},"bytes_out":{}"#, entry.bytes_in, entry.bytes_out));
    json_field(out, "route", entry.route.map(str::as_bytes), FIELD_BYTES_MAX);
    json_field(out, "service", entry.service.map(str::as_bytes), FIELD_BYTES_MAX);
    if let Some(instance) = entry.instance {
        print(out, format_args!(r#","instance":"{instance}""#));
    }
    print(out, format_args!(r#","attempts":{}"#, entry.attempts));
    json_field(out, "reason", entry.reason.map(str::as_bytes), FIELD_BYTES_MAX);
    let Marks { failed, retried, hedged, shed, slow, replayed, injected } = entry.marks;
    let marks = [
        ("failed", failed),
        ("retried", retried),
        ("hedged", hedged),
        ("shed", shed),
        ("slow", slow),
        ("replayed", replayed),
        ("injected", injected),
    ];
    for (mark, _) in marks.iter().filter(|(_, is_marked)| *is_marked) {
        print(out, format_args!(r#","{mark}":true"#));
    }
    json_field(out, "replay_of", entry.replay_of.map(str::as_bytes), FIELD_BYTES_MAX);
    if injected {
        let names: Vec<&str> = entry.injected.iter().map(|one| one.id.as_str()).collect();
        json_field(out, "faults", Some(names.join(",").as_bytes()), FIELD_BYTES_MAX);
    }
    json_field(out, "trace_id", entry.trace_id.map(str::as_bytes), FIELD_BYTES_MAX);
    json_field(out, "user_agent", entry.user_agent, FIELD_BYTES_MAX);
    json_field(out, "referer", entry.referer, FIELD_BYTES_MAX);
    out.extend_from_slice(b"}\n");
}

fn json_field(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>, max: usize) {
    if let Some(value) = value {
        print(out, format_args!(r#","{name}":""#));
        json_text(out, value, max);
        out.push(b'"');
    }
}

/// The inside of a JSON string. Control characters and line ends of any kind are escaped, bytes that are no text replaced.
fn json_text(out: &mut Vec<u8>, value: &[u8], max: usize) {
    for chunk in value[..value.len().min(max)].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                ' '..='~' => out.push(c as u8),
                // Among them all that lead terminals and viewers astray; none is beyond 16 bits.
                '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    print(out, format_args!("\\u{:04x}", u32::from(c)))
                }
                _ if c.is_control() => print(out, format_args!("\\u{:04x}", u32::from(c))),
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if value.len() > max {
        out.extend_from_slice("…".as_bytes());
    }
}

/// Apache's combined format: `%h - - %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`. As in nginx, 499 is a client that left.
fn combined(out: &mut Vec<u8>, entry: &Entry<'_>) {
    print(out, format_args!("{} - - [", entry.client));
    apache_time(out, entry.at);
    out.extend_from_slice(b"] \"");
    quoted(out, entry.method.as_bytes(), METHOD_BYTES_MAX);
    out.push(b' ');
    quoted(out, entry.target.as_bytes(), TARGET_BYTES_MAX);
    print(out, format_args!(" {}\" {} ", entry.protocol, entry.status.unwrap_or(499)));
    match entry.bytes_out {
        0 => out.push(b'-'),
        bytes => print(out, format_args!("{bytes}")),
    }
    for field in [entry.referer, entry.user_agent] {
        out.extend_from_slice(b" \"");
        quoted(out, field.unwrap_or(b"-"), FIELD_BYTES_MAX);
        out.push(b'"');
    }
    out.push(b'\n');
}

/// The inside of a quoted text as Apache writes it: what is not printable ASCII becomes `\x0a`.
fn quoted(out: &mut Vec<u8>, value: &[u8], max: usize) {
    for byte in &value[..value.len().min(max)] {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            _ => print(out, format_args!("\\x{byte:02x}")),
        }
    }
}

/// `01/Mar/2026:09:30:00 +0000`.
fn apache_time(out: &mut Vec<u8>, at: Stamp) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // RFC 3339, into a place of its own: `2026-03-01T09:30:00.125Z`.
    let mut text = [0; 32];
    print(&mut &mut text[..], format_args!("{at}"));
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let [year, month, day, time] =
        [0..4, 5..7, 8..10, 11..19].map(|place| text.get(place).unwrap_or_default());
    let month = month.parse().ok().and_then(|month: usize| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&"-");
    print(out, format_args!("{day}/{month}/{year}:{time} +0000"));
}

fn print(out: &mut impl Write, text: std::fmt::Arguments<'_>) {
    let _memory_takes_all = out.write_fmt(text);
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
