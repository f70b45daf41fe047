//! Drafts to a stack: names resolve, nothing is there twice, files are read, nothing waits for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::diagnostics::shown;
use crate::dotenv;
use crate::id::{LoadName, ServiceName, StackName, ZoneName};
use crate::keys::{
    BodyDraft, Draft, EdgeDraft, EntryDraft, ExperimentDraft, ExternalDraft, FAULT, LifecycleDraft,
    LoadDraft, SecretDraft, Section, ServiceDraft, TlsDraft, TrafficDraft, Variable, fault_name,
};
use crate::lifecycle::LifecycleSink;
use crate::load::Reader;
use crate::secret::Secret;
use crate::shape::{Context, Pairs, Referent, Shape};
use crate::source::{At, Span, offset};
use crate::stack::{Body, Build, Deploy, Experiment, Invariant, Load, PublishedPort, Service, Stack};
use crate::traffic::{
    AccessLog, Certificate, Edge, External, FAULT_KEY_BYTES_MIN, Protocol, ReplicaTls, Tls, Traffic,
};
use crate::{routing, suggest, yaml};

/// The zone of a stack that declares none.
const DEFAULT_ZONE: &str = "a";

/// Makes the stack. `None` when something of it is missing, which was reported; other errors are reported beside a stack that
/// the caller then drops.
pub(crate) fn check(draft: Draft, cx: &mut Context<'_>, mut reader: Reader<'_>) -> Option<Stack> {
    let experiments = experiments(draft.experiments, cx, &mut reader);
    resolve(cx, draft.services.as_ref(), &draft.zones, &draft.load);
    let name = name(draft.name, cx, &reader);
    let zones = zones(draft.zones, cx);
    let invariants = invariants(draft.invariants, cx);

    let entries = draft.services?;
    ports(&entries, draft.edge.tls.as_ref(), cx);
    cycles(&entries, cx);
    let (mut services, mut externals) = (BTreeMap::new(), BTreeMap::new());
    for (name, entry) in entries {
        let name = name.value;
        match entry {
            Some(EntryDraft::Own(draft)) => {
                services.insert(name.clone(), service(name, *draft, cx, &mut reader));
            }
            Some(EntryDraft::External(draft)) => {
                externals.insert(name.clone(), external(name, *draft, cx, &mut reader));
            }
            None => {}
        }
    }
    let edge = edge(draft.edge, cx, &mut reader);
    let secrets = secrets(draft.secrets, cx, &reader);
    let lifecycle = draft.lifecycle.map(|draft| lifecycle(draft, &secrets, cx));

    let routes = match draft.routes {
        Section::There(routes) => routing::routes(routes, cx),
        Section::Absent | Section::Unusable => Vec::new(),
    };
    let mut finder = draft.routes_whole.then(|| routing::Finder::new(&routes));
    let load = match draft.load {
        Section::There(load) => load,
        Section::Absent | Section::Unusable => Vec::new(),
    };
    let mut loads = BTreeMap::new();
    for (name, draft) in load {
        let Some(draft) = draft else { continue };
        if let Some(finder) = &mut finder {
            finder.finds(&draft, cx);
        }
        loads.insert(name.value.clone(), self::load(name.value, draft, cx, &mut reader));
    }
    Some(Stack {
        name: name?,
        root: reader.root,
        zones,
        services,
        externals,
        edge,
        routes,
        load: loads,
        invariants,
        experiments,
        workflows: Vec::new(),
        secrets,
        lifecycle,
    })
}

/// Where lifecycle events are sent; the secret that is shown there must be one of the stack's.
fn lifecycle(
    draft: LifecycleDraft,
    secrets: &BTreeMap<String, Secret>,
    cx: &mut Context<'_>,
) -> LifecycleSink {
    if let Some(name) = draft.bearer.filter(|name| !secrets.contains_key(&name.value)) {
        let hint = match suggest::nearest(&name.value, secrets.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `secrets: {{{}: {{file: PATH}}}}`", name.value),
        };
        cx.reports.error_hint(name.span, format!("there is no secret `{}` in the stack", name.value), hint);
    }
    draft.sink
}

/// The secrets; each must be there, but none is kept.
fn secrets(
    drafts: Pairs<String, SecretDraft>,
    cx: &mut Context<'_>,
    reader: &Reader<'_>,
) -> BTreeMap<String, Secret> {
    let mut secrets = BTreeMap::new();
    for (name, draft) in drafts {
        let Some(draft) = draft else { continue };
        let secret = Secret { file: reader.root.join(&draft.file.value), format: draft.format };
        reader.reads_secret(&secret, &draft.file, cx);
        secrets.insert(name.value, secret);
    }
    secrets
}

/// Every name that refers to something refers to something that is there.
fn resolve(
    cx: &mut Context<'_>,
    services: Option<&Pairs<ServiceName, EntryDraft>>,
    zones: &Section<Vec<At<ZoneName>>>,
    load: &Section<Pairs<LoadName, LoadDraft>>,
) {
    let entries: Option<BTreeMap<&str, Option<&EntryDraft>>> = services
        .map(|services| services.iter().map(|(name, entry)| (name.value.as_str(), entry.as_ref())).collect());
    let names = |keep: fn(&Option<&EntryDraft>) -> bool| -> Option<BTreeSet<&str>> {
        Some(entries.as_ref()?.iter().filter(|(_, entry)| keep(entry)).map(|(name, _)| *name).collect())
    };
    let all = names(|_| true);
    let own = names(|entry| !matches!(entry, Some(EntryDraft::External(_))));
    let zones: Option<BTreeSet<&str>> = match zones {
        Section::There(zones) => Some(zones.iter().map(|zone| zone.value.as_str()).collect()),
        Section::Absent => Some(BTreeSet::from([DEFAULT_ZONE])),
        Section::Unusable => None,
    };
    let load: Option<BTreeSet<&str>> = match load {
        Section::There(load) => Some(load.iter().map(|(name, _)| name.value.as_str()).collect()),
        Section::Absent => Some(BTreeSet::new()),
        Section::Unusable => None,
    };
    for reference in std::mem::take(&mut cx.references) {
        let (what, known) = match reference.to {
            Referent::Target => ("service", &all),
            Referent::Service | Referent::Dependency => ("service", &own),
            Referent::Zone => ("zone", &zones),
            Referent::Load => ("load", &load),
            Referent::Use(_) => continue, // Only workflows have these.
        };
        let Some(known) = known else { continue };
        let entry = entries.as_ref().and_then(|entries| *entries.get(reference.name.as_str())?);
        if let Some((message, hint)) = entry.and_then(|entry| unfit(reference.to, &reference.name, entry)) {
            cx.reports.error_hint(reference.span, message, hint);
            continue;
        }
        if !known.contains(reference.name.as_str()) {
            let hint = if cx.reports.is_full() {
                String::new()
            } else {
                suggest::hint(&reference.name, known.iter().copied())
            };
            cx.reports.error_hint(reference.span, format!("there is no {what} `{}`", reference.name), hint);
        }
    }
}

/// Why a service that is there is not one that may be meant: what to say, and a hint.
fn unfit(to: Referent, name: &str, entry: &EntryDraft) -> Option<(String, &'static str)> {
    let traffic = match entry {
        EntryDraft::Own(draft) => &draft.traffic.policy,
        EntryDraft::External(draft) => &draft.traffic.policy,
    };
    match (to, entry) {
        (Referent::Dependency, EntryDraft::External(_)) => Some((
            format!("`{name}` is an external service, which is not started here"),
            "remove it: nothing waits for an external service",
        )),
        (Referent::Service, EntryDraft::External(_)) => Some((
            format!("`{name}` is an external service: it has no replicas and no state here"),
            "name a service that has a `command`",
        )),
        (Referent::Target, _) if traffic.protocol == Protocol::Tcp => Some((
            format!("`{name}` speaks tcp, and routes lead requests"),
            "offer it at a port of its own with `ports`",
        )),
        _ => None,
    }
}

fn name(given: Section<At<StackName>>, cx: &mut Context<'_>, reader: &Reader<'_>) -> Option<StackName> {
    match given {
        Section::There(name) => return Some(name.value),
        Section::Unusable => return None,
        Section::Absent => {}
    }
    let folder = reader.root.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = folder.replace(['_', '.', ' '], "-").parse().ok();
    if name.is_none() {
        let span = Span { source: 0, start: 0, end: 0 };
        let message =
            format!("the stack has no name, and its folder's name `{}` cannot be one", shown(&folder));
        cx.reports.error_hint(span, message, "add `name: …`, of a–z, 0–9 and `-`");
    }
    name
}

fn zones(section: Section<Vec<At<ZoneName>>>, cx: &mut Context<'_>) -> Vec<ZoneName> {
    let given = match section {
        Section::There(zones) => zones,
        Section::Absent => return DEFAULT_ZONE.parse().into_iter().collect(),
        Section::Unusable => Vec::new(),
    };
    let mut seen = BTreeSet::new();
    for zone in &given {
        if !seen.insert(&zone.value) {
            cx.reports.error_hint(
                zone.span,
                format!("the zone `{}` is there twice", zone.value),
                "remove one of them",
            );
        }
    }
    given.iter().map(|zone| zone.value.clone()).collect()
}

fn invariants(given: Vec<At<Invariant>>, cx: &mut Context<'_>) -> Vec<Invariant> {
    let mut seen = BTreeSet::new();
    for invariant in &given {
        if !seen.insert(invariant.value.name.as_str()) {
            let message = format!("two invariants are called `{}`", shown(&invariant.value.name));
            cx.reports.error_hint(invariant.span, message, "the report tells them apart by their names");
        }
    }
    given.into_iter().map(|invariant| invariant.value).collect()
}

/// Each experiment, those in files included.
fn experiments(
    drafts: Vec<ExperimentDraft>,
    cx: &mut Context<'_>,
    reader: &mut Reader<'_>,
) -> Vec<Experiment> {
    let mut experiments = Vec::with_capacity(drafts.len());
    for draft in drafts {
        match draft {
            ExperimentDraft::Ready(experiment) => experiments.push(experiment),
            ExperimentDraft::File(path) => {
                let decoded = reader.source(&path.value, path.span, true, cx).and_then(|source| {
                    let node = yaml::parse(
                        source,
                        &mut cx.reports,
                        "`docs/stack.md` shows what a stack consists of",
                    )?;
                    FAULT.decode(&node, cx)
                });
                let stem =
                    PathBuf::from(&path.value).file_stem().map(|stem| stem.to_string_lossy().into_owned());
                experiments.extend(decoded.map(|(name, fault)| Experiment {
                    name: name.or(stem).unwrap_or_else(|| fault_name(&fault)),
                    fault,
                }));
            }
        }
    }
    experiments
}

/// No port of this machine is published twice.
fn ports(entries: &Pairs<ServiceName, EntryDraft>, tls: Option<&TlsDraft>, cx: &mut Context<'_>) {
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    let published = |entry: &'_ Option<EntryDraft>| match entry {
        Some(EntryDraft::Own(draft)) => draft.ports.clone(),
        Some(EntryDraft::External(draft)) => draft.ports.clone(),
        None => Vec::new(),
    };
    let published = entries.iter().map(|(name, entry)| (name.value.as_str(), published(entry)));
    let tls = tls.map(|tls| tls.port.clone()).filter(|port| port.value != 0);
    for (name, ports) in published.chain([("gateway.tls", tls.into_iter().collect())]) {
        for port in ports {
            if let Some(other) = taken.insert(port.value, name) {
                let message = format!("port {} is published twice", port.value);
                let hint = format!("`{other}` has it already; choose another");
                cx.reports.error_hint(port.span, message, hint);
            }
        }
    }
}

/// No service waits for itself. Services that wait for nobody are taken away until none is left, or only those on a cycle and
/// those that wait for one; a walk among these must come back to where it was.
fn cycles(entries: &Pairs<ServiceName, EntryDraft>, cx: &mut Context<'_>) {
    let mut waits: BTreeMap<&ServiceName, Vec<&At<ServiceName>>> = entries
        .iter()
        .filter_map(|(name, entry)| match entry {
            Some(EntryDraft::Own(draft)) => {
                Some((&name.value, draft.depends_on.iter().map(|(other, _)| other).collect()))
            }
            _ => None,
        })
        .collect();
    let mut waited_for: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
    let mut open: BTreeMap<&ServiceName, usize> = BTreeMap::new();
    for (name, others) in &waits {
        let others = others.iter().filter(|other| waits.contains_key(&other.value));
        open.insert(name, others.clone().count());
        for other in others {
            waited_for.entry(&other.value).or_default().push(name);
        }
    }
    let mut free: Vec<&ServiceName> =
        open.iter().filter(|(_, open)| **open == 0).map(|(name, _)| *name).collect();
    loop {
        while let Some(name) = free.pop() {
            waits.remove(name);
            for waiting in waited_for.get(name).into_iter().flatten() {
                if let Some(count) = open.get_mut(waiting) {
                    *count = count.saturating_sub(1);
                    if *count == 0 && waits.contains_key(waiting) {
                        free.push(waiting);
                    }
                }
            }
        }
        let Some(first) = waits.keys().next().copied() else { return };
        let cycle = walk(first, &waits);
        let Some(last) = cycle.last() else { return };
        let names: Vec<String> =
            std::iter::once(last).chain(&cycle).map(|step| format!("`{}`", step.value)).collect();
        let message = format!("services wait for each other: {}", names.join(" → "));
        cx.reports.error_hint(last.span, message, "one of them must be able to start without the other");
        free.extend(cycle.iter().map(|step| &step.value));
    }
}

/// The steps of the cycle that a walk from `first` runs into. Every service in `waits` waits for one in `waits`.
fn walk<'a>(
    first: &'a ServiceName,
    waits: &BTreeMap<&'a ServiceName, Vec<&'a At<ServiceName>>>,
) -> Vec<&'a At<ServiceName>> {
    let mut steps: Vec<&At<ServiceName>> = Vec::new();
    let mut seen: BTreeMap<&ServiceName, usize> = BTreeMap::new();
    let mut at = first;
    loop {
        if let Some(begin) = seen.insert(at, steps.len()) {
            return steps.split_off(begin);
        }
        let next = waits.get(at).into_iter().flatten().find(|other| waits.contains_key(&other.value));
        let Some(next) = next else { return Vec::new() };
        steps.push(next);
        at = &next.value;
    }
}

fn service(name: ServiceName, draft: ServiceDraft, cx: &mut Context<'_>, reader: &mut Reader<'_>) -> Service {
    let environment = environment(&draft, cx, reader);
    let folder =
        |path: Option<String>| path.map_or_else(|| reader.root.clone(), |path| reader.root.join(path));
    Service {
        name,
        build: draft
            .build
            .map(|build| Build { command: build.command, working_dir: folder(build.working_dir) }),
        command: draft.command,
        working_dir: folder(draft.working_dir),
        environment,
        depends_on: draft.depends_on.into_iter().map(|(name, dependency)| (name.value, dependency)).collect(),
        healthcheck: draft.healthcheck,
        deploy: Deploy {
            replicas: draft.replicas,
            limits: draft.limits,
            update: draft.update,
            restart: draft.restart,
        },
        stop_grace_period: draft.stop_grace_period,
        ports: published(&draft.ports),
        traffic: traffic(draft.traffic, None, cx, reader),
    }
}

/// How requests are treated, with files that can be read. The host is that of the addresses, where they have one in common.
fn traffic(
    draft: TrafficDraft,
    host: Option<&str>,
    cx: &mut Context<'_>,
    reader: &mut Reader<'_>,
) -> Traffic {
    let Some(tls) = draft.tls else { return draft.policy };
    let server_name = tls.server_name.or_else(|| host.map(str::to_owned));
    if server_name.is_none() {
        let message = "whom the certificate must be for is not known";
        cx.reports.error_hint(tls.span, message, "add `server_name`");
    }
    let mut there = |path: At<String>| {
        reader.reads(&path, cx);
        reader.root.join(path.value)
    };
    let ca = tls.ca.map(&mut there);
    let certificate = tls.certificate.map(|own| Certificate { cert: there(own.cert), key: there(own.key) });
    let tls = ReplicaTls { server_name: server_name.unwrap_or_default(), ca, certificate };
    Traffic { tls: Some(tls), ..draft.policy }
}

fn published(ports: &[At<u16>]) -> Vec<PublishedPort> {
    ports.iter().map(|port| PublishedPort { published: port.value }).collect()
}

fn external(
    name: ServiceName,
    draft: ExternalDraft,
    cx: &mut Context<'_>,
    reader: &mut Reader<'_>,
) -> External {
    let first = draft.addresses.first().map(|address| address.host.clone());
    let host = first.filter(|first| draft.addresses.iter().all(|address| address.host == *first));
    External {
        name,
        addresses: draft.addresses,
        ports: published(&draft.ports),
        healthcheck: draft.healthcheck,
        traffic: traffic(draft.traffic, host.as_deref(), cx, reader),
    }
}

/// The gateway's edge, whose certificates and keys can be read.
fn edge(draft: EdgeDraft, cx: &mut Context<'_>, reader: &mut Reader<'_>) -> Edge {
    let mut there = |path: At<String>| {
        reader.reads(&path, cx);
        reader.root.join(path.value)
    };
    let tls = draft.tls.map(|tls| Tls {
        port: tls.port.value,
        certificates: tls
            .certificates
            .into_iter()
            .map(|one| Certificate { cert: there(one.cert), key: there(one.key) })
            .collect(),
        client_ca: tls.client_ca.map(&mut there),
    });
    let access_log = draft.access_log.map(|log| AccessLog {
        path: reader.root.join(log.path),
        format: log.format,
        sample: log.sample,
    });
    let fault_key_file = draft.fault_key_file.map(|path| {
        reader.reads_key(&path, FAULT_KEY_BYTES_MIN, cx);
        reader.root.join(path.value)
    });
    let EdgeDraft { proxy_protocol, otlp, limits, .. } = draft;
    Edge { tls, proxy_protocol, access_log, otlp, fault_key_file, limits }
}

/// `env_file` entries overlaid by `environment`.
fn environment(
    draft: &ServiceDraft,
    cx: &mut Context<'_>,
    reader: &mut Reader<'_>,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for file in &draft.env_files {
        let source = reader.source(&file.path.value, file.path.span, file.required, cx);
        let Some(source) = source.and_then(|number| Some((number, cx.reports.sources.get(number)?.clone())))
        else {
            continue;
        };
        let (number, held) = source;
        let (lines, problems) = dotenv::read(held.text());
        let span = |start, end| Span { source: number, start: offset(start), end: offset(end) };
        for problem in problems {
            cx.reports.error_hint(
                span(problem.start, problem.end),
                problem.message,
                "each line is `NAME=value`, a comment after `#`, or empty",
            );
        }
        for line in lines {
            let place = span(line.start, line.end);
            let value = match line.value {
                None => cx.variable(&line.name).map(str::to_owned),
                Some(value) if line.interpolated && value.contains('$') => {
                    cx.interpolate(&value, place, false, &|name| environment.get(name).cloned())
                }
                Some(value) => Some(value),
            };
            put(&mut environment, &line.name, value, place, cx);
        }
    }
    for Variable { name, value, span } in &draft.environment {
        let value = value.clone().or_else(|| cx.variable(name).map(str::to_owned));
        put(&mut environment, name, value, *span, cx);
    }
    environment
}

fn put(
    environment: &mut BTreeMap<String, String>,
    name: &str,
    value: Option<String>,
    span: Span,
    cx: &mut Context<'_>,
) {
    if name == "PORT" || name.starts_with("STANDFAST_") {
        let message = format!("`{}` has no effect: Standfast sets it for each replica", shown(name));
        cx.reports.warning(span, message, "choose another name, or remove it");
    }
    match value {
        Some(value) if value.contains('\0') => {
            cx.reports.error(span, format!("`{}` holds a NUL character", shown(name)));
        }
        Some(value) => {
            environment.insert(name.to_owned(), value);
        }
        None => {}
    }
}

fn load(name: LoadName, draft: LoadDraft, cx: &mut Context<'_>, reader: &mut Reader<'_>) -> Load {
    let workflow = draft.workflow;
    let started =
        workflow.as_ref().map(|workflow| format!("/workflows/v1/workflows/{}/runs", workflow.value));
    let idempotency_key = draft.idempotency_key || workflow.is_some();
    let own_type = draft.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).cloned();
    let body = draft.body.and_then(|body| match body {
        BodyDraft::Inline(body) => Some(body),
        BodyDraft::File(path) => file_body(&path, cx, reader),
    });
    let body = body.map(|body| match own_type {
        Some((_, content_type)) => Body { content_type, ..body },
        None => body,
    });
    if let Some(workflow) = &workflow
        && !body.as_ref().is_some_and(|body| body.text.contains("${id}"))
    {
        let hint = r#"give each run an input of its own: `body: {order_id: "${id}"}`"#;
        cx.reports.error_hint(workflow.span, "the input of the runs holds no `${id}`".to_owned(), hint);
    }
    Load {
        name,
        method: draft.method,
        path: draft.path.map(|path| path.value).or(started).unwrap_or_default(),
        workflow: workflow.map(|workflow| workflow.value),
        headers: draft.headers.into_iter().collect(),
        body,
        idempotency_key,
        rate_per_second: draft.rate_per_second,
        timeout: draft.timeout,
    }
}

/// The body in a file; one whose name ends in `.json` must be JSON whatever the id is.
fn file_body(path: &At<String>, cx: &mut Context<'_>, reader: &mut Reader<'_>) -> Option<Body> {
    let number = reader.source(&path.value, path.span, true, cx)?;
    let source = cx.reports.sources.get(number)?.clone();
    if !path.value.ends_with(".json") {
        let content_type = "text/plain; charset=utf-8".to_owned();
        return Some(Body { text: source.text().to_owned(), content_type });
    }
    // The stand-in is as long as `${id}`, so that places stay right, and good both within quotes and as a number.
    let sample = source.text().replace("${id}", "10000");
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&sample) {
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or_default().to_owned();
        let start = source.offset_of(error.line(), error.column());
        cx.reports
            .error(Span { source: number, start, end: start + 1 }, format!("this is not JSON: {message}"));
    }
    Some(Body { text: source.text().to_owned(), content_type: "application/json".to_owned() })
}
