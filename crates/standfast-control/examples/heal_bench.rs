//! How long it takes from a replica's end until a new attempt is ordered: over the embedded store (with fsync) and the
//! simulated platform. Run it with `cargo run --release -p standfast-control --example heal_bench`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use standfast_control::{Control, Parts, Request};
use standfast_model::{
    Deploy, HealthCheck, Limits, Probe, RestartCondition, RestartPolicy, Service, ServiceName, Stack,
    UpdateConfig, UpdateOrder, ZoneName,
};
use standfast_platform::simulated::SimulatedPlatform;
use standfast_platform::{ExitReason, Platform};
use standfast_runtime::{Clock, OnError, OnStop, Tasks};
use standfast_store::{EmbeddedOptions, EmbeddedStore};
use tokio::sync::watch;

const SERVICES: usize = 10;
const REPLICAS: u32 = 3;
const KILLS: usize = 100;
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (clock, tasks, folder) = (Clock::system(), Tasks::new(), tempfile::tempdir()?);
    let zones: Vec<ZoneName> = ["a", "b", "c"].iter().filter_map(|text| text.parse().ok()).collect();
    let platform = SimulatedPlatform::start(clock, zones.clone(), &tasks);
    let store = EmbeddedStore::open(folder.path(), clock, EmbeddedOptions::default()).await?;
    let (control, handle) = Control::new(Parts {
        clock,
        store: Arc::new(store),
        platform: Arc::new(platform.clone()),
        stack: watch::Sender::new(None),
    });
    tasks.spawn_fallible("control", OnError::Stop, OnStop::Wait, control.run(tasks.stop()));
    let began = clock.now();
    handle.apply_unseen(Arc::new(stack(zones)?), Request { author: "bench".into(), reason: None }).await?;
    println!("{SERVICES} services x {REPLICAS} replicas: applied in {:?}", clock.now().since(began));
    handle.wait_ready(LIMIT).await?;
    println!("all ready after {:?}", clock.now().since(began));
    let mut times = Vec::new();
    for kill in 0..KILLS {
        let replicas = platform.observe().await?.replicas;
        let victim = replicas[kill * 7 % replicas.len()].instance.clone();
        let (before, began) = (platform.wanted().generation, clock.now());
        platform.end(&victim, ExitReason::Signal(9));
        while platform.wanted().generation == before {
            tokio::task::yield_now().await;
        }
        times.push(clock.now().since(began));
        handle.wait_ready(LIMIT).await?;
    }
    times.sort_unstable();
    let (median, slow, worst) = (times[KILLS / 2], times[KILLS * 99 / 100], times[KILLS - 1]);
    println!("{KILLS} kills, from the end to the order: median {median:?}, p99 {slow:?}, worst {worst:?}");
    tasks.shutdown(&clock, LIMIT).await;
    Ok(())
}

fn stack(zones: Vec<ZoneName>) -> Result<Stack, Box<dyn std::error::Error>> {
    let mut services = BTreeMap::new();
    for index in 0..SERVICES {
        let name: ServiceName = format!("service-{index}").parse()?;
        services.insert(name.clone(), service(name));
    }
    Ok(Stack {
        name: "bench".parse()?,
        root: "/srv".into(),
        zones,
        services,
        workflows: Vec::new(),
        lifecycle: None,
        secrets: BTreeMap::new(),
        externals: BTreeMap::new(),
        edge: standfast_model::Edge::default(),
        routes: Vec::new(),
        load: BTreeMap::new(),
        invariants: Vec::new(),
        experiments: Vec::new(),
    })
}

fn service(name: ServiceName) -> Service {
    Service {
        build: None,
        command: vec![format!("bin/{name}")],
        working_dir: "/srv".into(),
        environment: BTreeMap::new(),
        depends_on: BTreeMap::new(),
        healthcheck: HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::ZERO,
        },
        deploy: Deploy {
            replicas: REPLICAS,
            limits: Limits::default(),
            update: UpdateConfig { parallelism: 1, order: UpdateOrder::StartFirst },
            restart: RestartPolicy { condition: RestartCondition::Any, max_attempts: None },
        },
        stop_grace_period: Duration::from_secs(10),
        ports: Vec::new(),
        traffic: standfast_model::Traffic::default(),
        name,
    }
}
