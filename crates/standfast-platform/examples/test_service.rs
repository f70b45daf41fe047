//! A service for the platform's tests. It listens on `HOST:PORT`, answers `/healthz` and `/env`, and misbehaves as its
//! environment says.
#![expect(
    clippy::disallowed_methods,
    reason = "a stand-in for a user's program, which knows nothing of our seams"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, exit};
use std::time::{Duration, Instant};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

fn sleep(name: &str) {
    std::thread::sleep(Duration::from_millis(number(name).unwrap_or_default()));
}

fn main() -> std::io::Result<()> {
    if is_set("TEST_IS_ESCAPEE") {
        rustix::process::setsid()?;
        loop {
            std::thread::park();
        }
    }
    if is_set("TEST_IGNORE_SIGTERM") {
        ignore_sigterm()?;
    }
    for child in ["TEST_ESCAPEE", "TEST_CHILD"].into_iter().filter(|child| is_set(child)) {
        let program = std::env::current_exe()?;
        let mut command = if child == "TEST_ESCAPEE" { Command::new(program) } else { Command::new("sleep") };
        match child {
            "TEST_ESCAPEE" => command.env("TEST_IS_ESCAPEE", "1").spawn()?,
            _ => command.arg("100000").spawn()?,
        };
    }
    let mut out = std::io::stdout().lock();
    for line in 0..number("TEST_LINES").unwrap_or_default() {
        writeln!(out, "line {line}")?;
        if line % 100 == 0 {
            sleep("TEST_LINES_PAUSE_MS");
        }
    }
    drop(out);
    if is_set("TEST_EXIT_AFTER_MS") {
        std::thread::spawn(|| {
            sleep("TEST_EXIT_AFTER_MS");
            eprintln!("exiting as told");
            exit(i32::try_from(number("TEST_EXIT_CODE").unwrap_or_default()).unwrap_or(1));
        });
    }
    sleep("TEST_SLOW_START_MS");
    serve()
}

fn serve() -> std::io::Result<()> {
    let host =
        if is_set("TEST_LOCALHOST") { "127.0.0.1".into() } else { std::env::var("HOST").unwrap_or_default() };
    let listener =
        TcpListener::bind((host, u16::try_from(number("PORT").unwrap_or_default()).unwrap_or_default()))?;
    let started = Instant::now();
    for stream in listener.incoming() {
        let unhealthy =
            number("TEST_UNHEALTHY_AFTER_MS").is_some_and(|ms| started.elapsed() > Duration::from_millis(ms));
        let _the_client_may_have_left = answer(stream?, unhealthy);
    }
    Ok(())
}

fn answer(mut stream: TcpStream, unhealthy: bool) -> std::io::Result<()> {
    let mut request = [0; 2_048];
    let read = stream.read(&mut request)?;
    let path = String::from_utf8_lossy(&request[..read]).split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = match path.as_str() {
        "/healthz" if unhealthy => ("503 Service Unavailable", String::new()),
        "/env" => ("200 OK", std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect()),
        _ => ("200 OK", "ok".to_owned()),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// A handler that does nothing, kept by a thread that waits for the next signal.
fn ignore_sigterm() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
            let _the_test_is_gone = ready.send(signal.is_ok());
            if let Ok(mut signal) = signal {
                while signal.recv().await.is_some() {
                    println!("ignored SIGTERM");
                }
            }
        });
    });
    let _ready = wait.recv();
    Ok(())
}
