//! The command line: arguments in, one command, text and an exit code out.
//!
//! The way through: [`main`] reads the surroundings once, [`args::Cli`] says what is wanted, one function of [`commands`] does it. What runs for long is
//! `agent` and `node`, both this same program; `up` and `prove` start the agent, the agent starts the node.

mod args;
mod build;
mod commands;
mod exit;
mod failure;
mod fault_args;
mod migrate_args;
mod output;
mod place;
mod workflow_args;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::commands::Call;
use crate::failure::Failure;
use crate::output::Output;
use crate::place::Surroundings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse(); // ends the process with code 2 and a usage text when the arguments are wrong
    let surroundings = match surroundings() {
        Ok(surroundings) => surroundings,
        Err(error) => {
            eprintln!(
                "error: cannot find out where this program is, or in which folder it was called: {error}"
            );
            return ExitCode::from(exit::FAILED);
        }
    };
    let output = Output::new(cli.colour, surroundings.no_colour());
    let call = Call { output, surroundings };
    match run(cli.command, &call) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print(output);
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command, call: &Call) -> Result<u8, Failure> {
    match command {
        Command::Check(args) => commands::check::check(&args, call),
        Command::Workflow(args) => commands::workflow::workflow(&args, call),
        Command::Schema => commands::check::schema(call),
        Command::Completions { shell } => commands::check::completions(shell, call),
        Command::Up(args) => commands::up::up(args, call),
        Command::Down(args) => commands::down::down(&args, call),
        Command::Status(args) => commands::status::status(&args, call),
        Command::Logs(args) => commands::logs::logs(&args, call),
        Command::Restart(args) => commands::change::restart(&args, call),
        Command::Plan(args) => commands::change::plan(&args, call),
        Command::Apply(args) => commands::change::apply(&args, call),
        Command::Fault(args) => commands::fault::fault(&args, call),
        Command::Gateway(args) => commands::gateway::gateway(&args, call),
        Command::WhyRequest(args) => commands::why::why(&args, call),
        Command::Prove(args) => commands::prove::prove(args, call),
        Command::Agent(args) => commands::processes::agent(&args, call),
        Command::Node(args) => commands::processes::node(&args, call),
        Command::ServeExpressions => commands::processes::serve_expressions(),
    }
}

fn surroundings() -> std::io::Result<Surroundings> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Ok(Surroundings {
        variables,
        executable: std::env::current_exe()?,
        working_dir: std::env::current_dir()?,
        temporary: std::env::temp_dir(),
    })
}
