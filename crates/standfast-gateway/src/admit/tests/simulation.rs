//! A gateway's workers, their clients and the replicas of one service, event by event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use standfast_runtime::Rng;

use super::*;

const SECOND: u64 = 1_000_000;
const MILLI: u64 = 1_000;
/// Clients wait so long.
const PATIENCE: u64 = SECOND;
const TICK: u64 = 20 * MILLI;
/// The simulation begins at a time like any other.
const START: u64 = 1_795_000_000 * SECOND + 123_456;

/// What the replicas are, and who asks.
#[derive(Clone)]
struct Setting {
    replicas: usize,
    /// Requests that one replica works on at a time.
    places: usize,
    /// How long one takes, in microseconds.
    service: fn(&mut Rng) -> f64,
    workers: usize,
    /// Length in seconds and requests a second.
    phases: Vec<(f64, f64)>,
    /// The share of requests of high priority; the others are of normal priority.
    high: f64,
    /// At this second: what happens.
    events: Vec<(f64, Happening)>,
    /// So many at once at this second.
    burst: Option<(f64, usize)>,
}

#[derive(Clone, Copy)]
enum Happening {
    Replicas(usize),
    /// All take so many times as long.
    Slower(f64),
    /// One does.
    Gray(usize, f64),
    /// Is left out by the balancer.
    LeaveOut(usize),
    /// No replica answers for so many seconds, as on a machine that does something else.
    Stall(f64),
}

impl Setting {
    fn three_of_four(phases: &[(f64, f64)]) -> Self {
        Self {
            replicas: 3,
            places: 4,
            service: |_| 10_000.0,
            workers: 1,
            phases: phases.to_vec(),
            high: 0.0,
            events: Vec::new(),
            burst: None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Burst(usize),
    Done { replica: usize, id: usize },
    GivenUp { id: usize },
    Tick,
    Happening(usize),
}

struct Request {
    arrived: u64,
    sent: Option<u64>,
    worker: usize,
    priority: Priority,
    ticket: Option<Ticket>,
    is_over: bool,
    outcome: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Answered(u64),
    Shed,
    GivenUp,
}

#[derive(Default)]
struct Replica {
    working: usize,
    queue: VecDeque<usize>,
    slowness: f64,
    is_gone: bool,
    is_left_out: bool,
}

struct World {
    setting: Setting,
    rng: Rng,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    replicas: Vec<Replica>,
    /// By worker, by replica.
    in_flight: Vec<Vec<usize>>,
    doors: Vec<Admission<usize>>,
    requests: Vec<Request>,
    on_replica: BTreeMap<usize, usize>,
    stalled_until: u64,
}

/// What came of the requests that arrived within a time.
#[derive(Debug)]
struct Tally {
    arrived: usize,
    good_per_second: f64,
    shed: usize,
    given_up: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

impl World {
    fn run(setting: Setting, seed: u64) -> Self {
        let doors = (0..setting.workers)
            .map(|_| {
                let replicas = u32::try_from(setting.replicas).unwrap();
                Admission::new(
                    Concurrency::Adaptive,
                    replicas,
                    u32::try_from(setting.workers).unwrap(),
                    Stamp::from_micros(START),
                )
            })
            .collect();
        let mut world = Self {
            rng: Rng::seeded(seed),
            now: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            replicas: (0..setting.replicas)
                .map(|_| Replica { slowness: 1.0, ..Replica::default() })
                .collect(),
            in_flight: vec![vec![0; 16]; setting.workers],
            doors,
            requests: Vec::new(),
            on_replica: BTreeMap::new(),
            stalled_until: 0,
            setting,
        };
        world.at(0, Event::Arrival);
        world.at(TICK, Event::Tick);
        if let Some((second, count)) = world.setting.burst {
            world.at(micros(second), Event::Burst(count));
        }
        for index in 0..world.setting.events.len() {
            world.at(micros(world.setting.events[index].0), Event::Happening(index));
        }
        while let Some(Reverse((at, _, event))) = world.events.pop() {
            world.now = at;
            world.handle(event);
        }
        world
    }

    fn stamp(&self) -> Stamp {
        Stamp::from_micros(START + self.now)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn end(&self) -> u64 {
        micros(self.setting.phases.iter().map(|phase| phase.0).sum())
    }

    fn rate(&self) -> Option<f64> {
        let mut end = 0.0;
        for (seconds, rate) in &self.setting.phases {
            end += seconds;
            if self.now < micros(end) {
                return Some(*rate);
            }
        }
        None
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival => {
                let Some(rate) = self.rate() else { return };
                if rate > 0.0 {
                    self.arrive();
                }
                let gap = self.rng.exponential() * 1e6 / rate.max(10.0);
                self.at(self.now + micros(gap / 1e6), Event::Arrival);
            }
            Event::Burst(count) => (0..count).for_each(|_| self.arrive()),
            Event::Done { .. } if self.now < self.stalled_until => self.at(self.stalled_until, event),
            Event::Done { replica, id } => self.done(replica, id),
            Event::GivenUp { id } => self.give_up(id),
            Event::Tick => {
                let now = self.stamp();
                for worker in 0..self.doors.len() {
                    self.doors[worker].tick(now, Duration::ZERO);
                    self.drain(worker);
                }
                if self.now < self.end() {
                    self.at(self.now + TICK, Event::Tick);
                }
            }
            Event::Happening(index) => self.happen(self.setting.events[index].1),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Replicas(count) => {
                while self.replicas.len() < count {
                    self.replicas.push(Replica { slowness: 1.0, ..Replica::default() });
                }
                for (index, replica) in self.replicas.iter_mut().enumerate() {
                    replica.is_gone = index >= count;
                }
                for door in &mut self.doors {
                    door.set_replicas(u32::try_from(count).unwrap());
                }
            }
            Happening::Slower(times) => self.replicas.iter_mut().for_each(|r| r.slowness = times),
            Happening::Stall(seconds) => self.stalled_until = self.now + micros(seconds),
            Happening::Gray(index, times) => self.replicas[index].slowness = times,
            Happening::LeaveOut(index) => {
                self.replicas[index].is_left_out = true;
                let left = self.replicas.iter().filter(|r| !r.is_left_out && !r.is_gone).count();
                for door in &mut self.doors {
                    door.set_replicas(u32::try_from(left).unwrap());
                }
            }
        }
    }

    fn arrive(&mut self) {
        let id = self.requests.len();
        let priority =
            if self.rng.fraction() < self.setting.high { Priority::High } else { Priority::Normal };
        let worker = self.rng.below(self.doors.len());
        self.requests.push(Request {
            arrived: self.now,
            sent: None,
            worker,
            priority,
            ticket: None,
            is_over: false,
            outcome: Fate::Open,
        });
        let now = self.stamp();
        match self.doors[worker].enter(priority, now) {
            Entry::Entered => self.send(id),
            Entry::Wait => {
                self.requests[id].ticket = Some(self.doors[worker].enqueue(priority, id, now));
                self.drain(worker);
            }
            Entry::Shed(_) => self.requests[id].outcome = Fate::Shed,
        }
        self.at(self.now + PATIENCE, Event::GivenUp { id });
    }

    fn send(&mut self, id: usize) {
        let worker = self.requests[id].worker;
        self.requests[id].sent = Some(self.now);
        let usable = |r: &Replica| !r.is_gone && !r.is_left_out;
        let offset = self.rng.below(self.replicas.len());
        let count = self.replicas.len();
        let chosen = (0..count)
            .map(|i| (i + offset) % count)
            .filter(|i| usable(&self.replicas[*i]))
            .min_by_key(|i| self.in_flight[worker][*i])
            .unwrap();
        self.in_flight[worker][chosen] += 1;
        self.on_replica.insert(id, chosen);
        self.replicas[chosen].queue.push_back(id);
        self.work(chosen);
    }

    fn work(&mut self, index: usize) {
        while self.replicas[index].working < self.setting.places {
            let Some(id) = self.replicas[index].queue.pop_front() else { return };
            self.replicas[index].working += 1;
            let took = (self.setting.service)(&mut self.rng) * self.replicas[index].slowness;
            self.at(self.now + micros(took / 1e6), Event::Done { replica: index, id });
        }
    }

    fn done(&mut self, replica: usize, id: usize) {
        self.replicas[replica].working -= 1;
        self.work(replica);
        if self.requests[id].outcome == Fate::Open {
            self.requests[id].outcome = Fate::Answered(self.now - self.requests[id].arrived);
            self.leave(id, Outcome::Answered);
        }
    }

    fn leave(&mut self, id: usize, outcome: Outcome) {
        let now = self.stamp();
        let worker = self.requests[id].worker;
        let sample = Duration::from_micros(self.now - self.requests[id].sent.unwrap());
        let replica = self.on_replica.remove(&id).unwrap();
        self.in_flight[worker][replica] -= 1;
        self.doors[worker].left(Some(sample), outcome, now, false);
        self.drain(worker);
    }

    fn give_up(&mut self, id: usize) {
        if self.requests[id].is_over || self.requests[id].outcome != Fate::Open {
            return;
        }
        self.requests[id].is_over = true;
        self.requests[id].outcome = Fate::GivenUp;
        if self.requests[id].sent.is_some() {
            // The replica goes on with it.
            self.leave(id, Outcome::Ignored);
        } else if let Some(ticket) = self.requests[id].ticket {
            assert!(self.doors[self.requests[id].worker].cancel(ticket).is_some());
        }
    }

    fn drain(&mut self, worker: usize) {
        let now = self.stamp();
        while let Some(woken) = self.doors[worker].next(now) {
            match woken {
                Woken::Enter(id) => self.send(id),
                Woken::Shed(id, _) => self.requests[id].outcome = Fate::Shed,
            }
        }
    }

    fn tally(&self, from: f64, to: f64, priority: Option<Priority>) -> Tally {
        let (start, end) = (micros(from), micros(to));
        let among = |r: &&Request| r.arrived >= start && r.arrived < end;
        let wanted = |r: &&Request| priority.is_none_or(|priority| r.priority == priority);
        let requests: Vec<&Request> = self.requests.iter().filter(among).filter(wanted).collect();
        let mut took: Vec<u64> = requests
            .iter()
            .filter_map(|r| match r.outcome {
                Fate::Answered(took) => Some(took),
                _ => None,
            })
            .collect();
        took.sort_unstable();
        let quantile =
            |share: f64| took.get((took.len() as f64 * share) as usize).map_or(0.0, |t| *t as f64 / 1e3);
        let good = took.iter().filter(|took| **took <= 250 * MILLI).count();
        Tally {
            arrived: requests.len(),
            good_per_second: good as f64 / (to - from),
            shed: requests.iter().filter(|r| r.outcome == Fate::Shed).count(),
            given_up: requests.iter().filter(|r| r.outcome == Fate::GivenUp).count(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: took.last().map_or(0.0, |t| *t as f64 / 1e3),
        }
    }
}

#[test]
fn replicas_that_stand_still_for_a_moment_cost_nobody_an_answer() {
    for (stall, from) in [(0.15, 0.02), (0.05, 0.5), (0.1, 0.5), (0.15, 0.5), (0.15, 4.0)] {
        let events = vec![(from, Happening::Stall(stall))];
        let setting = Setting { events, ..Setting::three_of_four(&[(6.0, 720.0)]) };
        for run in tallies("stall", &setting, &[(0.0, 6.0), (from + 0.6, 6.0)]) {
            assert_eq!((run[0].shed, run[0].given_up), (0, 0), "{stall} s at {from}");
            assert!(run[1].p99 <= 20.0);
        }
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// What came of it in each of these times, for some seeds; with `--nocapture` it is printed.
fn tallies(title: &str, setting: &Setting, times: &[(f64, f64)]) -> Vec<Vec<Tally>> {
    let run = |seed: u64| {
        let world = World::run(setting.clone(), seed);
        let tallies: Vec<Tally> = times.iter().map(|(from, to)| world.tally(*from, *to, None)).collect();
        tallies.iter().for_each(|tally| println!("{title}, seed {seed}: {tally:?}"));
        tallies
    };
    SEEDS.map(run).into()
}

#[test]
fn twice_the_capacity_costs_nothing_but_what_is_too_much() {
    // The measurement of design/gateway.md, 1.3: capacity 1,200 a second, told to nobody.
    for high in [0.0, 0.3] {
        let setting =
            Setting { high, ..Setting::three_of_four(&[(8.0, 720.0), (8.0, 2_400.0), (8.0, 720.0)]) };
        for seed in SEEDS {
            let world = World::run(setting.clone(), seed);
            let [before, during, after] =
                [(0.0, 8.0), (8.0, 16.0), (16.2, 24.0)].map(|(from, to)| world.tally(from, to, None));
            println!("high {high}, seed {seed}:\n  {before:?}\n  {during:?}\n  {after:?}");
            assert_eq!((before.shed, before.given_up, after.shed, after.given_up), (0, 0, 0, 0));
            assert!(during.good_per_second >= 0.96 * 1_200.0);
            assert!(during.p99 <= 36.0 && during.p50 <= 25.0 && during.given_up == 0);
            assert!(after.p99 <= 20.0, "recovered at once");
            if high > 0.0 {
                let high = world.tally(8.0, 16.0, Some(Priority::High));
                println!("  the high ones: {high:?}");
                assert!(high.shed == 0 && high.p99 <= 40.0 && high.arrived > 5_000);
            }
        }
    }
}

#[test]
fn a_replica_more_or_less_is_used_at_once() {
    use Happening::Replicas;
    let setting = Setting {
        events: vec![(8.0, Replicas(2)), (14.0, Replicas(3)), (20.0, Replicas(6))],
        ..Setting::three_of_four(&[(2.0, 720.0), (24.0, 1_440.0)])
    };
    for run in tallies("replicas", &setting, &[(3.0, 8.0), (8.5, 14.0), (14.5, 20.0), (20.5, 26.0)]) {
        for (tally, capacity) in run.iter().zip([1_200.0, 800.0, 1_200.0, 1_400.0]) {
            assert!(tally.good_per_second >= 0.96 * capacity, "{tally:?}");
            assert!(tally.p99 <= 50.0, "{tally:?}");
        }
        assert_eq!(run[3].shed, 0);
    }
}

#[test]
fn a_service_that_is_slower_from_now_on_is_accepted() {
    // Three times the work in each request: a third of the capacity, and all of it is found.
    let slower = vec![(8.0, Happening::Slower(3.0))];
    let setting = Setting { events: slower, ..Setting::three_of_four(&[(2.0, 720.0), (28.0, 2_400.0)]) };
    for run in tallies("three times the work", &setting, &[(3.0, 8.0), (8.5, 14.0), (14.0, 30.0)]) {
        assert!(run[0].good_per_second >= 0.96 * 1_200.0);
        assert!(run[1].good_per_second >= 0.75 * 400.0);
        assert!(run[2].good_per_second >= 0.96 * 400.0 && run[2].p99 <= 120.0);
    }
    // Its own database takes ten times as long, and it waits for that without being any busier: there is nothing to shed.
    let setting = Setting {
        places: 10_000,
        events: vec![(5.0, Happening::Slower(10.0)), (20.0, Happening::Slower(1.0))],
        ..Setting::three_of_four(&[(30.0, 1_000.0)])
    };
    for run in tallies("ten times the wait", &setting, &[(0.0, 5.0), (9.0, 20.0), (20.5, 30.0)]) {
        assert!(run[0].shed == 0 && run[2].shed == 0);
        assert!(run[1].shed * 50 < run[1].arrived, "within four seconds");
    }
}

#[test]
fn requests_of_two_kinds_are_no_overload() {
    let setting = Setting {
        service: |rng| if rng.below(2) == 0 { 10_000.0 } else { 100_000.0 },
        ..Setting::three_of_four(&[(10.0, 131.0), (20.0, 436.0), (10.0, 131.0)])
    };
    for run in tallies("two kinds", &setting, &[(0.0, 10.0), (10.0, 30.0), (31.0, 40.0)]) {
        assert!(run[0].shed == 0 && run[2].shed * 200 < run[2].arrived);
        assert!(run[1].good_per_second >= 0.93 * 12.0 / 0.055, "those beyond 250 ms do not count");
    }
}

#[test]
fn a_service_of_a_third_of_a_millisecond_is_used_in_full() {
    let setting = Setting {
        service: |_| 300.0,
        ..Setting::three_of_four(&[(1.0, 24_000.0), (1.0, 80_000.0), (1.0, 24_000.0)])
    };
    for run in tallies("fast", &setting, &[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]) {
        assert!(run[0].shed == 0 && run[2].shed == 0);
        assert!(run[1].good_per_second >= 0.96 * 40_000.0 && run[1].p99 <= 40.0);
    }
}

#[test]
fn answers_of_a_second_at_a_low_rate_are_left_alone() {
    let slow =
        |places, rate| Setting { places, service: |_| 950_000.0, ..Setting::three_of_four(&[(20.0, rate)]) };
    for setting in [slow(10_000, 20.0), slow(4, 6.0)] {
        assert!(tallies("slow", &setting, &[(0.0, 20.0)]).iter().all(|run| run[0].shed == 0));
    }
}

#[test]
fn a_burst_on_an_idle_fast_service_is_carried() {
    let setting =
        Setting { service: |_| 300.0, burst: Some((1.0, 200)), ..Setting::three_of_four(&[(2.0, 1.0)]) };
    for run in tallies("burst", &setting, &[(0.9, 1.1)]) {
        assert!(run[0].shed == 0 && run[0].max <= 10.0);
    }
}

#[test]
fn a_replica_that_turns_gray_does_not_pull_the_limit_down() {
    let setting = Setting {
        events: vec![(5.0, Happening::Gray(0, 100.0)), (5.6, Happening::LeaveOut(0))],
        ..Setting::three_of_four(&[(12.0, 600.0)])
    };
    for run in tallies("gray", &setting, &[(5.0, 6.0), (6.0, 12.0)]) {
        assert!(run[0].shed == 0 && run[0].given_up <= 12);
        assert!(run[1].shed == 0 && run[1].p99 <= 40.0);
    }
}

#[test]
fn workers_that_share_a_service_find_its_capacity_together() {
    let setting =
        Setting { workers: 4, ..Setting::three_of_four(&[(8.0, 720.0), (30.0, 2_400.0), (8.0, 720.0)]) };
    for run in tallies("four workers", &setting, &[(0.0, 8.0), (10.0, 38.0), (39.0, 46.0)]) {
        assert!(run[0].shed == 0 && run[2].shed * 1_000 <= run[2].arrived);
        assert!(run[1].good_per_second >= 0.96 * 1_200.0 && run[1].p99 <= 50.0);
    }
}

#[test]
fn a_gateway_that_starts_in_the_middle_of_an_overload_finds_the_capacity() {
    for workers in [1, 4] {
        let setting = Setting { workers, ..Setting::three_of_four(&[(15.0, 2_400.0), (8.0, 720.0)]) };
        for run in tallies("cold", &setting, &[(0.0, 3.0), (3.0, 15.0), (16.0, 23.0)]) {
            assert!(run[0].good_per_second >= 0.96 * 1_200.0 && run[0].p99 <= 120.0);
            assert!(run[1].good_per_second >= 0.95 * 1_200.0 && run[1].p99 <= 60.0);
            assert!(run[2].shed * 200 <= run[2].arrived);
        }
    }
}
