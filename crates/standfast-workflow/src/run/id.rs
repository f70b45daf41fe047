use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use standfast_model::Stamp;

/// Which run: 48 bits of milliseconds and 80 of chance, so that ids sort by when runs were started
/// (ULID, <https://github.com/ulid/spec>).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u128);

/// Crockford's base 32, in lower case.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;

/// A text is no run's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no run: its id has 26 letters and digits, as `standfast workflow list` shows them")]
pub struct BadRunId(String);

impl RunId {
    /// An id of this moment, by 80 bits of chance.
    pub fn new(at: Stamp, chance: u128) -> Self {
        let millis = u128::from(at.as_millis()) & ((1 << 48) - 1);
        Self(millis << 80 | chance & ((1 << 80) - 1))
    }

    /// The moment that it is of, in whole milliseconds.
    pub const fn at(self) -> Stamp {
        Stamp::from_micros((self.0 >> 80) as u64 * 1_000)
    }

    /// As a key of a store.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From a key of a store.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// Which document, by what it says: the first half of SHA-256 in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(Arc<str>);

impl Digest {
    /// Of a text.
    pub fn of(text: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, text);
        let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(hex.into())
    }

    /// One that was written.
    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; LENGTH];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = DIGITS[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        let bad = || BadRunId(text.chars().take(40).collect());
        if text.len() != LENGTH || text.as_bytes()[0] > b'7' {
            return Err(bad());
        }
        let mut value = 0_u128;
        for byte in text.to_ascii_lowercase().bytes() {
            let digit = DIGITS.iter().position(|digit| *digit == byte).ok_or_else(bad)?;
            value = value << 5 | digit as u128;
        }
        Ok(Self(value))
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_sort_by_time() {
        let (early, late) =
            (RunId::new(Stamp::from_micros(1_000), u128::MAX), RunId::new(Stamp::from_micros(2_000), 0));
        assert!(early < late && early.to_string() < late.to_string());
        for id in [early, late, RunId::new(Stamp::from_micros(u64::MAX), 7)] {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(RunId::from_bytes(id.to_bytes()), id);
        }
        for bad in [
            "",
            "0",
            "80000000000000000000000000",
            "0000000000000000000000000u",
            "é0000000000000000000000000",
        ] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }
}
