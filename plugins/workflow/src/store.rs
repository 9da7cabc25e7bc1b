//! The component's state: which keys there are.
//!
//! Relies on the SDK's maps. Promises the layout below. Knows no rule.
//!
//! ```text
//! limits                                          the group's limits
//! definitions  (namespace, name, version)         -> number
//! latest       (namespace, name)                  -> number of the highest version
//! outlines     number                             -> the workflow around its tasks
//! tasks        (number, task)                     -> one task
//! documents    number                             -> the definition as it was written
//! cases        case                               -> the case
//! history      (case, first event)                -> what one command caused
//! keys         (namespace, name, business key)    -> case
//! listed       (definition, phase, case)          -> what a listing shows of it; definition 0 for all
//! items        (case, frame)                      -> a work item
//! offered      (function, case, frame)            work items to be claimed
//! listeners    (event type, case, frame)          tasks that wait for events; type empty for any
//! triggers     (event type, number)               definitions that start when events come
//! partial      number                             -> events that a definition waits for more of
//! ```

use quorate_sdk::{Map, Value as Single};
use serde::{Deserialize, Serialize};

use crate::definition::{Outline, Task, TaskId};
use crate::engine::case::{Case, Chapter, FrameId};
use crate::limits::Limits;
use crate::message::{CaseLine, Reference};
use crate::value::Value;

pub(crate) const LIMITS: Single<Limits> = Single::new("limits");
pub(crate) const NEXT_CASE: Single<u64> = Single::new("next-case");
pub(crate) const NEXT_DEFINITION: Single<u32> = Single::new("next-definition");
pub(crate) const DEFINITIONS: Map<(String, String, String), u32> = Map::new("definitions");
pub(crate) const LATEST: Map<(String, String), u32> = Map::new("latest");
pub(crate) const OUTLINES: Map<u32, Stored> = Map::new("outlines");
pub(crate) const TASKS: Map<(u32, TaskId), Task> = Map::new("tasks");
pub(crate) const DOCUMENTS: Map<u32, Value> = Map::new("documents");
pub(crate) const CASES: Map<u64, Case> = Map::new("cases");
pub(crate) const HISTORY: Map<(u64, u64), Chapter> = Map::new("history");
pub(crate) const KEYS: Map<(String, String, String), u64> = Map::new("keys");
pub(crate) const LISTED: Map<(u32, u8, u64), CaseLine> = Map::new("listed");
pub(crate) const ITEMS: Map<(u64, FrameId), Item> = Map::new("items");
pub(crate) const OFFERED: Map<(String, u64, FrameId), ()> = Map::new("offered");
pub(crate) const LISTENERS: Map<(String, u64, FrameId), ()> = Map::new("listeners");
pub(crate) const TRIGGERS: Map<(String, u32), ()> = Map::new("triggers");
pub(crate) const PARTIAL: Map<u32, Vec<Option<Value>>> = Map::new("partial");

/// A definition without its tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    #[serde(rename = "o")]
    pub(crate) outline: Outline,
    /// A digest of the document.
    #[serde(rename = "g")]
    pub(crate) digest: u64,
    /// When it was defined, in milliseconds since 1970.
    #[serde(rename = "t")]
    pub(crate) defined: u64,
}

impl Stored {
    /// Its name.
    pub(crate) fn reference(&self) -> Reference {
        let Outline { namespace, name, version, .. } = &self.outline;
        Reference { namespace: namespace.clone(), name: name.clone(), version: version.clone() }
    }
}

/// Something for a worker to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    /// The function to call.
    #[serde(rename = "f")]
    pub(crate) function: String,
    /// Its arguments.
    #[serde(rename = "a")]
    pub(crate) arguments: Value,
    /// The task it is for, as a JSON pointer.
    #[serde(rename = "t")]
    pub(crate) task: String,
    /// When it was first offered.
    #[serde(rename = "o")]
    pub(crate) offered: u64,
    /// How often it was claimed; the last claim's token.
    #[serde(rename = "n")]
    pub(crate) token: u64,
    /// Who holds it until when, if somebody does.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<Claim>,
    /// Whether nothing waits for it.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) detached: bool,
}

/// A worker's hold on a work item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Who.
    #[serde(rename = "w")]
    pub(crate) worker: String,
    /// Until when, in milliseconds since 1970.
    #[serde(rename = "u")]
    pub(crate) until: u64,
}
