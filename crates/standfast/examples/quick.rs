//! A service that starts at once, for the tests: `/healthz`, `/who`, `/env/NAME`, `/slow/MS`, and `POST /do`, which records one effect per
//! `Idempotency-Key` in the state API; `POST /do/MS` answers so much later, and `x-id` is then the effect's id in place of the key. Standard library only; one thread per connection.
#![expect(clippy::disallowed_methods, reason = "a user's program, outside Standfast's seams")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn main() -> io::Result<()> {
    let host = Some(variable("HOST")).filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".into());
    if let Ok(code) = variable("EXIT_CODE").parse() {
        eprintln!("the last words of a service that cannot start");
        std::process::exit(code);
    }
    let listener = TcpListener::bind(format!("{host}:{}", variable("PORT")))?;
    println!("serving version {} in zone {}", variable("VERSION"), variable("STANDFAST_ZONE"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let _client_may_leave = serve(stream);
        });
    }
    Ok(())
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some((line, headers, _body)) = read_message(&mut reader)? {
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let (status, body) = answer(&line, &path, &headers);
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

fn answer(line: &str, path: &str, headers: &[(String, String)]) -> (u16, String) {
    if line.starts_with("POST /do") {
        let field =
            |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let key = field("idempotency-key").unwrap_or_default().trim_matches('"');
        let answer = record(key, field("x-id").unwrap_or(key));
        if let Some(millis) = path.strip_prefix("/do/").and_then(|millis| millis.parse().ok()) {
            std::thread::sleep(Duration::from_millis(millis));
        }
        return answer;
    }
    if let Some(name) = path.strip_prefix("/env/") {
        return (200, variable(name));
    }
    if let Some(millis) = path.strip_prefix("/slow/").and_then(|millis| millis.parse().ok()) {
        std::thread::sleep(Duration::from_millis(millis));
    }
    match path {
        "/healthz" if variable("HEALTHY") == "no" => (500, "not healthy".into()),
        "/who" => (200, format!("{} {}", variable("STANDFAST_REPLICA"), variable("VERSION"))),
        _ => (200, "ok".into()),
    }
}

/// One effect per key: a batch that applies only when the key is new. A state API that does not answer is asked again.
fn record(key: &str, id: &str) -> (u16, String) {
    let unique = format!("{key}-{}-{:?}", std::process::id(), std::thread::current().id());
    let batch = format!(
        r#"{{"if": [{{"key": "done/{key}", "is": "absent"}}],
            "do": [{{"put": "done/{key}", "value": "1"}},
                   {{"put": "ledger/{unique}", "value": "{{\"id\": \"{id}\"}}"}}]}}"#
    );
    for _ in 0..100 {
        match post(&variable("STANDFAST_STATE_URL"), &batch) {
            Ok(200 | 412) => return (201, key.into()),
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(15)),
        }
    }
    (503, "the state API does not answer".into())
}

fn post(url: &str, body: &str) -> io::Result<u16> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "POST /{path}/batch HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let (line, ..) = read_message(&mut BufReader::new(stream))?.ok_or(io::ErrorKind::UnexpectedEof)?;
    line.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

type Message = (String, Vec<(String, String)>, Vec<u8>);

/// One HTTP/1.1 message; `None` at the end of the connection.
fn read_message(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Message>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length =
        headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some((first.trim_end().to_owned(), headers, body)))
}
