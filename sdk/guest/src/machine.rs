//! What an author writes.
//!
//! Relies on the context and on serde. Promises the defaults that a small state machine needs. Knows no
//! host.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Answer, Body, Context, Rejection, View, cbor};

/// A replicated state machine: a deterministic function of the commands it is given.
///
/// It has no clock, no randomness, no files, no sockets, and its memory does not outlive a call: what
/// must last goes into a [`Map`](crate::Map) or a [`Value`](crate::Value). Statics are lost, and the
/// order of a `HashMap` differs between replicas; use `BTreeMap`.
pub trait StateMachine: 'static {
    /// Its name, in kebab-case; usually `env!("CARGO_PKG_NAME")`.
    const NAME: &'static str;
    /// Its version, as `major.minor.patch`; usually `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// The version of its stored types. Raise it when they change, and write `migrate`.
    const SCHEMA_VERSION: u32 = 1;
    /// The layout versions that `migrate` can start from.
    const MIGRATES_FROM: &'static [u32] = &[];
    /// Names of commands that run only under a Byzantine protocol.
    const CRITICAL: &'static [&'static str] = &[];

    /// An enum, one variant for each command; `CompareAndSet` is called `compare-and-set`.
    type Command: Serialize + DeserializeOwned;
    /// An enum, one variant for each query; [`Nothing`] if there is none.
    type Query: Serialize + DeserializeOwned;
    /// An enum, one variant for each event; [`Nothing`] if there is none.
    type Event: Serialize + DeserializeOwned;

    /// Prepares an empty group. `parameters` come from whoever deployed the component.
    ///
    /// # Errors
    ///
    /// A refusal stops the deployment and leaves nothing behind.
    fn init(ctx: &mut Context, parameters: Body<'_>) -> Result<(), Rejection> {
        let (_, _) = (ctx, parameters);
        Ok(())
    }

    /// Carries out one command.
    ///
    /// # Errors
    ///
    /// A refusal drops everything the command wrote, emitted or set.
    fn apply(ctx: &mut Context, command: Self::Command) -> Result<Answer, Rejection>;

    /// Answers from the state.
    ///
    /// # Errors
    ///
    /// A refusal goes to whoever asked.
    fn query(view: &View, query: Self::Query) -> Result<Answer, Rejection>;

    /// A timer came due; the one that was set under this identity is gone.
    ///
    /// # Errors
    ///
    /// A refusal drops everything the timer's command did; the timer stays gone.
    fn timer(ctx: &mut Context, id: &str, body: Body<'_>) -> Result<(), Rejection> {
        let (_, _, _) = (ctx, id, body);
        Ok(())
    }

    /// Brings the state from another layout version to this one, in steps that fit the limits of a
    /// command. `resume` is what the step before returned, in a fresh instance.
    ///
    /// # Errors
    ///
    /// A refusal leaves the old component and the old state in place. This one refuses always.
    fn migrate(
        ctx: &mut Context,
        from_version: u32,
        resume: Option<Body<'_>>,
    ) -> Result<Migration, Rejection> {
        let (_, _) = (ctx, resume);
        Err(Rejection::new(
            Rejection::UNKNOWN_LAYOUT,
            "unknown-layout",
            format!("{} {} cannot migrate state of layout {from_version}", Self::NAME, Self::VERSION),
        ))
    }
}

/// The queries or events of a state machine that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nothing {}

/// Where a migration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Migration {
    /// Call again, with this.
    More(Vec<u8>),
    /// The state is in the new layout.
    Finished,
}

impl Migration {
    /// Asks to be called again with this value.
    ///
    /// # Errors
    ///
    /// A rejection when the value's own `Serialize` refuses.
    pub fn more<T: Serialize>(resume: &T) -> Result<Self, Rejection> {
        cbor::to_vec(resume).map(Self::More).map_err(|error| Rejection::unencodable(&error))
    }
}
