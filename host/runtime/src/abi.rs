//! The values of `quorate:machine` as they cross between host and component.
//!
//! Relies on the engine to check these shapes against a component's own types, which it does when a
//! component is compiled. Promises nothing beyond the shapes. Knows no rule about the values.

use bytes::Bytes;
use quorate_types::{Outcome, Rejection};
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};

use crate::diagnostics::Level;
use crate::{EntryContext, Invocation, Origin};

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct ContextAbi<'a> {
    group: &'a str,
    epoch: u64,
    index: u64,
    hlc: u64,
    seed: (u64, u64),
    #[component(name = "schema-version")]
    schema_version: u32,
}

impl<'a> From<&'a EntryContext> for ContextAbi<'a> {
    fn from(context: &'a EntryContext) -> Self {
        Self {
            group: &context.group,
            epoch: context.epoch.0,
            index: context.index.0,
            hlc: context.hlc.0,
            seed: context.seed,
            schema_version: context.schema_version,
        }
    }
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(variant)]
pub(crate) enum OriginAbi<'a> {
    #[component(name = "session")]
    Session((u64, u64)),
    #[component(name = "timer")]
    Timer(&'a str),
    #[component(name = "system")]
    System,
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct CommandAbi<'a> {
    origin: OriginAbi<'a>,
    name: &'a str,
    body: &'a [u8],
}

impl<'a> From<&'a Invocation> for CommandAbi<'a> {
    fn from(invocation: &'a Invocation) -> Self {
        let origin = match &invocation.origin {
            Origin::Session(session, sequence) => OriginAbi::Session((session.0, sequence.0)),
            Origin::Timer(id) => OriginAbi::Timer(id),
            Origin::System => OriginAbi::System,
        };
        Self { origin, name: &invocation.name, body: &invocation.body }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct RejectionAbi {
    code: u32,
    name: String,
    message: String,
}

impl RejectionAbi {
    pub(crate) fn bytes(&self) -> usize {
        self.name.len() + self.message.len()
    }
}

impl From<RejectionAbi> for Rejection {
    /// Codes of the host's are moved out of its range.
    fn from(rejection: RejectionAbi) -> Self {
        let first_free = *Self::HOST_CODES.end() + 1;
        let code = if rejection.code < first_free { rejection.code + first_free } else { rejection.code };
        Self { code, name: rejection.name, message: rejection.message }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum OutcomeAbi {
    #[component(name = "done")]
    Done(Bytes),
    #[component(name = "rejected")]
    Rejected(RejectionAbi),
}

impl OutcomeAbi {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Done(body) => body.len(),
            Self::Rejected(rejection) => rejection.bytes(),
        }
    }
}

impl From<OutcomeAbi> for Outcome {
    fn from(outcome: OutcomeAbi) -> Self {
        match outcome {
            OutcomeAbi::Done(body) => Self::Done(body),
            OutcomeAbi::Rejected(rejection) => Self::Rejected(rejection.into()),
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct DescriptorAbi {
    pub(crate) name: String,
    pub(crate) version: String,
    #[component(name = "schema-version")]
    pub(crate) schema_version: u32,
    #[component(name = "migrates-from")]
    pub(crate) migrates_from: Vec<u32>,
    pub(crate) critical: Vec<String>,
    pub(crate) schema: String,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum MigrationAbi {
    #[component(name = "more")]
    More(Bytes),
    #[component(name = "finished")]
    Finished,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct RangeAbi {
    pub(crate) start: Bytes,
    pub(crate) end: Option<Bytes>,
    pub(crate) reverse: bool,
}

/// Keys stay where they are until they have been checked.
#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum OpAbi {
    #[component(name = "put")]
    Put((WasmList<u8>, Bytes)),
    #[component(name = "delete")]
    Delete(WasmList<u8>),
    #[component(name = "delete-range")]
    DeleteRange((WasmList<u8>, Option<WasmList<u8>>)),
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the engine makes one from the number that a component passes")]
pub(crate) enum LevelAbi {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<LevelAbi> for Level {
    fn from(level: LevelAbi) -> Self {
        match level {
            LevelAbi::Trace => Self::Trace,
            LevelAbi::Debug => Self::Debug,
            LevelAbi::Info => Self::Info,
            LevelAbi::Warn => Self::Warn,
            LevelAbi::Error => Self::Error,
        }
    }
}

/// The types of the functions that a component exports.
pub(crate) mod function {
    use super::*;
    use wasmtime::component::TypedFunc;

    pub(crate) type Describe = TypedFunc<(), (DescriptorAbi,)>;
    pub(crate) type Init<'a> = TypedFunc<(ContextAbi<'a>, &'a [u8]), (Result<(), RejectionAbi>,)>;
    pub(crate) type Apply<'a> = TypedFunc<(ContextAbi<'a>, &'a [CommandAbi<'a>]), (Vec<OutcomeAbi>,)>;
    pub(crate) type Query<'a> = TypedFunc<(u64, &'a str, &'a [u8]), (Result<Bytes, RejectionAbi>,)>;
    pub(crate) type Migrate<'a> =
        TypedFunc<(ContextAbi<'a>, u32, Option<&'a [u8]>), (Result<MigrationAbi, RejectionAbi>,)>;
    pub(crate) type Merge<'a> = TypedFunc<(&'a [u8], &'a [u8], &'a [u8]), (Bytes,)>;
}
