//! The history that is crashed: what the child does, and what must be there after each of its batches.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use standfast_runtime::{Clock, Rng};
use standfast_store::{Batch, EmbeddedOptions, EmbeddedStore, Is, Space, Store, Version};

use super::trace::{Event, Mark};

/// Where the child works.
pub(crate) const FOLDER_VARIABLE: &str = "STANDFAST_STORE_TEST_FOLDER";
/// How the child's remarks begin.
pub(crate) const MARK: &str = "MARK ";
pub(crate) const SPACE: Space = Space::Table("crash");

/// Batches one after the other, then batches of callers at once.
const ALONE: usize = 90;
const CALLERS: usize = 8;
const BY_EACH: usize = 10;

/// Entries with the version that wrote them.
pub(crate) type State = BTreeMap<Bytes, (Bytes, Version)>;

/// The batch of a number, always the same.
pub(crate) fn batch(number: usize) -> Batch {
    let mut rng = Rng::seeded(number as u64);
    let mut batch = Batch::new();
    match number % 10 {
        // Conditions that hold for some only, whoever comes first.
        3 => {
            batch = batch.when(&SPACE, format!("lock/{}", number % 4), Is::Absent).put(
                &SPACE,
                format!("lock/{}", number % 4),
                "held",
            )
        }
        6 => {
            batch = batch
                .when(&SPACE, format!("lock/{}", number % 4), Is::Present)
                .delete(&SPACE, format!("lock/{}", number % 4))
        }
        _ => {}
    }
    // All of a batch or nothing: its own keys, keys of all, one key of each batch.
    let size = match number {
        20 => 40_000,
        41 => 9_000,
        _ => 10 + rng.below(600),
    };
    batch = batch.put(&SPACE, format!("own/{number:03}/a"), vec![number as u8; size]);
    for _ in 0..rng.below(4) {
        let key = format!("shared/{:02}", rng.below(30));
        batch = if rng.fraction() < 0.3 {
            batch.delete(&SPACE, key)
        } else {
            batch.put(&SPACE, key, format!("by {number}"))
        };
    }
    if number == 30 {
        batch = (0..150).fold(batch, |batch, key| batch.put(&SPACE, format!("many/{key:03}"), "v"));
    }
    batch.put(&SPACE, "last", format!("{number}"))
}

/// What happened, from the child's remarks.
#[derive(Debug)]
pub(crate) struct History {
    /// By version: the batch, and what is there with it. The first is the empty store.
    states: Vec<(Option<usize>, State)>,
}

impl History {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut done: Vec<(Version, usize)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Mark(Mark::Done(batch, version)) => Some((*version, *batch)),
                _ => None,
            })
            .collect();
        let count = |is: fn(&Mark) -> bool| {
            events.iter().filter(|e| matches!(e, Event::Mark(mark) if is(mark))).count()
        };
        let refused = count(|mark| matches!(mark, Mark::Refused));
        assert_eq!(
            count(|mark| matches!(mark, Mark::Begin(_))),
            done.len() + refused,
            "every batch was answered"
        );
        assert!(done.len() > ALONE && refused > 0, "{} done, {refused} refused", done.len());
        done.sort_unstable();
        let mut states = vec![(None, State::new())];
        for (version, number) in done {
            assert_eq!(version.0 as usize, states.len(), "versions have no gaps");
            let mut state = states[states.len() - 1].1.clone();
            for write in batch(number).writes {
                match write {
                    standfast_store::Write::Put { key, value, .. } => {
                        drop(state.insert(key, (value, version)))
                    }
                    standfast_store::Write::Delete { key, .. } => drop(state.remove(&key)),
                }
            }
            states.push((Some(number), state));
        }
        Self { states }
    }

    pub(crate) fn batches(&self) -> usize {
        self.states.len() - 1
    }

    pub(crate) fn at(&self, version: Version) -> Option<&State> {
        self.states.get(version.0 as usize).map(|(_, state)| state)
    }

    pub(crate) fn batches_up_to(&self, version: Version) -> impl Iterator<Item = usize> {
        self.states.iter().take(version.0 as usize + 1).filter_map(|(batch, _)| *batch)
    }
}

fn mark(file: &File, text: &str) {
    (&mut &*file).write_all(format!("{MARK}{text}\n").as_bytes()).unwrap();
}

async fn act(store: &EmbeddedStore, marks: &File, number: usize) {
    mark(marks, &format!("begin {number}"));
    match store.commit(batch(number)).await {
        Ok(done) => mark(marks, &format!("done {number} {}", done.version)),
        Err(_) => mark(marks, "refused"),
    }
}

/// Runs the script: alone, opened again, and many at once.
pub(crate) async fn run(folder: &Path, options: EmbeddedOptions) {
    let marks = Arc::new(File::create(folder.join("marks")).unwrap());
    let open =
        async || EmbeddedStore::open(&folder.join("store"), Clock::system(), options.clone()).await.unwrap();
    let store = open().await;
    for number in 0..ALONE {
        act(&store, &marks, number).await;
    }
    drop(store);
    let store = Arc::new(open().await);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (store, marks) = (Arc::clone(&store), Arc::clone(&marks));
        callers.spawn(async move {
            for number in 0..BY_EACH {
                act(&store, &marks, ALONE + caller * BY_EACH + number).await;
            }
        });
    }
    callers.join_all().await;
}

#[expect(clippy::disallowed_methods, reason = "the parent test says where")]
pub(crate) fn folder_of_child() -> std::path::PathBuf {
    std::env::var(FOLDER_VARIABLE).expect("this runs as a child of the crash test").into()
}

#[tokio::test]
#[ignore = "runs as a child of the crash test"]
async fn child() {
    let options = EmbeddedOptions { checkpoint_pages: 60, cache_kib: 64, ..EmbeddedOptions::default() };
    run(&folder_of_child(), options).await;
}
