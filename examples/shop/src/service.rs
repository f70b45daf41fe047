//! The life of a replica: listen, answer until SIGTERM, finish what is in flight, end.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};

use crate::config::{BadConfig, Config};
use crate::log::Log;
use crate::problem::{Problem, json_text};

/// Requests at work at a time; one more is refused with 503. Waiting longer would help nobody.
const IN_FLIGHT_MAX: usize = 512;
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long requests in flight may take after SIGTERM: below `stop_grace_period` in standfast.yaml.
const DRAIN_MAX: Duration = Duration::from_secs(4);

struct Door {
    in_flight: Semaphore,
    log: Arc<Log>,
}

/// Runs a service to its end: the whole of its `main`.
pub fn main(service: &'static str, routes: fn(&Config) -> Result<Router, BadConfig>) -> ExitCode {
    let configured = Config::from_env().and_then(|config| Ok((routes(&config)?, config)));
    let (routes, config) = match configured {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("error: {service} cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    // One thread: a replica has half a core, and it mostly waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(service, routes, &config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {service} cannot serve at {}:{}: {error}", config.host, config.port);
            ExitCode::from(3)
        }
    }
}

async fn run(service: &'static str, routes: Router, config: &Config) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await?;
    let log = Arc::new(Log::new(service, &config.zone, &config.replica));
    log.line("info", "started", json!({"address": listener.local_addr()?.to_string()}));

    let stop_log = Arc::clone(&log);
    let stop = async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop_log.line("info", "stopping", json!({"drain_ms_max": DRAIN_MAX.as_millis() as u64}));
    };
    let finished_all = serve(listener, app(routes, Arc::clone(&log)), stop).await?;
    log.line("info", "stopped", json!({"finished_all": finished_all}));
    Ok(())
}

/// The routes with everything around them that each service has. For tests; [`main`] does the same.
pub fn app_for(service: &'static str, routes: Router) -> Router {
    app(routes, Arc::new(Log::new(service, "test", "test")))
}

fn app(routes: Router, log: Arc<Log>) -> Router {
    let door = Arc::new(Door { in_flight: Semaphore::new(IN_FLIGHT_MAX), log });
    let guarded = routes
        .fallback(|| async { Problem::not_found("nothing is served at this path") })
        .method_not_allowed_fallback(|| async {
            let message = "this path does not answer this method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(door, guard));
    // Outside the door: a full replica is ready still, and a replica does not fail because its peers do.
    Router::new()
        .route("/healthz", get(|| async { json_text(StatusCode::OK, r#"{"status":"up"}"#) }))
        .merge(guarded)
}

async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let Ok(_place) = door.in_flight.try_acquire() else {
        let message = format!("{IN_FLIGHT_MAX} requests are in flight here already");
        let problem = Problem { retry_after: FULL_RETRY_AFTER, ..Problem::unavailable(message) };
        door.log.trouble(problem.code, &problem.message);
        return problem.into_response();
    };
    let response = next.run(request).await;
    if let Some(problem) = response.extensions().get::<Problem>()
        && problem.status.is_server_error()
    {
        door.log.trouble(problem.code, &problem.message);
    }
    response
}

/// Serves until `stop`, then finishes what is in flight within a bound. Says whether all was finished.
async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<bool> {
    let (stopping, stopped) = oneshot::channel::<()>();
    // An answer is small and whole: waiting to fill a packet only delays it. A socket that is gone fails by itself later.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        drop(stopping);
    });
    tokio::select! {
        biased;
        served = serving.into_future() => served.map(|()| true),
        () = async { let _ = stopped.await; tokio::time::sleep(DRAIN_MAX).await } => Ok(false),
    }
}
