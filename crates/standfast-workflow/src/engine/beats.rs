//! Steps whose silence is looked at: they are given up when there is no sign of life for too long.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use crate::ask::{Asked, Heartbeat};
use crate::run::{Problem, Standard};

/// By the keys of their steps. Two runs may have given theirs the same one.
#[derive(Debug, Default)]
pub(super) struct Beats(Mutex<HashMap<String, Vec<Heartbeat>>>);

/// A step that is looked at, as long as this lives.
struct Listed<'e> {
    engine: &'e Engine,
    key: &'e str,
    heartbeat: &'e Heartbeat,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut beats = self.engine.beats().0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = beats.get_mut(self.key) {
            known.retain(|known| !known.is(self.heartbeat));
            if known.is_empty() {
                beats.remove(self.key);
            }
        }
    }
}

impl Engine {
    /// Tells that what was asked with this key is still being done. Returns for how many steps that counts: 0 when nobody waits for
    /// it any more, so that it need not go on.
    pub fn beat(&self, key: &str) -> usize {
        let now = self.clock().now();
        let beats = self.beats().0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = beats.get(key).map_or(&[][..], Vec::as_slice);
        known.iter().for_each(|heartbeat| heartbeat.beat(now));
        known.len()
    }

    /// What is answered, unless what is asked is silent for too long.
    pub(super) async fn unless_silent<T>(
        &self,
        asked: &Asked,
        answering: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let Some(heartbeat) = &asked.heartbeat else { return answering.await };
        {
            let mut beats = self.beats().0.lock().unwrap_or_else(PoisonError::into_inner);
            beats.entry(asked.key.clone()).or_default().push(heartbeat.clone());
        }
        let _listed = Listed { engine: self, key: &asked.key, heartbeat };
        let (mut answering, clock) = (pin!(answering), *self.clock());
        loop {
            let due = heartbeat.due(clock.now());
            tokio::select! {
                biased;
                answer = &mut answering => return answer,
                () = clock.sleep_until(due) => {}
            }
            if heartbeat.due(clock.now()) <= clock.now() {
                let every = heartbeat.every().as_secs_f64();
                return Err(Standard::Timeout.problem(format!("there was no sign of life for {every:.1} s")));
            }
        }
    }
}
