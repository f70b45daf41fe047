//! The keys of `standfast.yaml`: one description each, from which decoding, suggestions and the JSON Schema come.
//!
//! Decoding yields drafts: checked by themselves, not yet against each other. `check` makes the [`Stack`](crate::Stack) of them.

mod compose;
mod environment;
mod health;
mod proof;
mod service;
mod traffic;

pub(crate) use environment::{Variable, is_variable};
pub(crate) use proof::{ExperimentDraft, FAULT, fault_name};
pub(crate) use service::ServiceDraft;
pub(crate) use traffic::{BodyDraft, LoadDraft, RouteDraft};

use crate::id::{LoadName, ServiceName, StackName, ZoneName};
use crate::shape::{Fields, KeepsId, Keyed, List, Name, NameKeys, Object, Pairs, Shape};
use crate::source::At;
use crate::stack::Invariant;

/// Everything in `standfast.yaml`, decoded. `None` where a whole section is absent or unusable.
pub(crate) struct Draft {
    pub(crate) name: Section<At<StackName>>,
    pub(crate) zones: Section<Vec<At<ZoneName>>>,
    pub(crate) services: Option<Pairs<ServiceName, ServiceDraft>>,
    pub(crate) routes: Section<Vec<At<RouteDraft>>>,
    pub(crate) load: Section<Pairs<LoadName, LoadDraft>>,
    pub(crate) invariants: Vec<At<Invariant>>,
    pub(crate) experiments: Vec<ExperimentDraft>,
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
        "The services by name, with Compose's keys.",
        Keyed { keys: NameKeys::new("a service name"), item: service::SERVICE, min: 1 },
    );
    let routes = Section::read(
        f,
        "routes",
        "Rules for requests from outside: the most specific host, then the longest path prefix wins.",
        List { item: traffic::ROUTE.at(), min: 0 },
    );
    let load = Section::read(
        f,
        "load",
        "What `prove` sends, by name. `${id}` stands for the request's own id and is not interpolated.",
        KeepsId(Keyed { keys: NameKeys::new("a load name"), item: traffic::LOAD, min: 0 }),
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
    f.refused(compose::STACK_REFUSED);
    f.ignored(compose::STACK_IGNORED);
    Some(Draft {
        name,
        zones,
        services,
        routes,
        load,
        invariants: invariants.unwrap_or_default(),
        experiments: experiments.unwrap_or_default(),
    })
}
