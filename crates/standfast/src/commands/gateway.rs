//! `gateway`: the gateway by itself, before services that others run.

use std::net::SocketAddr;

use standfast_node::{AloneError, AloneObserver, AloneOptions, run_gateway};
use standfast_runtime::{Clock, Net};

use super::Call;
use super::processes::log_to_stderr;
use crate::args::GatewayArgs;
use crate::exit;
use crate::failure::Failure;

/// Runs until Ctrl-C or SIGTERM.
pub(crate) fn gateway(args: &GatewayArgs, call: &Call) -> Result<u8, Failure> {
    let stack = call.load(&args.stack)?;
    if stack.externals.is_empty() {
        return Err(Failure::input("the stack has no external service for the gateway to stand before").hint(
            "give a service `external: [HOST:PORT, …]`; services with a `command` are run by `standfast up`",
        ));
    }
    if !stack.services.is_empty() {
        let names: Vec<&str> = stack.services.keys().map(standfast_model::ServiceName::as_str).collect();
        call.output.note(format!("not started here: {} (`standfast up` does that)", names.join(", ")));
    }
    log_to_stderr();
    let workers = args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let options = AloneOptions { listen: args.listen, workers, admin: args.admin, otlp: call.otlp() };
    let reread = || {
        call.load(&args.stack).map_err(|failure| {
            failure.print(call.output);
            "it has errors".to_owned()
        })
    };
    call.block_on(async {
        run_gateway(stack, options, reread, &Said { call, json: args.json }, Net::real(), Clock::system())
            .await
            .map_err(|error| gateway_failure(&error))
    })?;
    Ok(exit::DONE)
}

fn gateway_failure(error: &AloneError) -> Failure {
    match error {
        AloneError::Listen { address, .. } => Failure::input("the gateway cannot start").because(error).hint(
            format!("who listens there: ss -ltnp 'sport = :{}'; another address: --listen", address.port()),
        ),
        AloneError::Admin { .. } => {
            Failure::input("the gateway cannot start").because(error).hint("choose another address: --admin")
        }
        _ => Failure::because_of("the gateway cannot start", error),
    }
}

/// Tells what happens.
struct Said<'a> {
    call: &'a Call,
    json: bool,
}

impl AloneObserver for Said<'_> {
    fn listens(&self, at: &[(String, SocketAddr)], admin: Option<SocketAddr>) {
        if self.json {
            let all: std::collections::BTreeMap<_, _> =
                at.iter().map(|(name, address)| (name, address)).collect();
            let told = serde_json::json!({ "listens": all, "admin": admin });
            if let Err(failure) = self.call.output.data(&format!("{told}\n")) {
                failure.print(self.call.output); // It serves all the same.
            }
            return;
        }
        for (name, address) in at {
            self.call.output.note(format!("{name} at {address}"));
        }
        self.call.output.note(match admin {
            Some(address) if address.ip().is_loopback() => {
                format!("metrics at http://{address}/metrics; why-request: --gateway http://{address}")
            }
            Some(address) => {
                format!("metrics at http://{address}/metrics; requests are told at loopback addresses only")
            }
            None => "metrics and why-request: with --admin 127.0.0.1:9464".to_owned(),
        });
        self.call.output.note("Ctrl-C ends it; SIGHUP reads the stack again");
    }

    fn reread(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.call.output.note("the stack was read again"),
            Err(why) => {
                self.call.output.note(format!("the stack was not taken, the last one goes on: {why}"))
            }
        }
    }
}
