//! The open-loop load of the gateway benchmark: requests are due at a rate whether or not earlier ones were answered, and latency
//! counts from when a request was *due* (no coordinated omission). One thread, one epoll.
//!
//! `gwload --port N --phases RATExSECS[,…] [--conns N] [--method GET|POST] [--keyed] [--priority SHARE] [--timeout-ms N]
//! [--good-ms N] [--ids FILE] [--mark NAME=FROM:TO …] [--normal-after SECS]`
//!
//! Each request has an `x-req-id`; with `--keyed` also an `Idempotency-Key`; with `--priority` that share says
//! `Standfast-Priority: high`. A client gives up `--timeout-ms` after it sent, or after the request was due when no connection was
//! free. `--ids` gets the ids that were answered with 2xx. Prints a line a second, then `TOTAL`, `STATUS` a code that failed,
//! `PHASE` each, `MARK` each, `PRIORITY` each, and `NORMAL`: from that second on, the time to the first whole second in which 99 %
//! were good (answered with 2xx within `--good-ms`).
#![expect(clippy::disallowed_methods, reason = "a measuring tool, outside the seams")]

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench_tools::{Words, whole_answer};
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Status(u16),
    Unconnected,
    Reset,
    Timeout,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    id: u64,
    due: f64,
    millis: f64,
    outcome: Outcome,
    is_high: bool,
}

impl Record {
    fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Status(200..=299))
    }
}

struct Phase {
    rate: f64,
    seconds: f64,
    from: f64,
    first: u64,
}

struct Plan {
    phases: Vec<Phase>,
    seconds: f64,
    requests: u64,
}

impl Plan {
    fn parse(text: &str) -> Result<Self> {
        let mut plan = Self { phases: Vec::new(), seconds: 0.0, requests: 0 };
        for phase in text.split(',') {
            let (rate, seconds) = phase.split_once('x').context("a phase is RATExSECS")?;
            let (rate, seconds): (f64, f64) = (rate.parse()?, seconds.parse()?);
            plan.phases.push(Phase { rate, seconds, from: plan.seconds, first: plan.requests });
            plan.seconds += seconds;
            plan.requests += (rate * seconds) as u64;
        }
        Ok(plan)
    }

    fn due(&self, id: u64) -> f64 {
        let phase = self.phases.iter().rev().find(|phase| phase.first <= id);
        phase.map_or(0.0, |phase| phase.from + (id - phase.first) as f64 / phase.rate)
    }
}

struct Connection {
    stream: TcpStream,
    running: Option<u64>,
    unsent: Vec<u8>,
    received: Vec<u8>,
    is_new: bool,
}

struct Load {
    address: SocketAddr,
    plan: Plan,
    method: String,
    is_keyed: bool,
    high_per_mille: u64,
    timeout: Duration,
    connections_max: usize,
    started: Instant,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    idle: Vec<usize>,
    open: usize,
    deadlines: VecDeque<(Instant, usize, u64)>,
    next: u64,
    records: Vec<Record>,
}

impl Load {
    fn run(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        while (self.records.len() as u64) < self.plan.requests {
            self.give_up();
            let next_due = self.start_due();
            let wake = [next_due, self.deadlines.front().map(|(at, ..)| *at)].into_iter().flatten().min();
            let wait =
                wake.map_or(Duration::from_millis(100), |at| at.saturating_duration_since(Instant::now()));
            let timespec =
                Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timespec)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait"),
            }
            for event in &events {
                self.progress(event.data.u64() as usize);
            }
        }
        Ok(())
    }

    /// Starts what is due; the time of the next request, when a connection is free for it.
    fn start_due(&mut self) -> Option<Instant> {
        while self.next < self.plan.requests {
            let id = self.next;
            let at = self.started + Duration::from_secs_f64(self.plan.due(id));
            let now = Instant::now();
            if at > now {
                return Some(at);
            }
            if now - at > self.timeout {
                self.next += 1;
                self.record(id, Outcome::Timeout);
                continue;
            }
            let index = match self.idle.pop() {
                Some(index) => index,
                None if self.open >= self.connections_max => return Some(at + self.timeout),
                None => match self.connect() {
                    Ok(index) => index,
                    Err(_) => {
                        self.next += 1;
                        self.record(id, Outcome::Unconnected);
                        continue;
                    }
                },
            };
            self.next += 1;
            let request = self.request(id);
            if let Some(connection) = self.connections[index].as_mut() {
                connection.running = Some(id);
                connection.unsent = request;
                connection.received.clear();
            }
            self.deadlines.push_back((now + self.timeout, index, id));
            self.progress(index);
        }
        None
    }

    fn is_high(&self, id: u64) -> bool {
        // Scattered, so that no multiple of a period decides who is high.
        (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 1_000 < self.high_per_mille
    }

    fn request(&self, id: u64) -> Vec<u8> {
        let key = if self.is_keyed { format!("idempotency-key: key-{id}\r\n") } else { String::new() };
        let priority = if self.is_high(id) { "standfast-priority: high\r\n" } else { "" };
        let body = if self.method == "GET" { "\r\n" } else { "content-length: 5\r\n\r\nhello" };
        let Self { method, .. } = self;
        format!("{method} /item HTTP/1.1\r\nhost: bench.local\r\nx-req-id: {id}\r\n{key}{priority}{body}")
            .into_bytes()
    }

    fn connect(&mut self) -> Result<usize> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), wanted)?;
        let connection =
            Connection { stream, running: None, unsent: Vec::new(), received: Vec::new(), is_new: true };
        self.connections[index] = Some(connection);
        self.open += 1;
        Ok(index)
    }

    /// Sends and receives what goes.
    fn progress(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        let outcome = loop {
            if !connection.unsent.is_empty() {
                match connection.stream.write(&connection.unsent) {
                    Ok(count) => drop(connection.unsent.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(_) if connection.is_new => break Err(Outcome::Unconnected),
                    Err(_) => break Err(Outcome::Reset),
                }
                continue;
            }
            let mut part = [0; 4096];
            match connection.stream.read(&mut part) {
                Ok(0) => break Err(Outcome::Reset),
                Ok(count) => connection.received.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break Err(Outcome::Reset),
            }
            connection.is_new = false;
            match whole_answer(&connection.received) {
                Ok(Some(answer)) => break Ok(answer),
                Ok(None) => {}
                Err(_) => break Err(Outcome::Reset),
            }
        };
        let running = connection.running.take();
        match outcome {
            Ok(answer) => {
                if answer.closes {
                    self.close(index);
                } else {
                    self.idle.push(index);
                }
                if let Some(id) = running {
                    self.record(id, Outcome::Status(answer.status));
                }
            }
            Err(outcome) => {
                self.close(index);
                if let Some(id) = running {
                    self.record(id, outcome);
                }
            }
        }
    }

    fn close(&mut self, index: usize) {
        self.connections[index] = None;
        self.idle.retain(|idle| *idle != index);
        self.vacant.push(index);
        self.open -= 1;
    }

    fn give_up(&mut self) {
        let now = Instant::now();
        while let Some((_, index, id)) = self.deadlines.pop_front_if(|(at, ..)| *at <= now) {
            let connection = self.connections.get_mut(index).and_then(Option::as_mut);
            if connection.is_some_and(|connection| connection.running == Some(id)) {
                self.close(index);
                self.record(id, Outcome::Timeout);
            }
        }
    }

    fn record(&mut self, id: u64, outcome: Outcome) {
        let due = self.plan.due(id);
        let millis = (self.started.elapsed().as_secs_f64() - due) * 1e3;
        self.records.push(Record { id, due, millis, outcome, is_high: self.is_high(id) });
    }
}

/// Some of the records, summed up.
struct Summary {
    sent: usize,
    ok: usize,
    good: usize,
    first_failed: Option<f64>,
    last_failed: Option<f64>,
    millis: Vec<f64>,
}

impl Summary {
    fn of<'a>(records: impl Iterator<Item = &'a Record>, good_ms: f64) -> Self {
        let (mut sent, mut millis, mut failed) = (0, Vec::new(), Vec::new());
        for record in records {
            sent += 1;
            if record.is_ok() {
                millis.push(record.millis);
            } else {
                failed.push(record.due);
            }
        }
        millis.sort_by(f64::total_cmp);
        Self {
            sent,
            ok: millis.len(),
            good: millis.partition_point(|millis| *millis <= good_ms),
            first_failed: failed.iter().copied().min_by(f64::total_cmp),
            last_failed: failed.iter().copied().max_by(f64::total_cmp),
            millis,
        }
    }

    fn at(&self, share: f64) -> f64 {
        let rank = (self.millis.len() as f64 * share).ceil() as usize;
        self.millis.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    fn line(&self) -> String {
        format!(
            "sent={} ok={} failed={} good={} p50_ms={:.2} p99_ms={:.2} p999_ms={:.2} max_ms={:.2} first_fail_s={:.2} last_fail_s={:.2}",
            self.sent,
            self.ok,
            self.sent - self.ok,
            self.good,
            self.at(0.5),
            self.at(0.99),
            self.at(0.999),
            self.at(1.0),
            self.first_failed.unwrap_or(-1.0),
            self.last_failed.unwrap_or(-1.0),
        )
    }
}

fn report(load: &Load, words: &Words) -> Result<()> {
    let good_ms: f64 = words.get("good-ms", 250.0)?;
    let between = |from: f64, to: f64| {
        let records = load.records.iter().filter(move |record| record.due >= from && record.due < to);
        Summary::of(records, good_ms)
    };
    println!(" sec   sent     ok failed    p50ms    p99ms    maxms");
    let mut worst_p99 = Vec::new();
    for second in 0..load.plan.seconds.ceil() as u32 {
        let one = between(f64::from(second), f64::from(second) + 1.0);
        let (p50, p99, max) = (one.at(0.5), one.at(0.99), one.at(1.0));
        worst_p99.push(p99);
        println!(
            "{second:4} {:6} {:6} {:6} {p50:8.1} {p99:8.1} {max:8.1}",
            one.sent,
            one.ok,
            one.sent - one.ok
        );
    }
    println!("TOTAL {}", Summary::of(load.records.iter(), good_ms).line());
    let mut failed: BTreeMap<Outcome, (usize, f64)> = BTreeMap::new();
    for record in load.records.iter().filter(|record| !record.is_ok()) {
        let (count, last) = failed.entry(record.outcome).or_insert((0, 0.0));
        (*count, *last) = (*count + 1, last.max(record.due));
    }
    for (outcome, (count, last)) in failed {
        let code = match outcome {
            Outcome::Status(code) => code.to_string(),
            Outcome::Unconnected => "unconnected".to_owned(),
            Outcome::Reset => "reset".to_owned(),
            Outcome::Timeout => "timeout".to_owned(),
        };
        println!("STATUS code={code} count={count} last_s={last:.2}");
    }
    for (index, phase) in load.plan.phases.iter().enumerate() {
        let one = between(phase.from, phase.from + phase.seconds);
        let good_per_s = one.good as f64 / phase.seconds;
        println!("PHASE n={} rate={} good_per_s={good_per_s:.0} {}", index + 1, phase.rate, one.line());
    }
    for mark in words.all("mark") {
        let (name, times) = mark.split_once('=').context("a mark is NAME=FROM:TO")?;
        let (from, to) = times.split_once(':').context("a mark is NAME=FROM:TO")?;
        let (from, to): (f64, f64) = (from.parse()?, to.parse()?);
        let seconds = from.ceil() as usize..(to.floor() as usize).min(worst_p99.len());
        let worst = worst_p99.get(seconds).into_iter().flatten().copied().fold(0.0, f64::max);
        println!("MARK name={name} worst_p99_ms={worst:.1} {}", between(from, to).line());
    }
    for (name, is_high) in [("high", true), ("normal", false)] {
        for (index, phase) in load.plan.phases.iter().enumerate().filter(|_| load.high_per_mille > 0) {
            let times = phase.from..phase.from + phase.seconds;
            let records =
                load.records.iter().filter(|record| record.is_high == is_high && times.contains(&record.due));
            println!("PRIORITY class={name} n={} {}", index + 1, Summary::of(records, good_ms).line());
        }
    }
    let after: f64 = words.get("normal-after", -1.0)?;
    if after >= 0.0 {
        let steps = ((load.plan.seconds - 1.0 - after).max(0.0) * 10.0) as u32;
        let normal = (0..=steps).map(|step| f64::from(step) / 10.0).find(|step| {
            let second = between(after + step, after + step + 1.0);
            second.good as f64 >= second.sent as f64 * 0.99
        });
        let text = normal.map_or("never".to_owned(), |seconds| format!("{seconds:.1}"));
        println!("NORMAL after_s={text}");
    }
    if let Some(path) = words.all("ids").last() {
        let mut file = BufWriter::new(File::create(path).context("cannot write the ids")?);
        for record in load.records.iter().filter(|record| record.is_ok()) {
            writeln!(file, "{}", record.id)?;
        }
        file.flush()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let valued = [
        "port",
        "phases",
        "conns",
        "method",
        "priority",
        "timeout-ms",
        "good-ms",
        "ids",
        "mark",
        "normal-after",
    ];
    let words = Words::parse(std::env::args().skip(1), &["keyed"], &valued)?;
    let plan = Plan::parse(words.all("phases").last().context("--phases RATExSECS is missing")?)?;
    let mut load = Load {
        address: ([127, 0, 0, 1], words.get("port", 0)?).into(),
        records: Vec::with_capacity(plan.requests as usize),
        plan,
        method: words.get("method", "GET".to_owned())?,
        is_keyed: words.has("keyed"),
        high_per_mille: (words.get("priority", 0.0)? * 1e3) as u64,
        timeout: Duration::from_millis(words.get("timeout-ms", 5_000)?),
        connections_max: words.get("conns", 384)?,
        started: Instant::now() + Duration::from_millis(100),
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        connections: Vec::new(),
        vacant: Vec::new(),
        idle: Vec::new(),
        open: 0,
        deadlines: VecDeque::new(),
        next: 0,
    };
    load.run()?;
    report(&load, &words)
}
