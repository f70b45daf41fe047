use std::time::Duration;

use serde_json::{Value, json};

use crate::id::{LoadName, ServiceName, ZoneName};
use crate::shape::{
    Fields, FromText, Kinds, Object, Referent, Refers, Shape, Tagged, Text, Time, Variant, Whole, or_variable,
};
use crate::source::At;
use crate::stack::{EffectSource, Experiment, Fault, Invariant};
use crate::suggest;

/// Longest name of an invariant or experiment, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Longest key prefix, in bytes: no key of the state API is longer.
const PREFIX_BYTES_MAX: usize = 1_024;
/// Longest name of a field, in bytes.
const FIELD_BYTES_MAX: usize = 200;
/// Most effects of one request.
const EFFECTS_MAX: u32 = 1_000;
/// Most kills in one experiment.
const TIMES_MAX: u32 = 1_000;
/// Longest fault, and longest time between two kills.
const FAULT_MAX: Duration = Duration::from_secs(3_600);
/// Shortest.
const FAULT_MIN: Duration = Duration::from_millis(1);

const DEFAULT_KILLS: u32 = 5;
const DEFAULT_KILL_EVERY: Duration = Duration::from_secs(1);
const DEFAULT_FREEZE: Duration = Duration::from_secs(3);
const DEFAULT_ZONE_LOSS: Duration = Duration::from_secs(5);

/// Built-in experiments begin with this.
const BUILTIN: &str = "standfast:";

pub(crate) const INVARIANT: Object<Invariant> = Object {
    doc: "Each acknowledged request of a load has exactly so many effects, and no effect is without a request.",
    read: invariant,
};

fn invariant(f: &mut Fields<'_, '_>) -> Option<Invariant> {
    let name = f.required(
        "name",
        "A sentence for the report.",
        Text { what: "a sentence", bytes_max: NAME_BYTES_MAX },
    );
    let load = f.required(
        "load",
        "Whose requests cause the effects.",
        Refers::<LoadName>::new("a load name", Referent::Load),
    );
    let effects = f.required("effects", "Where the effects are recorded.", EFFECTS);
    let per = f.required(
        "per",
        "The field of the effect's JSON value that holds the request's id.",
        Text { what: "the name of a field", bytes_max: FIELD_BYTES_MAX },
    );
    let exactly = f.or(
        "exactly",
        "How many effects one acknowledged request has.",
        Whole { min: 1, max: EFFECTS_MAX },
        1,
    );
    Some(Invariant { name: name?, load: load?, effects: effects?, per: per?, exactly })
}

const EFFECTS: Object<EffectSource> = Object {
    doc: "Entries of the state API: all keys of a service's space that begin with a prefix.",
    read: effects,
};

fn effects(f: &mut Fields<'_, '_>) -> Option<EffectSource> {
    let service = f.required(
        "service",
        "The service whose state space it is.",
        Refers::<ServiceName>::new("a service name", Referent::Service),
    );
    let prefix =
        f.required("prefix", "The key prefix.", Text { what: "a key prefix", bytes_max: PREFIX_BYTES_MAX });
    Some(EffectSource { service: service?, prefix: prefix? })
}

/// An entry of `experiments`.
pub(crate) enum ExperimentDraft {
    Ready(Experiment),
    /// The file that holds it.
    File(At<String>),
}

pub(crate) fn experiment() -> impl Shape<Value = ExperimentDraft> {
    Kinds::new("a built-in name, a mapping with `fault`, or a YAML file")
        .text(Named.at().and_then(|named, _, _| {
            Some(match named.value {
                NamedExperiment::Builtin(fault) => {
                    ExperimentDraft::Ready(Experiment { name: fault_name(&fault), fault })
                }
                NamedExperiment::File(path) => ExperimentDraft::File(At { value: path, span: named.span }),
            })
        }))
        .mapping(FAULT.and_then(|(name, fault), _, _| {
            let name = name.unwrap_or_else(|| fault_name(&fault));
            Some(ExperimentDraft::Ready(Experiment { name, fault }))
        }))
}

/// What a fault is called when its writer does not say.
pub(crate) fn fault_name(fault: &Fault) -> String {
    match fault {
        Fault::ReplicaKill { service, .. } => of("replica-kill", service.as_ref().map(ServiceName::as_str)),
        Fault::ReplicaFreeze { service, .. } => {
            of("replica-freeze", service.as_ref().map(ServiceName::as_str))
        }
        Fault::ZoneLoss { zone, .. } => of("zone-loss", zone.as_ref().map(ZoneName::as_str)),
        Fault::NodeKill => of("node-kill", None),
        Fault::AgentKill => of("agent-kill", None),
    }
}

fn of(fault: &str, target: Option<&str>) -> String {
    target.map_or_else(|| fault.to_owned(), |target| format!("{fault} {target}"))
}

/// An experiment as a mapping: its name, if it has one, and what is done.
pub(crate) const FAULT: Tagged<(Option<String>, Fault)> = Tagged {
    doc: "One thing that `prove` breaks. Targets that are not named are chosen by the seed.",
    tag: "fault",
    variants: &[
        Variant { tag: "replica-kill", doc: "`kill -9` of one replica, repeated.", read: replica_kill },
        Variant {
            tag: "replica-freeze",
            doc: "SIGSTOP of one replica, SIGCONT at the end.",
            read: replica_freeze,
        },
        Variant {
            tag: "zone-loss",
            doc: "All replicas of a zone are killed at once, and none may start there until the end.",
            read: zone_loss,
        },
        Variant {
            tag: "node-kill",
            doc: "`kill -9` of the node.",
            read: |f| Some((name(f), Fault::NodeKill)),
        },
        Variant {
            tag: "agent-kill",
            doc: "`kill -9` of the agent.",
            read: |f| Some((name(f), Fault::AgentKill)),
        },
    ],
};

fn name(f: &mut Fields<'_, '_>) -> Option<String> {
    f.optional("name", "Its name in the report.", Text { what: "a name", bytes_max: NAME_BYTES_MAX })
}

fn service(f: &mut Fields<'_, '_>) -> Option<ServiceName> {
    f.optional(
        "service",
        "Whose replica. Default: any service's.",
        Refers::new("a service name", Referent::Service),
    )
}

fn time(f: &mut Fields<'_, '_>, key: &'static str, doc: &str, default: Duration) -> Duration {
    f.or(key, doc, Time { min: FAULT_MIN, max: FAULT_MAX }, default)
}

fn replica_kill(f: &mut Fields<'_, '_>) -> Option<(Option<String>, Fault)> {
    let name = name(f);
    let service = service(f);
    let times = f.or("times", "How often.", Whole { min: 1, max: TIMES_MAX }, DEFAULT_KILLS);
    let every = time(f, "every", "From one kill to the next.", DEFAULT_KILL_EVERY);
    Some((name, Fault::ReplicaKill { service, times, every }))
}

fn replica_freeze(f: &mut Fields<'_, '_>) -> Option<(Option<String>, Fault)> {
    let name = name(f);
    let service = service(f);
    let lasts = time(f, "lasts", "How long.", DEFAULT_FREEZE);
    Some((name, Fault::ReplicaFreeze { service, lasts }))
}

fn zone_loss(f: &mut Fields<'_, '_>) -> Option<(Option<String>, Fault)> {
    let name = name(f);
    let zone = f.optional("zone", "Which zone. Default: any.", Refers::new("a zone name", Referent::Zone));
    let lasts = time(f, "lasts", "How long.", DEFAULT_ZONE_LOSS);
    Some((name, Fault::ZoneLoss { zone, lasts }))
}

/// `standfast:replica-kill`, or a file.
struct Named;

enum NamedExperiment {
    Builtin(Fault),
    File(String),
}

fn builtin(name: &str) -> Option<Fault> {
    Some(match name {
        "replica-kill" => {
            Fault::ReplicaKill { service: None, times: DEFAULT_KILLS, every: DEFAULT_KILL_EVERY }
        }
        "replica-freeze" => Fault::ReplicaFreeze { service: None, lasts: DEFAULT_FREEZE },
        "zone-loss" => Fault::ZoneLoss { zone: None, lasts: DEFAULT_ZONE_LOSS },
        "node-kill" => Fault::NodeKill,
        "agent-kill" => Fault::AgentKill,
        _ => return None,
    })
}

impl FromText for Named {
    type Value = NamedExperiment;

    fn parse(&self, text: &str) -> Result<NamedExperiment, Option<String>> {
        let names = || FAULT.variants.iter().map(|variant| variant.tag);
        if let Some(name) = text.strip_prefix(BUILTIN) {
            return builtin(name)
                .map(NamedExperiment::Builtin)
                .ok_or_else(|| Some(suggest::hint(name, names())));
        }
        if text.ends_with(".yaml") || text.ends_with(".yml") {
            return Ok(NamedExperiment::File(text.to_owned()));
        }
        let near = suggest::nearest(text, names());
        Err(Some(match near {
            Some(near) => format!("write `{BUILTIN}{near}`"),
            None => format!(
                "built-in experiments are {}",
                names().map(|name| format!("`{BUILTIN}{name}`")).collect::<Vec<_>>().join(", ")
            ),
        }))
    }

    fn expected(&self) -> String {
        "a built-in experiment or a YAML file".to_owned()
    }

    fn json_schema(&self) -> Value {
        let names: Vec<&str> = FAULT.variants.iter().map(|variant| variant.tag).collect();
        let builtins: Vec<String> = names.iter().map(|name| format!("{BUILTIN}{name}")).collect();
        let file = or_variable(r"^(?!standfast:).*\.ya?ml$");
        json!({"anyOf": [{"enum": builtins}, {"type": "string", "pattern": file}]})
    }
}
