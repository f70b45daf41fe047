//! The node's admin interface: JSON over HTTP on a Unix socket in the state folder, for its owner only.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use standfast_control::{
    ChangeKind, Handle, PlanId, Report, Request as ChangeRequest, RequestError, RestartTarget, Role,
    ServiceStatus, Status, Step, StepKind,
};
use standfast_gateway::{Gateway, PutError, ServiceStats};
use standfast_model::{ServiceName, Stack};
use standfast_platform::ReplicaState;
use standfast_platform::local::AgentClient;
use standfast_runtime::http::json;
use standfast_store::Health;
use tokio::sync::watch;

use crate::answers::{
    ANSWERS_VERSION, ErrorAnswer, FaultsAnswer, PlanAnswer, ReplicaAnswer, RequestsAnswer, ServiceAnswer,
    StatusAnswer, StepAnswer, ZoneAnswer,
};
use crate::client::{ApplyRequest, FAULTS, FaultRequest, REQUESTS, RecentRequest, RestartRequest};
use crate::reserve::Reserve;
use crate::wiring::Wiring;
use crate::workflows::{self, Workflows};
use crate::{fault_place, gateway_admin};

/// What the interface speaks for.
pub(crate) struct Admin {
    pub(crate) control: Handle,
    pub(crate) agent: AgentClient,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) wiring: Arc<Wiring>,
    pub(crate) stack: watch::Receiver<Option<Arc<Stack>>>,
    /// The store's.
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) workflows: Workflows,
}

/// Records in one answer.
const RECENT_MAX: usize = 1_000;

type Answer = Result<Response<Bytes>, Refusal>;

/// A request that was not done.
struct Refusal(StatusCode, ErrorAnswer);

impl Refusal {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self(status, ErrorAnswer { code: code.into(), message: message.into(), causes: Vec::new() })
    }
}

/// Answers one request. Every failure is an answer.
pub(crate) async fn handle(admin: Arc<Admin>, request: Request<Bytes>) -> Response<Bytes> {
    if workflows::is_for(&request) {
        return admin.workflows.handle(request).await;
    }
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => Ok(gateway_admin::metrics(&admin.gateway, &request)),
        (&Method::GET, "/v1/status") => admin.status().await,
        (&Method::POST, "/v1/plan") => admin.plan(request.body()).await,
        (&Method::POST, "/v1/apply") => admin.apply(request.body()).await,
        (&Method::POST, "/v1/restart") => admin.restart(request.body()).await,
        (&Method::POST, "/v1/down") => admin.down().await,
        (&Method::GET, path) if path.strip_prefix(REQUESTS).is_some() => {
            admin.why(path.strip_prefix(REQUESTS).unwrap_or_default())
        }
        (&Method::POST, "/v1/requests") => admin.recent(request.body()),
        (&Method::POST, FAULTS) => admin.add_fault(request.body()),
        (&Method::GET, FAULTS) => Ok(admin.faults()),
        (&Method::DELETE, path) if fault_id(path).is_some() => {
            admin.remove_fault(fault_id(path).unwrap_or_default())
        }
        (method, path) => {
            Err(Refusal::new(StatusCode::NOT_FOUND, "refused", format!("there is no {method} {path} here")))
        }
    };
    answer.unwrap_or_else(|Refusal(status, answer)| json(status, &answer))
}

fn fault_id(path: &str) -> Option<&str> {
    path.strip_prefix(FAULTS)?.strip_prefix('/')
}

impl Admin {
    fn add_fault(&self, body: &[u8]) -> Answer {
        let FaultRequest { id, fault } = read(body)?;
        let missing =
            self.stack.borrow().as_ref().and_then(|stack| fault_place::missing(fault.place(), stack));
        if let Some(missing) = missing {
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", missing));
        }
        let faults = self.gateway.faults();
        let refused = |error: PutError| Refusal::new(StatusCode::CONFLICT, "refused", error.to_string());
        let id = faults.put(id.as_deref(), fault).map_err(refused)?;
        let added = faults.list().into_iter().find(|one| one.id == id);
        let ended =
            || Refusal::new(StatusCode::CONFLICT, "refused", format!("fault `{id}` has ended already"));
        let added = added.ok_or_else(ended)?;
        tracing::warn!(id = %added.id, fault = %added.fault, "a fault is injected in the gateway");
        Ok(json(StatusCode::OK, &added))
    }

    fn remove_fault(&self, id: &str) -> Answer {
        let unknown = || {
            let message = format!("no fault by the name `{id}` is in force");
            Refusal::new(StatusCode::NOT_FOUND, "unknown_fault", message)
        };
        let removed = self.gateway.faults().remove(id).ok_or_else(unknown)?;
        tracing::warn!(id, applied = removed.applied, "a fault is removed from the gateway");
        Ok(json(StatusCode::OK, &removed))
    }

    fn faults(&self) -> Response<Bytes> {
        let answer = FaultsAnswer { version: ANSWERS_VERSION, faults: self.gateway.faults().list() };
        json(StatusCode::OK, &answer)
    }

    fn why(&self, id: &str) -> Answer {
        let unknown = || {
            let message = format!("no request is remembered by the id `{id}`");
            Refusal::new(StatusCode::NOT_FOUND, "unknown_request", message)
        };
        Ok(json(StatusCode::OK, &self.gateway.why(id).ok_or_else(unknown)?))
    }

    fn recent(&self, body: &[u8]) -> Answer {
        let RecentRequest { limit, filter } = read(body)?;
        Ok(json(StatusCode::OK, &self.gateway.recent(limit.min(RECENT_MAX), &filter)))
    }

    async fn status(&self) -> Answer {
        let (Some(public), Some(state_api)) = (self.wiring.public(), self.wiring.state()) else {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the node is still starting",
            ));
        };
        let info = self.agent.info().await.ok();
        let status = self.control.status();
        let stack = info.as_ref().map(|info| info.stack.clone());
        let stack = stack.or_else(|| status.target.as_ref().and_then(|target| target.stack.clone()));
        let Some(stack) = stack else {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the agent does not answer",
            ));
        };
        let requests = self.gateway.stats().services;
        let full_disk = self.reserve.trouble(&self.health.borrow());
        let answer = StatusAnswer {
            version: ANSWERS_VERSION,
            at: status.at,
            stack,
            all_ready: status.is_ready(),
            waiting: waiting(&status),
            node_pid: std::process::id(),
            agent_pid: info.map(|info| info.process.pid),
            generation: status.target.as_ref().map_or(0, |target| target.carried_out.0),
            public,
            state_api,
            zones: status
                .zones
                .iter()
                .map(|(name, zone)| {
                    (name.clone(), ZoneAnswer { available: zone.available, reason: zone.reason.clone() })
                })
                .collect(),
            services: status
                .services
                .iter()
                .map(|(name, service)| (name.clone(), service_answer(service, requests.get(name))))
                .collect(),
            limitations: status
                .limitations
                .iter()
                .cloned()
                .chain(full_disk)
                .chain(self.workflows.troubles())
                .collect(),
        };
        Ok(json(StatusCode::OK, &answer))
    }

    async fn plan(&self, body: &[u8]) -> Answer {
        let stack: Stack = read(body)?;
        let changes = workflows::changes(self.running_stack().as_deref(), &stack);
        let preview = self.control.plan_for(Arc::new(stack)).await.map_err(refusal)?;
        let mut answer = plan_answer(preview.plan.to_string(), &preview.report);
        answer.changes.extend(changes);
        Ok(json(StatusCode::OK, &answer))
    }

    async fn apply(&self, body: &[u8]) -> Answer {
        let ApplyRequest { stack, plan, author, reason } = read(body)?;
        let changes = workflows::changes(self.running_stack().as_deref(), &stack);
        let reason = Some(reason).filter(|reason| !reason.is_empty());
        let (stack, request) = (Arc::new(stack), ChangeRequest { author, reason });
        let done = match &plan {
            Some(plan) => self.control.apply(stack, PlanId::from(plan.as_str()), request).await,
            None => self.control.apply_unseen(stack, request).await,
        };
        let done = done.map_err(refusal)?;
        if let Some(problem) = done.problem {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", problem));
        }
        let mut answer = plan_answer(done.blueprint.to_string(), &done.report);
        answer.changes.extend(changes);
        Ok(json(StatusCode::OK, &answer))
    }

    /// The documents of the stack that runs; `None` before it is known.
    fn running_stack(&self) -> Option<Arc<Stack>> {
        self.stack.borrow().clone()
    }

    async fn restart(&self, body: &[u8]) -> Answer {
        let RestartRequest { service } = read(body)?;
        let services: Vec<ServiceName> = match service {
            Some(name) => {
                let name = name.parse().map_err(|error: standfast_model::BadName| {
                    Refusal::new(StatusCode::BAD_REQUEST, "refused", error.to_string())
                })?;
                vec![name]
            }
            None => self.control.status().services.keys().cloned().collect(),
        };
        let mut answer = PlanAnswer {
            version: ANSWERS_VERSION,
            plan: String::new(),
            steps: Vec::new(),
            waiting: Vec::new(),
            changes: Vec::new(),
            running: true,
        };
        for service in services {
            let request = ChangeRequest { author: "restart".into(), reason: None };
            let done =
                self.control.restart(RestartTarget::Service(service), request).await.map_err(refusal)?;
            let part = plan_answer(done.blueprint.to_string(), &done.report);
            answer.plan = part.plan;
            answer.steps.extend(part.steps);
            answer.changes.extend(part.changes);
            answer.waiting = part.waiting;
        }
        Ok(json(StatusCode::OK, &answer))
    }

    async fn down(&self) -> Answer {
        let request = ChangeRequest { author: "down".into(), reason: Some("the stack is taken down".into()) };
        let done = self.control.down(request).await.map_err(refusal)?;
        Ok(json(StatusCode::OK, &plan_answer(done.blueprint.to_string(), &done.report)))
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, "refused", format!("the request is malformed: {error}"))
    })
}

fn refusal(error: RequestError) -> Refusal {
    let (status, code) = match &error {
        RequestError::WorldMoved { .. } => (StatusCode::CONFLICT, "moved"),
        RequestError::Unknown(_) => (StatusCode::NOT_FOUND, "refused"),
        RequestError::Tick(_) | RequestError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut answer = ErrorAnswer { code: code.into(), message: error.to_string(), causes: Vec::new() };
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        answer.causes.push(cause.to_string());
        source = cause.source();
    }
    Refusal(status, answer)
}

fn waiting(status: &Status) -> Vec<String> {
    let mut waiting = status.waiting.clone();
    if waiting.is_empty() && !status.is_ready() {
        waiting = status.missing();
    }
    waiting.extend(status.problem.clone());
    waiting
}

pub(crate) fn plan_answer(plan: String, report: &Report) -> PlanAnswer {
    let change = |change: &standfast_control::Change| {
        let verb = match change.kind {
            ChangeKind::Add => "add",
            ChangeKind::Remove => "remove",
            ChangeKind::Update => "update",
            ChangeKind::Scale => "scale",
        };
        format!("{verb} {}: {} ({})", change.service, change.what, change.impact)
    };
    PlanAnswer {
        version: ANSWERS_VERSION,
        plan,
        steps: report.steps.iter().map(step_answer).collect(),
        waiting: report.waiting.clone(),
        changes: report.changes.iter().map(change).collect(),
        running: true,
    }
}

fn step_answer(step: &Step) -> StepAnswer {
    let act = match step.kind {
        StepKind::Start => "start",
        StepKind::Heal => "heal",
        StepKind::Update => "update",
        StepKind::Rebalance => "rebalance",
        StepKind::Drain => "drain",
        StepKind::Stop => "stop",
        StepKind::Complete => "complete",
        StepKind::GiveUp => "give up",
        StepKind::Adopt => "adopt",
    };
    StepAnswer {
        act: act.into(),
        what: format!("{} in zone {}", step.replica.replica, step.zone),
        reason: step.reason.clone(),
        impact: step.impact.clone(),
    }
}

fn service_answer(service: &ServiceStatus, requests: Option<&ServiceStats>) -> ServiceAnswer {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let loops: BTreeMap<_, _> = service.crash_loops.iter().map(|one| (&one.replica.replica, one)).collect();
    let replicas = service.replicas.iter().map(|replica| {
        let failing = loops.get(&replica.instance.replica);
        ReplicaAnswer {
            instance: replica.instance.to_string(),
            replica: replica.instance.replica.to_string(),
            attempt: replica.instance.attempt,
            zone: replica.zone.clone(),
            pid: replica.pid,
            ready: replica.takes_requests().is_some(),
            state: state_words(replica.role, replica.state.as_ref()),
            endpoint: replica.endpoint,
            failures: failing.map_or(replica.failures, |failing| failing.failures),
            last_output: failing.map(|failing| failing.last_output.clone()).unwrap_or_default(),
        }
    });
    ServiceAnswer {
        wanted: count(service.wanted),
        ready: count(service.ready),
        zones: service.zones.iter().map(|(zone, one)| (zone.clone(), count(one.ready))).collect(),
        restarts: service.restarts,
        last_reason: service.last_failure.as_ref().map(|failure| failure.reason.clone()),
        requests: requests.map(requests_answer).unwrap_or_default(),
        replicas: replicas.collect(),
    }
}

fn requests_answer(stats: &ServiceStats) -> RequestsAnswer {
    RequestsAnswer {
        total: stats.requests,
        failed: stats.answered.server_error + stats.no_replica + stats.deadline + stats.broken,
        retried: stats.retries,
    }
}

fn state_words(role: Role, state: Option<&ReplicaState>) -> String {
    match (role, state) {
        (Role::Completed, _) => "done".into(),
        (Role::GivenUp, _) => "given up".into(),
        (_, None) => "ordered".into(),
        (_, Some(ReplicaState::Pending { reason })) => format!("pending: {reason}"),
        (_, Some(ReplicaState::Starting { .. })) => "starting".into(),
        (Role::Drain, Some(ReplicaState::Serving { .. })) => "draining".into(),
        (_, Some(ReplicaState::Serving { .. })) => "serving".into(),
        (_, Some(ReplicaState::Unready { reason, .. })) => format!("unready: {reason}"),
        (_, Some(ReplicaState::Stopping { .. })) => "stopping".into(),
        (_, Some(ReplicaState::Exited { reason, .. })) => reason.to_string(),
    }
}
