//! `gateway` and `why-request`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use serde_json::Value;

use super::world::{World, kill, wait};

/// An upstream that answers every request with its name, until the test ends.
fn upstream(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _asked = stream.read(&mut [0; 4_096]);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", name.len());
            let _client_may_have_left = stream.write_all(format!("{head}{name}").as_bytes());
        }
    });
    address
}

fn stack(upstream: SocketAddr, path: &str) -> String {
    format!(
        "name: edge\nservices:\n  api: {{external: [\"{upstream}\"]}}\nroutes:\n  - {{path: {path}, to: api}}\n"
    )
}

/// A gateway by itself; it ends with the test.
struct Alone {
    process: Child,
    address: SocketAddr,
}

impl Alone {
    fn start(world: &World) -> Self {
        let arguments = ["gateway", "--listen", "127.0.0.1:0", "--workers", "2", "--json"];
        let mut process =
            world.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        Self { process, address: told["listens"]["http"].as_str().unwrap().parse().unwrap() }
    }

    fn body(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _has_ended = self.process.kill();
        let _has_ended = self.process.wait();
    }
}

#[test]
fn a_gateway_alone_takes_a_changed_stack_and_keeps_the_last_one_when_it_is_wrong() {
    let world = World::new();
    let (one, two) = (upstream("one"), upstream("two"));
    world.write("standfast.yaml", &stack(one, "/"));
    let mut gateway = Alone::start(&world);
    assert_eq!(gateway.body("/").as_deref(), Some("one"));
    world.write("standfast.yaml", "name: edge\nroutes:\n  - {path: /, to: nobody}\n");
    kill(u64::from(gateway.process.id()), "-HUP");
    let mut stderr = BufReader::new(gateway.process.stderr.take().unwrap()).lines();
    let told = stderr.by_ref().map_while(Result::ok).find(|line| line.contains("the last one goes on"));
    assert!(told.is_some());
    assert_eq!(gateway.body("/").as_deref(), Some("one"));
    world.write("standfast.yaml", &stack(two, "/new"));
    kill(u64::from(gateway.process.id()), "-HUP");
    wait("the new stack", || gateway.body("/new").filter(|body| body == "two"));
    assert!(gateway.body("/").is_some_and(|body| body.contains("no route")));
    kill(u64::from(gateway.process.id()), "-TERM");
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_gateway_shares_its_port_with_no_other() {
    let world = World::new();
    world.write("standfast.yaml", &stack(upstream("one"), "/"));
    let gateway = Alone::start(&world);
    let listen = gateway.address.to_string();
    let port = gateway.address.port().to_string();
    world.run(&["gateway", "--listen", &listen, "--workers", "2"]).expect(2).says(&[
        "cannot listen",
        &port,
        "in use",
        "hint",
    ]);
    assert_eq!(gateway.body("/").as_deref(), Some("one"));
}

#[test]
fn a_gateway_without_anything_before_it_says_what_is_missing() {
    let world = World::with_quick("");
    world.run(&["gateway"]).expect(2).says(&["no external service", "external:", "standfast up"]);
}

#[test]
fn a_request_that_failed_is_explained_by_its_id() {
    let world = World::with_quick("");
    world.up().expect(0);
    let mut stream = TcpStream::connect(world.public()).unwrap();
    write!(
        stream,
        "POST /slow/5000 HTTP/1.1\r\nhost: a\r\nconnection: close\r\nstandfast-deadline: 200\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    let id = answer.lines().find_map(|line| line.strip_prefix("standfast-request-id: ")).unwrap();
    let told = world.run(&["why-request", id]).expect(0).stdout;
    for part in ["/slow/5000", "504", "quick-"] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
    let newest = world.run(&["why-request", "--json"]).expect(0);
    let records: Value = serde_json::from_str(&newest.stdout).unwrap();
    assert_eq!((records[0]["id"].as_str(), records[0]["reason"].as_str()), (Some(id), Some("deadline")));
    let unknown = world.run(&["why-request", "00000000-0000-0000-0000-000000000000"]);
    unknown.expect(1).says(&["no request is remembered", "hint"]);
    world.run(&["down"]).expect(0);
}
