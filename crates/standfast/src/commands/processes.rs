//! The hidden commands: what `up` and `prove` start, and what evaluates expressions for workflows.

use standfast_runtime::{Clock, Net};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Call;
use crate::args::ProcessArgs;
use crate::exit;
use crate::failure::Failure;

/// Runs an agent until it is told to take everything down.
pub(crate) fn agent(args: &ProcessArgs, call: &Call) -> Result<u8, Failure> {
    log_to_stderr();
    call.block_on(async {
        standfast_node::run_agent(&args.state, Net::real(), Clock::system())
            .await
            .map_err(|error| Failure::because_of("the agent stopped", &error))
    })?;
    Ok(exit::DONE)
}

/// Runs a node until SIGTERM.
pub(crate) fn node(args: &ProcessArgs, call: &Call) -> Result<u8, Failure> {
    log_to_stderr();
    call.block_on(async {
        standfast_node::run_node(&args.state, Net::real(), Clock::system())
            .await
            .map_err(|error| Failure::because_of("the node stopped", &error))
    })?;
    Ok(exit::DONE)
}

/// Evaluates expressions until standard input ends.
pub(crate) fn serve_expressions() -> Result<u8, Failure> {
    standfast_workflow::serve_expressions()
        .map_err(|error| Failure::because_of("expressions cannot be evaluated", &error))?;
    Ok(exit::DONE)
}

/// Log lines of a process that runs on go to stderr; what `up` and `prove` start has a file there.
pub(crate) fn log_to_stderr() {
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    // What this library warns of, any client can have it say as often as it likes.
    let levels = Targets::new().with_default(Level::INFO).with_target("h2", Level::ERROR);
    tracing_subscriber::registry().with(lines).with(levels).init();
}
