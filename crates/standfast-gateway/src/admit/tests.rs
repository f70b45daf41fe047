//! The rules one by one; whole services under load are in `simulation`.

use super::*;

mod simulation;

fn at(millis: u64) -> Stamp {
    Stamp::from_micros(1_795_000_000_000_000 + millis * 1_000)
}

/// One place, and it is taken.
fn taken() -> Admission<u32> {
    let mut door = Admission::new(Concurrency::Fixed(1), 1, 1, at(0));
    assert_eq!(door.enter(Priority::Normal, at(0)), Entry::Entered);
    door
}

fn wait(door: &mut Admission<u32>, priority: Priority, name: u32, now: Stamp) -> Ticket {
    assert_eq!(door.enter(priority, now), Entry::Wait);
    door.enqueue(priority, name, now)
}

fn leave(door: &mut Admission<u32>, now: Stamp) -> Option<u32> {
    door.left(None, Outcome::Answered, now, false);
    entered(door, now)
}

/// Who is let in next; those that are turned away before are passed over.
fn entered(door: &mut Admission<u32>, now: Stamp) -> Option<u32> {
    loop {
        match door.next(now)? {
            Woken::Enter(name) => return Some(name),
            Woken::Shed(..) => {}
        }
    }
}

#[test]
fn a_burst_is_served_in_order_and_higher_priorities_first() {
    let mut door = taken();
    assert!(door.is_full());
    wait(&mut door, Priority::Low, 1, at(0));
    wait(&mut door, Priority::Normal, 2, at(0));
    wait(&mut door, Priority::Normal, 3, at(1));
    wait(&mut door, Priority::High, 4, at(2));
    assert_eq!(door.next(at(2)), None);
    let order: Vec<_> = (0..5).map(|i| leave(&mut door, at(10 + i))).collect();
    assert_eq!(order, [Some(4), Some(2), Some(3), Some(1), None]);
    assert_eq!(door.load().shed, [0; 3]);
}

#[test]
fn nobody_overtakes_his_own_line_but_a_higher_one_does() {
    let mut door = taken();
    wait(&mut door, Priority::Normal, 1, at(0));
    door.left(None, Outcome::Answered, at(1), false);
    assert_eq!(door.enter(Priority::Normal, at(1)), Entry::Wait);
    assert_eq!(door.enter(Priority::High, at(1)), Entry::Entered);
}

#[test]
fn a_line_that_stays_busy_gives_5_ms_and_the_newest_goes_first() {
    let mut door = taken();
    for millis in 0..=510 {
        wait(&mut door, Priority::Normal, millis, at(u64::from(millis)));
        while door.next(at(u64::from(millis))).is_some() {}
    }
    // Those of the last 5 ms are left.
    assert_eq!(door.load().waiting, 5);
    assert_eq!(door.load().shed[1], 506);
    assert_eq!(leave(&mut door, at(510)), Some(510));
    // Pressure lasts for an interval after the last that was turned away.
    while leave(&mut door, at(511)).is_some() {}
    assert_eq!(door.load().waiting, 0);
    assert_eq!(door.enter(Priority::Normal, at(511)), Entry::Entered);
    wait(&mut door, Priority::Normal, 600, at(550));
    assert_eq!(door.next_due(at(550)), Some(at(555)));
    assert!(matches!(door.next(at(556)), Some(Woken::Shed(600, _))));
    wait(&mut door, Priority::Normal, 601, at(800));
    assert_eq!(door.next_due(at(800)), Some(at(1_300)));
    assert_eq!(door.next(at(1_299)), None);
    assert!(matches!(door.next(at(1_300)), Some(Woken::Shed(601, _))));
}

#[test]
fn in_a_long_line_the_newest_goes_first() {
    let mut door = taken();
    for name in 0..6 {
        wait(&mut door, Priority::Normal, name, at(u64::from(name)));
    }
    let order: Vec<_> = (10..16).map(|millis| leave(&mut door, at(millis))).collect();
    assert_eq!(order, [5, 4, 0, 1, 2, 3].map(Some));
}

#[test]
fn a_service_that_has_never_answered_gets_all_that_come() {
    let mut door = Admission::<u32>::new(Concurrency::Adaptive, 3, 1, at(0));
    let mut inside = 0;
    for name in 0..200 {
        match door.enter(Priority::Normal, at(0)) {
            Entry::Entered => inside += 1,
            Entry::Wait => drop(door.enqueue(Priority::Normal, name, at(0))),
            Entry::Shed(_) => panic!("turned away"),
        }
    }
    for millis in (20..=460).step_by(20) {
        door.tick(at(millis), Duration::ZERO);
        while let Some(woken) = door.next(at(millis)) {
            assert!(matches!(woken, Woken::Enter(_)));
            inside += 1;
        }
    }
    assert_eq!((inside, door.load().waiting), (200, 0));
    // One failure for overload, and it is over.
    let limit = door.load().limit;
    door.left(None, Outcome::Overloaded, at(461), false);
    door.enter(Priority::Normal, at(461));
    door.tick(at(700), Duration::ZERO);
    assert_eq!(door.load().limit, limit);
}

#[test]
fn a_full_queue_displaces_the_lowest_and_says_so() {
    let mut door = taken();
    wait(&mut door, Priority::Low, 0, at(0));
    for name in 1..1_024 {
        wait(&mut door, Priority::Normal, name, at(0));
    }
    let refused = |entry| matches!(entry, Entry::Shed(Shed { reason: ShedReason::QueueFull, .. }));
    assert!(refused(door.enter(Priority::Low, at(0))));
    wait(&mut door, Priority::Normal, 2_000, at(0));
    let displaced = |woken, name| matches!(woken, Some(Woken::Shed(n, Shed { reason: ShedReason::Displaced, .. })) if n == name);
    assert!(displaced(door.next(at(0)), 0));
    assert!(refused(door.enter(Priority::Normal, at(0))));
    wait(&mut door, Priority::High, 3_000, at(0));
    assert!(displaced(door.next(at(0)), 1));
    assert_eq!(door.load().waiting, 1_024);
    assert_eq!(door.load().shed, [2, 2, 0]);
    assert_eq!(leave(&mut door, at(1)), Some(3_000));
}

#[test]
fn who_leaves_the_line_leaves_no_trace() {
    let mut door = taken();
    let tickets: Vec<_> = (0..3).map(|name| wait(&mut door, Priority::Normal, name, at(0))).collect();
    assert_eq!(door.cancel(tickets[1]), Some(1));
    assert_eq!(door.cancel(tickets[1]), None);
    assert_eq!(leave(&mut door, at(1)), Some(0));
    assert_eq!(door.cancel(tickets[0]), None, "it is in");
    assert_eq!(leave(&mut door, at(2)), Some(2));
    assert_eq!(leave(&mut door, at(3)), None);
    assert_eq!((door.load().waiting, door.load().in_flight), (0, 0));
}

#[test]
fn the_gateways_own_lag_is_nobodys_waiting_time() {
    let mut door = taken();
    wait(&mut door, Priority::Normal, 1, at(0));
    door.tick(at(300), Duration::from_millis(295));
    assert_eq!(door.next(at(600)), None);
    assert!(matches!(door.next(at(796)), Some(Woken::Shed(1, _))));
}

#[test]
fn retry_after_is_a_whole_second_at_least_and_grows_under_lasting_pressure() {
    let mut door = taken();
    let mut longest = Duration::ZERO;
    for millis in (0..60_000).step_by(20) {
        wait(&mut door, Priority::Normal, 0, at(millis));
        wait(&mut door, Priority::Normal, 1, at(millis));
        while let Some(woken) = door.next(at(millis)) {
            let Woken::Shed(_, shed) = woken else { panic!("nobody left") };
            assert!(shed.retry_after >= Duration::from_secs(1) && shed.retry_after.subsec_nanos() == 0);
            assert!(millis > 5_000 || shed.retry_after <= Duration::from_secs(2));
            longest = longest.max(shed.retry_after);
        }
    }
    assert!((Duration::from_secs(10)..=RETRY_MAX).contains(&longest), "{longest:?}");
}

#[test]
fn fixed_limits_are_shared_by_the_workers_and_none_is_none() {
    let limit = |concurrency, workers| Admission::<u32>::new(concurrency, 3, workers, at(0)).load().limit;
    assert_eq!(limit(Concurrency::Fixed(10), 4), Some(3));
    assert_eq!(limit(Concurrency::Fixed(0), 4), Some(1));
    assert_eq!(limit(Concurrency::Unlimited, 4), None);
    let mut door = Admission::<u32>::new(Concurrency::Unlimited, 3, 1, at(0));
    assert!((0..100_000).all(|_| door.enter(Priority::Low, at(0)) == Entry::Entered));
    door.set_concurrency(Concurrency::Adaptive, 3, at(0));
    assert_eq!(door.enter(Priority::Low, at(0)), Entry::Wait);
}

#[test]
fn overload_failures_shrink_the_limit_and_a_lagging_gateway_learns_nothing() {
    let run = |outcome, lagging| {
        let mut door = Admission::<u32>::new(Concurrency::Adaptive, 10, 1, at(0));
        for millis in 0..3_000 {
            assert_eq!(door.enter(Priority::Normal, at(millis)), Entry::Entered);
            let sample = Some(Duration::from_millis(10));
            door.left(
                sample,
                if millis % 10 == 0 { outcome } else { Outcome::Answered },
                at(millis),
                lagging,
            );
        }
        door.load().limit.unwrap()
    };
    assert_eq!(run(Outcome::Answered, false), 80);
    assert_eq!(run(Outcome::Ignored, false), 80);
    assert_eq!(run(Outcome::Overloaded, false), 20, "the floor: two for each replica");
    assert_eq!(run(Outcome::Overloaded, true), 80);
}
