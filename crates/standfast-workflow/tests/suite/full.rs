//! A full disk: what would begin is refused at once and left no trace, what has begun waits for room and goes on.

use std::sync::Arc;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{Fault, MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, Status};

use super::rig::Rig;

const LISTENS: &str = "do:
  - ask: { listen: { to: { one: { with: { type: io.standfast.signal.approve } } } }, output: { as: '.[0]' } }
  - book: { run: { workflow: { namespace: tests, name: within, version: '1.0.0' } } }
";
const WITHIN: &str =
    "do:\n  - book: { call: http, with: { method: post, endpoint: SERVICE/book }, output: { as: .body } }\n";

/// An engine, and its store to fill.
async fn rig() -> (Rig, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let shared: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
    (Rig::over(shared, EngineConfig::default()).await, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_refused_at_once_and_nothing_of_it_stays() {
    let (rig, store) = rig().await;
    let name = rig.define("within", WITHIN).await;
    store.set_fault(Some(Fault::Full));
    let start = || rig.engine.start(&name, Arc::new(json!({"order": 1})), Some("order-1"));
    assert_eq!(start().await.unwrap_err(), Refused::Full);
    assert_eq!(start().await.unwrap_err(), Refused::Full, "its key is free");
    let event = json!({"id": "1", "source": "s", "type": "t"});
    assert_eq!(rig.engine.publish(Arc::new(event.clone())).await.unwrap_err(), Refused::Full);
    assert_eq!(rig.engine.list(None, 10).await.unwrap(), []);
    store.set_fault(None);
    rig.engine.publish(Arc::new(event)).await.unwrap();
    let id = start().await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Completed);
    assert_eq!(rig.service.seen(|seen| seen.effects.len()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_begun_waits_for_room_and_says_so() {
    let (rig, store) = rig().await;
    rig.define("within", WITHIN).await;
    let name = rig.define("listens", LISTENS).await;
    let id = rig.start(&name, Value::Null).await;
    while rig.engine.show(id).await.unwrap().summary.status != Status::Waiting {}
    store.set_fault(Some(Fault::Full));
    let told = rig.engine.signal(id, "approve", json!({"by": "me"}), None).await;
    assert_eq!(told.unwrap_err(), Refused::Delayed);
    assert_eq!(rig.service.seen(|seen| seen.effects.len()), 0, "nothing is done that is not written");
    store.set_fault(None);
    assert_eq!(rig.end(id).await.status, Status::Completed);
    assert_eq!(rig.service.seen(|seen| seen.effects.len()), 1);
}
