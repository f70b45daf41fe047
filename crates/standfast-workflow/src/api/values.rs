//! Values that workflows keep by keys.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::Asked;
use super::answer::{Answer, bad, data, problem, refused};
use crate::decide::size_of;
use crate::engine::{KeptValue, VALUES_LISTED_MAX};

/// Values in one answer, unless asked for another number.
const LIMIT: usize = 100;
/// About how many bytes one answer has at most, but for a value that is larger by itself.
const LISTED_BYTES_MAX: usize = 512 << 10;

pub(super) async fn list(asked: &Asked<'_>, namespace: &str) -> Answer {
    let limit = match asked.parameter("limit").map(str::parse::<usize>) {
        None => LIMIT,
        Some(Ok(limit)) if (1..=VALUES_LISTED_MAX).contains(&limit) => limit,
        Some(_) => return Err(bad(format!("`limit` is a number from 1 to {VALUES_LISTED_MAX}"))),
    };
    let (prefix, after) = (asked.parameter("prefix").unwrap_or_default(), asked.parameter("after"));
    let found = asked.engine.values(namespace, prefix, after, limit).await.map_err(|why| refused(&why))?;
    let (mut bytes, mut is_whole) = (0, found.len() < limit);
    let mut values: Vec<Value> = Vec::new();
    for kept in found {
        let value = as_value(kept);
        bytes += size_of(&value);
        if bytes > LISTED_BYTES_MAX && !values.is_empty() {
            is_whole = false;
            break;
        }
        values.push(value);
    }
    let next = values.last().filter(|_| !is_whole).map(|last| last["key"].clone());
    Ok(data(StatusCode::OK, &json!({"values": values, "next": next})))
}

pub(super) async fn show(asked: &Asked<'_>, namespace: &str) -> Answer {
    let key = asked.parameter("key").ok_or_else(|| bad("say which: `?key=orders/last`"))?;
    match asked.engine.value(namespace, key).await.map_err(|why| refused(&why))? {
        Some(found) => Ok(data(StatusCode::OK, &as_value(found))),
        None => {
            let detail = format!("the key `{key}` has no value in the namespace {namespace}");
            Err(Box::new(problem(StatusCode::NOT_FOUND, &detail)))
        }
    }
}

fn as_value(kept: KeptValue) -> Value {
    let KeptValue { key, value, changed_at, changed_by } = kept;
    json!({"key": key, "value": value, "changedAt": changed_at.to_string(), "changedBy": changed_by})
}
