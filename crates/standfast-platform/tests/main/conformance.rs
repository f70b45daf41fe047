//! Both platforms keep the same promises.

use std::time::Duration;

use async_trait::async_trait;
use standfast_model::{Stamp, ZoneName};
use standfast_platform::conformance::{self, Subject};
use standfast_platform::local::{FaultKind, FaultOrder, LocalPlatform};
use standfast_platform::simulated::SimulatedPlatform;
use standfast_platform::{ExitReason, Launch, Platform, SeenReplica};
use standfast_runtime::{Clock, Rng, Tasks};

use crate::harness::{LONG, World, kill, launch};

struct Simulated(SimulatedPlatform, Clock);

#[async_trait]
impl Subject for Simulated {
    fn platform(&self) -> &dyn Platform {
        &self.0
    }

    fn clock(&self) -> Clock {
        self.1
    }

    fn launch(&self) -> Launch {
        launch(&[])
    }

    async fn crash(&self, seen: &SeenReplica) {
        assert!(self.0.end(&seen.instance, ExitReason::Signal(9)));
    }

    async fn set_zone(&self, zone: &ZoneName, is_lost: bool) {
        if is_lost { self.0.lose_zone(zone) } else { self.0.heal_zone(zone) }
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulated_platform_keeps_the_promises() {
    let (clock, tasks) = (Clock::starting_at(Stamp::from_micros(1)), Tasks::new());
    let zones = ["a", "b"].map(|name| name.parse().unwrap());
    let platform = SimulatedPlatform::start(clock, zones, &tasks);
    conformance::all(&Simulated(platform, clock)).await;
    tasks.shutdown(&clock, LONG).await;
}

struct Local(LocalPlatform, Clock);

#[async_trait]
impl Subject for Local {
    fn platform(&self) -> &dyn Platform {
        &self.0
    }

    fn clock(&self) -> Clock {
        self.1
    }

    fn launch(&self) -> Launch {
        launch(&[])
    }

    async fn crash(&self, seen: &SeenReplica) {
        kill(seen.pid.unwrap());
    }

    async fn set_zone(&self, zone: &ZoneName, is_lost: bool) {
        if is_lost {
            let until = self.1.now().plus(Duration::from_secs(600));
            let order =
                FaultOrder { id: "zone".into(), kind: FaultKind::LoseZone { zone: zone.clone() }, until };
            assert!(self.0.agent().inject(&order).await.unwrap().bit);
        } else {
            self.0.agent().heal("zone").await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_local_platform_keeps_the_promises() {
    let world = World::with(|config| config.zones.truncate(2)).await;
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let platform = LocalPlatform::connect(world.client.clone(), clock, Rng::seeded(1), &tasks);
    conformance::all(&Local(platform, clock)).await;
    assert!(world.processes().is_empty());
    tasks.shutdown(&clock, LONG).await;
}
