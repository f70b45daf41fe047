//! What the gateway changes in header fields.

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use standfast_model::Priority;

use crate::error::Refusal;
use crate::wire::{Fields, Known, RequestHead, ResponseHead, digits};

/// The longest deadline that is believed, in milliseconds: an hour.
const DEADLINE_MILLIS_MAX: u64 = 3_600_000;

/// What a request says to the gateway itself.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) has_idempotency_key: bool,
    /// What `Standfast-Deadline` or `grpc-timeout` says, the shorter.
    pub(crate) left: Option<Duration>,
    pub(crate) priority: Option<Priority>,
    /// It carries a `Standfast-Fault`.
    pub(crate) has_fault_token: bool,
}

/// Takes out of a request what is for the gateway or between two neighbours only, and, on a listener that is open to anyone
/// (`is_public`), what only a gateway may say.
///
/// # Errors
/// A request that says something that cannot be understood.
pub(crate) fn take_in(head: &mut RequestHead, is_public: bool) -> Result<Said, Refusal> {
    let mut said = Said::default();
    let mut has_hop_by_hop = false;
    let mut has_forwarded = false;
    for (known, _, value) in head.fields.iter() {
        match known {
            Known::IdempotencyKey => said.has_idempotency_key = !value.is_empty(),
            Known::Deadline => said.left = shorter(said.left, parse_deadline(value)?),
            Known::GrpcTimeout => said.left = shorter(said.left, parse_grpc_timeout(value)?),
            Known::Priority => said.priority = Some(parse_priority(value)?),
            Known::Forwarded => has_forwarded = true,
            Known::Fault => said.has_fault_token = true,
            known => has_hop_by_hop |= known.is_hop_by_hop(),
        }
    }
    if has_hop_by_hop {
        let takes_trailers = head.fields.has_token(Known::Te, "trailers");
        let upgrade = head.upgrades.then(|| head.fields.get(Known::Upgrade).map(<[u8]>::to_vec)).flatten();
        head.fields.remove_hop_by_hop();
        if takes_trailers {
            head.fields.push(Known::Te, "te", b"trailers");
        }
        if let Some(upgrade) = upgrade {
            head.fields.push(Known::Upgrade, "upgrade", &upgrade);
            head.fields.push(Known::Connection, "connection", b"upgrade");
        }
    }
    head.fields.remove(Known::Expect);
    head.fields.remove(Known::Deadline);
    if is_public && has_forwarded {
        head.fields.remove(Known::Forwarded);
    }
    Ok(said)
}

fn shorter(known: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(known.map_or(new, |known| known.min(new)))
}

fn parse_deadline(value: &[u8]) -> Result<Duration, Refusal> {
    digits(value)
        .map(|millis| Duration::from_millis(millis.min(DEADLINE_MILLIS_MAX)))
        .ok_or(Refusal::BadRequest("standfast-deadline is not a number of milliseconds"))
}

/// `100m`: up to eight digits and a unit (gRPC over HTTP/2).
fn parse_grpc_timeout(value: &[u8]) -> Result<Duration, Refusal> {
    let bad = Refusal::BadRequest("grpc-timeout is not a time");
    let (unit, number) = value.split_last().ok_or(bad.clone())?;
    let number = digits(number).filter(|number| *number < 100_000_000).ok_or(bad.clone())?;
    let time = match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(bad),
    };
    Ok(time.min(Duration::from_millis(DEADLINE_MILLIS_MAX)))
}

fn parse_priority(value: &[u8]) -> Result<Priority, Refusal> {
    match value {
        b"low" => Ok(Priority::Low),
        b"normal" => Ok(Priority::Normal),
        b"high" => Ok(Priority::High),
        _ => Err(Refusal::BadRequest("standfast-priority is none of `low`, `normal`, `high`")),
    }
}

/// The word for a priority.
pub(crate) const fn priority_word(priority: Priority) -> &'static [u8] {
    match priority {
        Priority::Low => b"low",
        Priority::Normal => b"normal",
        Priority::High => b"high",
    }
}

/// The time left as gRPC writes it: at most eight digits.
pub(crate) fn grpc_timeout(left: Duration) -> String {
    let micros = left.as_micros();
    if micros < 100_000_000 { format!("{micros}u") } else { format!("{}m", left.as_millis().min(99_999_999)) }
}

/// Takes the fields for the next hop out of an answer. An upgrade keeps what makes it one.
pub(crate) fn strip_answer(head: &mut ResponseHead) {
    let has_hop_by_hop = head.fields.iter().any(|(known, _, _)| known.is_hop_by_hop());
    if !has_hop_by_hop {
        return;
    }
    let is_upgrade = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = if is_upgrade { head.fields.get(Known::Upgrade).map(<[u8]>::to_vec) } else { None };
    head.fields.remove_hop_by_hop();
    if let Some(upgrade) = upgrade {
        head.fields.push(Known::Upgrade, "upgrade", &upgrade);
        head.fields.push(Known::Connection, "connection", b"upgrade");
    }
}

/// What the gateway says of a client's connection to the replica, made once for a connection.
#[derive(Debug)]
pub(crate) struct Forwarded {
    address: IpAddr,
    forwarded_for: String,
    scheme: &'static str,
    /// The value of `Forwarded` for the host that it was made for.
    last: Option<(Vec<u8>, Vec<u8>)>,
}

impl Forwarded {
    pub(crate) fn new(address: IpAddr, scheme: &'static str) -> Self {
        let address = address.to_canonical();
        Self { address, forwarded_for: address.to_string(), scheme, last: None }
    }

    /// Sets `X-Forwarded-For`, `-Host`, `-Proto` and `Forwarded` (RFC 7239).
    pub(crate) fn set(&mut self, fields: &mut Fields) {
        fields.push(Known::Forwarded, "x-forwarded-for", self.forwarded_for.as_bytes());
        fields.push(Known::Forwarded, "x-forwarded-proto", self.scheme.as_bytes());
        let Some(host) = fields.get(Known::Host) else { return };
        if self.last.as_ref().is_none_or(|(last_host, _)| last_host != host) {
            let host = host.to_vec();
            let value = forwarded_value(self.address, &host, self.scheme);
            self.last = Some((host, value));
        }
        if let Some((host, forwarded)) = &self.last {
            fields.push(Known::Forwarded, "x-forwarded-host", host);
            fields.push(Known::Forwarded, "forwarded", forwarded);
        }
    }
}

/// The host has only bytes that may stand between quotes: [`RequestHead::parse`] saw to that.
fn forwarded_value(address: IpAddr, host: &[u8], scheme: &str) -> Vec<u8> {
    let host = String::from_utf8_lossy(host);
    let address = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    format!("for={address};host=\"{host}\";proto={scheme}").into_bytes()
}

/// Whether carrying out the request twice means no more than once (RFC 9110, 9.2.2), or its key lets the service see to that.
pub(crate) fn is_repeatable(method: &Method, has_idempotency_key: bool) -> bool {
    method.is_idempotent() || has_idempotency_key
}

/// What `Retry-After` says, when it is a number of seconds.
pub(crate) fn retry_after(fields: &Fields) -> Option<Duration> {
    digits(fields.get(Known::RetryAfter)?).map(Duration::from_secs)
}

/// The time left as `Standfast-Deadline` has it: milliseconds.
pub(crate) fn deadline_millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(DEADLINE_MILLIS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> RequestHead {
        RequestHead::parse(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes(), 100).unwrap()
    }

    fn names(head: &RequestHead) -> Vec<String> {
        head.fields.iter().map(|(_, name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn trailers_stay_wanted_and_an_upgrade_keeps_its_two_fields() {
        let mut plain =
            head("host: a\r\nte: trailers, deflate\r\nconnection: keep-alive, te\r\naccept: */*\r\n");
        take_in(&mut plain, true).unwrap();
        assert_eq!(names(&plain), ["host", "accept", "te"]);
        let mut upgrade = head("host: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n");
        take_in(&mut upgrade, true).unwrap();
        assert_eq!(names(&upgrade), ["host", "upgrade", "connection"]);
        assert!(!head("host: a\r\nconnection: Upgrade\r\nupgrade: h2c\r\n").upgrades);
    }

    #[test]
    fn what_a_client_says_of_itself_is_replaced_on_a_public_listener_only() {
        let fields = "host: a:80\r\nx-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nX-Real-IP: 6\r\n";
        let mut inner = head(fields);
        take_in(&mut inner, false).unwrap();
        assert_eq!(names(&inner).len(), 4);
        let mut outer = head(fields);
        take_in(&mut outer, true).unwrap();
        assert_eq!(names(&outer), ["host"]);
        Forwarded::new("::ffff:10.0.0.1".parse().unwrap(), "http").set(&mut outer.fields);
        let value = |name| String::from_utf8_lossy(outer.fields.named(name).unwrap()).into_owned();
        assert_eq!(value("x-forwarded-for"), "10.0.0.1");
        assert_eq!(value("x-forwarded-host"), "a:80");
        assert_eq!(value("forwarded"), "for=10.0.0.1;host=\"a:80\";proto=http");
    }

    #[test]
    fn times_and_priorities_are_read_strictly() {
        let left = |fields: &str| {
            take_in(&mut head(&format!("host: a\r\n{fields}\r\n")), true).map(|said| said.left)
        };
        assert_eq!(left("standfast-deadline: 250").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(
            left("grpc-timeout: 2S\r\nstandfast-deadline: 9000").unwrap(),
            Some(Duration::from_secs(2))
        );
        for bad in [
            "standfast-deadline: +5",
            "grpc-timeout: 5",
            "grpc-timeout: 100000000m",
            "standfast-priority: urgent",
        ] {
            assert!(left(bad).is_err(), "{bad}");
        }
        assert_eq!(grpc_timeout(Duration::from_millis(1_500)), "1500000u");
        assert_eq!(grpc_timeout(Duration::from_secs(3_600)), "3600000m");
    }
}
