//! `run: container`.

use standfast_model::workflow as language;

use super::Building;
use crate::program::{Container, Step};

impl Building<'_> {
    pub(super) fn container(
        &mut self,
        container: &language::Container,
        run: &language::Run,
        pointer: &str,
    ) -> Step {
        // Who publishes a function has no say over files of this machine.
        if container.volumes.is_some() && self.is_from_network {
            return self.cannot(pointer, "a container with volumes, in a function from elsewhere,");
        }
        Step::Container(Box::new(Container {
            image: self.form(&container.image),
            name: self.optional(container.name.as_ref()),
            command: self.optional(container.command.as_ref()),
            arguments: container.arguments.iter().map(|argument| self.form(argument)).collect(),
            ports: self.optional(container.ports.as_ref()),
            volumes: self.optional(container.volumes.as_ref()),
            environment: self.optional(container.environment.as_ref()),
            stdin: self.optional(container.stdin.as_ref()),
            pull: container.pull,
            cleanup: container.lifetime.cleanup,
            after: container.lifetime.after.as_ref().map(|after| self.length(after)),
            awaited: run.awaited,
            result: run.result,
        }))
    }
}
