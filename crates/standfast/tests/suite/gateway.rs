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
    /// Where it tells what happens, if it was told to.
    admin: Option<SocketAddr>,
}

impl Alone {
    fn start(world: &World) -> Self {
        Self::start_with(world, &[])
    }

    fn start_with(world: &World, more: &[&str]) -> Self {
        let arguments = ["gateway", "--listen", "127.0.0.1:0", "--workers", "2", "--json"];
        let arguments = [&arguments, more].concat();
        let mut process =
            world.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let address = |told: &Value| told.as_str().map(|address| address.parse().unwrap());
        Self { process, address: address(&told["listens"]["http"]).unwrap(), admin: address(&told["admin"]) }
    }

    fn body(&self, path: &str) -> Option<String> {
        let (_, body) = ask(self.address, "a", path)?;
        Some(body)
    }

    /// What it tells of itself.
    fn told(&self, path: &str) -> (String, String) {
        ask(self.admin.unwrap(), "localhost", path).unwrap()
    }
}

/// The head and the body of an answer.
fn ask(address: SocketAddr, host: &str, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned()))
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
fn a_gateway_alone_tells_what_happened_to_prometheus_and_to_people() {
    let world = World::new();
    world.write("standfast.yaml", &stack(upstream("one"), "/api"));
    let gateway = Alone::start_with(&world, &["--admin", "127.0.0.1:0"]);
    for _ in 0..5 {
        assert_eq!(gateway.body("/api").as_deref(), Some("one"));
    }
    let (head, _) = ask(gateway.address, "a", "/nowhere").unwrap();
    let id = head.lines().find_map(|line| line.strip_prefix("standfast-request-id: ")).unwrap();

    let (head, page) = gateway.told("/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        "standfast_gateway_requests_total{service=\"api\",code_class=\"2xx\"} 5\n",
        "standfast_gateway_request_duration_seconds_count{service=\"api\"} 5\n",
        "standfast_gateway_refused_total{reason=\"no-route\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    assert_eq!(gateway.told("/healthz").1, "ok\n");
    let stats: Value = serde_json::from_str(&gateway.told("/stats").1).unwrap();
    assert_eq!(stats["services"]["api"]["answered"]["ok"], 5);

    // One request is told by its id, if it is remembered: that no route was found is no failure, so perhaps it is not.
    let (head, told) = gateway.told(&format!("/requests/{id}"));
    assert!(head.starts_with("HTTP/1.1 200") || told.contains("no request is remembered"), "{head} {told}");
    let (head, _) = ask(gateway.admin.unwrap(), "evil.example", "/requests").unwrap();
    assert!(head.starts_with("HTTP/1.1 421"), "{head}");
    let (head, told) = gateway.told("/requests?statuss=500");
    assert!(head.starts_with("HTTP/1.1 400") && told.contains("known are"), "{head} {told}");
}

#[test]
fn a_gateway_alone_is_asked_why_a_request_failed() {
    let world = World::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stack = stack(nobody, "/").replace("]}", "], traffic: {hold: 0s}}");
    world.write("standfast.yaml", &stack);
    let gateway = Alone::start_with(&world, &["--admin", "127.0.0.1:0"]);
    let (head, _) = ask(gateway.address, "a", "/pay").unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let id = head.lines().find_map(|line| line.strip_prefix("standfast-request-id: ")).unwrap();
    let admin = format!("http://{}", gateway.admin.unwrap());
    let told = world.run(&["why-request", "--gateway", &admin, id]).expect(0).stdout;
    assert!(told.contains("/pay") && told.contains("503"), "{told}");
    let newest = world.run(&["why-request", "--gateway", &admin, "--service", "api", "--json"]).expect(0);
    let records: Value = serde_json::from_str(&newest.stdout).unwrap();
    assert_eq!(
        (records[0]["id"].as_str(), records[0]["reason"].as_str()),
        (Some(id), Some("no-replica-ready"))
    );
    world
        .run(&["why-request", "--gateway", &admin, "unheard-of"])
        .expect(1)
        .says(&["no request is remembered"]);
    let nobody = format!("http://{nobody}");
    world.run(&["why-request", "--gateway", &nobody]).expect(2).says(&[
        "no gateway answers",
        "hint",
        "--admin",
    ]);
    world.run(&["why-request", "--gateway", "nonsense"]).expect(2).says(&["no address", "hint"]);
}

#[test]
fn a_gateway_without_anything_before_it_says_what_is_missing() {
    let world = World::with_quick("");
    world.run(&["gateway"]).expect(2).says(&["no external service", "external:", "standfast up"]);
}

#[test]
fn a_request_that_failed_is_explained_by_its_id_and_counted() {
    let world = World::with_quick("");
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.run(&["up", "-d", "--listen", "127.0.0.1:0", "--metrics", &metrics.to_string()]).expect(0);
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
    let (_, page) = wait("metrics", || ask(metrics, "prometheus", "/metrics"));
    assert!(
        page.contains("standfast_gateway_refused_total{service=\"quick\",reason=\"deadline\"} 1\n"),
        "{page}"
    );
    assert!(ask(metrics, "localhost", "/requests").unwrap().0.starts_with("HTTP/1.1 404"));
    let newest = world.run(&["why-request", "--json"]).expect(0);
    let records: Value = serde_json::from_str(&newest.stdout).unwrap();
    assert_eq!((records[0]["id"].as_str(), records[0]["reason"].as_str()), (Some(id), Some("deadline")));
    let unknown = world.run(&["why-request", "00000000-0000-0000-0000-000000000000"]);
    unknown.expect(1).says(&["no request is remembered", "hint"]);
    world.run(&["down"]).expect(0);
}
