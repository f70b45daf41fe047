use std::sync::Arc;

use standfast_model::Stamp;
use standfast_runtime::Clock;
use standfast_store::{EmbeddedOptions, EmbeddedStore, MemoryStore, Store, conformance};

#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_the_promises() {
    let clock = Clock::starting_at(Stamp::from_micros(1_000_000_000));
    conformance::all(async || Arc::new(MemoryStore::new(clock)) as Arc<dyn Store>, clock).await;
}

#[tokio::test(start_paused = true)]
async fn the_embedded_store_keeps_the_promises() {
    let clock = Clock::starting_at(Stamp::from_micros(1_000_000_000));
    let folders = tempfile::tempdir().unwrap();
    let opened = std::cell::Cell::new(0);
    let fresh = async || {
        opened.set(opened.get() + 1);
        let folder = folders.path().join(opened.get().to_string());
        let store = EmbeddedStore::open(&folder, clock, EmbeddedOptions::default()).await.unwrap();
        Arc::new(store) as Arc<dyn Store>
    };
    conformance::all(fresh, clock).await;
    assert!(opened.get() > 10);
}
