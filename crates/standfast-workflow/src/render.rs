//! A document as a picture, in Mermaid's flowchart language (<https://mermaid.js.org/syntax/flowchart.html>), which many forges
//! and editors draw. Pure.

use standfast_model::workflow::{
    Call, Delay, Document, EventFilter, Events, Expression, Kind, Named, RunKind, Schedule, Task, Template,
    Then, Uri,
};

/// Longest text in a node, in characters.
const TEXT_CHARS_MAX: usize = 48;

/// A document's tasks as a flowchart.
pub fn mermaid(document: &Document) -> String {
    let mut chart = Chart { text: "flowchart TD\n".to_owned(), next: 0, depth: 1 };
    let begin = match &document.schedule {
        None => "start".to_owned(),
        Some(Schedule::Every(period)) => format!("every {period}"),
        Some(Schedule::Cron(cron)) => match &document.options.schedule.time_zone {
            Some(zone) => format!("{cron} {}", zone.as_str()),
            None => cron.clone(),
        },
        Some(Schedule::After(period)) => format!("{period} after the last"),
        Some(Schedule::On(events)) => format!("on {}", awaited(events)),
    };
    chart.line(&format!("start([{}])", quoted(&begin)));
    let entry = chart.list(&document.tasks, Some("finish"));
    chart.line(&format!("start --> {}", entry.unwrap_or_else(|| "finish".to_owned())));
    chart.line("finish([\"end\"])");
    chart.text
}

struct Chart {
    text: String,
    next: usize,
    depth: usize,
}

impl Chart {
    fn line(&mut self, text: &str) {
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("t{}", self.next)
    }

    /// Draws the tasks of a list, and returns where it begins. Within a group nothing is drawn for what comes `after` the list.
    fn list(&mut self, tasks: &[Task], after: Option<&str>) -> Option<String> {
        let ids: Vec<String> = tasks.iter().map(|_| self.id()).collect();
        for (task, id) in tasks.iter().zip(&ids) {
            self.node(task, id);
        }
        for (index, (task, id)) in tasks.iter().zip(&ids).enumerate() {
            let next = ids.get(index + 1).map(String::as_str).or(after);
            let target = |then: &Then| match then {
                Then::Continue => next.map(str::to_owned),
                Then::Exit => after.map(str::to_owned),
                Then::End => Some("finish".to_owned()),
                Then::Task(name) => {
                    tasks.iter().position(|task| task.name == *name).and_then(|at| ids.get(at).cloned())
                }
            };
            let mut ways: Vec<(String, Option<String>)> = Vec::new();
            if let Kind::Switch(switch) = &task.kind {
                for case in &switch.cases {
                    let label = match &case.when {
                        Some(when) => format!("{}: {}", case.name, one_line(when)),
                        None => case.name.clone(),
                    };
                    ways.push((label, target(&case.then)));
                }
                if switch.cases.iter().all(|case| case.when.is_some()) {
                    ways.push(("none of them".to_owned(), target(&task.then)));
                }
            } else if !matches!(task.kind, Kind::Raise(_)) {
                ways.push((String::new(), target(&task.then)));
            }
            for (label, to) in ways {
                let Some(to) = to else { continue };
                let label = if label.is_empty() { String::new() } else { format!("|{}|", quoted(&label)) };
                self.line(&format!("{id} -->{label} {to}"));
            }
            if task.condition.is_some()
                && let Some(next) = next
            {
                self.line(&format!("{id} -.->|\"else\"| {next}"));
            }
        }
        ids.into_iter().next()
    }

    /// Draws a task: a box, or a group of boxes when it consists of tasks.
    fn node(&mut self, task: &Task, id: &str) {
        let condition = task.condition.as_ref().map(|when| format!("if {}", one_line(when)));
        let what = [Some(task.name.clone()), Some(describe(&task.kind)), condition];
        let lines: Vec<String> =
            what.into_iter().flatten().filter(|line| !line.is_empty()).map(|line| escaped(&line)).collect();
        let label = format!("\"{}\"", lines.join("<br>"));
        // A group's title has room for one line.
        let title = format!("\"{}\"", lines.join(": "));
        let (open, close) = match &task.kind {
            Kind::Switch(_) => ("{", "}"),
            Kind::Wait(_) | Kind::Listen(_) => ("{{", "}}"),
            Kind::Emit(_) => (">", "]"),
            Kind::Raise(_) => ("[/", "/]"),
            Kind::Call(_) | Kind::Run(_) => ("[[", "]]"),
            _ => ("[", "]"),
        };
        let lists: Vec<&[Task]> = task.kind.lists().into_iter().filter(|tasks| !tasks.is_empty()).collect();
        if lists.is_empty() {
            self.line(&format!("{id}{open}{label}{close}"));
            return;
        }
        self.line(&format!("subgraph {id} [{title}]"));
        self.depth += 1;
        match &task.kind {
            Kind::Fork(fork) => {
                for branch in &fork.branches {
                    let branch_id = self.id();
                    self.node(branch, &branch_id);
                }
            }
            Kind::Try(attempt) if !attempt.catch.tasks.is_empty() => {
                let tried = self.id();
                self.line(&format!("subgraph {tried} [\"try\"]"));
                self.depth += 1;
                self.list(&attempt.tasks, None);
                self.depth -= 1;
                self.line("end");
                if let Some(caught) = self.list(&attempt.catch.tasks, None) {
                    self.line(&format!("{tried} -.->|\"on error\"| {caught}"));
                }
            }
            _ => {
                for tasks in lists {
                    self.list(tasks, None);
                }
            }
        }
        self.depth -= 1;
        self.line("end");
    }
}

/// What a task does, in a few words.
fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Call(call) => match &**call {
            Call::Http(http) => format!("{} {}", text(&http.method), address(&http.endpoint.uri)),
            Call::Grpc(call) => format!("gRPC {}/{}", call.service, call.method),
            Call::OpenApi(call) => format!("OpenAPI {}", call.operation),
            Call::AsyncApi(_) => "AsyncAPI".to_owned(),
            Call::A2a(_) => "asks an agent".to_owned(),
            Call::Mcp(_) => "asks a tool".to_owned(),
            Call::Function(function) => format!("calls {}", function.name),
        },
        Kind::Emit(emit) => {
            let named = emit.with.iter().find(|(name, _)| name == "type");
            format!("emits {}", named.map(|(_, value)| text(value)).unwrap_or_default())
        }
        Kind::For(each) => format!("for each {} in {}", each.each, one_line(&each.list)),
        Kind::Fork(fork) if fork.compete => "side by side, the first counts".to_owned(),
        Kind::Fork(_) => "side by side".to_owned(),
        Kind::Listen(listen) => format!("waits for {}", awaited(&listen.to)),
        Kind::Raise(error) => match &**error {
            Named::Use(name) => format!("raises {name}"),
            Named::Here(error) => format!("raises {}", error.status),
        },
        Kind::Run(run) => match &run.kind {
            RunKind::Container(container) => format!("runs {}", text(&container.image)),
            RunKind::Script(script) => format!("runs a script in {}", script.language),
            RunKind::Shell(shell) => format!("runs {}", text(&shell.command)),
            RunKind::Workflow(flow) => format!("runs {}/{} {}", flow.namespace, flow.name, flow.version),
        },
        Kind::Try(attempt) if attempt.catch.retry.is_some() => "tried again on error".to_owned(),
        Kind::Wait(Delay::Fixed(period)) => format!("waits {period}"),
        Kind::Wait(Delay::Computed(expression)) => format!("waits {}", one_line(expression)),
        Kind::Do(_) | Kind::Set(_) | Kind::Switch(_) | Kind::Try(_) => String::new(),
    }
}

fn awaited(events: &Events) -> String {
    let named = |filter: &EventFilter| {
        let kind = filter.with.iter().find(|(name, _)| name == "type");
        kind.map_or_else(|| "an event".to_owned(), |(_, value)| text(value))
    };
    let joined =
        |filters: &[EventFilter], word: &str| filters.iter().map(named).collect::<Vec<_>>().join(word);
    match events {
        Events::One(filter) => named(filter),
        Events::All(filters) => joined(filters, " and "),
        Events::Any { filters, .. } if filters.is_empty() => "any event".to_owned(),
        Events::Any { filters, .. } => joined(filters, " or "),
    }
}

fn text(template: &Template) -> String {
    match template {
        Template::Value(serde_json::Value::String(text)) => text.clone(),
        Template::Value(value) => value.to_string(),
        Template::Expression(expression) => one_line(expression),
        _ => "…".to_owned(),
    }
}

fn address(uri: &Uri) -> String {
    match uri {
        Uri::Template(text) => text.clone(),
        Uri::Expression(expression) => one_line(expression),
    }
}

fn one_line(expression: &Expression) -> String {
    expression.text().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// A text for a label: short, and without what Mermaid or HTML would take for its own.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == TEXT_CHARS_MAX {
            out.push('…');
            break;
        }
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            // They would end the label, begin a character code, or make it Markdown.
            '"' | '`' => out.push('\''),
            '#' => out.push('＃'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
