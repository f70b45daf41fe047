//! `run: container`, by the Docker API of who runs containers here.
//!
//! Of each attempt of a step there is one container at most. It is named after the run and the attempt's number, or as the document
//! says, and labelled with both, so that a process of ours that comes after another finds the one that runs or has ended, and takes
//! its end. Nothing is removed here before the step's end is journalled: that is for [`Containers::settle`].

mod api;
mod config;
mod found;

use std::sync::Arc;
use std::time::Duration;

use ::http::Method;
use serde_json::{Value, json};
use standfast_model::workflow::{Cleanup, PullPolicy};
use standfast_runtime::{Backoff, Clock, Rng, with_causes};

pub use self::config::ContainerConfig;

use self::api::{Api, ApiError, escaped};
use self::found::{CLEANUP, Found, Phase, RUN, body_of, step_of};
use crate::ask::{Answer, ContainerRequest, Heartbeat, ProcessAnswer};
use crate::engine::{Left, Settled};
use crate::run::{Problem, Standard};

/// For how long who runs containers may be away before a step fails by that.
const AWAY_MAX: Duration = Duration::from_secs(30);
const AGAIN: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(3) };
/// How long a container may take to end by itself once it is told to.
const STOP_TIME: Duration = Duration::from_secs(5);
/// From one look at a container that nobody waits for to the next.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// How long a container may stand in the way of another of the same name that is about to be removed.
const NAME_WAIT_MAX: Duration = Duration::from_secs(10);

/// Runs containers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Containers {
    clock: Clock,
    config: Arc<ContainerConfig>,
}

impl Containers {
    pub(super) fn new(clock: Clock, config: ContainerConfig) -> Self {
        Self { clock, config: Arc::new(config) }
    }

    fn api(&self) -> Result<Api, Problem> {
        Ok(Api { socket: self.config.socket()?, clock: self.clock })
    }

    /// Runs a container, or goes on with the one that was begun for this attempt.
    pub(super) async fn run(
        &self,
        request: &ContainerRequest,
        key: &str,
        heartbeat: Option<&Heartbeat>,
    ) -> Result<Answer, Problem> {
        let api = self.api()?;
        let wanted = Wanted { api: &api, request, name: name_of(request) };
        let (mut away_since, mut failures, mut rng) = (None, 0, Rng::from_entropy());
        loop {
            let begun_at = self.clock.now();
            let why = match self.run_once(&wanted, key, heartbeat).await {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            };
            let why = match why {
                RunError::Api(why) => why,
                RunError::Problem(problem) => return Err(problem),
            };
            let now = self.clock.now();
            if !matches!(why, ApiError::Late(_)) && now.since(begun_at) >= AWAY_MAX {
                // It was there meanwhile.
                (away_since, failures) = (None, 0);
            }
            let since = *away_since.get_or_insert(now);
            if !why.may_pass() || now.since(since) >= AWAY_MAX {
                return Err(into_problem(&why, &api));
            }
            self.clock.sleep(AGAIN.wait(failures, &mut rng)).await;
            failures += 1;
        }
    }

    async fn run_once(
        &self,
        wanted: &Wanted<'_>,
        key: &str,
        heartbeat: Option<&Heartbeat>,
    ) -> Result<Answer, RunError> {
        let (api, request) = (wanted.api, wanted.request);
        // Nothing can be heard of it before it has begun.
        let excused = heartbeat.map(Heartbeat::excuse);
        // One that was begun by a process before us, or before the connection broke.
        let found = match api.find(&wanted.name).await? {
            Some(found) if found.step == Some(request.step) => Some(found),
            _ => None,
        };
        let id = match found {
            Some(found) => {
                if found.phase == Phase::New {
                    api.begin(&found.id).await?;
                }
                found.id
            }
            None => {
                // Nobody knows how much of its input this one got.
                if let Some(half_fed) = api.find(&unfed_name(request)).await?
                    && half_fed.step == Some(request.step)
                {
                    api.remove(&half_fed.id).await?;
                }
                self.begin_new(wanted, key).await?
            }
        };
        if !request.awaited {
            return Ok(Answer::Begun);
        }
        let beats = || heartbeat.into_iter().for_each(|heartbeat| heartbeat.beat(self.clock.now()));
        beats();
        drop(excused);
        api.end_of(&id, &beats).await.map(Answer::Process).map_err(RunError::Api)
    }

    async fn begin_new(&self, wanted: &Wanted<'_>, key: &str) -> Result<String, RunError> {
        let (api, request) = (wanted.api, wanted.request);
        let volumes = request.volumes.iter().map(|volume| {
            let outside = self.config.volume(&volume.outside)?;
            Ok(json!({
                "Type": "bind", "Source": outside.to_string_lossy(), "Target": volume.inside,
                "ReadOnly": volume.is_read_only,
            }))
        });
        let body = body_of(request, key, volumes.collect::<Result<_, Problem>>()?);
        if request.pull == PullPolicy::Always {
            self.pull(wanted).await?;
        }
        let is_fed = !request.stdin.is_empty();
        let name = if is_fed { unfed_name(request) } else { wanted.name.clone() };
        self.makes_way(wanted).await?;
        let id = match api.create(&name, &body).await {
            Err(why) if why.is_missing() && request.pull == PullPolicy::IfNotPresent => {
                self.pull(wanted).await?;
                api.create(&name, &body).await?
            }
            Err(why) if why.is_missing() => {
                let detail = format!(
                    "the image `{}` is not here, and `pullPolicy` does not let it be fetched: {why}",
                    request.image
                );
                return Err(Standard::Configuration.problem(detail).into());
            }
            created => created?,
        };
        if !is_fed {
            api.begin(&id).await?;
            return Ok(id);
        }
        // It has its name once all of its input is given, or it has ended.
        api.feed(&id, request.stdin.as_bytes(), api.begin(&id), api.ends(&id)).await?;
        api.rename(&id, &wanted.name).await?;
        Ok(id)
    }

    async fn pull(&self, wanted: &Wanted<'_>) -> Result<(), RunError> {
        wanted.api.pull(&wanted.request.image).await.map_err(|why| {
            let detail =
                format!("the image `{}` cannot be fetched: {}", wanted.request.image, with_causes(&why));
            RunError::Problem(Standard::Communication.problem(detail))
        })
    }

    /// Another container may have the name: of an earlier attempt, or of a step that is over and whose container goes any moment.
    async fn makes_way(&self, wanted: &Wanted<'_>) -> Result<(), RunError> {
        let (api, request) = (wanted.api, wanted.request);
        let until = self.clock.now().plus(NAME_WAIT_MAX);
        let (mut looks, mut rng) = (0, Rng::from_entropy());
        loop {
            let Some(found) = api.find(&wanted.name).await? else { return Ok(()) };
            let is_ours = found.step.is_some_and(|(run, _)| run == request.step.0);
            let goes_by_itself = found.step.is_some() && found.cleanup == Cleanup::Always;
            if is_ours && (found.phase == Phase::New || found.phase == Phase::Ended && !goes_by_itself) {
                // Of an earlier attempt, or of an earlier round.
                return Ok(api.remove(&found.id).await?);
            }
            if !is_ours && !goes_by_itself || self.clock.now() >= until {
                let detail = format!(
                    "there is a container `{}` already, which is not of this step; leave out `name`, or make it differ",
                    wanted.name
                );
                return Err(Standard::Configuration.problem(detail).with_status(409).into());
            }
            self.clock.sleep(AGAIN.wait(looks, &mut rng)).await;
            looks += 1;
        }
    }

    /// All our containers but those that have ended and stay.
    pub(super) async fn left(&self) -> Result<Vec<Left>, Problem> {
        let Ok(api) = self.api() else { return Ok(Vec::new()) };
        let filters = escaped(&json!({"label": [RUN]}).to_string());
        let path = format!("/containers/json?all=1&filters={filters}");
        let listed = api.ask(Method::GET, &path, None).await.map_err(|why| into_problem(&why, &api))?;
        let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(listed
            .iter()
            .filter_map(|one| {
                let stays = one["Labels"][CLEANUP] == "never" && one["State"] == "exited";
                let left = Left { id: one["Id"].as_str()?.to_owned(), step: step_of(&one["Labels"])? };
                (!stays).then_some(left)
            })
            .collect())
    }

    /// The step of a container is over: it is ended, and removed when its task says so.
    pub(super) async fn settle(&self, left: &Left) -> Result<Settled, Problem> {
        let api = self.api()?;
        self.settle_by(&api, left).await.map_err(|why| into_problem(&why, &api))
    }

    async fn settle_by(&self, api: &Api, left: &Left) -> Result<Settled, ApiError> {
        let Some(found) = api.find(&left.id).await? else { return Ok(Settled::Done) };
        match found.phase {
            Phase::Running if !found.awaited => return Ok(Settled::Later(LOOK_PERIOD)),
            Phase::Running => {
                let path = format!("/containers/{}/stop?t={}", found.id, STOP_TIME.as_secs());
                match api.ask(Method::POST, &path, None).await {
                    Err(why) if !why.is_missing() => return Err(why),
                    _ => {}
                }
            }
            // It never began: there is nothing of it to be kept.
            Phase::New => return api.remove(&found.id).await.map(|()| Settled::Done),
            Phase::Ended => {}
        }
        match found.cleanup {
            Cleanup::Never => Ok(Settled::Done),
            Cleanup::Always => api.remove(&found.id).await.map(|()| Settled::Done),
            Cleanup::Eventually => {
                let now = self.clock.now();
                let due = found.ended_at.unwrap_or(now).plus(found.after);
                if due > now {
                    return Ok(Settled::Later(due.since(now)));
                }
                api.remove(&found.id).await.map(|()| Settled::Done)
            }
        }
    }
}

/// A container that is to be run.
struct Wanted<'r> {
    api: &'r Api,
    request: &'r ContainerRequest,
    name: String,
}

/// Why a container was not run.
enum RunError {
    Api(ApiError),
    Problem(Problem),
}

impl From<ApiError> for RunError {
    fn from(why: ApiError) -> Self {
        Self::Api(why)
    }
}

impl From<Problem> for RunError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

fn into_problem(why: &ApiError, api: &Api) -> Problem {
    let place = api.socket.display();
    match why {
        ApiError::TooLong => Standard::Runtime.problem(why.to_string()),
        ApiError::Refused { status, .. } if status.is_client_error() => {
            Standard::Configuration.problem(format!("the container is refused by {place}: {why}"))
        }
        ApiError::Refused { .. } => {
            Standard::Runtime.problem(format!("the container cannot be run by {place}: {why}"))
        }
        why => {
            Standard::Communication.problem(format!("who runs containers at {place}: {}", with_causes(why)))
        }
    }
}

fn name_of(request: &ContainerRequest) -> String {
    request.name.clone().unwrap_or_else(|| format!("standfast-{}-{}", request.step.0, request.step.1.0))
}

/// What a container is called until all of its input is given.
fn unfed_name(request: &ContainerRequest) -> String {
    format!("standfast-{}-{}-input", request.step.0, request.step.1.0)
}

impl Api {
    async fn find(&self, name: &str) -> Result<Option<Found>, ApiError> {
        match self.ask(Method::GET, &format!("/containers/{}/json", escaped(name)), None).await {
            Ok(told) => Found::of(&told).map(Some),
            Err(why) if why.is_missing() => Ok(None),
            Err(why) => Err(why),
        }
        // A container may be found by the beginning of its id, too.
        .map(|found| found.filter(|found| found.name == name || found.id == name))
    }

    async fn create(&self, name: &str, body: &Value) -> Result<String, ApiError> {
        let path = format!("/containers/create?name={}", escaped(name));
        let told = self.ask(Method::POST, &path, Some(body)).await?;
        let id = told["Id"].as_str().ok_or_else(|| ApiError::Unfit("a container has no `Id`".to_owned()))?;
        Ok(id.to_owned())
    }

    async fn begin(&self, id: &str) -> Result<(), ApiError> {
        self.ask(Method::POST, &format!("/containers/{id}/start"), None).await.map(drop)
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), ApiError> {
        let path = format!("/containers/{id}/rename?name={}", escaped(name));
        self.ask(Method::POST, &path, None).await.map(drop)
    }

    /// Ends and removes it, and what it alone had of volumes.
    async fn remove(&self, id: &str) -> Result<(), ApiError> {
        match self.ask(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await {
            Err(why) if !why.is_missing() => Err(why),
            _ => Ok(()),
        }
    }

    /// Waits until it has ended: with which code.
    async fn ends(&self, id: &str) -> Result<i32, ApiError> {
        let told = self.ask_patiently(Method::POST, &format!("/containers/{id}/wait"), None).await?;
        let code = told["StatusCode"].as_i64().and_then(|code| i32::try_from(code).ok());
        code.ok_or_else(|| ApiError::Unfit("a container has no `StatusCode`".to_owned()))
    }

    async fn end_of(&self, id: &str, beats: &(dyn Fn() + Sync)) -> Result<ProcessAnswer, ApiError> {
        // One that writes too much is not waited for.
        self.output(id, true, beats).await?;
        let code = self.ends(id).await?;
        // Read again: what it wrote last may have come after its end was known.
        let output = self.output(id, false, beats).await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(ProcessAnswer { code, stdout: text(output.stdout), stderr: text(output.stderr) })
    }
}
