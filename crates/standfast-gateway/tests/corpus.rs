//! What two parties could read differently: raw bytes in, and what is seen as raw bytes on the other side of the gateway.

mod format;
mod strict;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use standfast_gateway::{Config, Limits};
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::rig::{Rig, endpoint, eventually, one_worker, snapshot};
use format::Case;
pub(crate) use format::unescape;
use strict::{Read, Request};

/// Cases that run at a time.
const AT_A_TIME: usize = 8;
/// After this a case counts as one that never ends.
const CASE_MAX: Duration = Duration::from_secs(10);
const CLEAN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nclean";

/// A replica that notes every byte, and may say on its first connection what a case has it say.
struct Raw {
    address: SocketAddr,
    stop: oneshot::Sender<SocketAddr>,
    task: JoinSet<Vec<Vec<u8>>>,
    /// Connections that have ended.
    ended: Arc<AtomicUsize>,
}

/// What is said on the first connection.
struct Script {
    /// Said at once, when the head was read, or when the whole request was read.
    when: String,
    answer: Vec<u8>,
    /// Said when somebody asks for it, after the answer has arrived.
    late: Option<(Vec<u8>, oneshot::Receiver<()>)>,
    closes: bool,
}

impl Raw {
    async fn start(script: Option<Script>) -> Self {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = Arc::<AtomicUsize>::default();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, script, stopped, Arc::clone(&ended)));
        Self { address, stop, task, ended }
    }

    /// The bytes of all connections, in their order; they must have been closed by the other side.
    async fn finish(mut self) -> Vec<Vec<u8>> {
        // Connections queue in order, so that whatever came before this one was accepted.
        let last = Net::real().connect_tcp(self.address).await.unwrap();
        self.stop.send(last.local_addr().unwrap()).unwrap();
        drop(last);
        self.task.join_next().await.unwrap().unwrap()
    }
}

async fn accept(
    listener: TcpListener,
    mut script: Option<Script>,
    mut stopped: oneshot::Receiver<SocketAddr>,
    ended: Arc<AtomicUsize>,
) -> Vec<Vec<u8>> {
    let mut running = JoinSet::new();
    let mut peers = Vec::new();
    let mut last = None;
    while last.is_none() || !peers.contains(&last) {
        let (stream, peer) = tokio::select! {
            biased;
            stop = &mut stopped, if last.is_none() => {
                last = Some(stop.unwrap());
                continue;
            }
            accepted = listener.accept() => accepted.unwrap(),
        };
        peers.push(Some(peer));
        let (number, script, ended) = (peers.len(), script.take(), Arc::clone(&ended));
        running.spawn(async move {
            let bytes = converse(stream, script).await;
            ended.fetch_add(1, Ordering::SeqCst);
            (number, peer, bytes)
        });
    }
    let mut all = running.join_all().await;
    all.sort();
    all.into_iter().filter(|(_, peer, _)| Some(*peer) != last).map(|(_, _, bytes)| bytes).collect()
}

/// Answers each whole request until the other side ends the connection.
async fn converse(mut stream: TcpStream, mut script: Option<Script>) -> Vec<u8> {
    let (mut seen, mut at) = (Vec::new(), 0);
    loop {
        let is_due = match script.as_ref().map(|script| script.when.as_str()) {
            Some("connect") => true,
            Some("head") => seen.windows(4).any(|end| end == b"\r\n\r\n"),
            _ => false,
        };
        if is_due && say(&mut stream, script.take()).await.is_err() {
            return seen;
        }
        while let Read::Whole(_, length) = strict::read(&seen[at..]) {
            at += length;
            let said = match script.take() {
                Some(script) => say(&mut stream, Some(script)).await,
                None => stream.write_all(CLEAN).await,
            };
            if said.is_err() {
                return seen;
            }
        }
        match stream.read_buf(&mut seen).await {
            Ok(1..) => {}
            _ => return seen,
        }
    }
}

async fn say(stream: &mut TcpStream, script: Option<Script>) -> std::io::Result<()> {
    let Some(script) = script else { return Ok(()) };
    stream.write_all(&script.answer).await?;
    if let Some((late, due)) = script.late {
        let _case_is_over = due.await;
        stream.write_all(&late).await?;
    }
    if script.closes {
        stream.shutdown().await?;
    }
    Ok(())
}

/// Sends bytes in pieces and reads until the other side closes.
async fn send(address: SocketAddr, bytes: &[u8], piece: usize, ends: bool) -> Vec<u8> {
    let stream = Net::real().connect_tcp(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let write = async {
        for piece in bytes.chunks(piece) {
            if writing.write_all(piece).await.is_err() {
                return; // refused before it was all there
            }
            tokio::task::yield_now().await;
        }
        if ends {
            let _refused_before = writing.shutdown().await;
        }
    };
    let read = async {
        let mut answer = Vec::new();
        let _reset_behind_the_answer = reading.read_to_end(&mut answer).await;
        answer
    };
    tokio::join!(write, read).1
}

/// The status of each answer, interim ones too. No body of an answer here has such a line.
fn statuses(answers: &[u8]) -> Vec<String> {
    let lines = answers.windows(13).filter(|line| line.starts_with(b"HTTP/1.1 ") && line[12] == b' ');
    lines
        .map(|line| String::from_utf8_lossy(&line[9..12]).into_owned())
        .filter(|s| s.parse::<u16>().is_ok())
        .collect()
}

/// Whether a request is what a line of the corpus says, `POST /x length=hello host=a !x-secret`.
fn is_as_said(seen: &Read, said: &str) -> bool {
    let mut words = said.split(' ');
    let (method, target, framing) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let request = match (seen, framing) {
        (Read::Cut(request), "cut") => request,
        (Read::Whole(request, _), framing) => {
            let is_framed = match framing.split_once('=') {
                Some((kind, body)) => kind == request.framing && unescape(body) == request.body,
                None => framing == request.framing,
            };
            if !is_framed {
                return false;
            }
            request
        }
        _ => return false,
    };
    let has = |word: &str, value: &dyn Fn(&Request, &str) -> Option<Vec<u8>>| match word.strip_prefix('!') {
        Some(name) => value(request, name).is_none(),
        None => {
            let (name, wanted) = word.split_once('=').unwrap();
            let name = String::from_utf8(unescape(name)).unwrap();
            value(request, &name) == Some(unescape(wanted))
        }
    };
    let field = |request: &Request, name: &str| match name.strip_prefix("trailer.") {
        Some(name) => request.trailer(name).map(<[u8]>::to_vec),
        None => request.field(name).map(<[u8]>::to_vec),
    };
    method == request.method
        && (target == "..." || unescape(target) == request.target.as_bytes())
        && words.all(|word| has(word, &field))
}

/// All requests on a connection.
fn requests(bytes: &[u8]) -> Vec<Read> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let read = strict::read(&bytes[at..]);
        let is_last = match &read {
            Read::Whole(_, length) => {
                at += length;
                false
            }
            _ => true,
        };
        all.push(read);
        if is_last {
            break;
        }
    }
    all
}

/// Runs cases, several at a time, and reports all that fail.
async fn run_all<F>(cases: Vec<Case>, run: fn(Arc<Case>) -> F)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut waiting = cases.into_iter();
    let mut running = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        while running.len() < AT_A_TIME
            && let Some(case) = waiting.next()
        {
            let case = Arc::new(case);
            running.spawn(async move {
                let done = Clock::system().timeout(CASE_MAX, run(Arc::clone(&case))).await;
                let result = done.unwrap_or_else(|_| Err("never ends".to_owned()));
                result.map_err(|why| format!("{}: {why}", case.name))
            });
        }
        match running.join_next().await {
            Some(result) => failures.extend(result.unwrap().err()),
            None => break,
        }
    }
    failures.sort();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_two_could_read_differently_reach_no_replica() {
    let cases = format::read(include_str!("corpus/requests.txt"));
    assert!(cases.len() >= 150, "{}", cases.len());
    run_all(cases, |case| async move {
        for piece in [usize::MAX, if case.bytes.len() > 2_000 { 1_000 } else { 7 }] {
            request_case(&case, piece).await.map_err(|why| format!("in pieces of {piece}: {why}"))?;
        }
        Ok(())
    })
    .await;
}

async fn request_case(case: &Case, piece: usize) -> Result<(), String> {
    let raw = Raw::start(None).await;
    let limits = Limits { body_bytes_max: 100_000, ..Limits::default() };
    let rig = Rig::start_with(Config { limits, ..one_worker() }, snapshot(vec![endpoint(0, raw.address)]));
    let ends = case.get("then") == Some("eof");
    let mut bytes = case.bytes.clone();
    if !ends {
        bytes.extend_from_slice(b"GET /next HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n");
    }
    let answers = send(rig.public, &bytes, piece, ends).await;
    drop(rig);
    let seen: Vec<Read> = raw.finish().await.iter().flat_map(|bytes| requests(bytes)).collect();

    let (mut wanted, mut upstream) =
        (Vec::new(), case.all("upstream").map(str::to_owned).collect::<Vec<_>>());
    for word in case.get("answers").unwrap_or_default().split(' ').filter(|word| !word.is_empty()) {
        if word.starts_with("next") {
            wanted.push("200".to_owned());
            let method = word.strip_prefix("next=").unwrap_or("GET");
            upstream.push(format!("{method} /next none host=next"));
        } else {
            wanted.push(word.to_owned());
        }
    }
    let answered = statuses(&answers);
    if answered != wanted {
        let text = String::from_utf8_lossy(&answers).into_owned();
        return Err(format!("answered {answered:?}, not {wanted:?}: {text:?}; a replica saw {seen:?}"));
    }
    let is_seen =
        seen.len() == upstream.len() && seen.iter().zip(&upstream).all(|(seen, said)| is_as_said(seen, said));
    if is_seen { Ok(()) } else { Err(format!("a replica saw {seen:?}, not {upstream:?}")) }
}

/// A client's view of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Nothing,
    /// The status, the fields in lower case, and the body with its framing, unless the connection ended before its end.
    Answer(u16, String, Option<(&'static str, Vec<u8>)>),
    Bad(String),
}

/// Reads the answer that is all that a connection brought.
fn read_answer(bytes: &[u8], is_head: bool) -> Got {
    if bytes.is_empty() {
        return Got::Nothing;
    }
    let bad =
        |why: &str| Got::Bad(format!("{why}: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(400)])));
    let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
        return bad("no end of the head");
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let Some(status) = head.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()) else {
        return bad("no status");
    };
    let values = |name: &str| {
        let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    let (lengths, codings, rest) = (values("content-length"), values("transfer-encoding"), &bytes[end + 4..]);
    if lengths.len() + codings.len() > 1 {
        return bad("framed twice");
    }
    let body = if is_head || status == 204 || status == 304 {
        if !rest.is_empty() {
            return bad("a body where none may be");
        }
        Some(("none", Vec::new()))
    } else if let Some(length) = lengths.first() {
        let length: usize = length.parse().unwrap();
        if rest.len() > length {
            return bad("a body longer than its length");
        }
        (rest.len() == length).then(|| ("length", rest.to_vec()))
    } else if !codings.is_empty() {
        // Chunks of an answer are framed as chunks of a request.
        let as_request = [b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", rest].concat();
        match strict::read(&as_request) {
            Read::Whole(request, length) if length == as_request.len() => Some(("chunked", request.body)),
            Read::Cut(_) => None,
            _ => return bad("chunks that are not"),
        }
    } else {
        Some(("close", rest.to_vec()))
    };
    Got::Answer(status, head, body)
}

/// Whether an answer is what the corpus says, `200 length=hello x=1 !y`.
fn is_answer_as_said(got: &Got, said: &str) -> bool {
    let mut words = said.split(' ');
    let (status, framing) = (words.next().unwrap(), words.next());
    let Got::Answer(code, head, body) = got else { return *got == Got::Nothing && status == "closed" };
    let is_framed = match (framing.map(|f| f.split_once('=').unwrap_or((f, "..."))), body) {
        (None, Some(_)) | (Some(("cut", _)), None) => true,
        (Some((kind, wanted)), Some((known, body))) => {
            kind == *known && (wanted == "..." || unescape(wanted) == *body)
        }
        _ => false,
    };
    let lines: Vec<&str> = head.split("\r\n").collect();
    code.to_string() == status
        && is_framed
        && words.all(|word| match word.strip_prefix('!') {
            Some(name) => !lines.iter().any(|line| line.starts_with(&format!("{name}: "))),
            None => lines.contains(&word.replacen('=', ": ", 1).as_str()),
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_none_reach_no_client_and_spoil_no_other_answer() {
    let cases = format::read(include_str!("corpus/answers.txt"));
    assert!(cases.len() >= 40, "{}", cases.len());
    run_all(cases, |case| async move { answer_case(&case).await }).await;
}

async fn answer_case(case: &Case) -> Result<(), String> {
    let (say_late, due) = oneshot::channel();
    let late = case.get("late").map(unescape);
    let script = Script {
        when: case.get("when").unwrap_or("request").to_owned(),
        answer: case.bytes.clone(),
        late: late.clone().map(|late| (late, due)),
        closes: case.get("then") == Some("close"),
    };
    let raw = Raw::start(Some(script)).await;
    let rig = Rig::start(snapshot(vec![endpoint(0, raw.address)]));
    let usual = r"POST /first HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody";
    let request = unescape(case.get("request").unwrap_or(usual));
    let got = read_answer(&send(rig.public, &request, usize::MAX, false).await, request.starts_with(b"HEAD"));
    let wanted = case.get("client").unwrap();
    if !is_answer_as_said(&got, wanted) {
        return Err(format!("the client got {got:?}, not {wanted}"));
    }
    let again = case.get("again").unwrap();
    let _nothing_is_late = say_late.send(());
    if case.get("wait").is_some() {
        let ended = Arc::clone(&raw.ended);
        eventually("the connection is given up", || ended.load(Ordering::SeqCst) == 1).await;
    }
    let next = b"GET /second HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let second = read_answer(&send(rig.public, next, usize::MAX, false).await, false);
    drop(rig);
    let seen = raw.finish().await;
    if !is_answer_as_said(&second, "200 length=clean") {
        return Err(format!("the next client got {second:?}"));
    }
    let connections: Vec<Vec<Read>> = seen.iter().map(|bytes| requests(bytes)).collect();
    let last = connections.last().and_then(|requests| requests.last());
    let is_last = last.is_some_and(|request| is_as_said(request, "GET /second none"));
    let is_reused = connections.first().is_some_and(|requests| requests.len() > 1);
    let firsts = connections.first().map_or(0, Vec::len) - usize::from(is_reused);
    if is_last && firsts == 1 && (again == "any" || is_reused == (again == "same")) {
        Ok(())
    } else {
        Err(format!("a replica saw {connections:?}; the second was to come on the {again} connection"))
    }
}

/// A replica answers while most of the body is still on its way, and reads the rest then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_still_being_sent_when_the_answer_begins_arrives_whole() {
    const BYTES: usize = 24_000_000;
    for framing in [format!("content-length: {BYTES}"), "transfer-encoding: chunked".to_owned()] {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let rig = Rig::start(snapshot(vec![endpoint(0, listener.local_addr().unwrap())]));
        let (reading, mut writing) = Net::real().connect_tcp(rig.public).await.unwrap().into_split();
        let is_chunked = framing.starts_with('t');
        let mut request = format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n").into_bytes();
        if is_chunked {
            // Small ones: while one is on its way, others have been read already.
            let chunk = [b"3e8\r\n".as_slice(), &[b'z'; 1_000], b"\r\n"].concat();
            request.extend(chunk.repeat(BYTES / 1_000));
            request.extend(b"0\r\n\r\n");
        } else {
            request.resize(request.len() + BYTES, b'z');
        }
        // Until nothing goes any more: all buffers on the way are full, the gateway's too.
        let (mut sent, clock) = (0, Clock::system());
        while let Ok(written) =
            clock.timeout(Duration::from_millis(300), writing.write(&request[sent..])).await
        {
            sent += written.unwrap();
        }
        assert!(sent < request.len(), "the buffers here hold everything");
        let (mut replica, _) = listener.accept().await.unwrap();
        replica.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel").await.unwrap();
        let mut reading = tokio::io::BufReader::new(reading);
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut reading, &mut line).await.unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK\r\n");
        let read = async {
            let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
            let ending = 1 << 10;
            // The whole body is counted, and only its end kept.
            let mut body = 0;
            while body < BYTES {
                let count = replica.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                body += buffer[..count].iter().filter(|byte| **byte == b'z').count();
                seen.extend_from_slice(&buffer[..count]);
                seen.drain(..seen.len().saturating_sub(ending));
            }
            replica.write_all(b"lo").await.unwrap();
            body
        };
        let write = async {
            let _cut_off_or_not = writing.write_all(&request[sent..]).await;
        };
        let (body, ()) =
            clock.timeout(CASE_MAX, async { tokio::join!(read, write) }).await.expect("all goes");
        assert!(body >= BYTES, "{framing}: {body} of {BYTES}");
    }
}
