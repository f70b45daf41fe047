//! What becomes of runs, told to whoever asks: in order, for as long as they keep up.

use serde_json::Value;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Engine;
use crate::program::WorkflowName;
use crate::run::{Record, Run, lifecycle, lifecycle_of};

/// Most that waits for a reader; one that is slower loses the oldest, and is told how many.
pub const LIFECYCLE_MAX: usize = 4_096;

/// Where all is told that becomes of runs.
#[derive(Debug)]
pub(super) struct Channel(broadcast::Sender<Arc<Value>>);

impl Default for Channel {
    fn default() -> Self {
        Self(broadcast::Sender::new(LIFECYCLE_MAX))
    }
}

/// Reads what becomes of runs, from when it was asked for.
#[derive(Debug)]
pub struct Lifecycle(broadcast::Receiver<Arc<Value>>);

/// What a reader is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// An event of the language's own, as `CloudEvents` has it.
    Event(Arc<Value>),
    /// So many were lost here, since they were not read in time.
    Lost(u64),
}

impl Lifecycle {
    /// What is next; `None` when the engine is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Told> {
        match self.0.recv().await {
            Ok(event) => Some(Told::Event(event)),
            Err(RecvError::Lagged(lost)) => Some(Told::Lost(lost)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Engine {
    /// From now on all that becomes of runs. It is told when it is written; what is told when the process ends is lost, and can be
    /// derived again from records (see [`lifecycle`]).
    pub fn lifecycle(&self) -> Lifecycle {
        Lifecycle(self.0.lifecycle.0.subscribe())
    }

    /// What a record will tell once it is written; nothing when nobody reads and there is no sink.
    pub(super) fn lifecycle_of(&self, before: &Run, workflow: &WorkflowName, record: &Record) -> Vec<Value> {
        match (self.0.lifecycle.0.receiver_count(), self.outbox().sink()) {
            (0, None) => Vec::new(),
            // What nobody wants is not made.
            (0, Some(sink)) => lifecycle_of(before, workflow, record, &|kind| sink.wants(kind)),
            _ => lifecycle(before, workflow, record),
        }
    }

    pub(super) fn tell_lifecycle(&self, events: Vec<Value>) {
        for event in events {
            // Nobody may be left to read it.
            let _readers = self.0.lifecycle.0.send(Arc::new(event));
        }
    }
}
