//! How a fault is written: `delay=300ms;service=orders;share=0.5;for=1m`. One form for the command line, the admin interface, tokens
//! and records. In values, `%` and what is not visible ASCII, and `;`, are written as `%` and two hexadecimal digits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use standfast_model::{ReplicaId, parse_bytes, parse_duration};

use super::latency::{DELAY_MAX, Latency};
use super::what::{Abort, Act, Fault, LASTS_MAX, Moment, Place, ReplicaName, Side};

/// The longest text of a fault.
pub(super) const TEXT_BYTES_MAX: usize = 2_048;
/// What a delay with a tail is cut to when nothing is said: so many times its mean or shortest.
const TAIL: u32 = 10;
/// The slowest that an answer's head comes: from one byte to the next.
const SLOW_HEAD_MAX: Duration = Duration::from_secs(10);
/// The lowest shape of a heavy tail: with less, nearly all would be cut.
const SHAPE_MIN: f64 = 0.1;

const ACTS: &str = "`delay`, `abort`, `reset`, `blackhole`, `throttle`, `truncate`, `corrupt`, `slow-head`";

/// Why a text is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFault {
    /// It is too long.
    #[error("a fault is written in at most {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// It does not say what is done.
    #[error("it does not say what is to go wrong: one of {ACTS}")]
    NoAct,
    /// It says two things.
    #[error("`{0}` and `{1}` are two faults: write one for each")]
    TwoActs(String, String),
    /// A word that means nothing here.
    #[error(
        "`{0}` is unknown: beside one of {ACTS} there are `at`, `side`, `route`, `service`, `replica`, `from-zone`, `to-zone`, `header`, `share` and `for`"
    )]
    Unknown(String),
    /// Something is said twice.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// A value that cannot be.
    #[error("`{key}={value}`: {wanted}")]
    Value {
        /// Of what.
        key: String,
        /// The value.
        value: String,
        /// What it should be.
        wanted: String,
    },
    /// It would last for ever.
    #[error("it does not say how long it lasts: `for`, up to 1h")]
    NoEnd,
    /// Two parts contradict each other.
    #[error("{0}")]
    Conflict(&'static str),
}

/// What was said, word by word.
#[derive(Default)]
struct Draft {
    act: Option<(String, Act)>,
    moment: Option<Moment>,
    place: Place,
    share: Option<f64>,
    side: Option<Side>,
    lasts: Option<Duration>,
}

impl FromStr for Fault {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(BadFault::TooLong);
        }
        let mut draft = Draft::default();
        for word in text.split(';').map(str::trim).filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            draft.take(key.trim(), &unescaped(value.trim()))?;
        }
        draft.finish()
    }
}

impl Draft {
    fn take(&mut self, key: &str, value: &str) -> Result<(), BadFault> {
        let bad = |wanted: String| BadFault::Value { key: key.to_owned(), value: value.to_owned(), wanted };
        if let Some(act) = act(key, value) {
            let act = act.map_err(bad)?;
            return match &self.act {
                Some((other, _)) => Err(BadFault::TwoActs(other.clone(), key.to_owned())),
                None => {
                    self.act = Some((key.to_owned(), act));
                    Ok(())
                }
            };
        }
        let place = &mut self.place;
        let is_new = match key {
            "at" => put(&mut self.moment, moment(value).map_err(bad)?),
            "side" => put(&mut self.side, side(value).map_err(bad)?),
            "share" => put(&mut self.share, share(value).map_err(bad)?),
            "for" => put(&mut self.lasts, time(value, LASTS_MAX).map_err(bad)?),
            "route" => put(&mut place.route, text_of(value).map_err(bad)?),
            "service" => put(&mut place.service, name(value).map_err(bad)?),
            "replica" => put(&mut place.replica, replica(value).map_err(bad)?),
            "from-zone" => put(&mut place.from_zone, name(value).map_err(bad)?),
            "to-zone" => put(&mut place.to_zone, name(value).map_err(bad)?),
            "header" => put(&mut place.header, header(value).map_err(bad)?),
            _ => return Err(BadFault::Unknown(key.chars().take(40).collect())),
        };
        if is_new { Ok(()) } else { Err(BadFault::Twice(key.to_owned())) }
    }

    fn finish(self) -> Result<Fault, BadFault> {
        let (_, mut act) = self.act.ok_or(BadFault::NoAct)?;
        if let Some(at) = self.moment {
            match &mut act {
                Act::Delay(_, moment)
                | Act::Abort(_, moment)
                | Act::Reset(moment)
                | Act::Blackhole(moment) => *moment = at,
                _ => {
                    return Err(BadFault::Conflict(
                        "`at` is for `delay`, `abort`, `reset` and `blackhole`: the others act on the answer",
                    ));
                }
            }
        }
        let place = self.place;
        let is_at_replicas = place.replica.is_some() || place.to_zone.is_some();
        let side = self.side.unwrap_or(if is_at_replicas { Side::Upstream } else { Side::Client });
        if is_at_replicas && side == Side::Client {
            return Err(BadFault::Conflict(
                "`replica` and `to-zone` are for `side=upstream`: a client does not know of replicas",
            ));
        }
        if let (Some(service), Some(name)) = (&place.service, &place.replica)
            && *service != name.replica.service
        {
            return Err(BadFault::Conflict("`replica` is none of `service`"));
        }
        let lasts = self.lasts.ok_or(BadFault::NoEnd)?;
        Ok(Fault { act, place, share: self.share.unwrap_or(1.0), side, lasts })
    }
}

/// Whether there was nothing before.
fn put<T>(place: &mut Option<T>, value: T) -> bool {
    place.replace(value).is_none()
}

/// `None` when the word is not about what is done.
fn act(key: &str, value: &str) -> Option<Result<Act, String>> {
    let alone = |act: Act| {
        if value.is_empty() { Ok(act) } else { Err(format!("`{key}` takes no value")) }
    };
    Some(match key {
        "delay" => latency(value).map(|latency| Act::Delay(latency, Moment::Request)),
        "abort" => abort(value).map(|abort| Act::Abort(abort, Moment::Request)),
        "reset" => alone(Act::Reset(Moment::Request)),
        "blackhole" => alone(Act::Blackhole(Moment::Request)),
        "throttle" => match parse_bytes(value) {
            Ok(0) => Err("at least 1 byte a second".to_owned()),
            parsed => parsed.map(Act::Throttle),
        },
        "truncate" => parse_bytes(value).map(Act::Truncate),
        "corrupt" => share(value).map(Act::Corrupt),
        "slow-head" => time(value, SLOW_HEAD_MAX).map(Act::SlowHead),
        _ => return None,
    })
}

/// `300ms`, `uniform:100ms,500ms`, `normal:300ms,50ms`, `exponential:200ms,2s`, `pareto:50ms,1.5,2s`: the last one of the latter three is
/// what is longest.
fn latency(value: &str) -> Result<Latency, String> {
    let Some((kind, rest)) = value.split_once(':') else {
        return Ok(Latency::Fixed(time(value, DELAY_MAX)?));
    };
    let parts: Vec<&str> = rest.split(',').map(str::trim).collect();
    let at = |index: usize| parts.get(index).copied().unwrap_or_default();
    let of = |index: usize| time(at(index), DELAY_MAX);
    let longest = |index: usize, usual: Duration| match parts.get(index) {
        Some(max) => time(max, DELAY_MAX),
        None => Ok((usual * TAIL).min(DELAY_MAX)),
    };
    let (latency, parts_max) = match kind {
        "uniform" => (Latency::Uniform { min: of(0)?, max: of(1)? }, 2),
        "normal" => (Latency::Normal { mean: of(0)?, deviation: of(1)?, max: longest(2, of(0)?)? }, 3),
        "exponential" => (Latency::Exponential { mean: of(0)?, max: longest(1, of(0)?)? }, 2),
        "pareto" => {
            let shape = at(1).parse::<f64>().ok().filter(|shape| (SHAPE_MIN..=100.0).contains(shape));
            let shape = shape.ok_or("the shape of a Pareto distribution is from 0.1 to 100")?;
            (Latency::Pareto { min: of(0)?, shape, max: longest(2, of(0)?)? }, 3)
        }
        _ => {
            return Err(
                "a time, or `uniform:MIN,MAX`, `normal:MEAN,DEVIATION[,MAX]`, `exponential:MEAN[,MAX]`, \
                        `pareto:MIN,SHAPE[,MAX]`"
                    .to_owned(),
            );
        }
    };
    let (Latency::Uniform { min: least, max }
    | Latency::Normal { mean: least, max, .. }
    | Latency::Exponential { mean: least, max }
    | Latency::Pareto { min: least, max, .. }) = latency
    else {
        return Ok(latency);
    };
    if parts.len() > parts_max {
        return Err(format!("`{kind}` takes at most {parts_max} parts"));
    }
    if max < least { Err("its longest is shorter than the rest".to_owned()) } else { Ok(latency) }
}

/// `503`, `grpc:14`.
fn abort(value: &str) -> Result<Abort, String> {
    if let Some(status) = value.strip_prefix("grpc:") {
        let status = status.parse().ok().filter(|status| (1..=16).contains(status));
        return status.map(Abort::Grpc).ok_or_else(|| "a status of gRPC is from 1 to 16".to_owned());
    }
    let status = value.parse().ok().filter(|status| (400..=599).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status
        .map(Abort::Status)
        .ok_or_else(|| "a status from 400 to 599, or `grpc:` and one from 1 to 16".to_owned())
}

fn moment(value: &str) -> Result<Moment, String> {
    match value {
        "request" => Ok(Moment::Request),
        "answer" => Ok(Moment::Answer),
        _ => Err("`request` or `answer`".to_owned()),
    }
}

fn side(value: &str) -> Result<Side, String> {
    match value {
        "client" => Ok(Side::Client),
        "upstream" => Ok(Side::Upstream),
        _ => Err("`client` or `upstream`".to_owned()),
    }
}

/// `0.5`, `50%`.
fn share(value: &str) -> Result<f64, String> {
    let share = match value.strip_suffix('%') {
        Some(percent) => percent.parse().map(|percent: f64| percent / 100.0),
        None => value.parse(),
    };
    let share = share.ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share above 0 and up to 1, or a percentage".to_owned())
}

/// A time in whole microseconds.
fn time(value: &str, max: Duration) -> Result<Duration, String> {
    let micros = parse_duration(value)?.as_micros();
    let time = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
    if time.is_zero() || time > max {
        return Err(format!("a time above 0 and up to {}", Time(max)));
    }
    Ok(time)
}

fn name<T: FromStr>(value: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    value.parse().map_err(|error: T::Err| error.to_string())
}

fn text_of(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(value.to_owned()) }
}

/// `orders-0`, `orders-0.3`.
fn replica(value: &str) -> Result<ReplicaName, String> {
    let wanted = || "a replica or one start of it, such as `orders-0` or `orders-0.3`".to_owned();
    let (replica, attempt) = match value.split_once('.') {
        Some((replica, attempt)) => (replica, Some(attempt.parse().map_err(|_| wanted())?)),
        None => (value, None),
    };
    let (service, slot) = replica.rsplit_once('-').ok_or_else(wanted)?;
    let replica = ReplicaId { service: name(service)?, slot: slot.parse().map_err(|_| wanted())? };
    Ok(ReplicaName { replica, attempt })
}

/// `x-test`, `x-test=1`.
fn header(value: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match value.split_once('=') {
        Some((name, value)) => (name, Some(value.trim().to_owned())),
        None => (value, None),
    };
    let name = http::HeaderName::from_bytes(name.trim().as_bytes());
    Ok((name.map_err(|_| "the name of a header field".to_owned())?.to_string(), value))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match &self.act {
            Act::Delay(latency, moment) => {
                write!(f, "delay={latency}")?;
                Some(moment)
            }
            Act::Abort(Abort::Status(status), moment) => {
                write!(f, "abort={}", status.as_u16())?;
                Some(moment)
            }
            Act::Abort(Abort::Grpc(status), moment) => {
                write!(f, "abort=grpc:{status}")?;
                Some(moment)
            }
            Act::Reset(moment) => {
                f.write_str("reset")?;
                Some(moment)
            }
            Act::Blackhole(moment) => {
                f.write_str("blackhole")?;
                Some(moment)
            }
            Act::Throttle(bytes) => {
                write!(f, "throttle={bytes}")?;
                None
            }
            Act::Truncate(bytes) => {
                write!(f, "truncate={bytes}")?;
                None
            }
            Act::Corrupt(share) => {
                write!(f, "corrupt={share}")?;
                None
            }
            Act::SlowHead(every) => {
                write!(f, "slow-head={}", Time(*every))?;
                None
            }
        };
        if moment == Some(&Moment::Answer) {
            f.write_str(";at=answer")?;
        }
        write!(f, "{}", self.place)?;
        if self.share < 1.0 {
            write!(f, ";share={}", self.share)?;
        }
        f.write_str(match self.side {
            Side::Client => ";side=client",
            Side::Upstream => ";side=upstream",
        })?;
        write!(f, ";for={}", Time(self.lasts))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, service, replica, from_zone, to_zone, header } = self;
        if let Some(route) = route {
            write!(f, ";route={}", Escaped(route))?;
        }
        if let Some(service) = service {
            write!(f, ";service={service}")?;
        }
        if let Some(ReplicaName { replica, attempt }) = replica {
            write!(f, ";replica={replica}")?;
            if let Some(attempt) = attempt {
                write!(f, ".{attempt}")?;
            }
        }
        if let Some(zone) = from_zone {
            write!(f, ";from-zone={zone}")?;
        }
        if let Some(zone) = to_zone {
            write!(f, ";to-zone={zone}")?;
        }
        match header {
            Some((name, Some(value))) => write!(f, ";header={name}={}", Escaped(value)),
            Some((name, None)) => write!(f, ";header={name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fixed(time) => write!(f, "{}", Time(time)),
            Self::Uniform { min, max } => write!(f, "uniform:{},{}", Time(min), Time(max)),
            Self::Normal { mean, deviation, max } => {
                write!(f, "normal:{},{},{}", Time(mean), Time(deviation), Time(max))
            }
            Self::Exponential { mean, max } => write!(f, "exponential:{},{}", Time(mean), Time(max)),
            Self::Pareto { min, shape, max } => write!(f, "pareto:{},{shape},{}", Time(min), Time(max)),
        }
    }
}

/// In the largest unit in which it is whole.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
        let whole = units.into_iter().find(|(unit, _)| micros.is_multiple_of(*unit));
        let (unit, name) = whole.unwrap_or((1, "us"));
        write!(f, "{}{name}", micros / unit)
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_graphic() && !b"%;".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A `%` that no two hexadecimal digits follow stands for itself.
fn unescaped(value: &str) -> String {
    let hex = |at: usize| value.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let mut bytes = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(byte) = value.as_bytes().get(at) {
        match hex(at + 1).filter(|_| *byte == b'%') {
            Some(escaped) => {
                bytes.push(escaped);
                at += 3;
            }
            None => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Fault>().map_or_else(|error| format!("! {error}"), |fault| fault.to_string())
    }

    #[test]
    fn what_is_written_is_shown_whole_with_what_goes_without_saying() {
        for (written, whole) in [
            (
                "delay=300ms;service=orders;share=50%;for=60s",
                "delay=300ms;service=orders;share=0.5;side=client;for=1m",
            ),
            ("delay=normal:300ms,50ms ; for=1h", "delay=normal:300ms,50ms,3s;side=client;for=1h"),
            (
                "delay=pareto:50ms,1.5,2s;at=answer;for=1m",
                "delay=pareto:50ms,1.5,2s;at=answer;side=client;for=1m",
            ),
            (
                "abort=grpc:14;to-zone=b;from-zone=a;for=1s",
                "abort=grpc:14;from-zone=a;to-zone=b;side=upstream;for=1s",
            ),
            (
                "reset;at=answer;replica=my-orders-0.3;for=1s",
                "reset;at=answer;replica=my-orders-0.3;side=upstream;for=1s",
            ),
            (
                "throttle=10KiB;header=X-Test=a b%3b;for=1s",
                "throttle=10240;header=x-test=a%20b%3b;side=client;for=1s",
            ),
            ("blackhole;route=*/a%;at=request;for=1500us", "blackhole;route=*/a%25;side=client;for=1500us"),
            ("slow-head=1ms;side=upstream;for=1s", "slow-head=1ms;side=upstream;for=1s"),
        ] {
            assert_eq!(shown(written), whole);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_says_why() {
        for (written, why) in [
            ("for=1s", "what is to go wrong"),
            ("delay=1s", "how long it lasts"),
            ("delay=1s;for=61m", "up to 1h"),
            ("delay=1s;for=0s", "above 0"),
            ("delay=11m;for=1h", "up to 10m"),
            ("delay=uniform:2s,1s;for=1h", "shorter"),
            ("delay=uniform:1s,2s,3s;for=1h", "at most 2 parts"),
            ("delay=1s;reset;for=1h", "two faults"),
            ("delay=1s;for=1h;for=1h", "twice"),
            ("delay=1s;for=1h;servise=a", "unknown"),
            ("abort=204;for=1h", "400 to 599"),
            ("abort=grpc:0;for=1h", "1 to 16"),
            ("throttle=0;for=1h", "at least 1"),
            ("corrupt=0;for=1h", "above 0"),
            ("reset;share=1.1;for=1h", "up to 1"),
            ("reset;share=nan;for=1h", "up to 1"),
            ("reset=1;for=1h", "takes no value"),
            ("truncate=1;at=answer;for=1h", "the others act on the answer"),
            ("reset;side=client;to-zone=a;for=1h", "side=upstream"),
            ("reset;service=a;replica=b-0;for=1h", "none of"),
            ("reset;replica=b;for=1h", "such as"),
            ("reset;header=a b;for=1h", "name of a header"),
        ] {
            let shown = shown(written);
            assert!(shown.starts_with("! ") && shown.contains(why), "{written}: {shown}");
        }
        assert_eq!("x".repeat(2_049).parse::<Fault>(), Err(BadFault::TooLong));
    }

    fn time_of() -> impl Strategy<Value = Duration> {
        (1_u64..600_000_000).prop_map(Duration::from_micros)
    }

    fn faults() -> impl Strategy<Value = Fault> {
        let moments = prop_oneof![Just(Moment::Request), Just(Moment::Answer)];
        let latencies = prop_oneof![
            time_of().prop_map(Latency::Fixed),
            (time_of(), time_of()).prop_map(|(a, b)| Latency::Uniform { min: a.min(b), max: a.max(b) }),
            (time_of(), time_of(), time_of()).prop_map(|(a, b, deviation)| Latency::Normal {
                mean: a.min(b),
                deviation,
                max: a.max(b)
            }),
            (time_of(), time_of(), 0.1..100.0).prop_map(|(a, b, shape)| Latency::Pareto {
                min: a.min(b),
                shape,
                max: a.max(b)
            }),
        ];
        let aborts = prop_oneof![
            (400_u16..600).prop_map(|status| Abort::Status(StatusCode::from_u16(status).unwrap())),
            (1_u8..=16).prop_map(Abort::Grpc),
        ];
        let acts = prop_oneof![
            (latencies, moments.clone()).prop_map(|(latency, moment)| Act::Delay(latency, moment)),
            (aborts, moments.clone()).prop_map(|(abort, moment)| Act::Abort(abort, moment)),
            moments.clone().prop_map(Act::Reset),
            moments.prop_map(Act::Blackhole),
            (1_u64..1 << 50).prop_map(Act::Throttle),
            (0_u64..1 << 50).prop_map(Act::Truncate),
            (1e-9..1.0).prop_map(Act::Corrupt),
            (1_u64..10_000_000).prop_map(|micros| Act::SlowHead(Duration::from_micros(micros))),
        ];
        let values = "[ -~äé]{1,20}".prop_map(|text: String| text.trim().to_owned());
        let header = (Just("x-a".to_owned()), proptest::option::of(values.clone()));
        let routes = values.prop_filter("not empty", |route| !route.is_empty());
        let place =
            (proptest::option::of(routes), proptest::option::of(header), any::<bool>(), any::<bool>());
        (acts, place, 1e-9..=1.0, time_of()).prop_map(
            |(act, (route, header, has_replica, has_zone), share, lasts)| {
                let replica = ReplicaId { service: "a-1".parse().unwrap(), slot: 7 };
                let place = Place {
                    route,
                    header,
                    replica: has_replica.then_some(ReplicaName { replica, attempt: Some(3) }),
                    from_zone: has_zone.then(|| "z".parse().unwrap()),
                    ..Place::default()
                };
                let side = if has_replica { Side::Upstream } else { Side::Client };
                Fault { act, place, share, side, lasts }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(fault in faults()) {
            let text = fault.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{}", text);
            prop_assert_eq!(text.parse::<Fault>(), Ok(fault), "{}", text);
        }

        #[test]
        fn any_text_is_a_fault_or_not(text in "(delay|at|for|header|replica|=|;|%|:|,|[ -~]|ä){0,40}") {
            let _no_panic = text.parse::<Fault>();
        }
    }
}
