//! `fault`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::world::{World, request};

/// The head of the answer to a request that may carry a token.
fn head(address: SocketAddr, token: Option<&str>) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let token = token.map(|token| format!("standfast-fault: {token}\r\n")).unwrap_or_default();
    write!(stream, "GET /who HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{token}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn json(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.run(arguments).expect(0).stdout).unwrap()
}

#[test]
fn a_fault_comes_bites_is_counted_explained_and_goes() {
    let world = World::with_quick("");
    world.up().expect(0);
    let public = world.public();
    let add = ["fault", "add", "--service", "quick", "--delay", "300ms", "--for", "1m", "--id", "slow"];
    let said = world.run(&add).expect(0);
    assert_eq!(said.stdout, "slow\n");
    said.says(&["delay=300ms;service=quick", "fault remove slow"]);
    let nowhere = ["fault", "add", "--service", "quik", "--delay", "300ms", "--for", "1m"];
    world.run(&nowhere).expect(2).says(&["the stack has no service `quik`; it has quick"]);
    let began = Instant::now();
    assert_eq!(request(public, "GET", "/who", None).unwrap().0, 200);
    assert!(began.elapsed() >= Duration::from_millis(300));
    let list = json(&world, &["fault", "list", "--json"]);
    let slow = &list["faults"][0];
    assert_eq!((slow["id"].as_str(), slow["state"].as_str()), (Some("slow"), Some("active")));
    assert_eq!((slow["seen"].as_u64(), slow["applied"].as_u64()), (Some(1), Some(1)));
    world.run(&["fault", "remove", "slow"]).expect(0).says(&["`slow` is over", "has hit 1 of the 1"]);
    world.run(&["fault", "remove", "slow"]).expect(1).says(&["no fault by the name `slow`", "fault list"]);

    let added = json(
        &world,
        &[
            "fault",
            "add",
            "--abort",
            "418",
            "--header",
            "x-test=a;b",
            "--at",
            "answer",
            "--for",
            "1m",
            "--json",
        ],
    );
    assert_eq!(added["fault"], "abort=418;at=answer;header=x-test=a%3bb;side=client;for=1m");
    assert_eq!(request(public, "GET", "/who", None).unwrap().0, 200);
    json(&world, &["fault", "add", "--abort", "418", "--for", "1m", "--json"]);
    let answer = head(public, None);
    assert!(answer.starts_with("HTTP/1.1 418 "), "{answer}");
    assert!(answer.contains("standfast-reason: injected-fault"), "{answer}");
    let id = answer.lines().find_map(|line| line.strip_prefix("standfast-request-id: ")).unwrap();
    let told = world.run(&["why-request", id]).expect(0).stdout;
    assert!(told.contains("Injected on purpose: fault `fault-2` (abort=418;side=client;for=1m)"), "{told}");
    let text = world.run(&["fault", "list"]).expect(0).stdout;
    assert!(text.contains("fault-2") && text.contains("left") && text.contains("removed"), "{text}");
    world.run(&["down"]).expect(0);
}

#[test]
fn a_token_of_the_stacks_key_is_obeyed_and_another_is_refused() {
    let world = World::with_quick("gateway: {fault_key_file: faults.key}\n");
    world.write("faults.key", "the key of this stack\n");
    world.up().expect(0);
    let public = world.public();
    let token = |more: &[&str]| {
        let arguments = [&["fault", "token", "--abort", "503", "--for", "1m"], more].concat();
        world.run(&arguments).expect(0).stdout.trim_end().to_owned()
    };
    let hit = head(public, Some(&token(&[])));
    assert!(hit.starts_with("HTTP/1.1 503 ") && hit.contains("standfast-reason: injected-fault"), "{hit}");
    assert!(head(public, None).starts_with("HTTP/1.1 200 "));
    std::fs::write(world.path().join("other.key"), "the key of another stack").unwrap();
    let refused = head(public, Some(&token(&["--key-file", "../other.key"])));
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("bad-fault-token"), "{refused}");
    world.run(&["down"]).expect(0);
}

#[test]
fn a_fault_that_makes_no_sense_is_refused_before_anything_is_asked() {
    let world = World::with_quick("");
    world.run(&["fault", "add", "--delay", "1s", "--for", "2h"]).expect(2).says(&[
        "up to 1h",
        "hint",
        "fault add",
    ]);
    world.run(&["fault", "add", "--delay", "1s", "--reset", "--for", "1m"]).expect(2);
    world.run(&["fault", "add", "--for", "1m"]).expect(2);
    world.run(&["fault", "add", "--reset"]).expect(2).says(&["--for"]);
    world.run(&["fault", "add", "--reset", "--for", "1m"]).expect(2).says(&["does not run", "standfast up"]);
    world.run(&["fault", "token", "--reset", "--for", "1m"]).expect(2).says(&["no key", "openssl rand"]);
}
