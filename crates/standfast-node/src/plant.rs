//! Bugs on purpose, so that `prove` can be shown to find them. Test builds only.

use standfast_gateway::Config as GatewayConfig;
use standfast_platform::local::{AgentConfig, PlantedBug};
use standfast_store::{EmbeddedOptions, Plant as StorePlant};

/// The bugs, by the names that `prove --plant` takes, each with what it does.
pub const PLANTS: [(&str, &str); 6] = [
    ("acknowledge-before-commit", "the store answers before the batch is on disk"),
    ("drop-one-write", "the store acknowledges one batch in 1,000 and forgets it"),
    ("apply-retry-twice", "the store ignores conditions, so that a repeated request has its effect again"),
    ("always-healthy", "the health check passes without asking"),
    ("keep-dead-replica", "the balancer goes on choosing a dead replica"),
    ("fault-does-nothing", "faults are recorded but not carried out"),
];

/// Plants into the agent.
pub(crate) fn into_agent(plant: Option<&str>, config: &mut AgentConfig) {
    match plant {
        Some("always-healthy") => config.planted.push(PlantedBug::AlwaysHealthy),
        Some("fault-does-nothing") => config.planted.push(PlantedBug::FaultDoesNothing),
        _ => {}
    }
}

/// Plants into the store.
pub(crate) fn into_store(plant: Option<&str>, options: &mut EmbeddedOptions) {
    options.plant = match plant {
        Some("acknowledge-before-commit") => Some(StorePlant::AckBeforeCommit),
        Some("drop-one-write") => Some(StorePlant::DropOneWriteIn1000),
        Some("apply-retry-twice") => Some(StorePlant::IgnoreConditions),
        _ => None,
    };
}

/// Plants into the gateway.
pub(crate) fn into_gateway(plant: Option<&str>, config: &mut GatewayConfig) {
    if plant == Some("keep-dead-replica") {
        config.plant = Some(standfast_gateway::Plant::KeepDeadReplica);
    }
}
