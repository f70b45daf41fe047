//! Clients that try to make one HTTP/2 connection cost as much as many: each is thrown out or held to a bound, and others are served
//! meanwhile.

use std::time::Duration;

use h2::Reason;
use standfast_gateway::{Config, Limits, Snapshot};
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::h2::speaks_h2;
use crate::h2_rig::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, H2Replica, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, block, frame, get_block, soon,
};
use crate::replica::Replica;
use crate::rig::{Rig, endpoints, eventually, one_worker, snapshot};

const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
/// How much of an attack is sent at most.
const BYTES_MAX: usize = 64 << 20;
/// The longest that another client may wait meanwhile: generous, since tests share a busy machine and nothing is optimised.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(2);
/// How much more memory this process may take at its peak, tests and all.
const MEMORY_MAX: usize = 96 << 20;

/// What an attack is called, and how it treats a stream.
type Kind<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &u32::from(Reason::CANCEL).to_be_bytes())
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_block(&[]))
}

/// An open request whose body is to come.
fn opening(stream: u32) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// What became of an attack.
#[derive(Debug)]
struct Met {
    /// What was said before the connection was closed.
    reason: Option<Reason>,
    is_closed: bool,
}

/// Sends what `next` makes, numbers counting up, until the gateway closes or all is sent, and reads what comes back.
async fn attack(rig: &Rig, first: &[u8], mut next: impl FnMut(u32) -> Vec<u8>, bytes_max: usize) -> Met {
    let stream = Net::real().connect_tcp(rig.public).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), first].concat();
    writing.write_all(&hello).await.unwrap();
    let sending = async {
        let (mut sent, mut number) = (0, 0);
        while sent < bytes_max {
            let mut bytes = Vec::new();
            while bytes.len() < 16 << 10 {
                bytes.extend(next(number));
                number += 1;
            }
            if writing.write_all(&bytes).await.is_err() {
                return true;
            }
            sent += bytes.len();
        }
        false
    };
    let (is_closed, reason) = soon("the attack ends", async {
        tokio::select! {
            biased;
            reason = last_word(&mut reading) => (true, reason),
            is_closed = sending => (is_closed, None),
        }
    })
    .await;
    Met { reason, is_closed }
}

/// Reads frames until the connection ends; the reason that it was given.
async fn last_word(reading: &mut OwnedReadHalf) -> Option<Reason> {
    let mut reason = None;
    let mut head = [0; 9];
    while reading.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if reading.read_exact(&mut payload).await.is_err() {
            break;
        }
        if head[3] == GOAWAY {
            reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()).into());
        }
    }
    reason
}

/// Has another client ask all the while, and holds the process to its bounds.
async fn while_others_are_served<T>(rig: &Rig, work: impl Future<Output = T>) -> T {
    let clock = Clock::system();
    let (before, mut work) = (memory_peak(), std::pin::pin!(work));
    let other = H2::connect(rig.public).await;
    let mut asked = 0;
    let asking = async {
        loop {
            let began = clock.now();
            assert_eq!(other.get("/other").await.status, 200);
            let took = clock.now().since(began);
            assert!(took < OTHERS_WAIT_MAX, "{took:?}");
            asked += 1;
            clock.sleep(Duration::from_millis(1)).await;
        }
    };
    let done = tokio::select! {
        biased;
        done = &mut work => done,
        () = asking => unreachable!("it asks without end"),
    };
    assert_eq!(other.get("/other").await.status, 200);
    if let (Some(before), Some(after)) = (before, memory_peak()) {
        // The kernel counts by and by.
        let more = after.saturating_sub(before);
        assert!(more < MEMORY_MAX, "{} MiB more", more >> 20);
    }
    done
}

/// The most memory that this process has had, where that is told.
fn memory_peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? << 10)
}

async fn all_is_over(rig: &Rig) {
    eventually("nothing is left of it", || {
        rig.gateway.stats().connections == 0 && rig.stats().in_flight == 0
    })
    .await;
}

/// Sends an attack and expects it to be thrown out before it has sent `bytes_max`.
async fn is_thrown_out(what: &str, first: &[u8], next: impl FnMut(u32) -> Vec<u8>, bytes_max: usize) {
    let replica = Replica::start().await;
    let rig = Rig::before(&[&replica]);
    let met = while_others_are_served(&rig, attack(&rig, first, next, bytes_max)).await;
    assert!(met.is_closed, "{what}: {met:?}");
    // The word may be lost when the connection is reset behind it; a stream that was reset long ago is none any more.
    let is_right = |reason| matches!(reason, Reason::ENHANCE_YOUR_CALM | Reason::PROTOCOL_ERROR);
    assert!(met.reason.is_none_or(is_right), "{what}: {met:?}");
    all_is_over(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_are_thrown_out_cve_2023_44487() {
    let next = |number: u32| [request(number * 2 + 1), reset(number * 2 + 1)].concat();
    is_thrown_out("resets", &[], next, 4 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_block_without_end_is_thrown_out_cve_2024_27316() {
    let first = frame(HEADERS, END_STREAM, 1, &get_block(&[]));
    is_thrown_out("small parts", &first, |_| frame(CONTINUATION, 0, 1, &block(&[("x-a", "1")])), 1 << 20)
        .await;
    is_thrown_out("empty parts", &first, |_| frame(CONTINUATION, 0, 1, &[]), 1 << 20).await;
    let long = [&[0, 1, b'a', 0x7f, 0x80, 0x80, 0x80, 8][..], &[b'x'; 16_000]].concat();
    let mut parts = std::iter::once(long).chain(std::iter::repeat(vec![b'x'; 16 << 10]));
    let replica = Replica::start().await;
    let rig = Rig::before(&[&replica]);
    let next = |_| frame(CONTINUATION, 0, 1, &parts.next().unwrap());
    let met = while_others_are_served(&rig, attack(&rig, &first, next, 32 << 20)).await;
    assert!(met.is_closed, "{met:?}");
    all_is_over(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_serve_nothing_are_thrown_out() {
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let update = frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
    for (what, first, one) in [
        ("PING", vec![], frame(PING, 0, 0, &[7; 8])),
        ("answers to no PING", vec![], frame(PING, 1, 0, &[7; 8])),
        ("SETTINGS", vec![], settings),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("frames that nobody knows", vec![], frame(0x42, 0, 0, &[7; 20])),
        ("empty DATA", opening(1), frame(DATA, 0, 1, &[])),
        ("tiny WINDOW_UPDATE", opening(1), update),
        ("empty HEADERS", opening(1), frame(HEADERS, END_HEADERS, 1, &[])),
    ] {
        is_thrown_out(what, &first, |_| one.clone(), BYTES_MAX).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_whose_answers_nobody_reads_takes_no_memory() {
    let replica = Replica::start().await;
    let limits = Limits { client_idle_max: Duration::from_secs(1), ..Limits::default() };
    let rig = Rig::start_with(Config { limits, ..one_worker() }, snapshot(endpoints(&[&replica])));
    let flooding = async {
        for one in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])] {
            let stream = Net::real().connect_tcp(rig.public).await.unwrap();
            let (_unread, mut writing) = stream.into_split();
            let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
            writing.write_all(&hello).await.unwrap();
            let batch = one.repeat(1_000);
            let sending = async { while writing.write_all(&batch).await.is_ok() {} };
            soon("it is closed as one that is idle", sending).await;
        }
    };
    while_others_are_served(&rig, flooding).await;
    all_is_over(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_we_are_made_to_reset_are_counted_cve_2025_8671() {
    let half_closed = |stream| [request(stream), frame(DATA, 0, stream, b"x")].concat();
    let no_increment = |stream| [opening(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat();
    let overflow =
        |stream| [opening(stream), frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat();
    let depends = |stream: u32| {
        [opening(stream), frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[16]].concat())].concat()
    };
    let trailers =
        |stream| [opening(stream), frame(HEADERS, END_HEADERS, stream, &block(&[("x-a", "1")]))].concat();
    let too_long = |stream| {
        let mut fields =
            vec![(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")];
        fields.push(("content-length", "1"));
        [frame(HEADERS, END_HEADERS, stream, &block(&fields)), frame(DATA, 0, stream, b"too long")].concat()
    };
    let kinds: [Kind<'_>; 6] = [
        ("DATA behind the end", &half_closed),
        ("an increment of 0", &no_increment),
        ("a window that overflows", &overflow),
        ("a priority of its own", &depends),
        ("trailers that end nothing", &trailers),
        ("DATA beyond the length", &too_long),
    ];
    for (what, make) in kinds {
        let replica = Replica::start().await;
        let rig = Rig::before(&[&replica]);
        let met =
            while_others_are_served(&rig, attack(&rig, &[], |number| make(number * 2 + 1), 4 << 20)).await;
        assert!(met.is_closed, "{what}: {met:?}");
        let seen = replica.seen().iter().filter(|seen| seen.target == "/").count();
        assert!(seen <= 2_000, "{what}: the replica worked for {seen} requests");
        all_is_over(&rig).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_block_that_unfolds_into_much_is_thrown_out() {
    // One field of 4,000 bytes enters the table; each further byte of a block is that field again.
    let stored = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4_000]].concat();
    let first = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[get_block(&[]), stored].concat());
    let replica = Replica::start().await;
    let rig = Rig::before(&[&replica]);
    let next = |number: u32| {
        let block = [get_block(&[]), vec![0xbe; 16_000]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 3, &block)
    };
    let met = while_others_are_served(&rig, attack(&rig, &first, next, 8 << 20)).await;
    assert!(met.is_closed, "{met:?}");
    assert!(replica.seen().iter().all(|seen| seen.headers.len() < 50));
    // As much as is allowed at a time, on all streams at once.
    let next = |number: u32| {
        let block = [get_block(&[]), vec![0xbe; 12]].concat();
        frame(HEADERS, END_HEADERS, number * 2 + 3, &block)
    };
    let _thrown_out_or_not = while_others_are_served(&rig, attack(&rig, &first, next, 256 << 10)).await;
    all_is_over(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_an_answer_drop_by_drop_is_let_go() {
    let replica = H2Replica::start().await;
    let limits = Limits { body_stall_max: Duration::from_millis(500), ..Limits::default() };
    let world: Snapshot = speaks_h2(&[replica.address]);
    let rig = Rig::start_with(Config { limits, ..one_worker() }, world);
    let stream = Net::real().connect_tcp(rig.public).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    // No window at all, and a hundred answers of 16 MiB.
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    writing.write_all(&hello).await.unwrap();
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/flood"), (":authority", "shop.test")];
    let ask = |number: u32| frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &block(&fields));
    writing.write_all(&(0..100).flat_map(ask).collect::<Vec<u8>>()).await.unwrap();
    let sipping = async {
        eventually("all run", || replica.running() >= 50).await;
        tokio::select! {
            biased;
            () = eventually("all are given up", || replica.running() == 0) => {}
            () = sip(&mut writing) => {}
            _ = last_word(&mut reading) => {}
        }
    };
    while_others_are_served(&rig, sipping).await;
    assert!(replica.moved() < 64 << 20, "{}", replica.moved());
    eventually("the replica is let go", || replica.running() == 0).await;
}

/// Makes room for one byte on each of a hundred streams, again and again.
async fn sip(writing: &mut OwnedWriteHalf) {
    let clock = Clock::system();
    let all: Vec<u8> = (0..100_u32)
        .flat_map(|number| frame(WINDOW_UPDATE, 0, number * 2 + 1, &1_u32.to_be_bytes()))
        .collect();
    while writing.write_all(&all).await.is_ok() {
        clock.sleep(Duration::from_millis(20)).await;
    }
}
