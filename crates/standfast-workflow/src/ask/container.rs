//! `run: container`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use standfast_model::workflow::{Cleanup, PullPolicy};

use super::Writing;
use super::process::{environment, written};
use crate::program::{Container, after};
use crate::run::{Problem, RunId, ScopeId, Standard};

/// Signs for which a command needs a shell.
const SHELL_SIGNS: &[char] = &[
    '"', '\'', '\\', '`', '$', '|', '&', ';', '<', '>', '(', ')', '{', '}', '[', ']', '*', '?', '~', '#',
    '!', '=', '\n',
];
/// Words that only a shell knows.
const SHELL_WORDS: &[&str] = &[
    ".", ":", "alias", "break", "case", "cd", "command", "continue", "eval", "exec", "exit", "export", "for",
    "if", "read", "return", "set", "shift", "source", "trap", "type", "ulimit", "umask", "unset", "until",
    "wait", "while",
];

/// A container to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRequest {
    /// Which attempt of which step this is: of each there is one container at most.
    pub step: (RunId, ScopeId),
    /// The image.
    pub image: String,
    /// What it is called; by its step unless that is said.
    pub name: Option<String>,
    /// What takes the place of the image's entrypoint; nothing does when empty.
    pub entrypoint: Vec<String>,
    /// What takes the place of the image's arguments; nothing does when empty, unless there is an entrypoint.
    pub arguments: Vec<String>,
    /// Its environment, besides what the image says.
    pub environment: Vec<(String, String)>,
    /// What can be reached from this machine.
    pub ports: Vec<ContainerPort>,
    /// What it sees of this machine's files.
    pub volumes: Vec<ContainerVolume>,
    /// What it reads.
    pub stdin: String,
    /// Whether the image is fetched.
    pub pull: PullPolicy,
    /// When it is removed.
    pub cleanup: Cleanup,
    /// How long after its end; zero but for [`Cleanup::Eventually`].
    pub after: Duration,
    /// Whether its end is waited for.
    pub awaited: bool,
}

/// A port of this machine that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// On this machine, at 127.0.0.1.
    pub outside: u16,
    /// In the container.
    pub inside: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
}

/// A folder or a file of this machine that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerVolume {
    /// On this machine; a relative path is one below the stack's folder.
    pub outside: PathBuf,
    /// In the container, absolute.
    pub inside: String,
    /// Whether the container can only read it.
    pub is_read_only: bool,
}

pub(super) fn request(
    writing: &Writing<'_>,
    container: &Container,
    step: (RunId, ScopeId),
) -> Result<ContainerRequest, Problem> {
    let object = |form: &Option<crate::program::Form>, what: &str| match form {
        None => Ok(Map::new()),
        Some(form) => match &*writing.fill(form)? {
            Value::Null => Ok(Map::new()),
            Value::Object(fields) => Ok(fields.clone()),
            _ => Err(wrong(format!("`{what}` must be an object"))),
        },
    };
    let text = |form: &Option<crate::program::Form>| match form {
        Some(form) => Ok(written(&*writing.fill(form)?)),
        None => Ok::<_, Problem>(String::new()),
    };
    let name = text(&container.name)?;
    if !name.is_empty() && !is_name(&name) {
        return Err(wrong(format!(
            "`name` is `{name}`: a container is named by letters, digits, `_`, `.` and `-`"
        )));
    }
    let image = writing.text(&container.image)?;
    if image.is_empty() || image.contains(char::is_whitespace) {
        return Err(wrong(format!("`image` is `{image}`, which names no image")));
    }
    let arguments = container.arguments.iter().map(|form| Ok(written(&*writing.fill(form)?)));
    let ports = object(&container.ports, "ports")?;
    let volumes = object(&container.volumes, "volumes")?;
    let after = match container.after {
        None => Duration::ZERO,
        Some(length) => {
            let now = writing.seeing.now;
            after(now, writing.seeing.period(length, writing.input, &writing.sight)?).since(now)
        }
    };
    Ok(ContainerRequest {
        step,
        image,
        name: (!name.is_empty()).then_some(name),
        entrypoint: entrypoint(&text(&container.command)?),
        arguments: arguments.collect::<Result<_, Problem>>()?,
        environment: environment(&Value::Object(object(&container.environment, "environment")?))?,
        ports: ports.iter().map(|(outside, inside)| port(outside, inside)).collect::<Result<_, _>>()?,
        volumes: volumes.iter().map(|(outside, inside)| volume(outside, inside)).collect::<Result<_, _>>()?,
        stdin: text(&container.stdin)?,
        pull: container.pull,
        cleanup: container.cleanup,
        after,
        awaited: container.awaited,
    })
}

fn wrong(detail: String) -> Problem {
    Standard::Configuration.problem(detail)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|sign| sign.is_ascii_alphanumeric() || "_.-".contains(sign))
        && (2..=200).contains(&text.len())
}

/// Plain words are run as they are, so that an image without a shell will do; all else is for the shell of the image, to which the
/// arguments are `$1`, `$2` and so on.
fn entrypoint(command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let needs_shell =
        command.contains(SHELL_SIGNS) || words.first().is_some_and(|first| SHELL_WORDS.contains(first));
    match needs_shell {
        true => ["/bin/sh", "-c", command, "sh"].map(str::to_owned).to_vec(),
        false => words.into_iter().map(str::to_owned).collect(),
    }
}

fn port(outside: &str, inside: &Value) -> Result<ContainerPort, Problem> {
    let inside = written(inside);
    let fail = || {
        wrong(format!(
            "`ports` cannot hold `{outside}: {inside}`: a port of this machine and one of the container, like `8080: 80` or `5353: 53/udp`"
        ))
    };
    let (number, protocol) = inside.split_once('/').unwrap_or((&inside, "tcp"));
    let protocol = ["tcp", "udp", "sctp"].into_iter().find(|known| *known == protocol).ok_or_else(fail)?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(fail);
    Ok(ContainerPort { outside: port(outside)?, inside: port(number)?, protocol })
}

fn volume(outside: &str, inside: &Value) -> Result<ContainerVolume, Problem> {
    let text = written(inside);
    let (inside, is_read_only) = match text.rsplit_once(':') {
        Some((inside, "ro")) => (inside, true),
        Some((inside, "rw")) => (inside, false),
        _ => (text.as_str(), false),
    };
    let is_fit = inside.starts_with('/') && !inside.contains(':') && !outside.is_empty();
    if !is_fit || outside.contains('\0') || inside.contains('\0') {
        return Err(wrong(format!(
            "`volumes` cannot hold `{outside}: {text}`: a path of this machine and an absolute one in the container, like `data: /data` or `data: /data:ro`"
        )));
    }
    Ok(ContainerVolume { outside: outside.into(), inside: inside.to_owned(), is_read_only })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_words_need_no_shell_and_all_else_has_one() {
        assert_eq!(entrypoint(""), Vec::<String>::new());
        assert_eq!(entrypoint(" /app/tool  --fast\t"), ["/app/tool", "--fast"]);
        for command in ["echo 'a b'", "exit 3", "a | b", "A=1 b", "ls *"] {
            assert_eq!(entrypoint(command), ["/bin/sh", "-c", command, "sh"], "{command}");
        }
    }

    #[test]
    fn ports_and_volumes_are_what_they_must_be() {
        let found = port("5353", &json!("53/udp")).unwrap();
        assert_eq!((found.outside, found.inside, found.protocol), (5353, 53, "udp"));
        assert_eq!(port("80", &json!(8080)).unwrap().protocol, "tcp");
        for (outside, inside) in
            [("0", json!(1)), ("1", json!(0)), ("x", json!(1)), ("1", json!("1/icmp")), ("1", json!(70_000))]
        {
            assert!(port(outside, &inside).is_err(), "{outside}: {inside}");
        }
        let found = volume("data", &json!("/data:ro")).unwrap();
        assert_eq!((found.inside.as_str(), found.is_read_only), ("/data", true));
        assert!(!volume("/srv", &json!("/data")).unwrap().is_read_only);
        for (outside, inside) in [("a", "data"), ("", "/a"), ("a", "/b:/c"), ("a\0", "/b")] {
            assert!(volume(outside, &json!(inside)).is_err(), "{outside}: {inside}");
        }
        assert!(is_name("a-1.b_c") && !is_name("-a") && !is_name("a/b") && !is_name("a"));
    }
}
