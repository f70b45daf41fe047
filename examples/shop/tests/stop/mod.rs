//! The real programs: how they start and how they end.

use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::fake_state::FakeState;

#[tokio::test]
async fn sigterm_lets_what_is_in_flight_finish_and_ends_with_0() {
    let state = FakeState::start().await;
    let mut payments = tokio::process::Command::new(env!("CARGO_BIN_EXE_payments"))
        .env("PORT", "0")
        .env("STANDFAST_STATE_URL", state.url("payments"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(payments.stdout.take().unwrap()).lines();
    let mut event =
        async || -> Value { serde_json::from_str(&log.next_line().await.unwrap().unwrap()).unwrap() };
    let started = event().await;
    assert_eq!(started["event"], "started");
    let address = started["address"].as_str().unwrap().to_owned();

    state.hold(true);
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let body = r#"{"order_id": "o-1", "amount_cents": 250}"#;
    let request =
        format!("POST /charges HTTP/1.1\r\nhost: payments\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).await.unwrap();
    state.until_waiting(1).await;

    let pid = payments.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(event().await["event"], "stopping");
    state.hold(false);

    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap(); // To its end: the connection is closed after the answer.
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let stopped = event().await;
    assert_eq!((&stopped["event"], &stopped["finished_all"]), (&"stopped".into(), &true.into()));
    assert!(payments.wait().await.unwrap().success());
    assert_eq!(state.values("payments", "ledger/").len(), 1);
}

#[test]
fn a_replica_without_its_environment_says_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_orders")).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: orders cannot start: PORT is not set\nhint: "), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_orders"))
        .env_clear()
        .env("PORT", "0")
        .env("STANDFAST_STATE_URL", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: orders cannot start: INVENTORY_URL is not set"), "{said}");
}
