//! Where an item's stock lies: in bins, each an entry of its own, so that many reservations can be written at once.
//!
//! A replica remembers what it last saw in each bin and takes from the same bin again and again; the state API refuses the
//! batch when the bin has changed since. So a reservation is one call as long as replicas stay apart, and when two
//! meet, the one refused forgets what it knew and moves to another bin. What is remembered is only ever a hint: losing it
//! costs one look.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::random;

/// The bins of each item.
pub const BINS: usize = 64;
/// What is in a bin that nobody has taken from yet.
const BIN_PIECES: u64 = 1_000_000;
/// Batches that one replica has under way at a time. Waiting for one's turn is cheaper than colliding.
const LANES: usize = 16;
/// Items remembered; with one more, all are forgotten.
const ITEMS_MAX: usize = 1_000;

/// What a replica remembers of all bins.
#[derive(Debug)]
pub struct Warehouse {
    shelves: Mutex<BTreeMap<String, Shelf>>,
    lanes: Semaphore,
}

/// What was last seen in a bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The entry's version; `None` when there is no entry yet.
    pub version: Option<u64>,
    /// The pieces left.
    pub left: u64,
}

impl Seen {
    /// A bin without an entry.
    pub const NEVER_USED: Self = Self { version: None, left: BIN_PIECES };
}

/// The answer to "where do I take it from?".
#[derive(Debug)]
pub enum Pick<'a> {
    /// From this bin.
    Bin(Taken<'a>),
    /// Somebody must look first: there are bins whose amount is not known.
    Unseen,
    /// The bins that hold enough are all being used.
    AllBusy,
    /// As far as is known, no bin holds enough.
    TooLittle,
}

/// A bin that nobody else in this process uses until it is dropped.
#[derive(Debug)]
pub struct Taken<'a> {
    warehouse: &'a Warehouse,
    item: String,
    index: usize,
    key: String,
    seen: Seen,
    after: Option<Seen>,
}

#[derive(Debug)]
struct Shelf {
    bins: [Bin; BINS],
    /// Where to look first. Random, so that replicas begin apart.
    first: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    busy: bool,
    seen: Option<Seen>,
}

impl Default for Warehouse {
    fn default() -> Self {
        Self { shelves: Mutex::default(), lanes: Semaphore::new(LANES) }
    }
}

impl Warehouse {
    /// Waits for one's turn.
    pub async fn lane(&self) -> Option<SemaphorePermit<'_>> {
        self.lanes.acquire().await.ok() // Never closed, so always there.
    }

    /// Finds a bin that holds `pieces` of `item`.
    pub fn pick(&self, item: &str, pieces: u64) -> Pick<'_> {
        let mut shelves = self.shelves();
        let Some(shelf) = shelves.get_mut(item) else { return Pick::Unseen };
        let (mut unseen, mut busy) = (false, false);
        for index in (0..BINS).map(|step| (shelf.first + step) % BINS) {
            let bin = &mut shelf.bins[index];
            match bin.seen {
                _ if bin.busy => busy = true,
                None => unseen = true,
                Some(seen) if seen.left >= pieces => {
                    bin.busy = true;
                    let (item, key) = (item.to_owned(), bin_key(item, index));
                    return Pick::Bin(Taken { warehouse: self, item, index, key, seen, after: None });
                }
                Some(_) => {}
            }
        }
        match (unseen, busy) {
            (true, _) => Pick::Unseen,
            (false, true) => Pick::AllBusy,
            (false, false) => Pick::TooLittle,
        }
    }

    /// Remembers what was found in the bins of `item`, by index.
    pub fn learn(&self, item: &str, found: &[Seen]) {
        let mut shelves = self.shelves();
        if shelves.len() >= ITEMS_MAX && !shelves.contains_key(item) {
            shelves.clear();
        }
        let shelf = shelves.entry(item.to_owned()).or_insert_with(Shelf::unseen);
        for (bin, found) in shelf.bins.iter_mut().zip(found) {
            // The look may be older than what a batch said since.
            if bin.seen.is_none_or(|seen| seen.version < found.version) {
                bin.seen = Some(*found);
            }
        }
    }

    fn shelves(&self) -> MutexGuard<'_, BTreeMap<String, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn unseen() -> Self {
        Self { bins: [Bin::default(); BINS], first: random::below(BINS) }
    }
}

impl Taken<'_> {
    /// The bin's key in the state API.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What was last seen in it.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Gives the bin back with what is known to be in it now.
    pub fn put_back(mut self, now: Seen) {
        self.after = Some(now);
    }
}

/// Given back without a word, be it a collision, an error or a caller who hung up, nothing is known about the bin or
/// its neighbours any more: all are forgotten, and the search begins elsewhere.
impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut shelves = self.warehouse.shelves();
        let Some(shelf) = shelves.get_mut(&self.item) else { return };
        shelf.bins[self.index] = Bin { busy: false, seen: self.after };
        if self.after.is_none() {
            shelf.first = random::below(BINS);
            shelf.bins.iter_mut().filter(|bin| !bin.busy).for_each(|bin| bin.seen = None);
        }
    }
}

/// The key of a bin.
pub fn bin_key(item: &str, index: usize) -> String {
    format!("{}{index:02}", bin_prefix(item))
}

/// What the keys of all bins of an item begin with.
pub fn bin_prefix(item: &str) -> String {
    format!("stock/{item}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warehouse(left: u64) -> Warehouse {
        let warehouse = Warehouse::default();
        warehouse.learn("apple", &[Seen { version: Some(1), left }; BINS]);
        warehouse
    }

    fn taken(pick: Pick<'_>) -> Taken<'_> {
        let Pick::Bin(bin) = pick else { panic!("expected a bin, found {pick:?}") };
        bin
    }

    #[test]
    fn an_unknown_item_must_be_looked_at() {
        assert!(matches!(Warehouse::default().pick("apple", 1), Pick::Unseen));
    }

    #[test]
    fn the_same_bin_serves_one_after_the_other_and_two_serve_two() {
        let warehouse = warehouse(10);
        let first = taken(warehouse.pick("apple", 1));
        let second = taken(warehouse.pick("apple", 1));
        assert_ne!(first.key(), second.key());
        let key = first.key().to_owned();
        first.put_back(Seen { version: Some(2), left: 9 });
        let third = taken(warehouse.pick("apple", 1));
        assert_eq!((third.key(), third.seen()), (key.as_str(), Seen { version: Some(2), left: 9 }));
    }

    #[test]
    fn a_bin_given_back_without_a_word_is_looked_at_again() {
        let warehouse = warehouse(10);
        drop(taken(warehouse.pick("apple", 1)));
        assert!(matches!(warehouse.pick("apple", 1), Pick::Unseen));
    }

    #[test]
    fn an_old_look_does_not_replace_a_newer_answer() {
        let warehouse = warehouse(10);
        taken(warehouse.pick("apple", 1)).put_back(Seen { version: Some(9), left: 3 });
        warehouse.learn("apple", &[Seen { version: Some(8), left: 4 }; BINS]);
        assert_eq!(taken(warehouse.pick("apple", 1)).seen(), Seen { version: Some(9), left: 3 });
    }

    #[test]
    fn too_little_is_told_from_busy() {
        let warehouse = warehouse(5);
        assert!(matches!(warehouse.pick("apple", 6), Pick::TooLittle));
        let all: Vec<_> = (0..BINS).map(|_| taken(warehouse.pick("apple", 5))).collect();
        assert!(matches!(warehouse.pick("apple", 5), Pick::AllBusy));
        drop(all);
    }
}
