//! Bugs on purpose, so that `prove` can be shown to find them. Test builds only.

use standfast_gateway::Config as GatewayConfig;
use standfast_platform::local::{AgentConfig, PlantedBug};
use standfast_store::{EmbeddedOptions, Plant as StorePlant};

/// The bugs, by the names that `prove --plant` takes, each with what it does.
pub const PLANTS: [(&str, &str); 7] = [
    ("acknowledge-before-commit", "the store answers before the batch is on disk"),
    ("drop-one-write", "the store acknowledges one batch in 1,000 and forgets it"),
    ("apply-retry-twice", "the store ignores conditions, so that a repeated request has its effect again"),
    ("new-key-per-attempt", "a step of a workflow that is asked again has another key"),
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

/// Whether the calls of workflows get a key of their own each time.
pub(crate) fn changes_keys(plant: Option<&str>) -> bool {
    plant == Some("new-key-per-attempt")
}

/// Plants into the gateway.
pub(crate) fn into_gateway(plant: Option<&str>, config: &mut GatewayConfig) {
    if plant == Some("keep-dead-replica") {
        config.plant = Some(standfast_gateway::Plant::KeepDeadReplica);
    }
}
