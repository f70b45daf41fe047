//! The rows in the store, and how long values are cut up for it.
//!
//! | key | value |
//! |---|---|
//! | `target` | [`TargetRow`]: which blueprint holds; the only row that is ever changed |
//! | `blueprint/<generation>/<id>/<chunk>` | a blueprint's JSON |
//! | `stack/<generation>/<digest>/<chunk>` | [`StackRow`]: a stack, and who applied it when and why |
//! | `event/<generation>` | [`Event`]: what a blueprint did, and why |

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use standfast_model::{Generation, Stack, Stamp};
use standfast_store::Space;

use crate::blueprint::BlueprintId;
use crate::plan::Step;
use crate::policy::StackDigest;

/// The version of these rows.
pub(crate) const FORMAT: u32 = 1;
/// The key of the target row.
pub(crate) const TARGET: &[u8] = b"target";
/// A value that is longer is cut up: half of what the store takes.
pub(crate) const CHUNK_BYTES_MAX: usize = 512 << 10;

/// The space of all these rows.
pub(crate) const fn space() -> Space {
    Space::Table("control")
}

/// Which blueprint holds, and for which stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetRow {
    pub(crate) format: u32,
    pub(crate) generation: Generation,
    pub(crate) blueprint: BlueprintId,
    pub(crate) blueprint_chunks: usize,
    /// `None` when nothing shall run.
    pub(crate) stack: Option<StackName>,
}

/// Where a stack is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StackName {
    /// Of the blueprint that brought it.
    pub(crate) generation: Generation,
    pub(crate) digest: StackDigest,
    pub(crate) chunks: usize,
}

/// A stack as applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StackRow {
    pub(crate) format: u32,
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) at: Stamp,
    pub(crate) stack: Stack,
}

/// What a blueprint did, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The version of this form.
    pub format: u32,
    /// The blueprint's number.
    pub generation: Generation,
    /// The blueprint.
    pub blueprint: BlueprintId,
    /// When it became the target.
    pub at: Stamp,
    /// Who made it.
    pub author: String,
    /// Why, in a sentence.
    pub reason: String,
    /// The digest of the stack that holds from then on.
    pub stack: Option<StackDigest>,
    /// Whether that stack came with it.
    pub is_new_stack: bool,
    /// What was done: the first of the steps.
    pub steps: Vec<Step>,
    /// How many steps there were in all.
    pub steps_total: usize,
    /// What was waited for.
    pub waiting: Vec<String>,
}

pub(crate) fn blueprint_key(generation: Generation, id: &BlueprintId, chunk: usize) -> Bytes {
    format!("blueprint/{:020}/{id}/{chunk:04}", generation.0).into()
}

pub(crate) fn stack_key(name: &StackName, chunk: usize) -> Bytes {
    format!("stack/{:020}/{}/{chunk:04}", name.generation.0, name.digest).into()
}

pub(crate) fn event_key(generation: Generation) -> Bytes {
    format!("event/{:020}", generation.0).into()
}

/// The generation in a key.
pub(crate) fn generation_of(key: &[u8]) -> Option<Generation> {
    let text = std::str::from_utf8(key).ok()?;
    text.split('/').nth(1)?.parse().ok().map(Generation)
}
