//! The loop over a store and a platform that are simulated: who wins, what is refused, what outlives a restart.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use standfast_control::{
    Blueprint, Control, Handle, NotReady, Parts, Phase, PlanId, Request, RequestError, RestartTarget, Status,
    order, plan,
};
use standfast_model::{Generation, RestartCondition, Stack, Stamp};
use standfast_platform::simulated::SimulatedPlatform;
use standfast_platform::{Applied, ExitReason, Inventory, Platform, PlatformError, Wanted};
use standfast_runtime::{Clock, OnStop, Tasks};
use standfast_store::{
    Batch, CommitError, Committed, Entry, Fault, Health, MemoryStore, Page, ReadError, Scan, Space, Store,
    Version,
};
use tokio::sync::watch;

use crate::support::{World, name, service, stack, version, zone};

const WAIT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(50);

/// The platform of [`World`] behind the port, in simulated time.
struct Simulated {
    world: Mutex<World>,
    changes: watch::Sender<u64>,
    clock: Clock,
    is_reachable: Mutex<bool>,
}

impl Simulated {
    fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.now = self.clock.now();
        let result = f(&mut world);
        self.changes.send_modify(|number| *number += 1);
        result
    }

    fn reach(&self) -> Result<(), PlatformError> {
        let is_reachable = *self.is_reachable.lock().unwrap_or_else(PoisonError::into_inner);
        if is_reachable { Ok(()) } else { Err(PlatformError::Unreachable("the agent is gone".into())) }
    }
}

#[async_trait]
impl Platform for Simulated {
    async fn observe(&self) -> Result<Inventory, PlatformError> {
        self.reach()?;
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.now = self.clock.now();
        Ok(world.inventory())
    }

    async fn apply(&self, wanted: &Wanted) -> Result<Applied, PlatformError> {
        self.reach()?;
        let before = self.world.lock().unwrap_or_else(PoisonError::into_inner).wanted.clone();
        if before == *wanted {
            return Ok(Applied::Unchanged);
        }
        self.with(|world| world.give(wanted)).map(|()| Applied::Taken)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// A store that takes a moment to commit, so that two who read the same race for it.
#[derive(Debug)]
struct Slow {
    store: Arc<MemoryStore>,
    clock: Clock,
    lost: AtomicU32,
}

#[async_trait]
impl Store for Slow {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        self.clock.sleep(Duration::from_millis(3)).await;
        let done = self.store.commit(batch).await;
        self.lost
            .fetch_add(u32::from(matches!(done, Err(CommitError::Conditions { .. }))), Ordering::Relaxed);
        done
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        self.store.get(space, key).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError> {
        self.store.scan(scan).await
    }

    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version> {
        self.store.watch(space, prefix)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.store.health()
    }
}

struct Bench {
    platform: Arc<Simulated>,
    store: Arc<MemoryStore>,
    clock: Clock,
    /// Lets time pass in the world as long as this is held.
    _time: Tasks,
}

impl Bench {
    fn new(zones: &[&str]) -> Self {
        let clock = Clock::starting_at(Stamp::from_micros(1_000_000_000));
        let platform = Arc::new(Simulated {
            world: Mutex::new(World::new(zones)),
            changes: watch::Sender::new(0),
            clock,
            is_reachable: Mutex::new(true),
        });
        let tasks = Tasks::new();
        let passing = Arc::clone(&platform);
        tasks.spawn("time", OnStop::Abort, async move {
            loop {
                passing.clock.sleep(STEP).await;
                let changed = {
                    let mut world = passing.world.lock().unwrap_or_else(PoisonError::into_inner);
                    let before = world.replicas.clone();
                    world.now = passing.clock.now();
                    world.pass(Duration::ZERO);
                    world.replicas != before
                };
                if changed {
                    passing.changes.send_modify(|number| *number += 1);
                }
            }
        });
        Self { platform, store: Arc::new(MemoryStore::new(clock)), clock, _time: tasks }
    }

    /// A control of its own tasks, so that it can be stopped alone.
    fn control(&self) -> (Handle, Tasks, watch::Receiver<Option<Arc<Stack>>>) {
        self.control_over(self.store.clone())
    }

    fn control_over(&self, store: Arc<dyn Store>) -> (Handle, Tasks, watch::Receiver<Option<Arc<Stack>>>) {
        let (stack, holds) = watch::channel(None);
        let (control, handle) =
            Control::new(Parts { clock: self.clock, store, platform: self.platform.clone(), stack });
        let tasks = Tasks::new();
        let stop = tasks.stop();
        tasks.spawn_fallible("control", standfast_runtime::OnError::Stop, OnStop::Wait, control.run(stop));
        (handle, tasks, holds)
    }

    fn serving(&self, service: &str) -> Vec<String> {
        self.platform.world.lock().unwrap_or_else(PoisonError::into_inner).serving(service)
    }

    fn generation(&self) -> Generation {
        self.platform.world.lock().unwrap_or_else(PoisonError::into_inner).wanted.generation
    }
}

fn ann() -> Request {
    Request { author: "ann".into(), reason: None }
}

async fn apply(handle: &Handle, stack: &Arc<Stack>) {
    let preview = handle.plan_for(Arc::clone(stack)).await.unwrap();
    handle.apply(Arc::clone(stack), preview.plan, ann()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_touched_until_a_stack_is_applied_and_then_it_gets_ready() {
    let bench = Bench::new(&["a", "b"]);
    let (handle, _tasks, holds) = bench.control();
    bench.clock.sleep(Duration::from_secs(20)).await;
    assert!(handle.status().target.is_none() && bench.generation() == Generation(0));
    let shop = stack(&["a", "b"], vec![service("orders", 3)]);
    let preview = handle.plan_for(Arc::clone(&shop)).await.unwrap();
    assert_eq!(preview.report.changes[0].what, "none → 3 replicas");
    assert_eq!(bench.generation(), Generation(0), "a plan does nothing");
    let done = handle.apply(Arc::clone(&shop), preview.plan, ann()).await.unwrap();
    assert!(done.changed && done.problem.is_none());
    assert_eq!(*holds.borrow(), Some(shop));
    let status = handle.wait_ready(WAIT).await.unwrap();
    assert_eq!(status.services[&name("orders")].ready, 3);
    assert_eq!(
        status.services[&name("orders")].replicas.iter().filter_map(|r| r.takes_requests()).count(),
        3
    );
    let events = handle.events(10).await.unwrap();
    assert_eq!((events.last().unwrap().author.as_str(), events.last().unwrap().is_new_stack), ("ann", true));
    assert!(handle.stack_of(events.last().unwrap().generation).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_was_shown_is_refused_once_the_world_has_moved() {
    let bench = Bench::new(&["a"]);
    let (handle, _tasks, _stack) = bench.control();
    apply(&handle, &stack(&["a"], vec![service("orders", 2)])).await;
    handle.wait_ready(WAIT).await.unwrap();
    let next = stack(&["a"], vec![version(service("orders", 2), "2")]);
    let preview = handle.plan_for(Arc::clone(&next)).await.unwrap();
    bench.platform.with(|world| world.end("orders-0.1", ExitReason::Code(1), Some(Duration::from_secs(9))));
    let refused = handle.apply(Arc::clone(&next), preview.plan, ann()).await.unwrap_err();
    let RequestError::WorldMoved { now, .. } = refused else { panic!("{refused}") };
    assert!(now.changes_anything);
    let wrong = handle.apply(Arc::clone(&next), PlanId::from("0123"), ann()).await;
    assert!(matches!(wrong, Err(RequestError::WorldMoved { .. })));
    handle.apply_unseen(next, ann()).await.unwrap();
    handle.wait_ready(WAIT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_control_goes_on_from_the_store_and_replaces_nothing_that_runs() {
    let bench = Bench::new(&["a", "b"]);
    let (handle, tasks, _stack) = bench.control();
    apply(&handle, &stack(&["a", "b"], vec![service("orders", 4)])).await;
    handle.wait_ready(WAIT).await.unwrap();
    let (serving, generation) = (bench.serving("orders"), bench.generation());
    assert_eq!(tasks.shutdown(&bench.clock, Duration::from_secs(1)).await, 0);
    assert!(matches!(handle.down(ann()).await, Err(RequestError::Stopped)));
    let (handle, _tasks, holds) = bench.control();
    handle.wait_ready(WAIT).await.unwrap();
    bench.clock.sleep(Duration::from_secs(30)).await;
    assert_eq!((bench.serving("orders"), bench.generation()), (serving, generation));
    assert!(holds.borrow().is_some());
}

#[tokio::test(start_paused = true)]
async fn two_controls_over_one_store_never_both_win_and_come_to_the_same_rest() {
    let bench = Bench::new(&["a", "b", "c"]);
    let slow = Arc::new(Slow { store: bench.store.clone(), clock: bench.clock, lost: AtomicU32::new(0) });
    let (one, _tasks_one, _) = bench.control_over(slow.clone());
    let (two, _tasks_two, _) = bench.control_over(slow.clone());
    let by_one = stack(&["a", "b", "c"], vec![version(service("orders", 3), "one")]);
    let by_two = stack(&["a", "b", "c"], vec![version(service("orders", 3), "two")]);
    let (first, second) = tokio::join!(one.apply_unseen(by_one, ann()), two.apply_unseen(by_two, ann()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first.generation, second.generation, "each commit has a number of its own");
    for round in 0..20 {
        let victim = bench.serving("orders").first().cloned();
        if let Some(victim) = victim {
            bench
                .platform
                .with(|world| world.end(&victim, ExitReason::Signal(9), Some(Duration::from_secs(9))));
        }
        bench.clock.sleep(Duration::from_millis(100 * round)).await;
    }
    one.wait_ready(WAIT).await.unwrap();
    two.wait_ready(WAIT).await.unwrap();
    bench.clock.sleep(Duration::from_secs(10)).await;
    let (one, two) = (one.status(), two.status());
    assert_eq!(one.target, two.target);
    assert_eq!(bench.serving("orders").len(), 3);
    let events = {
        let (handle, _tasks, _) = bench.control();
        handle.events(500).await.unwrap()
    };
    let numbers: Vec<u64> = events.iter().map(|event| event.generation.0).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]), "{numbers:?}");
    let lost = slow.lost.load(Ordering::Relaxed);
    assert!(lost > 10, "there were races: {lost}");
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_slept_is_refused_and_does_no_harm() {
    let bench = Bench::new(&["a"]);
    let (handle, _tasks, _stack) = bench.control();
    let shop = stack(&["a"], vec![service("orders", 2)]);
    let policy = standfast_control::Policy::of(Arc::clone(&shop));
    let stale =
        plan(&policy, &bench.platform.observe().await.unwrap(), &Blueprint::genesis(), bench.clock.now());
    apply(&handle, &shop).await;
    handle.wait_ready(WAIT).await.unwrap();
    bench.platform.with(|world| world.end("orders-0.1", ExitReason::Code(1), Some(Duration::from_secs(9))));
    handle.wait_ready(WAIT).await.unwrap();
    bench.clock.sleep(Duration::from_secs(1)).await;
    let refused = bench.platform.apply(&order(&stale.blueprint)).await;
    assert!(matches!(refused, Err(PlatformError::Stale { .. })));
    assert_eq!(bench.serving("orders"), ["orders-0.2", "orders-1.1"]);
}

#[tokio::test(start_paused = true)]
async fn an_ended_replica_is_replaced_within_a_second() {
    let bench = Bench::new(&["a"]);
    let (handle, _tasks, _stack) = bench.control();
    apply(&handle, &stack(&["a"], vec![service("orders", 2)])).await;
    handle.wait_ready(WAIT).await.unwrap();
    let began = bench.clock.now();
    bench.platform.with(|world| world.end("orders-1.1", ExitReason::Signal(9), Some(Duration::from_secs(9))));
    while bench.serving("orders") != ["orders-0.1", "orders-1.2"] {
        bench.clock.sleep(Duration::from_millis(5)).await;
    }
    let took = bench.clock.now().since(began);
    assert!(took <= 3 * STEP, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_platform_nothing_is_decided_and_the_status_says_why() {
    let bench = Bench::new(&["a"]);
    let (handle, _tasks, _stack) = bench.control();
    let shop = stack(&["a"], vec![service("orders", 2)]);
    apply(&handle, &shop).await;
    handle.wait_ready(WAIT).await.unwrap();
    let generation = bench.generation();
    *bench.platform.is_reachable.lock().unwrap() = false;
    bench.platform.with(|world| world.end("orders-1.1", ExitReason::Signal(9), Some(Duration::from_secs(9))));
    bench.clock.sleep(Duration::from_secs(8)).await;
    assert_eq!(bench.generation(), generation);
    let problem = handle.status().problem.clone().unwrap();
    assert_eq!(
        problem,
        "the platform could not be observed: the platform cannot be reached: the agent is gone"
    );
    assert!(matches!(handle.plan_for(shop).await, Err(RequestError::Tick(_))));
    *bench.platform.is_reachable.lock().unwrap() = true;
    handle.wait_ready(WAIT).await.unwrap();
    assert_eq!(bench.serving("orders"), ["orders-0.1", "orders-1.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_stops_decisions_and_not_what_runs_and_a_stopped_one_ends_the_loop() {
    let bench = Bench::new(&["a"]);
    let (handle, tasks, _stack) = bench.control();
    apply(&handle, &stack(&["a"], vec![service("orders", 2)])).await;
    handle.wait_ready(WAIT).await.unwrap();
    bench.store.set_fault(Some(Fault::Full));
    bench.platform.with(|world| world.end("orders-1.1", ExitReason::Signal(9), Some(Duration::from_secs(9))));
    bench.clock.sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.serving("orders"), ["orders-0.1"]);
    bench.store.set_fault(None);
    handle.wait_ready(WAIT).await.unwrap();
    bench.store.set_fault(Some(Fault::Stopped("no disk".into())));
    let failure = tasks.failed().await;
    assert!(failure.reason.ends_with("the store has stopped: no disk"), "{}", failure.reason);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_lost_finds_what_runs_and_takes_it_over() {
    let mut bench = Bench::new(&["a", "b"]);
    let shop = stack(&["a", "b"], vec![service("orders", 3)]);
    let (handle, tasks, _stack) = bench.control();
    apply(&handle, &shop).await;
    handle.wait_ready(WAIT).await.unwrap();
    let serving = bench.serving("orders");
    tasks.shutdown(&bench.clock, Duration::from_secs(1)).await;
    bench.store = Arc::new(MemoryStore::new(bench.clock));
    let (handle, _tasks, _stack) = bench.control();
    bench.clock.sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.serving("orders"), serving, "nothing is stopped before a stack is applied");
    apply(&handle, &shop).await;
    handle.wait_ready(WAIT).await.unwrap();
    assert_eq!(bench.serving("orders"), serving);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_differs_from_one_of_its_number_is_given_again_under_a_higher_one() {
    let bench = Bench::new(&["a"]);
    let (handle, tasks, _stack) = bench.control();
    apply(&handle, &stack(&["a"], vec![service("orders", 2)])).await;
    handle.wait_ready(WAIT).await.unwrap();
    let serving = bench.serving("orders");
    tasks.shutdown(&bench.clock, Duration::from_secs(1)).await;
    bench.platform.with(|world| {
        world.wanted.service_environment.insert(name("orders"), [("PORT".into(), "1".into())].into());
    });
    let before = bench.generation();
    let (handle, _tasks, _stack) = bench.control();
    handle.wait_ready(WAIT).await.unwrap();
    bench.clock.sleep(Duration::from_secs(10)).await;
    assert!(bench.generation() > before && handle.status().problem.is_none());
    assert_eq!(bench.serving("orders"), serving);
}

#[tokio::test(start_paused = true)]
async fn restart_and_down_are_requests_with_an_author() {
    let bench = Bench::new(&["a"]);
    let (handle, _tasks, holds) = bench.control();
    apply(&handle, &stack(&["a"], vec![service("orders", 2)])).await;
    handle.wait_ready(WAIT).await.unwrap();
    let unknown = handle.restart(RestartTarget::Service(name("nobody")), ann()).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no service `nobody`");
    handle.restart(RestartTarget::Service(name("orders")), ann()).await.unwrap();
    let status = handle.wait_ready(WAIT).await.unwrap();
    assert_eq!(status.services[&name("orders")].ready, 2);
    assert!(bench.serving("orders").iter().all(|replica| replica != "orders-0.1" && replica != "orders-1.1"));
    let events = handle.events(100).await.unwrap();
    assert!(events.iter().any(|event| event.reason == "a restart of service `orders` was asked for"));
    handle.down(ann()).await.unwrap();
    assert!(bench.serving("orders").is_empty() && holds.borrow().is_none());
    let again = handle.down(ann()).await.unwrap();
    assert!(!again.changed);
    bench.clock.sleep(Duration::from_secs(1)).await;
    assert!(handle.status().services.is_empty());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_what_was_given_up_ends_with_its_reason() {
    let bench = Bench::new(&["a"]);
    let (handle, _tasks, _stack) = bench.control();
    let mut orders = service("orders", 1);
    orders.deploy.restart.condition = RestartCondition::OnFailure;
    orders.deploy.restart.max_attempts = Some(2);
    bench.platform.with(|world| world.broken.insert(orders.revision(), 7));
    apply(&handle, &stack(&["a"], vec![orders])).await;
    let not_ready = handle.wait_ready(WAIT).await.unwrap_err();
    assert_eq!(
        not_ready,
        NotReady::GivenUp { reasons: vec!["`orders` was given up: exited with code 7".into()] }
    );
    let status: Arc<Status> = handle.status();
    assert_eq!(status.services[&name("orders")].phase, Phase::GivenUp);
    assert_eq!(status.services[&name("orders")].crash_loops[0].last_output, ["cannot open the database"]);
}

#[tokio::test(start_paused = true)]
async fn old_rows_are_removed_and_the_stack_in_use_is_kept() {
    let bench = Bench::new(&["a"]);
    let (handle, tasks, _stack) = bench.control();
    apply(&handle, &stack(&["a"], vec![service("orders", 1)])).await;
    handle.wait_ready(WAIT).await.unwrap();
    for _ in 0..260 {
        let victim = bench.serving("orders");
        if let Some(victim) = victim.first() {
            bench.platform.with(|world| world.end(victim, ExitReason::Code(1), Some(Duration::from_secs(9))));
        }
        bench.clock.sleep(4 * STEP).await;
    }
    assert!(bench.generation() > Generation(250), "{}", bench.generation());
    assert!(bench.store.entries_held() < 2 * 220, "{}", bench.store.entries_held());
    tasks.shutdown(&bench.clock, Duration::from_secs(1)).await;
    let (handle, _tasks, holds) = bench.control();
    handle.wait_ready(WAIT).await.unwrap();
    assert!(holds.borrow().is_some());
}

/// The same over the port's own simulation, which takes time to start and to stop replicas.
#[tokio::test(start_paused = true)]
async fn over_the_ports_simulation_kills_a_lost_zone_and_an_update_leave_no_moment_without_the_wanted_number()
{
    let (clock, tasks) = (Clock::starting_at(Stamp::from_micros(1_000_000_000)), Tasks::new());
    let zones = || ["a", "b", "c"].map(zone);
    let platform = SimulatedPlatform::start(clock, zones(), &tasks);
    let parts = Parts {
        clock,
        store: Arc::new(MemoryStore::new(clock)),
        platform: Arc::new(platform.clone()),
        stack: watch::Sender::new(None),
    };
    let (control, handle) = Control::new(parts);
    tasks.spawn_fallible(
        "control",
        standfast_runtime::OnError::Stop,
        OnStop::Wait,
        control.run(tasks.stop()),
    );
    let of = |text: &str| stack(&["a", "b", "c"], vec![version(service("orders", 6), text)]);
    apply(&handle, &of("1")).await;
    let status = handle.wait_ready(WAIT).await.unwrap();
    let orders = &status.services[&name("orders")];
    assert!(orders.zones.values().all(|count| (count.planned, count.ready) == (2, 2)), "{:?}", orders.zones);

    let victim = orders.replicas[3].instance.clone();
    platform.end(&victim, ExitReason::Signal(9));
    clock.sleep(Duration::from_millis(200)).await;
    assert_eq!(handle.wait_ready(WAIT).await.unwrap().services[&name("orders")].restarts, 1);
    platform.lose_zone(&zone("b"));
    clock.sleep(Duration::from_millis(200)).await;
    let status = handle.wait_ready(WAIT).await.unwrap();
    assert_eq!(status.services[&name("orders")].zones.len(), 2, "moved within 200 ms");
    platform.heal_zone(&zone("b"));
    apply(&handle, &of("2")).await;
    let began = clock.now();
    while clock.now().since(began) < Duration::from_secs(30) {
        clock.sleep(Duration::from_millis(10)).await;
        let status = handle.status();
        let ready =
            status.services[&name("orders")].replicas.iter().filter_map(|r| r.takes_requests()).count();
        assert!(ready >= 6, "{ready} ready");
    }
    let status = handle.wait_ready(WAIT).await.unwrap();
    assert!(status.services[&name("orders")].zones.values().all(|count| count.ready == 2));
    handle.down(ann()).await.unwrap();
    clock.sleep(Duration::from_secs(1)).await;
    assert!(platform.observe().await.unwrap().replicas.is_empty());
}
