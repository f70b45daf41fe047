//! Finding the running stack that a command is about.

use std::path::PathBuf;

use standfast_model::Stack;
use standfast_node::{AdminError, LaunchError, Running, SettingsError};
use standfast_platform::local::{AgentError, AgentInfo};
use standfast_runtime::{Clock, Net};

use super::Call;
use crate::args::StackArgs;
use crate::failure::Failure;

/// The stack as its files say, and where it keeps its state when it runs.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) stack: Stack,
    pub(crate) state_dir: PathBuf,
    /// How the user named the stack, for hints.
    pub(crate) named: String,
}

impl Call {
    /// Reads the stack and finds its state folder.
    pub(crate) fn place(&self, args: &StackArgs) -> Result<Place, Failure> {
        let stack = self.load(&args.stack)?;
        let state_dir = match &args.state {
            Some(folder) => self.surroundings.working_dir.join(folder),
            None => self
                .surroundings
                .state_folder(&stack.name, &stack.root)
                .map_err(|why| Failure::input(why).hint("name a folder with --state DIR"))?,
        };
        Ok(Place { stack, state_dir, named: args.stack.display().to_string() })
    }
}

impl Place {
    /// The interfaces of the stack, whether it runs or not.
    pub(crate) fn interfaces(&self) -> Running {
        Running::at(&self.state_dir, Net::real(), Clock::system())
    }

    /// The running stack.
    pub(crate) async fn running(&self) -> Result<(Running, AgentInfo), Failure> {
        let running = self.interfaces();
        match running.agent.info().await {
            Ok(info) => Ok((running, info)),
            Err(AgentError::Unreachable { source, .. }) => Err(self.not_running(&*source)),
            Err(error) => Err(Failure::because_of("the agent does not answer as it should", &error)),
        }
    }

    fn not_running(&self, source: &(dyn std::error::Error + 'static)) -> Failure {
        let mut cause = Some(source);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::PermissionDenied
            {
                return Failure::input(format!("no permission for {}", self.state_dir.display()))
                    .because(source)
                    .hint("use the account that started the stack");
            }
            cause = error.source();
        }
        Failure::input(format!("stack `{}` does not run", self.stack.name))
            .hint(format!("standfast up {} -d", self.named))
    }
}

/// An error of the node's admin interface, with the next step.
pub(crate) fn admin_failure(what: &str, error: &AdminError) -> Failure {
    match error {
        AdminError::Refused(answer) => {
            let mut failure = Failure::input(answer.message.clone());
            if answer.code == "moved" {
                failure = failure.hint("look at the new plan: standfast plan");
            }
            failure
        }
        AdminError::Unreachable { .. } => Failure::because_of(what, error)
            .hint("standfast logs shows what the services print; try again in a second"),
    }
}

/// An error of bringing a stack up, with the next step.
pub(crate) fn launch_failure(place: &Place, error: &LaunchError) -> Failure {
    let folder = place.state_dir.display();
    match error {
        LaunchError::Settings(SettingsError::OtherVersion { .. }) => Failure::input(error.to_string())
            .hint(format!("stop it with the version that started it, or use another folder with --state DIR, or remove {folder}")),
        LaunchError::Settings(SettingsError::Write { source, .. }) | LaunchError::Spawn { source, .. } => {
            let failure = Failure::input(format!("cannot use the state folder {folder}")).because(source);
            if source.kind() == std::io::ErrorKind::StorageFull {
                failure.hint("the disk is full: make room, or use another disk with --state DIR")
            } else {
                failure.hint("choose a folder that you may write to with --state DIR")
            }
        }
        LaunchError::PortInUse { .. } => Failure::input(error.to_string())
            .hint(format!("end that process, or choose another port: standfast up {} --listen 127.0.0.1:8081", place.named)),
        _ => Failure::because_of("cannot bring the stack up", error),
    }
}
