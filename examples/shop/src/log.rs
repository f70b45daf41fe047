//! One JSON line on standard output for each notable event. Standfast collects them.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::Instant;

/// At most one line about failed requests in this time; the line says how many it stands for.
const TROUBLE_EVERY: Duration = Duration::from_secs(1);

/// Who writes.
#[derive(Debug)]
pub(crate) struct Log {
    service: &'static str,
    zone: String,
    replica: String,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    quiet_until: Option<Instant>,
    unsaid: u64,
}

impl Log {
    pub(crate) fn new(service: &'static str, zone: &str, replica: &str) -> Self {
        Self { service, zone: zone.to_owned(), replica: replica.to_owned(), trouble: Mutex::default() }
    }

    /// Writes a line. `facts` is a JSON object.
    pub(crate) fn line(&self, level: &str, event: &str, facts: Value) {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let mut line = json!({
            "at_ms": u64::try_from(at_ms).unwrap_or(u64::MAX), "level": level, "event": event,
            "service": self.service, "zone": self.zone, "replica": self.replica,
        });
        if let (Some(line), Value::Object(facts)) = (line.as_object_mut(), facts) {
            line.extend(facts);
        }
        // Not `println!`: it panics when the reader is gone, and a service outlives whoever reads its log.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// Writes a line about a failed request, unless one was written just now.
    pub(crate) fn trouble(&self, code: &str, message: &str) {
        let Some(requests) = self.due() else { return };
        self.line("warn", "requests_failed", json!({"code": code, "message": message, "requests": requests}));
    }

    fn due(&self) -> Option<u64> {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.unsaid += 1;
        let now = Instant::now();
        if trouble.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        trouble.quiet_until = Some(now + TROUBLE_EVERY);
        Some(std::mem::take(&mut trouble.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_failures_is_one_line_a_second() {
        let log = Log::new("orders", "a", "orders-1");
        assert_eq!(log.due(), Some(1));
        assert!((0..250).all(|_| log.due().is_none()));
        tokio::time::advance(TROUBLE_EVERY).await;
        assert_eq!(log.due(), Some(251));
    }
}
