//! Asking a replica whether it is ready. A probe is a connection of its own, written by hand: nothing is kept, and
//! nothing of the answer but its status matters.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use standfast_model::Probe;
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::health::Outcome;

/// How much of an answer is read, so that the replica can write all of a usual one.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Asks over the network; a [`Probe::Command`] is not its business and passes.
pub(crate) async fn ask(
    net: Net,
    clock: Clock,
    probe: &Probe,
    endpoint: SocketAddr,
    timeout: Duration,
) -> Outcome {
    let began = clock.now();
    let answer = match probe {
        Probe::Http { path } => clock.timeout(timeout, http(net, endpoint, path)).await,
        Probe::Tcp => clock.timeout(timeout, tcp(net, endpoint)).await,
        Probe::Command { .. } | Probe::None => return Outcome::Yes,
    };
    match answer {
        Ok(Ok(None)) => Outcome::Yes,
        Ok(Ok(Some(no))) => Outcome::No(no),
        Ok(Err(error)) => Outcome::No(format!("{endpoint}: {}", plain(&error))),
        Err(_) => silence(endpoint, timeout, clock.now().since(began)),
    }
}

/// No answer in time, unless we came back so late that the lateness may be all ours.
pub(crate) fn silence(what: impl std::fmt::Display, timeout: Duration, took: Duration) -> Outcome {
    if took > timeout + timeout / 2 {
        Outcome::Unsure
    } else {
        Outcome::Silent(format!("{what}: no answer within {timeout:?}"))
    }
}

/// The address to use instead when nobody listens on the zone's, but on 127.0.0.1: a service that ignores `HOST`.
pub(crate) async fn on_localhost_only(
    net: Net,
    clock: Clock,
    endpoint: SocketAddr,
    timeout: Duration,
) -> Option<SocketAddr> {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, endpoint.port()));
    let is_there =
        |address| async move { matches!(clock.timeout(timeout, net.connect_tcp(address)).await, Ok(Ok(_))) };
    // The zone's address is asked again: the service may have come up between that refusal and now.
    (is_there(local).await && !is_there(endpoint).await).then_some(local)
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "the connection was closed without an answer".into()
        }
        _ => error.to_string(),
    }
}

async fn tcp(net: Net, endpoint: SocketAddr) -> io::Result<Option<String>> {
    net.connect_tcp(endpoint).await.map(|_| None)
}

async fn http(net: Net, endpoint: SocketAddr, path: &str) -> io::Result<Option<String>> {
    let mut stream = net.connect_tcp(endpoint).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nUser-Agent: standfast-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let status = read_status(&mut stream).await?;
    Ok((!(200..400).contains(&status)).then(|| format!("GET {path} answered {status}")))
}

/// The status of an answer, which is read as far as it tells its length: a connection dropped earlier would be an error
/// in the service's log at every probe.
async fn read_status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut answer = Vec::with_capacity(512);
    while answer.len() < ANSWER_BYTES_MAX && !is_whole(&answer) {
        match stream.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) if status_of(&answer).is_some() => break,
            Err(error) => return Err(error),
        }
    }
    match status_of(&answer) {
        Some(status) => Ok(status),
        None if answer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1")),
    }
}

/// The status in `HTTP/1.1 200 OK`.
fn status_of(answer: &[u8]) -> Option<u16> {
    let text = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether the head is there and as much body as it announces. Without a length only the status counts, and the server
/// closes.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let length = String::from_utf8_lossy(&answer[..head_end])
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    // Chunked or delimited by closing: the status is all we need, and what is left unread is small.
    length.is_none_or(|length| answer.len() >= (head_end + 4).saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_announced_length_is_there() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
        assert!(is_whole(b"HTTP/1.0 204 No Content\r\n\r\n"));
        assert_eq!(status_of(b"HTTP/1.0 503 Busy"), Some(503));
        assert_eq!(status_of(b"SSH-2.0-x"), None);
    }

    async fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let listener = listener.into_std().unwrap();
            listener.set_nonblocking(false).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 1_024]);
            if answer.is_empty() {
                std::thread::park_timeout(Duration::from_secs(5));
            }
            std::io::Write::write_all(&mut stream, answer).unwrap();
        });
        address
    }

    async fn asked(endpoint: SocketAddr) -> Outcome {
        let probe = Probe::Http { path: "/healthz".into() };
        ask(Net::real(), Clock::system(), &probe, endpoint, Duration::from_millis(300)).await
    }

    #[tokio::test]
    async fn yes_no_and_silence_are_told_apart() {
        assert_eq!(asked(server(b"HTTP/1.1 204 No Content\r\n\r\n").await).await, Outcome::Yes);
        let no = asked(server(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await).await;
        assert_eq!(no, Outcome::No("GET /healthz answered 503".into()));
        assert!(matches!(asked(server(b"").await).await, Outcome::Silent(_)));
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(asked(nobody).await, Outcome::No(why) if why.contains("nobody listens")));
    }

    #[test]
    fn our_own_lateness_is_no_failure_of_theirs() {
        let limit = Duration::from_millis(100);
        assert!(matches!(silence("x", limit, Duration::from_millis(110)), Outcome::Silent(_)));
        assert_eq!(silence("x", limit, Duration::from_millis(160)), Outcome::Unsure);
    }
}
