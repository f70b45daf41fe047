use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that is not a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a {what}: use 1 to 63 of a–z, 0–9 and `-`, beginning and ending with a letter or digit"
)]
pub struct BadName {
    /// What was being named.
    pub what: &'static str,
    /// The rejected text.
    pub text: String,
}

/// RFC 1123 label: what a Kubernetes object, a host name part and a folder name can all be.
fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                if is_dns_label(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName { what: $what, text: text.chars().take(80).collect() })
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a stack.
    StackName,
    "stack name"
);
name!(
    /// The name of a service.
    ServiceName,
    "service name"
);
name!(
    /// The name of a zone: a failure domain that can be lost as a whole.
    ZoneName,
    "zone name"
);
name!(
    /// The name of a declared load.
    LoadName,
    "load name"
);

/// One place for a copy of a service: the service and a slot number that is reused when the copy is replaced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The service.
    pub service: ServiceName,
    /// The slot, counted from 0.
    pub slot: u32,
}

/// `orders-0`.
impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service, self.slot)
    }
}

/// One start of a replica. A replacement in the same slot has a higher attempt, so that what returns from the dead is known
/// to be old.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// The replica that this is a start of.
    pub replica: ReplicaId,
    /// Which start, counted from 1.
    pub attempt: u64,
}

/// `orders-0.3`.
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.replica, self.attempt)
    }
}

/// The number of an order to a platform. Receivers refuse an order with a lower number than one they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The next generation.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A fingerprint of what a replica runs (command, environment, probes, limits): replicas of another revision are replaced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(Box<str>);

impl Revision {
    /// The revision of a value: FNV-1a (Fowler, Noll, Vo; 64 bit) over its canonical text, as 16 hexadecimal digits.
    ///
    /// The fingerprint tells versions apart; it is no defence against someone who makes collisions on purpose.
    pub fn of(canonical: &[u8]) -> Self {
        let hash = canonical.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(format!("{hash:016x}").into())
    }

    /// The revision as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_labels_are_names() {
        for good in ["a", "orders", "a-1", "0"] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "Orders", "a_b", "a.b", "ä", long.as_str()] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }
}
