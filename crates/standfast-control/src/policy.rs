//! What is wanted, made ready for planning: the stack with the fingerprints that every plan compares.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use standfast_model::{Revision, Service, ServiceName, Stack};
use standfast_platform::Launch;

/// A fingerprint of a whole stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StackDigest(Box<str>);

impl StackDigest {
    /// The digest of a stack.
    pub fn of(stack: &Stack) -> Self {
        let json = serde_json::to_vec(stack).unwrap_or_default();
        Self(Revision::of(&json).as_str().into())
    }
}

impl fmt::Display for StackDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is wanted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Policy {
    stack: Option<Arc<Stack>>,
    digest: Option<StackDigest>,
    launches: Arc<BTreeMap<ServiceName, (Revision, Arc<Launch>)>>,
}

impl Policy {
    /// A stack shall run.
    pub fn of(stack: Arc<Stack>) -> Self {
        let launches = stack
            .services
            .values()
            .map(|service| (service.name.clone(), (service.revision(), launch_of(service))));
        Self {
            digest: Some(StackDigest::of(&stack)),
            launches: Arc::new(launches.collect()),
            stack: Some(stack),
        }
    }

    /// Nothing shall run.
    pub fn down() -> Self {
        Self { stack: None, digest: None, launches: Arc::default() }
    }

    /// The stack.
    pub const fn stack(&self) -> Option<&Arc<Stack>> {
        self.stack.as_ref()
    }

    /// The stack's digest.
    pub const fn digest(&self) -> Option<&StackDigest> {
        self.digest.as_ref()
    }

    /// What a service's replicas are to run, and how to start them.
    pub(crate) fn launch(&self, service: &ServiceName) -> Option<&(Revision, Arc<Launch>)> {
        self.launches.get(service)
    }
}

fn launch_of(service: &Service) -> Arc<Launch> {
    Arc::new(Launch {
        command: service.command.clone(),
        working_dir: service.working_dir.clone(),
        environment: service.environment.clone(),
        healthcheck: service.healthcheck.clone(),
        limits: service.deploy.limits,
        stop_grace_period: service.stop_grace_period,
    })
}
