//! Amounts as Compose writes them: durations, bytes, cores, and rates.

use std::time::Duration;

/// The units of a duration and their nanoseconds; longer names first, so that `ms` is not read as `m`.
const TIME_UNITS: [(&str, f64); 6] =
    [("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3_600e9)];

/// A duration as the JSON Schema knows it.
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(us|µs|ms|s|m|h))+$";
/// An amount of memory as the JSON Schema knows it.
pub(crate) const BYTES_PATTERN: &str = r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT]([iI]?[bB])?|[bB])?$";
/// A number of cores as the JSON Schema knows it.
pub(crate) const CORES_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?$";
/// A share as the JSON Schema knows it.
pub(crate) const PERCENT_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?%?$";
/// A rate as the JSON Schema knows it.
pub(crate) const RATE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?(/(s|m|h))?$";

/// Reads a duration as a stack writes it, for whoever takes one elsewhere: `1m30s`, `500ms`.
///
/// # Errors
/// What it should look like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| DURATION_HINT.to_owned())
}

/// Reads an amount of bytes as a stack writes it, for whoever takes one elsewhere: `256k`, `10MiB`, `1000`.
///
/// # Errors
/// What it should look like.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    bytes(text).ok_or_else(|| "write a number and a unit, b, k, m, g or t: `256k`, `10MiB`".to_owned())
}

/// What a duration looks like.
pub(crate) const DURATION_HINT: &str = "write numbers with the units us, ms, s, m or h: `500ms`, `1m30s`";

/// `1m30s`, `500ms`, `1.5h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        let (unit, after) =
            TIME_UNITS.iter().find_map(|(name, nanos)| Some((nanos, after.strip_prefix(name)?)))?;
        nanos += number * unit;
        rest = after;
    }
    // 2^53 nanoseconds are 104 days: below that the sum is exact, and no limit of ours is above.
    (!text.is_empty() && nanos < 9e15).then(|| Duration::from_nanos(nanos.round() as u64))
}

/// A duration as [`duration`] reads it.
pub(crate) fn show_duration(of: Duration) -> String {
    let millis = of.as_millis();
    if !millis.is_multiple_of(1_000) {
        format!("{millis}ms")
    } else if millis.is_multiple_of(3_600_000) && millis > 0 {
        format!("{}h", millis / 3_600_000)
    } else if millis.is_multiple_of(60_000) && millis > 0 {
        format!("{}m", millis / 60_000)
    } else {
        format!("{}s", millis / 1_000)
    }
}

/// `256M`, `1gb`, `1.5GiB`, `1048576`: units are powers of 1024 whatever they are called, as in Compose.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number(text)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    (bytes < 9e15).then(|| bytes.round() as u64)
}

/// `256 MiB`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| format!("{bytes} bytes"), |(shift, name)| format!("{} {name}", bytes >> shift))
}

/// `0.5` cores in thousandths.
pub(crate) fn millis_of_cores(text: &str) -> Option<u64> {
    let (number, rest) = number(text)?;
    let millis = number * 1_000.0;
    (rest.is_empty() && millis < 9e15).then(|| millis.round() as u64)
}

/// `10`, `0.5` or `10%`, in percent.
pub(crate) fn percent(text: &str) -> Option<f64> {
    let (number, rest) = number(text)?;
    matches!(rest, "" | "%").then_some(number)
}

/// `250/s`, `15000/m`, or a number: arrivals a second.
pub(crate) fn rate(text: &str) -> Option<f64> {
    let (number, rest) = number(text)?;
    let seconds = match rest {
        "" | "/s" => 1.0,
        "/m" => 60.0,
        "/h" => 3_600.0,
        _ => return None,
    };
    Some(number / seconds)
}

/// The decimal number that the text begins with, and what follows: digits, and perhaps a point and digits.
fn number(text: &str) -> Option<(f64, &str)> {
    let digits = |from: &str| from.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let fraction = text.get(whole..)?.strip_prefix('.').map(digits).filter(|count| *count > 0);
    let length = whole + fraction.map_or(0, |count| count + 1);
    if whole == 0 {
        return None;
    }
    let value = text.get(..length)?.parse::<f64>().ok()?;
    value.is_finite().then_some((value, text.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_compose_writes_them() {
        for (text, millis) in [
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2h", 7_200_000),
            ("0s", 0),
            ("1h1ms", 3_600_001),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("7us"), Some(Duration::from_micros(7)));
        for bad in ["", "1", "s", "1 s", "-1s", "1s ", "1d", ".5s", "1.s", "1e3s", "999999999999h", "1ss"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for millis in [0, 1, 500, 1_000, 1_500, 60_000, 90_000, 3_600_000, 5_400_000] {
            let of = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(of)), Some(of));
        }
    }

    #[test]
    fn amounts_read_as_compose_writes_them() {
        for (text, expected) in [
            ("256M", 256 << 20),
            ("1gb", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("2k", 2_048),
            ("7", 7),
            ("7b", 7),
            ("1 MB", 1 << 20),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for bad in ["", "M", "1x", "-1", "1  M", "1e6", "99999999999999999999T"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        assert_eq!(show_bytes(256 << 20), "256 MiB");
        assert_eq!(show_bytes(1_500), "1500 bytes");
        assert_eq!(millis_of_cores("0.5"), Some(500));
        assert_eq!(millis_of_cores("0.5x"), None);
        assert_eq!((percent("0.5%"), percent("10"), percent("1 %")), (Some(0.5), Some(10.0), None));
        assert_eq!(rate("15000/m"), Some(250.0));
        assert_eq!(rate("2.5"), Some(2.5));
        assert_eq!(rate("1/d"), None);
    }
}
