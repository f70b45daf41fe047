//! The JSON texts: batches in, entries out.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use standfast_model::Stamp;

use super::answer::Refusal;
use super::base64;
use crate::{Batch, Condition, Entry, Is, Page, Space, Version, Write};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBatch {
    #[serde(rename = "if", default)]
    conditions: Vec<RawCondition>,
    #[serde(rename = "do", default)]
    writes: Vec<RawWrite>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCondition {
    key: String,
    is: RawIs,
}

/// `"absent"`, `"present"` or `{"version": 42}`.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawIs {
    Absent,
    Present,
    Version(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWrite {
    put: Option<String>,
    delete: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    ttl_ms: Option<u64>,
}

/// Reads the body of a batch.
///
/// # Errors
/// 400 with the line and column where the text is wrong, or with the place of the write that makes no sense.
pub(super) fn batch(space: &Space, body: &[u8], now: Stamp) -> Result<Batch, Refusal> {
    let raw: RawBatch = serde_json::from_slice(body)
        .map_err(|error| Refusal::malformed(format!("the body is not a batch: {error}")))?;
    let condition = |raw: RawCondition| Condition {
        space: space.clone(),
        key: raw.key.into(),
        is: match raw.is {
            RawIs::Absent => Is::Absent,
            RawIs::Present => Is::Present,
            RawIs::Version(version) => Is::Version(Version(version)),
        },
    };
    let write = |(index, raw): (usize, RawWrite)| {
        write(space, raw, now).map_err(|wrong| Refusal::malformed(format!("the write do[{index}] {wrong}")))
    };
    let writes = raw.writes.into_iter().enumerate().map(write).collect::<Result<_, _>>()?;
    Ok(Batch { conditions: raw.conditions.into_iter().map(condition).collect(), writes })
}

fn write(space: &Space, raw: RawWrite, now: Stamp) -> Result<Write, &'static str> {
    let space = space.clone();
    match raw {
        RawWrite { put: None, delete: Some(key), value: None, value_base64: None, ttl_ms: None } => {
            Ok(Write::Delete { space, key: key.into() })
        }
        RawWrite { put: Some(key), delete: None, value, value_base64, ttl_ms } => {
            let value: Bytes = match (value, value_base64) {
                (Some(text), None) => text.into(),
                (None, Some(text)) => {
                    base64::decode(&text).ok_or("has a `value_base64` that is not base64")?.into()
                }
                _ => return Err("needs either `value` or `value_base64`"),
            };
            if ttl_ms == Some(0) {
                return Err("has a `ttl_ms` of 0; the least is 1");
            }
            let expires_at = ttl_ms.map(|ttl| now.plus(Duration::from_millis(ttl)));
            Ok(Write::Put { space, key: key.into(), value, expires_at })
        }
        RawWrite { put: None, delete: Some(_), .. } => Err("deletes, so it has no value and no `ttl_ms`"),
        _ => Err("needs either `put` or `delete`"),
    }
}

/// What a batch that was done answers.
#[derive(Serialize)]
pub(super) struct BatchDone {
    pub(super) version: u64,
}

/// One page of entries.
#[derive(Serialize)]
pub(super) struct Listing {
    entries: Vec<Listed>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    key: String,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl From<Page> for Listing {
    fn from(page: Page) -> Self {
        // Keys come in through this API only, as UTF-8.
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let listed = |entry: Entry| {
            let value = std::str::from_utf8(&entry.value).ok().map(String::from);
            let value_base64 = value.is_none().then(|| base64::encode(&entry.value));
            Listed { key: text(&entry.key), version: entry.version.0, value, value_base64 }
        };
        Self {
            entries: page.entries.into_iter().map(listed).collect(),
            next: page.next.map(|key| text(&key)),
        }
    }
}
