//! What a request is known by: its own id, and its place in a trace (W3C Trace Context). Pure.

use std::fmt;

use standfast_model::Stamp;
use standfast_runtime::Rng;

use crate::spans::SpanId;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The longest id of a client that is kept.
const CLIENT_ID_BYTES_MAX: usize = 64;

/// A request's id, `Standfast-Request-Id`: a version 7 UUID (RFC 9562), so that ids sort by time.
///
/// Between services the id goes on as it is. From outside it is always ours, so that nobody can choose the one that a record is
/// found by; what a client calls its request is kept beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId([u8; 36]);

impl RequestId {
    /// A new id. `now` may be coarse: 74 random bits tell those of one moment apart.
    pub(crate) fn new(now: Stamp, rng: &mut Rng) -> Self {
        let millis = u128::from(now.as_millis() & 0xffff_ffff_ffff);
        let (a, b) = (u128::from(rng.bits()), u128::from(rng.bits()));
        let bits = millis << 80 | 0x7 << 76 | (a & 0xfff) << 64 | 0b10 << 62 | (b & (u128::MAX >> 66));
        let mut text = [b'-'; 36];
        let mut place = 0;
        for byte in bits.to_be_bytes() {
            if matches!(place, 8 | 13 | 18 | 23) {
                place += 1;
            }
            text[place] = HEX[usize::from(byte >> 4)];
            text[place + 1] = HEX[usize::from(byte & 15)];
            place += 2;
        }
        Self(text)
    }

    /// The id that another gateway of ours gave, `None` when it has not its form: 36 lower-case characters of any UUID.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let text: [u8; 36] = value.try_into().ok()?;
        let is_right = |(place, byte): (usize, &u8)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => HEX.contains(byte),
        };
        text.iter().enumerate().all(is_right).then_some(Self(text))
    }

    /// The id of a request that came with `incoming`, and what its client calls it, if that is something else.
    pub(crate) fn of_request<'a>(
        incoming: Option<&'a [u8]>,
        is_public: bool,
        now: Stamp,
        rng: &mut Rng,
    ) -> (Self, Option<&'a str>) {
        match incoming.and_then(Self::parse).filter(|_| !is_public) {
            Some(id) => (id, None),
            None => (Self::new(now, rng), incoming.and_then(client_id)),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        // All bytes are digits and hyphens.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An id that a client gave, if it is short and can be seen.
fn client_id(value: &[u8]) -> Option<&str> {
    let is_right = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
    let is_id = (1..=CLIENT_ID_BYTES_MAX).contains(&value.len()) && value.iter().all(is_right);
    std::str::from_utf8(value).ok().filter(|_| is_id)
}

/// A request's place in a trace: what `traceparent` says (W3C Trace Context, levels 1 and 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// The same for all requests that one first request led to.
    pub(crate) trace_id: [u8; 16],
    /// Of whoever sends the request.
    pub(crate) span_id: [u8; 8],
    /// [`TraceContext::SAMPLED`], [`TraceContext::RANDOM`].
    pub(crate) flags: u8,
}

impl TraceContext {
    /// The sender may have recorded its span.
    pub(crate) const SAMPLED: u8 = 1;
    /// The trace id's right half is random.
    pub(crate) const RANDOM: u8 = 2;
    /// Bytes of a `traceparent` of version 00.
    pub(crate) const BYTES: usize = 55;

    /// Reads a `traceparent`. One of a later version is read as far as version 00 goes, as the specification asks.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let [version] = hex(value.get(..2)?)?;
        let is_whole = match version {
            0xff => false,
            0 => value.len() == Self::BYTES,
            _ => value.get(Self::BYTES).is_none_or(|next| *next == b'-'),
        };
        let is_divided = [2, 35, 52].into_iter().all(|place| value.get(place) == Some(&b'-'));
        let trace_id: [u8; 16] = hex(value.get(3..35)?)?;
        let span_id: [u8; 8] = hex(value.get(36..52)?)?;
        let [flags] = hex(value.get(53..55)?)?;
        let is_right = is_whole && is_divided && trace_id != [0; 16] && span_id != [0; 8];
        is_right.then_some(Self { trace_id, span_id, flags })
    }

    /// The first request of a trace. `is_sampled` is what services will go by that record only what their caller did: unless
    /// spans are collected by a share of the requests, it should be true.
    pub(crate) fn start(is_sampled: bool, rng: &mut Rng) -> Self {
        let mut trace_id = [0; 16];
        let (left, right) = trace_id.split_at_mut(8);
        left.copy_from_slice(&rng.bits().to_be_bytes());
        right.copy_from_slice(&random_id(rng));
        let flags = Self::RANDOM | if is_sampled { Self::SAMPLED } else { 0 };
        Self { trace_id, span_id: random_id(rng), flags }
    }

    /// The same trace with a span of our own. Flags that are not known are cleared, as the specification asks.
    #[must_use]
    pub(crate) fn continued(self, rng: &mut Rng) -> Self {
        Self { span_id: random_id(rng), flags: self.flags & (Self::SAMPLED | Self::RANDOM), ..self }
    }

    /// The context to send on, and the sender's span where the trace goes on: when not, a `tracestate` must be taken out. `incoming`
    /// is the only `traceparent` of the request; with more than one it is `None`.
    pub(crate) fn of_request(
        incoming: Option<&[u8]>,
        is_sampled: bool,
        rng: &mut Rng,
    ) -> (Self, Option<SpanId>) {
        match incoming.and_then(Self::parse) {
            Some(context) => (context.continued(rng), Some(context.span_id)),
            None => (Self::start(is_sampled, rng), None),
        }
    }

    /// Whether its spans are to be recorded.
    pub(crate) const fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// The `traceparent` to send, version 00.
    pub(crate) fn header(&self) -> [u8; Self::BYTES] {
        let mut text = [b'-'; Self::BYTES];
        write_hex(&mut text[..2], &[0]);
        write_hex(&mut text[3..35], &self.trace_id);
        write_hex(&mut text[36..52], &self.span_id);
        write_hex(&mut text[53..], &[self.flags]);
        text
    }

    /// The trace id as text, for records and logs.
    pub(crate) fn trace_id_text(&self) -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&mut text, &self.trace_id);
        text
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex_of(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(HEX[usize::from(digit)]))
        .collect()
}

/// An id that is not zero.
pub(crate) fn random_id(rng: &mut Rng) -> [u8; 8] {
    rng.bits().max(1).to_be_bytes()
}

/// Lower-case hexadecimal digits only: upper-case ones make a `traceparent` illegal.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_uuids_that_sort_by_time() {
        let mut rng = Rng::seeded(3);
        let at = |millis: u64| Stamp::from_micros(millis * 1_000);
        // The time of RFC 9562's example, appendix A.6.
        let id = RequestId::new(at(0x017F_22E2_79B0), &mut rng);
        let text = id.to_string();
        assert!(text.starts_with("017f22e2-79b0-7"), "{text}");
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
        assert_eq!(RequestId::parse(text.as_bytes()), Some(id));
        let ids: Vec<RequestId> = (1..2_000).map(|millis| RequestId::new(at(millis), &mut rng)).collect();
        assert!(ids.is_sorted());
        let mut same: Vec<RequestId> = (0..2_000).map(|_| RequestId::new(at(5), &mut rng)).collect();
        same.sort();
        same.dedup();
        assert_eq!(same.len(), 2_000);
        assert_eq!(format!("{id:?}"), text);
    }

    #[test]
    fn an_id_is_kept_between_services_and_replaced_from_outside() {
        let mut rng = Rng::seeded(3);
        let ours = b"017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let mut of = |value: &'static [u8], is_public| {
            RequestId::of_request(Some(value), is_public, Stamp::from_micros(1), &mut rng)
        };
        let (id, client) = of(ours, false);
        assert_eq!((id.as_str().as_bytes(), client), (&ours[..], None));
        let (id, client) = of(ours, true);
        assert_ne!(id.as_str().as_bytes(), ours);
        assert_eq!(client.map(str::as_bytes), Some(&ours[..]));
        assert_eq!(of(b"job:7", false).1, Some("job:7"));
        for illegal in [&b""[..], b"a b", b"a\r\nx: y", b"\"", &[b'a'; 65], b"\xff"] {
            assert_eq!(of(illegal, true).1, None);
        }
        for illegal in
            [&b"017F22e2-79b0-7cc3-98c4-dc0c0c07398f"[..], b"017f22e2x79b0-7cc3-98c4-dc0c0c07398f", b""]
        {
            assert_eq!(RequestId::parse(illegal), None);
        }
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_ours() {
        // The specification's example, 3.2.2.5 of level 1.
        let sampled = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(sampled).unwrap();
        assert_eq!((context.flags, context.span_id[..2].to_vec()), (TraceContext::SAMPLED, vec![0, 0xf0]));
        assert_eq!(&context.header(), sampled);
        assert_eq!(&context.trace_id_text(), b"4bf92f3577b34da6a3ce929d0e0e4736");
        let not_sampled = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert_eq!(TraceContext::parse(not_sampled).unwrap().flags, 0);
        let mut rng = Rng::seeded(1);
        let (next, parent) = TraceContext::of_request(Some(sampled), false, &mut rng);
        assert_eq!(parent, Some(context.span_id));
        assert!(next.is_sampled() && next.trace_id == context.trace_id && next.span_id != context.span_id);
        assert_eq!(next.flags, TraceContext::SAMPLED);
        let all_flags = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff";
        assert_eq!(TraceContext::of_request(Some(all_flags), false, &mut rng).0.flags, 3);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let parse = |text: &str| TraceContext::parse(text.as_bytes());
        let known = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for legal in [
            format!("01-{known}"),
            format!("cc-{known}-what-the-future-will-be-like"),
            format!("cc-{known}-"),
        ] {
            let mut rng = Rng::seeded(1);
            let context = parse(&legal).unwrap().continued(&mut rng);
            assert!(context.header().starts_with(b"00-4bf92f35"), "{legal}");
        }
        for illegal in [
            format!("cc-{known}.what"),
            format!("cc-{known}0"),
            format!("00-{known}-"),
            format!("ff-{known}"),
        ] {
            assert_eq!(parse(&illegal), None, "{illegal}");
        }
    }

    #[test]
    fn what_is_no_traceparent_begins_a_new_trace() {
        for illegal in [
            "",
            "00",
            "00-12345678901234567890123456789012-1234567890123456-0",
            "00-00000000000000000000000000000000-1234567890123456-01",
            "00-12345678901234567890123456789012-0000000000000000-01",
            "00-12345678901234567890123456789012-123456789012345X-01",
            "00-1234567890123456789012345678901X-1234567890123456-01",
            "00-ABCDEF78901234567890123456789012-1234567890123456-01",
            "00-12345678901234567890123456789012_1234567890123456-01",
            "00-12345678901234567890123456789012-1234567890123456-0x",
            "0-12345678901234567890123456789012-1234567890123456-01",
            "00.12345678901234567890123456789012-1234567890123456-01",
            "+0-12345678901234567890123456789012-1234567890123456-01",
            " 00-12345678901234567890123456789012-1234567890123456-01",
        ] {
            let mut rng = Rng::seeded(9);
            let (context, parent) = TraceContext::of_request(Some(illegal.as_bytes()), true, &mut rng);
            assert_eq!(parent, None, "{illegal}");
            assert_eq!(context.flags, TraceContext::SAMPLED | TraceContext::RANDOM);
            assert_eq!(TraceContext::parse(&context.header()), Some(context));
        }
        assert_eq!(TraceContext::start(false, &mut Rng::seeded(2)).flags, TraceContext::RANDOM);
    }
}
