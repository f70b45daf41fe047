//! The blueprint: everything decided, nothing left to choose.
//!
//! Each names its parent and becomes the target only while that parent still is. What a replica's successor must know
//! (attempt numbers, failures, given-up state) is in here too, so that a plan needs no other memory.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use standfast_model::{Generation, Instance, ReplicaId, Revision, ServiceName, Stamp, ZoneName};
use standfast_platform::Launch;

use crate::policy::StackDigest;

/// The version of the JSON form.
pub const FORMAT: u32 = 1;

/// A blueprint's name: its generation and a fingerprint of what is in it, so that two of one generation differ in name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlueprintId(Box<str>);

impl BlueprintId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlueprintId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// All that shall run, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blueprint {
    /// The version of this form: [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub id: BlueprintId,
    /// What it was made from.
    pub parent: BlueprintId,
    /// The number of the order that carries it out.
    pub generation: Generation,
    /// The stack that it serves; `None` when nothing shall run.
    pub stack: Option<StackDigest>,
    /// The replicas.
    #[serde(with = "replica_list")]
    pub replicas: BTreeMap<ReplicaId, Arc<PlannedReplica>>,
    /// What outlives the replicas of a service.
    pub services: BTreeMap<ServiceName, ServiceLedger>,
    /// How to start each revision that a replica here has.
    pub launches: BTreeMap<Revision, Arc<Launch>>,
    /// No attempt of a service that is in neither map was above this.
    pub attempts_floor: u64,
    /// When it was made.
    pub created_at: Stamp,
    /// By whom: a person for a change of the stack, `standfast` for the rest.
    pub author: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// A replica as decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlannedReplica {
    /// Which start of which replica.
    pub instance: Instance,
    /// What it runs.
    pub revision: Revision,
    /// Where.
    pub zone: ZoneName,
    /// What it is for.
    pub intent: PlannedIntent,
    /// Not to be started before.
    pub not_before: Stamp,
    /// Quick failures in a row before this attempt, of the same revision.
    pub failures: u32,
    /// It is to be exchanged for a new one although its revision is current: someone asked for a restart.
    #[serde(default)]
    pub replace: bool,
    /// Why this attempt was made, in a sentence.
    pub why: String,
}

/// What a planned replica is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum PlannedIntent {
    /// To serve.
    Run,
    /// To finish what it has, and then to be left out.
    Drain {
        /// When it is left out.
        until: Stamp,
    },
    /// It ran to its end and is not started again. It takes its slot, but is in no order.
    Ended(Ending),
}

/// The end of a replica that is not started again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ending {
    /// Whether it ended with exit code 0, as jobs do. Otherwise it was given up.
    pub success: bool,
    /// When.
    pub at: Stamp,
    /// Why, in a sentence.
    pub reason: String,
    /// Its last lines of output, oldest first.
    pub last_output: Vec<String>,
}

/// What outlives the replicas of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ServiceLedger {
    /// Whether it was placed once: from then on its dependencies are not waited for.
    pub started: bool,
    /// How many replicas were wanted.
    pub wanted: u32,
    /// No attempt in a slot that is not planned now was above this.
    pub attempts_floor: u64,
    /// Replicas replaced after they ended or were lost, ever.
    pub restarts: u64,
    /// The last of those.
    pub last_failure: Option<Failure>,
}

/// The end of a replica that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// Which it was.
    pub instance: Instance,
    /// When it was noticed.
    pub at: Stamp,
    /// Why, in a sentence.
    pub reason: String,
    /// Its last lines of output, oldest first.
    pub last_output: Vec<String>,
}

/// A stored blueprint that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBlueprintError {
    /// It is no blueprint.
    #[error("a stored blueprint is damaged")]
    Damaged(#[source] serde_json::Error),
    /// A newer release wrote it.
    #[error(
        "a stored blueprint has format {found}, and this standfast reads format {FORMAT}; use the release that wrote it"
    )]
    Format {
        /// The format that it has.
        found: u32,
    },
}

impl Blueprint {
    /// What every history begins with: nothing runs, and nothing is known of before.
    pub fn genesis() -> Self {
        let nobody = BlueprintId("0".into());
        Self {
            format: FORMAT,
            id: nobody.clone(),
            parent: nobody,
            generation: Generation(0),
            stack: None,
            replicas: BTreeMap::new(),
            services: BTreeMap::new(),
            launches: BTreeMap::new(),
            attempts_floor: 0,
            created_at: Stamp::EPOCH,
            author: String::new(),
            reason: "the beginning".into(),
        }
    }

    /// The JSON form.
    ///
    /// # Errors
    /// None in practice: every map here has keys that are text.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// See [`ReadBlueprintError`].
    pub fn from_json(json: &[u8]) -> Result<Self, ReadBlueprintError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(json).map_err(ReadBlueprintError::Damaged)?;
        if head.format != FORMAT {
            return Err(ReadBlueprintError::Format { found: head.format });
        }
        serde_json::from_slice(json).map_err(ReadBlueprintError::Damaged)
    }

    /// The replicas of one service, by slot.
    pub fn replicas_of(&self, service: &ServiceName) -> impl Iterator<Item = &PlannedReplica> {
        let from = ReplicaId { service: service.clone(), slot: 0 };
        let until = ReplicaId { service: service.clone(), slot: u32::MAX };
        self.replicas.range(from..=until).map(|(_, planned)| planned.as_ref())
    }

    /// Gives it the name that its content makes.
    pub(crate) fn name_it(&mut self) {
        let mut hash = Fingerprint::default();
        self.parent.hash(&mut hash);
        self.stack.hash(&mut hash);
        self.created_at.hash(&mut hash);
        self.author.hash(&mut hash);
        self.reason.hash(&mut hash);
        for planned in self.replicas.values() {
            planned.hash(&mut hash);
        }
        self.id = BlueprintId(format!("{}-{:016x}", self.generation, hash.finish()).into());
    }
}

impl PlannedReplica {
    /// Whether it shall serve.
    pub fn shall_run(&self) -> bool {
        self.intent == PlannedIntent::Run
    }

    /// Whether it ran to its end with success.
    pub fn has_completed(&self) -> bool {
        matches!(&self.intent, PlannedIntent::Ended(ending) if ending.success)
    }
}

/// FNV-1a as a `Hasher`: names things; the value is kept as text and never recomputed, so its stability does not matter.
#[derive(Debug)]
pub(crate) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 =
            bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
}

/// Replicas as a list: their keys are not text, and each instance holds its key anyway.
mod replica_list {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};
    use standfast_model::ReplicaId;

    use super::PlannedReplica;

    pub(super) fn serialize<S: Serializer>(
        replicas: &BTreeMap<ReplicaId, Arc<PlannedReplica>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(replicas.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<ReplicaId, Arc<PlannedReplica>>, D::Error> {
        let list = Vec::<Arc<PlannedReplica>>::deserialize(from)?;
        Ok(list.into_iter().map(|planned| (planned.instance.replica.clone(), planned)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blueprint_of_format_1_is_still_read() {
        let stored = r#"{"format":1,"id":"7-00000000000000aa","parent":"6-00000000000000bb","generation":7,
            "stack":"0123456789abcdef","replicas":[{"instance":{"replica":{"service":"orders","slot":1},"attempt":3},
            "revision":"aa","zone":"b","intent":{"is":"drain","until":12},"not_before":5,"failures":2,"why":"x"}],
            "services":{"orders":{"started":true,"wanted":3,"attempts_floor":2,"restarts":1,"last_failure":null}},
            "launches":{},"attempts_floor":0,
            "created_at":9,"author":"ann","reason":"because"}"#;
        let read = Blueprint::from_json(stored.as_bytes()).unwrap();
        let replica = read.replicas.values().next().unwrap();
        assert_eq!(replica.instance.to_string(), "orders-1.3");
        assert_eq!(replica.intent, PlannedIntent::Drain { until: Stamp::from_micros(12) });
        let again = Blueprint::from_json(&read.to_json().unwrap()).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn a_blueprint_of_a_later_format_is_refused_by_its_number() {
        let error = Blueprint::from_json(br#"{"format":2,"anything":true}"#).unwrap_err();
        assert!(matches!(error, ReadBlueprintError::Format { found: 2 }));
    }
}
