//! Holds many connections open through a gateway and counts those that survive.
//!
//! `gwhold --port N --conns N --mode idle|websocket [--secs N]`: opens them one after the other (`idle`: each has one request
//! answered and is kept alive; `websocket`: each is upgraded and has one message echoed), prints `READY`, waits until its input
//! ends (or for `--secs`), then prints `HOLD`: how many are still open and, of WebSockets, how many still echo.
#![expect(clippy::disallowed_methods, reason = "a measuring tool, outside the seams")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bench_tools::{Words, whole_answer};

/// How long one step of one connection may take.
const STEP_MAX: Duration = Duration::from_secs(5);

/// A masked WebSocket text frame, `hello`; the upstream gives back the bytes as they are.
const FRAME: &[u8] = &[0x81, 0x85, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1];

fn open(port: u16, is_websocket: bool) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), STEP_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STEP_MAX))?;
    let more = if is_websocket {
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    } else {
        ""
    };
    stream.write_all(format!("GET /hold HTTP/1.1\r\nhost: bench.local\r\n{more}\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let answer = loop {
        let count = stream.read(&mut part)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&part[..count]);
        let answer = whole_answer(&bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if let Some(answer) = answer {
            break answer;
        }
    };
    if answer.status != if is_websocket { 101 } else { 200 } {
        return Err(io::Error::other(format!("answered with {}", answer.status)));
    }
    if is_websocket {
        echoes(&mut stream)?;
    }
    Ok(stream)
}

fn echoes(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(FRAME)?;
    let mut back = [0; FRAME.len()];
    stream.read_exact(&mut back)?;
    if back == *FRAME { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).is_ok()
        && matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        && stream.set_nonblocking(false).is_ok()
}

fn main() -> Result<()> {
    let words = Words::parse(std::env::args().skip(1), &[], &["port", "conns", "mode", "secs"])?;
    let (port, count): (u16, usize) = (words.get("port", 0)?, words.get("conns", 1_000)?);
    let is_websocket = match words.get("mode", "idle".to_owned())?.as_str() {
        "idle" => false,
        "websocket" => true,
        other => bail!("`--mode {other}` is neither idle nor websocket"),
    };
    let started = Instant::now();
    let mut first_error = None;
    let mut streams: Vec<TcpStream> = Vec::with_capacity(count);
    for _ in 0..count {
        match open(port, is_websocket) {
            Ok(stream) => streams.push(stream),
            // A gateway that takes no more is not asked 10,000 times.
            Err(_) if first_error.is_some() => break,
            Err(error) => first_error = Some(error),
        }
    }
    let (opened, took) = (streams.len(), started.elapsed().as_secs_f64());
    println!("READY wanted={count} opened={opened} took_s={took:.1}");
    if let Some(error) = first_error {
        eprintln!("gwhold: {error}");
    }
    match words.get("secs", 0_u64)? {
        0 => drop(io::copy(&mut io::stdin(), &mut io::sink())?),
        secs => std::thread::sleep(Duration::from_secs(secs)),
    }
    streams.retain(is_open);
    let still_open = streams.len();
    let echoing =
        if is_websocket { streams.iter_mut().filter_map(|stream| echoes(stream).ok()).count() } else { 0 };
    println!("HOLD opened={opened} still_open={still_open} echoing={echoing}");
    Ok(())
}
