//! Signals: events for one run, which keeps them until it listens.

use std::sync::Arc;

use serde_json::{Value, json};

use super::refused::check_limits;
use super::{Engine, Refused};
use crate::decide::{Cause, SIGNAL_TYPE};
use crate::run::{Run, RunId};

/// Longest name of a signal, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// Longest key of a signal, in bytes.
const KEY_BYTES_MAX: usize = 256;

impl Engine {
    /// Tells a run something; done when that is written. A task that listens for an event of the type [`SIGNAL_TYPE`] and the name
    /// takes it, now or when it begins to. A second signal of the name with the same key changes nothing.
    ///
    /// # Errors
    /// See [`Refused`]: the run has ended, or there is none; what is told is too large, or the run keeps too much already.
    pub async fn signal(
        &self,
        id: RunId,
        name: &str,
        data: Value,
        key: Option<&str>,
    ) -> Result<Run, Refused> {
        self.check_driven()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(Refused::Wrong(format!(
                "a signal's name has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`, not `{}`",
                name.chars().take(NAME_BYTES_MAX).collect::<String>()
            )));
        }
        if key.is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            return Err(Refused::TooLarge { what: "the key", max: KEY_BYTES_MAX });
        }
        check_limits("the signal's data", &data)?;
        let key = key.map_or_else(|| self.new_id().to_string(), str::to_owned);
        let event = json!({
            "specversion": "1.0",
            "id": format!("{name}/{key}"),
            "source": format!("/runs/{id}"),
            "type": format!("{SIGNAL_TYPE}{name}"),
            "subject": id.to_string(),
            "time": self.clock().now().to_string(),
            "datacontenttype": "application/json",
            "data": data,
        });
        self.tell(id, Cause::Signal { event: Arc::new(event) }).await
    }
}
