//! The store against a model of it that is too simple to be wrong, and under real threads.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use http::StatusCode;
use standfast_runtime::Rng;

use super::*;
use crate::wire::{Fields, Framing};

const SCOPES: usize = 8;

fn limits(keys_max: u32, memory_max: usize) -> KeepAnswers {
    KeepAnswers {
        keep_for: Duration::from_secs(10),
        keys_max,
        memory_max: memory_max as u64,
        ..KeepAnswers::default()
    }
}

fn scope(number: usize) -> Digest {
    [u8::try_from(number).unwrap(); 32]
}

fn fingerprint(number: u64) -> Fingerprint {
    Fingerprint::Long(Some(number))
}

fn seconds(at: u64) -> Stamp {
    Stamp::from_micros(at * 1_000_000)
}

fn answer(first: RequestId, bytes: usize) -> KeptAnswer {
    let head = ResponseHead::of_parts(StatusCode::OK, Fields::default(), Framing::Chunked);
    KeptAnswer { first, head, data: vec![b'x'; bytes].into() }
}

/// One key as the model knows it.
#[derive(Debug, Clone)]
struct Known {
    scope: usize,
    fingerprint: u64,
    bytes: usize,
    /// When and with what it was answered.
    answered: Option<(Stamp, RequestId)>,
}

/// Keys in the order in which they were answered; those under way at any place.
struct Model {
    limits: KeepAnswers,
    known: Vec<Known>,
}

impl Model {
    fn expire(&mut self, now: Stamp) {
        let keep_for = self.limits.keep_for;
        self.known.retain(|known| known.answered.is_none_or(|(at, _)| now < at.plus(keep_for)));
    }

    /// Makes room as the promise has it: the oldest answers leave, nothing else, and nothing in vain.
    fn make_room(&mut self, keys: usize, bytes: usize) -> bool {
        let fits = |known: &[Known]| {
            known.len() + keys <= self.limits.keys_max as usize
                && known.iter().map(|known| known.bytes).sum::<usize>() + bytes
                    <= self.limits.memory_max as usize
        };
        let under_way: Vec<Known> =
            self.known.iter().filter(|known| known.answered.is_none()).cloned().collect();
        if !fits(&under_way) {
            return false;
        }
        while !fits(&self.known) {
            let oldest = self.known.iter().position(|known| known.answered.is_some()).unwrap();
            self.known.remove(oldest);
        }
        true
    }

    fn of(&mut self, scope: usize) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.scope == scope)
    }
}

#[test]
fn the_store_does_what_a_simple_model_of_it_does() {
    for seed in 0..300 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let mut rng = Rng::seeded(seed);
    let limits = limits(1 + u32::try_from(rng.below(6)).unwrap(), KEY_BYTES * (1 + rng.below(10)));
    let mut model = Model { limits: limits.clone(), known: Vec::new() };
    let store = Arc::new(Store::new(limits));
    let counters = Arc::<ServiceCounters>::default();
    let mut flights: Vec<(usize, Flight)> = Vec::new();
    let mut waiting: Vec<(usize, watch::Receiver<()>)> = Vec::new();
    let mut now = seconds(1);
    for step in 0..400 {
        let what = format!("seed {seed}, step {step}");
        match rng.below(10) {
            0..=4 => {
                let (number, print) = (rng.below(SCOPES), u64::from(rng.below(5) == 0));
                model.expire(now);
                let turn = store.begin(scope(number), fingerprint(print), now, &counters);
                match (model.of(number).cloned(), turn) {
                    (Some(known), Turn::Reused) => assert_ne!(known.fingerprint, print, "{what}"),
                    (Some(known), Turn::Wait(over)) => {
                        assert_eq!((known.fingerprint, known.answered.is_none()), (print, true), "{what}");
                        waiting.push((number, over));
                    }
                    (Some(known), Turn::Again(answer)) => {
                        assert_eq!(
                            (known.fingerprint, known.answered.unwrap().1),
                            (print, answer.first),
                            "{what}"
                        );
                    }
                    (None, Turn::First(flight)) => {
                        assert!(model.make_room(1, KEY_BYTES), "{what}");
                        let bytes = KEY_BYTES;
                        model.known.push(Known { scope: number, fingerprint: print, bytes, answered: None });
                        flights.push((number, flight));
                    }
                    (None, Turn::NoRoom) => assert!(!model.make_room(1, KEY_BYTES), "{what}"),
                    (known, turn) => panic!("{what}: {turn:?} for {known:?}"),
                }
            }
            5 if !flights.is_empty() => {
                let (number, flight) = &flights[rng.below(flights.len())];
                let bytes = rng.below(2 * KEY_BYTES);
                let has_room = model.make_room(0, bytes);
                assert_eq!(flight.grow(bytes), has_room, "{what}");
                if has_room {
                    model.of(*number).unwrap().bytes += bytes;
                }
            }
            6 | 7 if !flights.is_empty() => {
                let (number, flight) = flights.swap_remove(rng.below(flights.len()));
                let (first, bytes) = (RequestId::new(now, &mut rng), rng.below(2 * KEY_BYTES));
                flight.keep(answer(first, bytes), now);
                let place = model.known.iter().position(|known| known.scope == number).unwrap();
                let more = (KEY_BYTES + bytes).saturating_sub(model.known[place].bytes);
                let has_room = model.make_room(0, more);
                let place = model.known.iter().position(|known| known.scope == number).unwrap_or(place);
                let mut known = model.known.remove(place);
                if has_room {
                    known.bytes += more;
                    known.answered = Some((now, first));
                    model.known.push(known);
                }
            }
            8 if !flights.is_empty() => {
                let (number, flight) = flights.swap_remove(rng.below(flights.len()));
                drop(flight);
                model.known.retain(|known| known.scope != number);
            }
            _ => {
                now = now.plus(Duration::from_secs(rng.below(6) as u64));
                model.expire(now);
                store.sweep(now);
            }
        }
        let room = store.room();
        let bytes = |known: &Known| known.bytes;
        assert_eq!(
            (room.entries.len(), room.bytes),
            (model.known.len(), model.known.iter().map(bytes).sum()),
            "{what}"
        );
        assert!(room.entries.len() <= room.limits.keys_max as usize, "{what}");
        assert!(room.bytes as u64 <= room.limits.memory_max, "{what}");
        drop(room);
        // Who waits is woken when the one that is waited for is over, and not before.
        waiting.retain(|(number, over)| {
            let is_over = over.has_changed().is_err();
            let is_under_way = flights.iter().any(|(other, _)| other == number);
            assert!(is_over || is_under_way, "{what}");
            !is_over
        });
    }
}

#[test]
fn of_many_threads_with_one_key_one_is_first_and_all_get_its_answer() {
    let store = Arc::new(Store::new(limits(4, 1 << 20)));
    let under_way: Vec<AtomicBool> = (0..3).map(|_| AtomicBool::new(false)).collect();
    let (calls, fails) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let firsts: Vec<Mutex<Vec<RequestId>>> = (0..3).map(|_| Mutex::default()).collect();
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (store, under_way, firsts) = (Arc::clone(&store), &under_way, &firsts);
            let (calls, fails) = (&calls, &fails);
            threads.spawn(move || {
                let counters = Arc::<ServiceCounters>::default();
                let mut rng = Rng::seeded(thread);
                for _ in 0..300 {
                    let key = rng.below(3);
                    loop {
                        match store.begin(scope(key), fingerprint(0), seconds(1), &counters) {
                            Turn::First(flight) => {
                                assert!(!under_way[key].swap(true, Ordering::SeqCst), "two at a time");
                                std::thread::yield_now();
                                under_way[key].store(false, Ordering::SeqCst);
                                calls.fetch_add(1, Ordering::SeqCst);
                                if rng.below(2) == 0 {
                                    fails.fetch_add(1, Ordering::SeqCst);
                                    drop(flight);
                                } else {
                                    flight.keep(answer(RequestId::new(seconds(1), &mut rng), 9), seconds(1));
                                }
                            }
                            Turn::Wait(over) => {
                                while over.has_changed().is_ok() {
                                    std::thread::yield_now();
                                }
                            }
                            Turn::Again(answer) => {
                                firsts[key].lock().unwrap().push(answer.first);
                                break;
                            }
                            turn => panic!("{turn:?}"),
                        }
                    }
                }
            });
        }
    });
    // Each key was answered once, after whatever failures, and everybody was given that.
    assert_eq!(calls.into_inner() - fails.into_inner(), 3);
    for firsts in firsts {
        let mut firsts = firsts.into_inner().unwrap();
        assert!(firsts.len() > 100);
        firsts.dedup();
        assert_eq!(firsts.len(), 1);
    }
}

#[test]
fn only_so_many_go_on_without_clients() {
    let store = Arc::new(Store::new(limits(1_000, 64 << 20)));
    let counters = Arc::<ServiceCounters>::default();
    let Turn::First(flight) = store.begin(scope(0), fingerprint(0), seconds(1), &counters) else {
        panic!("it is free")
    };
    let mut going: Vec<_> = (0..GOING_ON_MAX).map(|_| flight.go_on().unwrap()).collect();
    assert!(flight.go_on().is_none() && flight.go_on().is_none());
    going.pop();
    assert!(flight.go_on().is_some());
    assert_eq!(counters.kept.gone_on.get(), GOING_ON_MAX as u64 + 1);
}

#[test]
fn stores_outlive_snapshots_that_say_the_same_and_no_others() {
    let stores = Stores::default();
    let service: ServiceName = "pay".parse().unwrap();
    let on = Traffic { keep_answers: Some(limits(4, 1 << 20)), ..Traffic::default() };
    let one = stores.of(&service, &on).unwrap();
    let smaller = Traffic { keep_answers: Some(limits(2, 1 << 20)), ..Traffic::default() };
    let two = stores.of(&service, &smaller).unwrap();
    assert!(Arc::ptr_eq(&one, &two) && one.room().limits.keys_max == 2);
    assert!(stores.of(&service, &Traffic::default()).is_none());
    assert!(!Arc::ptr_eq(&one, &stores.of(&service, &on).unwrap()), "what was kept is forgotten");
}
