//! The upstream of the gateway benchmark: a service with a service time, a capacity and faults that can be switched on.
//!
//! `gwup --port N [--delay-us N] [--workers N] [--log FILE] [--idempotent] [--keys FOLDER]`
//!
//! - `--workers`: at most so many requests are served at a time, the rest wait in order; 0 is no limit. One whose client has
//!   gone is served all the same: that work is lost, as it is in most services.
//! - `--log`: half-way through the service time the value of `x-req-id` is appended there: the request's *effect*, which is there
//!   even after SIGKILL, so that lost and doubled effects can be counted.
//! - `--idempotent`: a key (`Idempotency-Key`) has one effect in this process; a repeat is answered without one.
//! - `--keys`: the same, with keys remembered in a folder that several upstreams share, as services with a database do.
//!
//! `GET /healthz` answers at once. `GET /__ctl?delay_us=N&abort=SHARE` changes the service time and the share of requests whose
//! connection is closed after their service time in place of an answer. `GET /__stats` counts. A request with
//! `Upgrade: websocket` gets its bytes back. Anything else takes the service time and is answered with 200 and 1 KiB.
#![expect(clippy::disallowed_methods, reason = "a measuring tool, outside the seams")]

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench_tools::Words;

/// The one key of the example in RFC 6455, so that no SHA-1 is needed, and what answers it.
const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// When each worker will be free. Places are booked when a request comes, and a worker goes on at the booked time even when this
/// process is woken late: so the capacity is what it is said to be, however busy the machine is.
struct Workers {
    free_at: Mutex<Vec<Instant>>,
}

impl Workers {
    /// Books a request's service, and says when it begins. Without workers it begins at once.
    fn book(&self, now: Instant, delay: Duration) -> Instant {
        let mut free_at = lock(&self.free_at);
        let Some(first) = free_at.iter_mut().min() else { return now };
        let start = now.max(*first);
        *first = start + delay;
        start
    }
}

struct Upstream {
    delay_micros: AtomicU64,
    abort_per_million: AtomicU64,
    workers: Workers,
    log: Option<Mutex<File>>,
    remembers: bool,
    keys: Mutex<HashSet<String>>,
    shared_keys: Option<PathBuf>,
    received: AtomicU64,
    effects: AtomicU64,
    repeats: AtomicU64,
    aborted: AtomicU64,
}

#[derive(Default)]
struct Head {
    path: String,
    body_bytes: usize,
    id: String,
    key: String,
    closes: bool,
    upgrades: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut head = Head { path, ..Head::default() };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim_end().is_empty() {
            return Ok(Some(head));
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.body_bytes = value.parse().unwrap_or(0),
            "x-req-id" => value.clone_into(&mut head.id),
            "idempotency-key" => value.clone_into(&mut head.key),
            "connection" => head.closes = value.eq_ignore_ascii_case("close"),
            "upgrade" => head.upgrades = value.eq_ignore_ascii_case("websocket"),
            _ => {}
        }
    }
}

impl Upstream {
    fn connection(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        let full = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n{}",
            "x".repeat(1024)
        );
        while let Some(head) = head(&mut reader)? {
            io::copy(&mut (&mut reader).take(head.body_bytes as u64), &mut io::sink())?;
            if head.path.starts_with("/healthz") {
                short(&mut writer, "ok")?;
            } else if let Some(query) = head.path.strip_prefix("/__ctl?") {
                self.control(query);
                short(&mut writer, "ok")?;
            } else if head.path.starts_with("/__stats") {
                short(&mut writer, &self.stats())?;
            } else if head.upgrades {
                return echo(&mut reader, &mut writer);
            } else if self.work(&head)? {
                writer.write_all(full.as_bytes())?;
            } else {
                return Ok(());
            }
            if head.closes {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes the service time; `false` when the connection is to be closed without an answer.
    fn work(&self, head: &Head) -> io::Result<bool> {
        let number = self.received.fetch_add(1, Relaxed);
        let delay = Duration::from_micros(self.delay_micros.load(Relaxed));
        let start = self.workers.book(Instant::now(), delay);
        sleep_until(start + delay / 2);
        self.effect(head)?;
        sleep_until(start + delay);
        // Fibonacci hashing of a counter: a share that is exact in the long run, without order.
        let draw = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let is_aborted = (draw * 1_000_000) >> 32 < self.abort_per_million.load(Relaxed);
        self.aborted.fetch_add(u64::from(is_aborted), Relaxed);
        Ok(!is_aborted)
    }

    fn effect(&self, head: &Head) -> io::Result<()> {
        let is_new = head.key.is_empty()
            || match &self.shared_keys {
                Some(folder) => File::create_new(folder.join(&head.key)).is_ok(),
                None => !self.remembers || lock(&self.keys).insert(head.key.clone()),
            };
        if !is_new {
            self.repeats.fetch_add(1, Relaxed);
            return Ok(());
        }
        self.effects.fetch_add(1, Relaxed);
        match &self.log {
            Some(log) if !head.id.is_empty() => lock(log).write_all(format!("{}\n", head.id).as_bytes()),
            _ => Ok(()),
        }
    }

    fn control(&self, query: &str) {
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "delay_us" => self.delay_micros.store(value.parse().unwrap_or(0), Relaxed),
                "abort" => {
                    let share: f64 = value.parse().unwrap_or(0.0);
                    self.abort_per_million.store((share * 1e6) as u64, Relaxed);
                }
                _ => {}
            }
        }
    }

    fn stats(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        format!(
            "received={} effects={} repeats={} aborted={}",
            of(&self.received),
            of(&self.effects),
            of(&self.repeats),
            of(&self.aborted)
        )
    }
}

fn sleep_until(time: Instant) {
    std::thread::sleep(time.saturating_duration_since(Instant::now()));
}

fn short(writer: &mut TcpStream, text: &str) -> io::Result<()> {
    writer.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).as_bytes())
}

fn echo(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
    );
    writer.write_all(head.as_bytes())?;
    let mut bytes = [0; 1024];
    loop {
        let count = reader.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        writer.write_all(&bytes[..count])?;
    }
}

fn main() -> Result<()> {
    let valued = ["port", "delay-us", "workers", "log", "keys"];
    let words = Words::parse(std::env::args().skip(1), &["idempotent"], &valued)?;
    let workers: usize = words.get("workers", 0)?;
    let log = words.all("log").last().map(|path| OpenOptions::new().create(true).append(true).open(path));
    let upstream = Arc::new(Upstream {
        delay_micros: AtomicU64::new(words.get("delay-us", 0)?),
        abort_per_million: AtomicU64::new(0),
        workers: Workers { free_at: Mutex::new(vec![Instant::now(); workers]) },
        log: log.transpose().context("cannot open the log")?.map(Mutex::new),
        remembers: words.has("idempotent"),
        keys: Mutex::default(),
        shared_keys: words.all("keys").last().map(PathBuf::from),
        received: AtomicU64::new(0),
        effects: AtomicU64::new(0),
        repeats: AtomicU64::new(0),
        aborted: AtomicU64::new(0),
    });
    let port: u16 = words.get("port", 0)?;
    let listener = TcpListener::bind(("127.0.0.1", port)).context("cannot listen")?;
    for stream in listener.incoming().flatten() {
        let upstream = Arc::clone(&upstream);
        let builder = std::thread::Builder::new().stack_size(96 << 10);
        // Without a thread the connection is closed: the gateway sees an upstream that is full.
        let _is_served = builder.spawn(move || upstream.connection(stream));
    }
    Ok(())
}
