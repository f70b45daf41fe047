//! The state API: everything that must outlive a replica. See `docs/state-api.md` for the contract.

use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Answer, Call, Client};
use crate::deadline::Deadline;
use crate::problem::Problem;
use crate::random;

const PEER: &str = "the state API";

/// A service's space in the state API.
#[derive(Debug, Clone)]
pub struct State {
    client: Client,
    url: String,
}

/// A stored value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Grows with every write.
    pub version: u64,
}

/// One entry of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    /// The whole key.
    pub key: String,
    /// Grows with every write.
    pub version: u64,
    /// The value when it is text.
    pub value: Option<String>,
}

/// Writes that are done all together when all conditions hold, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    conditions: Vec<Value>,
    writes: Vec<Value>,
}

impl Batch {
    /// Adds the condition that `key` has no value.
    pub fn if_absent(mut self, key: &str) -> Self {
        self.conditions.push(json!({"key": key, "is": "absent"}));
        self
    }

    /// Adds the condition that `key` is as it was seen.
    pub fn if_version(mut self, key: &str, version: u64) -> Self {
        self.conditions.push(json!({"key": key, "is": {"version": version}}));
        self
    }

    /// Adds a write.
    pub fn put(mut self, key: &str, value: &str) -> Self {
        self.writes.push(json!({"put": key, "value": value}));
        self
    }

    fn body(self) -> Bytes {
        json!({"if": self.conditions, "do": self.writes}).to_string().into()
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// All was done, and is on disk.
    Done {
        /// The version of every entry written.
        version: u64,
        /// The id of the one attempt that was done.
        attempt_id: String,
    },
    /// Nothing was done, because these conditions failed. After a repeat whose first answer was lost this may mean
    /// that the first was done: read to know.
    Refused {
        /// Indexes into the conditions.
        failed: Vec<usize>,
    },
}

#[derive(Deserialize)]
struct Done {
    version: u64,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    failed: Vec<usize>,
}

#[derive(Deserialize)]
struct Page {
    entries: Vec<Listed>,
}

impl State {
    /// The space at `url`.
    pub fn new(client: Client, url: &str) -> Self {
        Self { client, url: url.trim_end_matches('/').to_owned() }
    }

    /// Reads one entry.
    pub async fn get(&self, deadline: Deadline, key: &str) -> Result<Option<Entry>, Problem> {
        let url = format!("{}/keys/{}", self.url, encoded(key));
        let answer = self.client.call(PEER, deadline, || read(url.clone())).await?;
        match answer.status {
            StatusCode::OK => {
                let version = etag(&answer)
                    .ok_or_else(|| Problem::bad_answer(format!("{PEER} gave `{key}` no ETag")))?;
                Ok(Some(Entry { value: answer.body, version }))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Reads an entry that is known to have been written.
    pub async fn get_written(&self, deadline: Deadline, key: &str) -> Result<Entry, Problem> {
        let entry = self.get(deadline, key).await?;
        entry.ok_or_else(|| {
            Problem::unavailable(format!("{PEER} holds no `{key}` although it refused to create it"))
        })
    }

    /// Reads the first `limit` entries whose keys begin with `prefix`.
    pub async fn list(&self, deadline: Deadline, prefix: &str, limit: usize) -> Result<Vec<Listed>, Problem> {
        let url = format!("{}/keys?prefix={}&limit={limit}", self.url, encoded(prefix));
        let answer = self.client.call(PEER, deadline, || read(url.clone())).await?;
        match answer.status {
            StatusCode::OK => answer.json::<Page>(PEER).map(|page| page.entries),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Sends a batch, again and again while its outcome is unknown. The batch must have a condition that its own success
    /// breaks; then at most one attempt is ever done. `make` gets a fresh id for each attempt: a key made from it records one
    /// real application, so that two applications would be seen as two.
    pub async fn commit(&self, deadline: Deadline, make: impl Fn(&str) -> Batch) -> Result<Commit, Problem> {
        let mut attempt_id = String::new();
        let url = format!("{}/batch", self.url);
        let next = || {
            attempt_id = random::unique_id();
            let body = make(&attempt_id).body();
            Call { method: Method::POST, url: url.clone(), idempotency_key: None, body }
        };
        let answer = self.client.call(PEER, deadline, next).await?;
        match answer.status {
            StatusCode::OK => {
                let Done { version } = answer.json(PEER)?;
                Ok(Commit::Done { version, attempt_id })
            }
            StatusCode::PRECONDITION_FAILED => {
                let Refused { failed } = answer.json(PEER)?;
                Ok(Commit::Refused { failed })
            }
            _ => Err(unexpected(&answer)),
        }
    }
}

fn read(url: String) -> Call {
    Call { method: Method::GET, url, idempotency_key: None, body: Bytes::new() }
}

fn etag(answer: &Answer) -> Option<u64> {
    answer.headers.get(header::ETAG)?.to_str().ok()?.trim_matches('"').parse().ok()
}

fn unexpected(answer: &Answer) -> Problem {
    match answer.status {
        StatusCode::INSUFFICIENT_STORAGE => Problem::unavailable(format!("{PEER} has no room on its disk")),
        status => Problem::bad_answer(format!("{PEER} answered {status}")),
    }
}

/// Percent-encodes a key for a path or a query; `/` stays.
fn encoded(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_the_contracts_shape() {
        let batch =
            Batch::default().if_absent("charge/1").if_version("stock/apple/07", 42).put("charge/1", "{}");
        let body: Value = serde_json::from_slice(&batch.body()).unwrap();
        assert_eq!(
            body,
            json!({
                "if": [{"key": "charge/1", "is": "absent"}, {"key": "stock/apple/07", "is": {"version": 42}}],
                "do": [{"put": "charge/1", "value": "{}"}],
            })
        );
    }

    #[test]
    fn keys_survive_the_path() {
        assert_eq!(encoded("keys/a b?c#%é"), "keys/a%20b%3Fc%23%25%C3%A9");
    }
}
