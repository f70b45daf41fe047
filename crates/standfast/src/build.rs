//! Runs the services' build commands, each distinct one once.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use standfast_model::{Build, ServiceName, Stack};

use crate::output::{Output, Progress};

/// Lines of a failed build that are shown.
const TAIL_LINES: usize = 40;

/// A build that failed.
#[derive(Debug)]
pub(crate) struct BuildFailure {
    pub(crate) services: Vec<ServiceName>,
    pub(crate) build: Build,
    pub(crate) outcome: String,
    pub(crate) output: Vec<String>,
}

/// Builds what the stack says must be built; the builds' own output is shown only as progress, or when one fails.
pub(crate) fn build(stack: &Stack, output: Output) -> Result<(), BuildFailure> {
    let mut builds: Vec<(Build, Vec<ServiceName>)> = Vec::new();
    for service in stack.services.values() {
        let Some(build) = &service.build else { continue };
        match builds.iter_mut().find(|(known, _)| known == build) {
            Some((_, services)) => services.push(service.name.clone()),
            None => builds.push((build.clone(), vec![service.name.clone()])),
        }
    }
    for (build, services) in builds {
        let names: Vec<_> = services.iter().map(ServiceName::as_str).collect();
        let title = format!("building {}: {}", names.join(", "), build.command.join(" "));
        let mut progress = output.progress(&title);
        if let Err((outcome, lines)) = run(&build, &title, &mut progress) {
            return Err(BuildFailure { services, build, outcome, output: lines });
        }
    }
    Ok(())
}

fn run(build: &Build, title: &str, progress: &mut Progress) -> Result<(), (String, Vec<String>)> {
    let Some((program, arguments)) = build.command.split_first() else { return Ok(()) };
    // Both streams into one pipe, so that the order of lines is kept and neither can fill up unread.
    let (reader, writer) = std::io::pipe().map_err(|error| (format!("no pipe: {error}"), Vec::new()))?;
    let second = writer.try_clone().map_err(|error| (format!("no pipe: {error}"), Vec::new()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(&build.working_dir)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(second)
        .spawn()
        .map_err(|error| (format!("cannot run `{program}`: {error}"), Vec::new()))?;
    let mut tail = std::collections::VecDeque::new();
    for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        progress.set(format!("{title} · {}", line.trim_start()), false);
        tail.push_back(line);
        if tail.len() > TAIL_LINES {
            tail.pop_front();
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err((format!("it ended with {status}"), tail.into())),
        Err(error) => Err((format!("cannot wait for it: {error}"), tail.into())),
    }
}
