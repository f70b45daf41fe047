//! The keys of `standfast.yaml`: one description each, from which decoding, suggestions and the JSON Schema come.
//!
//! Decoding yields drafts: checked by themselves, not yet against each other. `check` makes the [`Stack`](crate::Stack) of them.

mod compose;
mod edge;
mod environment;
mod external;
mod filters;
mod health;
mod http;
mod kept;
mod load;
mod otlp;
mod proof;
mod route;
mod secrets;
mod service;
mod traffic;
mod workflows;

pub(crate) use edge::{EdgeDraft, TlsDraft};
pub(crate) use environment::{Variable, is_variable};
pub(crate) use external::ExternalDraft;
pub(crate) use http::is_host;
pub(crate) use load::{BodyDraft, LoadDraft};
pub(crate) use proof::{ExperimentDraft, FAULT, fault_name};
pub(crate) use route::REGEX_SIZE_MAX;
pub(crate) use secrets::SecretDraft;
pub(crate) use service::ServiceDraft;

use crate::id::{LoadName, ServiceName, StackName, ZoneName};
use crate::shape::{ByKey, Fields, KeepsId, Keyed, List, Name, NameKeys, Object, Pairs, Shape};
use crate::source::At;
use crate::stack::Invariant;
pub(crate) use traffic::TrafficDraft;

pub(crate) use workflows::LifecycleDraft;

use crate::traffic::Route;

/// Everything in `standfast.yaml`, decoded. `None` where a whole section is absent or unusable.
pub(crate) struct Draft {
    pub(crate) name: Section<At<StackName>>,
    pub(crate) zones: Section<Vec<At<ZoneName>>>,
    pub(crate) services: Option<Pairs<ServiceName, EntryDraft>>,
    /// Routes whose services may not exist.
    pub(crate) routes: Section<Vec<At<Route>>>,
    /// Whether no route was left out because of a mistake.
    pub(crate) routes_whole: bool,
    pub(crate) edge: EdgeDraft,
    pub(crate) secrets: Pairs<String, SecretDraft>,
    pub(crate) lifecycle: Option<LifecycleDraft>,
    pub(crate) load: Section<Pairs<LoadName, LoadDraft>>,
    pub(crate) invariants: Vec<At<Invariant>>,
    pub(crate) experiments: Vec<ExperimentDraft>,
}

/// An entry of `services`.
pub(crate) enum EntryDraft {
    Own(Box<ServiceDraft>),
    External(Box<ExternalDraft>),
}

/// A section that may be absent. One that is there but unusable was reported; nothing is to be concluded from its content.
pub(crate) enum Section<T> {
    Absent,
    Unusable,
    There(T),
}

impl<T> Section<T> {
    fn read<S: Shape<Value = T>>(f: &mut Fields<'_, '_>, name: &'static str, doc: &str, shape: S) -> Self {
        let there = f.place_of(name).is_some();
        match f.optional(name, doc, shape) {
            Some(value) => Self::There(value),
            None if there => Self::Unusable,
            None => Self::Absent,
        }
    }
}

/// The whole file.
pub(crate) const STACK: Object<Draft> = Object {
    doc: "A Standfast stack: services, how they are reached, loaded and broken, and what must hold.",
    read: stack,
};

fn stack(f: &mut Fields<'_, '_>) -> Option<Draft> {
    let name = Section::read(
        f,
        "name",
        "The stack's name: a–z, 0–9 and `-`. Default: the folder's name.",
        Name::new("a stack name").at(),
    );
    let zones = Section::read(
        f,
        "zones",
        "Failure domains over which replicas are spread. Default: [a].",
        List { item: Name::new("a zone name").at(), min: 1 },
    );
    let services = f.required(
        "services",
        "The services by name, with Compose's keys; one with `external` is not started here.",
        Keyed { keys: NameKeys::new("a service name"), item: entry(), min: 1 },
    );
    let errors = f.errors();
    let routes = Section::read(
        f,
        "routes",
        "Rules for requests from outside, of which the most specific wins.",
        List { item: route::ROUTE.at(), min: 0 },
    );
    let routes_whole = f.errors() == errors;
    let edge = f.optional("gateway", edge::EDGE.doc, edge::EDGE);
    let load = Section::read(
        f,
        "load",
        "What `prove` sends, by name. `${id}` stands for the request's own id and is not interpolated.",
        KeepsId(Keyed { keys: NameKeys::new("a load name"), item: load::LOAD, min: 0 }),
    );
    let invariants = f.optional(
        "invariants",
        "What must hold whatever happens.",
        List { item: proof::INVARIANT.at(), min: 0 },
    );
    let experiments = f.optional(
        "experiments",
        "What `prove` breaks, in this order: built-in names, mappings, or files that hold such a mapping.",
        List { item: proof::experiment(), min: 0 },
    );
    let secrets = f.optional(
        "secrets",
        "Secrets that workflows may count on, by name: files outside of git.",
        secrets::SECRETS,
    );
    let workflows = f.optional("workflows", workflows::WORKFLOWS.doc, workflows::WORKFLOWS);
    f.refused(compose::STACK_REFUSED);
    f.ignored(compose::STACK_IGNORED);
    Some(Draft {
        name,
        zones,
        services,
        routes,
        routes_whole,
        edge: edge.unwrap_or_default(),
        secrets: secrets.unwrap_or_default(),
        lifecycle: workflows.flatten(),
        load,
        invariants: invariants.unwrap_or_default(),
        experiments: experiments.unwrap_or_default(),
    })
}

fn entry() -> impl Shape<Value = EntryDraft> {
    ByKey {
        key: "external",
        with: external::EXTERNAL.and_then(|draft, _, _| Some(EntryDraft::External(Box::new(draft)))),
        without: service::SERVICE.and_then(|draft, _, _| Some(EntryDraft::Own(Box::new(draft)))),
    }
}
