//! Finding the running stack that a command is about.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use standfast_model::Stack;
use standfast_node::{AdminError, LaunchError, Running, SettingsError, last_words};
use standfast_platform::local::{AgentError, AgentInfo};
use standfast_runtime::http::ClientError;
use standfast_runtime::{Clock, Net};

use super::Call;
use crate::args::StackArgs;
use crate::failure::Failure;
use crate::output::Paint;

/// How often an agent that dies under a call is looked for, and how long after each try.
const LOOKS_MAX: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
        self.place_of(stack, args)
    }

    /// The same for commands that do not need the workflows: a document that cannot be run is a warning.
    pub(crate) fn place_despite_workflows(&self, args: &StackArgs) -> Result<Place, Failure> {
        let (stack, unread) = self.load_despite_workflows(&args.stack)?;
        let checked = match unread {
            Some(why) => Err(why),
            None => self.check_workflows(&args.stack, &stack),
        };
        if let Err(why) = checked {
            self.output.note(format!("{} {}", self.output.paint(Paint::Warn, "warning:"), why.told()));
        }
        self.place_of(stack, args)
    }

    fn place_of(&self, stack: Stack, args: &StackArgs) -> Result<Place, Failure> {
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
        self.running_if_any().await?.ok_or_else(|| {
            Failure::input(format!("stack `{}` does not run", self.stack.name))
                .hint(format!("standfast up {} -d", self.named))
        })
    }

    /// The running stack; `None` when it certainly does not run.
    pub(crate) async fn running_if_any(&self) -> Result<Option<(Running, AgentInfo)>, Failure> {
        let running = self.interfaces();
        let mut looks_left = LOOKS_MAX;
        loop {
            looks_left -= 1;
            let error = match running.agent.info().await {
                Ok(info) => return Ok(Some((running, info))),
                Err(error) => error,
            };
            let AgentError::Unreachable { source, .. } = &error else {
                return Err(Failure::because_of("the agent does not answer as it should", &error));
            };
            match (source.downcast_ref::<ClientError>(), io_kind(&**source)) {
                (_, Some(ErrorKind::PermissionDenied)) => return Err(self.no_permission(&**source)),
                // One that was killed under the call: the next look finds its successor, or nobody.
                (Some(ClientError::Broken { .. }), _) if looks_left > 0 => {
                    Clock::system().sleep(LOOK_AGAIN).await;
                }
                (Some(ClientError::TimedOut { .. } | ClientError::Broken { .. }), _) => {
                    let name = &self.stack.name;
                    return Err(Failure::because_of(
                        format!("the agent of stack `{name}` does not answer"),
                        &error,
                    )
                    .hint(format!(
                        "try again in a second; what it last said is in {}",
                        self.state_dir.join("logs/agent.log").display()
                    )));
                }
                _ => return Ok(None),
            }
        }
    }

    fn no_permission(&self, source: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::input(format!("no permission for the state folder {}", self.state_dir.display()))
            .because(source)
            .hint(format!(
                "{}use the account that started the stack, or name a folder of your own with --state DIR",
                owner_of(&self.state_dir).map(|owner| format!("{owner}; ")).unwrap_or_default()
            ))
    }
}

/// Whether who was asked is there, and has not answered in time.
fn has_timed_out(source: &(dyn std::error::Error + 'static)) -> bool {
    matches!(source.downcast_ref::<ClientError>(), Some(ClientError::TimedOut { .. }))
}

/// The kind of the input or output error that an error comes from.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

/// Whose a folder is, or the innermost one above it that can be seen.
fn owner_of(folder: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    folder.ancestors().find_map(|folder| {
        let owner = std::fs::metadata(folder).ok()?.uid();
        Some(format!("{} belongs to user {owner}", folder.display()))
    })
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
        AdminError::NoGateway { .. } => Failure::input(what)
            .because(error)
            .hint("the address is what `standfast gateway --admin` was given"),
        AdminError::Unreachable { source, .. } if has_timed_out(&**source) => Failure::because_of(what, error)
            .hint("standfast status says whether it waits, for room on its disk for example; a start with --key may be sent again"),
        AdminError::Unreachable { socket, .. } => {
            let said = socket.parent().map(|state_dir| last_words(state_dir, "node.log"));
            let hint = match said.filter(|said| said.starts_with("error: ")) {
                Some(said) => format!("it is started anew all the time; it last ended with {said}"),
                None => "standfast logs shows what the services print; try again in a second".to_owned(),
            };
            Failure::because_of(what, error).hint(hint)
        }
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
        LaunchError::Listen { source, .. } => {
            let why = if source.kind() == ErrorKind::PermissionDenied {
                "low ports are root's (see net.ipv4.ip_unprivileged_port_start); "
            } else {
                ""
            };
            Failure::input(error.to_string())
                .because(source)
                .hint(format!("{why}choose another address: standfast up {} --listen 127.0.0.1:8080", place.named))
        }
        _ => Failure::because_of("cannot bring the stack up", error),
    }
}
