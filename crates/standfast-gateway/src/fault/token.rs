//! A fault for one request, signed by whoever has the stack's key: `Standfast-Fault: 1;EXPIRES;FAULT;SIGNATURE`, where EXPIRES is the
//! time in milliseconds since 1970 and SIGNATURE the HMAC-SHA256 (RFC 2104) of all before it, in hexadecimal digits.

use std::fmt;

use ring::hmac;
use standfast_model::{FAULT_KEY_BYTES_MIN, Stamp};

use super::text::TEXT_BYTES_MAX;
use super::what::{Fault, LASTS_MAX};

/// The version of the form.
const VERSION: &str = "1";
/// The longest token.
const TOKEN_BYTES_MAX: usize = TEXT_BYTES_MAX + 128;

/// Why a key is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key of faults has {0} bytes, it must have {FAULT_KEY_BYTES_MIN} at least: `openssl rand -hex 32` makes one"
)]
pub struct BadKey(usize);

/// The key by which tokens are signed.
pub struct FaultKey(hmac::Key);

impl fmt::Debug for FaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultKey")
    }
}

/// Why a token is not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadToken {
    Malformed,
    WrongSignature,
    Expired,
    /// It would be good for longer than a fault may last.
    TooLong,
}

impl BadToken {
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "the token in standfast-fault is malformed",
            Self::WrongSignature => "the token in standfast-fault is not signed with this stack's key",
            Self::Expired => "the token in standfast-fault has expired",
            Self::TooLong => "the token in standfast-fault would be good for more than an hour",
        }
    }
}

impl FaultKey {
    /// A key of what a file holds; blanks around it do not count.
    ///
    /// # Errors
    /// [`BadKey`] when it is too short.
    pub fn new(bytes: &[u8]) -> Result<Self, BadKey> {
        let key = bytes.trim_ascii();
        if key.len() < FAULT_KEY_BYTES_MIN {
            return Err(BadKey(key.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// A token for this fault, good for as long as it lasts.
    pub fn token(&self, fault: &Fault, now: Stamp) -> String {
        self.signed(&format!("{VERSION};{};{fault}", now.plus(fault.lasts).as_millis()))
    }

    fn signed(&self, text: &str) -> String {
        let signature = hmac::sign(&self.0, text.as_bytes());
        let mut token = format!("{text};");
        for byte in signature.as_ref() {
            token.push_str(&format!("{byte:02x}"));
        }
        token
    }

    /// What a token says, and until when. It is looked at only once its signature is found to be right.
    pub(crate) fn read(&self, token: &[u8], now: Stamp) -> Result<(Fault, Stamp), BadToken> {
        let token = std::str::from_utf8(token).map_err(|_| BadToken::Malformed)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::Malformed);
        }
        let (text, signature) = token.rsplit_once(';').ok_or(BadToken::Malformed)?;
        let signature = unhexed(signature).ok_or(BadToken::Malformed)?;
        hmac::verify(&self.0, text.as_bytes(), &signature).map_err(|_| BadToken::WrongSignature)?;
        let mut parts = text.splitn(3, ';');
        let (Some(VERSION), Some(expires), Some(fault)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadToken::Malformed);
        };
        let expires: u64 = expires.parse().map_err(|_| BadToken::Malformed)?;
        let until = Stamp::from_micros(expires.checked_mul(1_000).ok_or(BadToken::Malformed)?);
        if until <= now {
            return Err(BadToken::Expired);
        }
        if until.since(now) > LASTS_MAX {
            return Err(BadToken::TooLong);
        }
        Ok((fault.parse().map_err(|_| BadToken::Malformed)?, until))
    }
}

fn unhexed(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok());
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Stamp = Stamp::from_micros(1_800_000_000_000_000);

    fn key() -> FaultKey {
        FaultKey::new(b"0123456789abcdef\n").unwrap()
    }

    fn fault() -> Fault {
        "delay=300ms;service=orders;for=1m".parse().unwrap()
    }

    #[test]
    fn a_token_says_its_fault_until_it_expires() {
        let token = key().token(&fault(), NOW);
        let (read, until) = key().read(token.as_bytes(), NOW).unwrap();
        assert_eq!((read, until), (fault(), NOW.plus(Duration::from_secs(60))));
        assert_eq!(key().read(token.as_bytes(), until), Err(BadToken::Expired));
        assert!(key().read(token.as_bytes(), until.minus(Duration::from_millis(1))).is_ok());
    }

    #[test]
    fn the_signature_is_the_hmac_that_others_compute() {
        // printf '1;1800000060000;reset;side=client;for=1m' | openssl dgst -sha256 -hmac 0123456789abcdef
        let token = key().token(&"reset;for=1m".parse().unwrap(), NOW);
        let (text, signature) = token.rsplit_once(';').unwrap();
        assert_eq!(text, "1;1800000060000;reset;side=client;for=1m");
        assert_eq!(signature, "3fb81f13f126671d5bdbe6280f8d61f7087a98af6e68d5a3b6fd9e364de5fa8c");
    }

    #[test]
    fn whoever_changes_a_byte_or_has_another_key_is_not_obeyed() {
        let token = key().token(&fault(), NOW);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] ^= 1;
            assert!(key().read(&changed, NOW).is_err(), "{}", String::from_utf8_lossy(&changed));
            assert!(key().read(&token.as_bytes()[..at], NOW).is_err());
        }
        let other = FaultKey::new(b"0123456789abcdeg").unwrap();
        assert_eq!(other.read(token.as_bytes(), NOW), Err(BadToken::WrongSignature));
        assert_eq!(FaultKey::new(b"  short  \n").unwrap_err(), BadKey(5));
    }

    #[test]
    fn what_is_signed_but_no_token_is_none() {
        for (text, why) in [
            ("2;1800000060000;reset;for=1m", BadToken::Malformed),
            ("1;1800000060000;rest;for=1m", BadToken::Malformed),
            ("1;soon;reset;for=1m", BadToken::Malformed),
            ("1;18446744073709551615;reset;for=1m", BadToken::Malformed),
            ("1;1800007200000;reset;for=1m", BadToken::TooLong),
            ("1;0;reset;for=1m", BadToken::Expired),
        ] {
            assert_eq!(key().read(key().signed(text).as_bytes(), NOW), Err(why), "{text}");
        }
    }
}
