//! The stack under test as `prove` sees it: the agent's and the node's interfaces behind [`Target`].

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use standfast_model::{EffectSource, Stamp};
use standfast_platform::local::{AgentClient, AgentError, FaultKind, FaultOrder, ProcessId};
use standfast_prove::{
    Act, Bite, Effect, Injection, InjectionId, RunSeen, Survey, SurveyedReplica, Target, TargetError,
};
use standfast_runtime::http::Client;
use standfast_runtime::{Clock, Net, Peer};

use crate::client::AdminClient;

/// How long one page of effects may take.
const PAGE_MAX: Duration = Duration::from_secs(4);

/// A stack that runs on this machine, with faults allowed.
pub struct LocalTarget {
    agent: AgentClient,
    node: AdminClient,
    http: Client,
    clock: Clock,
    /// Our own processes that were killed: the evidence that it bit is that exactly this process is gone.
    killed: Mutex<Vec<(InjectionId, ProcessId)>>,
    does_nothing: bool,
}

impl LocalTarget {
    /// A target over the interfaces of a state folder.
    pub fn new(agent: AgentClient, node: AdminClient, net: Net, clock: Clock) -> Self {
        Self {
            agent,
            node,
            http: Client::new(net, clock),
            clock,
            killed: Mutex::default(),
            does_nothing: false,
        }
    }

    /// Kills of our own processes are skipped: a planted bug.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn doing_nothing(mut self) -> Self {
        self.does_nothing = true;
        self
    }

    /// `kill -9` of one of our own processes, by a descriptor, so that a reused number is never hit.
    fn kill(&self, id: &InjectionId, pid: Option<u32>) -> Result<(), TargetError> {
        let mut killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
        if killed.iter().any(|(known, _)| known == id) {
            return Ok(());
        }
        let pid = pid.ok_or_else(|| TargetError::Refused("it does not run now".into()))?;
        let process = ProcessId::of(pid)
            .ok_or_else(|| TargetError::Refused(format!("process {pid} is gone already")))?;
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| TargetError::Refused(format!("{pid} is no process number")))?;
        let handle =
            pidfd_open(raw, PidfdFlags::empty()).map_err(|error| unreachable(std::io::Error::from(error)))?;
        if !process.is_alive() {
            return Err(TargetError::Refused(format!("process {pid} is gone already")));
        }
        killed.push((id.clone(), process));
        if self.does_nothing {
            return Ok(());
        }
        pidfd_send_signal(&handle, Signal::KILL).map_err(|error| unreachable(std::io::Error::from(error)))
    }

    fn bite_of_kill(&self, id: &InjectionId) -> Bite {
        let killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
        match killed.iter().find(|(known, _)| known == id) {
            Some((_, process)) if !process.is_alive() => {
                Bite { bit: true, evidence: format!("process {} is gone", process.pid) }
            }
            Some((_, process)) => {
                Bite { bit: false, evidence: format!("process {} still runs", process.pid) }
            }
            None => Bite { bit: false, evidence: "it was never injected".into() },
        }
    }

    async fn order(&self, injection: &Injection, kind: FaultKind) -> Result<(), TargetError> {
        let until = self.clock.now().plus(injection.ttl);
        let order = FaultOrder { id: injection.id.to_string(), kind, until };
        self.agent.inject(&order).await.map(drop).map_err(from_agent)
    }

    async fn page(&self, source: &EffectSource, after: Option<&str>) -> Result<EffectsPage, TargetError> {
        let status = self.node.status().await.map_err(unreachable)?;
        let mut path =
            format!("/v1/{}/keys?limit=1000&prefix={}", source.service, percent_encoded(&source.prefix));
        if let Some(after) = after {
            path.push_str("&after=");
            path.push_str(&percent_encoded(after));
        }
        let request = Request::get(path).body(Bytes::new()).map_err(unreachable)?;
        let answer =
            self.http.send(&Peer::Tcp(status.state_api), request, PAGE_MAX).await.map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(unreachable(std::io::Error::other(format!(
                "the state API answered {}",
                answer.status()
            ))));
        }
        serde_json::from_slice(answer.body()).map_err(unreachable)
    }
}

/// A page of the runs of a workflow, as `docs/workflow-api.md` has it.
#[derive(Debug, Deserialize)]
struct RunsPage {
    runs: Vec<RunEntry>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunEntry {
    id: String,
    workflow: RunsWorkflow,
    status: String,
    started_at: String,
    changed_at: String,
    input: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct RunsWorkflow {
    namespace: String,
    name: String,
    version: String,
}

impl RunEntry {
    fn is_of(&self, workflow: &str) -> bool {
        let RunsWorkflow { namespace, name, version } = &self.workflow;
        workflow == format!("{namespace}/{name}") || workflow == format!("{namespace}/{name}/{version}")
    }

    fn seen(self) -> Result<RunSeen, TargetError> {
        let stamp = |text: &str| text.parse::<Stamp>().map_err(unreachable);
        Ok(RunSeen {
            started_at: stamp(&self.started_at)?,
            changed_at: stamp(&self.changed_at)?,
            id: self.id,
            input: self.input,
            status: self.status,
        })
    }
}

#[derive(Debug, Deserialize)]
struct EffectsPage {
    entries: Vec<EffectEntry>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct EffectEntry {
    key: String,
    value: Option<String>,
}

#[async_trait]
impl Target for LocalTarget {
    async fn survey(&self) -> Result<Survey, TargetError> {
        let status = self.node.status().await.map_err(unreachable)?;
        let info = self.agent.info().await.map_err(from_agent)?;
        let inventory = self.agent.inventory().await.map_err(from_agent)?;
        let replicas = inventory
            .replicas
            .iter()
            .filter(|replica| !replica.has_exited())
            .map(|replica| SurveyedReplica {
                instance: replica.instance.clone(),
                zone: replica.zone.clone(),
                pid: replica.pid,
                is_serving: replica.is_serving(),
            })
            .collect();
        Ok(Survey {
            at: self.clock.now(),
            generation: inventory.generation,
            replicas,
            zones: inventory.zones.iter().map(|(zone, state)| (zone.clone(), state.available)).collect(),
            wanted: status.services.iter().map(|(name, service)| (name.clone(), service.wanted)).collect(),
            node_pid: Some(status.node_pid),
            agent_pid: Some(info.process.pid),
            all_ready: status.all_ready,
            public: status.public,
            starts: status.state_api,
        })
    }

    async fn inject(&self, injection: &Injection) -> Result<(), TargetError> {
        match &injection.act {
            Act::KillInstance { instance, .. } => {
                self.order(injection, FaultKind::KillInstance { instance: instance.clone() }).await
            }
            Act::FreezeInstance { instance, .. } => {
                self.order(injection, FaultKind::FreezeInstance { instance: instance.clone() }).await
            }
            Act::LoseZone { zone, .. } => {
                self.order(injection, FaultKind::LoseZone { zone: zone.clone() }).await
            }
            Act::KillNode { pid } | Act::KillAgent { pid } => self.kill(&injection.id, *pid),
        }
    }

    async fn verify(&self, injection: &Injection) -> Result<Bite, TargetError> {
        if matches!(injection.act, Act::KillNode { .. } | Act::KillAgent { .. }) {
            return Ok(self.bite_of_kill(&injection.id));
        }
        let seen = self.agent.verify(&injection.id.0).await.map_err(from_agent)?;
        let evidence = match &injection.act {
            Act::LoseZone { .. } if seen.bit => {
                let gone = seen.targets.len();
                format!("{gone} processes are gone, none lives in the zone, starts are refused there")
            }
            _ => seen.evidence.join(", "),
        };
        Ok(Bite { bit: seen.bit, evidence })
    }

    async fn heal(&self, id: &InjectionId) -> Result<(), TargetError> {
        let is_ours =
            self.killed.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(known, _)| known == id);
        if is_ours {
            return Ok(());
        }
        match self.agent.heal(&id.0).await {
            Ok(_) | Err(AgentError::NotFound(_)) => Ok(()),
            Err(error) => Err(from_agent(error)),
        }
    }

    async fn is_restored(&self, injection: &Injection) -> Result<bool, TargetError> {
        match &injection.act {
            Act::KillInstance { .. } | Act::KillNode { .. } | Act::KillAgent { .. } => Ok(true),
            Act::FreezeInstance { pid, .. } => {
                Ok(pid.and_then(ProcessId::of).and_then(ProcessId::state).is_none_or(|state| state != 'T'))
            }
            Act::LoseZone { zone, .. } => {
                let inventory = self.agent.inventory().await.map_err(from_agent)?;
                Ok(inventory.zones.get(zone).is_some_and(|state| state.available))
            }
        }
    }

    async fn runs(&self, workflow: &str) -> Result<Vec<RunSeen>, TargetError> {
        let name = workflow.split('/').nth(1).unwrap_or(workflow);
        // A run that ends between two pages may be on both.
        let mut runs = BTreeMap::new();
        let mut path = format!("/v1/runs?limit=1000&workflow={name}");
        loop {
            let answer = self.node.workflows(Method::GET, &path, None, None, PAGE_MAX).await;
            let (status, value) = answer.map_err(unreachable)?;
            if status != StatusCode::OK {
                let text = format!("the API of workflows answered {status}");
                return Err(unreachable(std::io::Error::other(text)));
            }
            let page: RunsPage = serde_json::from_value(value).map_err(unreachable)?;
            for entry in page.runs.into_iter().filter(|entry| entry.is_of(workflow)) {
                runs.insert(entry.id.clone(), entry.seen()?);
            }
            match page.next {
                Some(next) => path = format!("/v1/runs?limit=1000&workflow={name}&after={next}"),
                None => return Ok(runs.into_values().collect()),
            }
        }
    }

    async fn effects(&self, source: &EffectSource) -> Result<Vec<Effect>, TargetError> {
        let mut effects = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.page(source, after.as_deref()).await?;
            effects.extend(page.entries.into_iter().map(|entry| Effect {
                key: entry.key,
                // A value that is not text is no JSON either: the oracle reports it as malformed.
                value: entry.value.unwrap_or_default().into_bytes(),
            }));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(effects),
            }
        }
    }
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TargetError {
    TargetError::Unreachable(error.into())
}

fn from_agent(error: AgentError) -> TargetError {
    if error.may_be_retried() { unreachable(error) } else { TargetError::Refused(error.to_string()) }
}

/// RFC 3986 percent-encoding of everything but unreserved characters.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
