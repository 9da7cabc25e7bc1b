//! Between the contract's functions and an author's state machine.
//!
//! Relies on everything else in the crate. Promises one outcome for each command, in order, and that
//! the road of a native test is the road of a component. Knows no particular state machine.

use std::marker::PhantomData;
use std::sync::Once;

use crate::bindings::exports::quorate::machine::machine::{self as contract, Guest};
use crate::bindings::quorate::machine::diagnostics;
use crate::bindings::quorate::machine::types::{self, EntryContext, Outcome};
use crate::host::{Host, Imports};
use crate::named::{self, NamedError};
use crate::{Body, Context, Migration, Origin, Rejection, StateMachine, View, schema};

/// A state machine as the contract wants it. Named by [`export!`](crate::export) only.
pub struct Component<M>(PhantomData<M>);

/// Reports a panic's message and place before the trap takes the instance.
fn report_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("a panic without a text");
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            diagnostics::panicked(message, &place);
        }));
    });
}

impl<M: StateMachine> Guest for Component<M> {
    fn describe() -> contract::Descriptor {
        describe::<M>()
    }

    fn init(entry: EntryContext, parameters: Vec<u8>) -> Result<(), types::Rejection> {
        report_panics();
        init::<M>(Box::new(Imports), entry, &parameters).map_err(types::Rejection::from)
    }

    fn apply(entry: EntryContext, commands: Vec<types::Command>) -> Vec<Outcome> {
        report_panics();
        apply::<M>(Box::new(Imports), entry, commands)
    }

    fn query(at_index: u64, name: String, body: Vec<u8>) -> Result<Vec<u8>, types::Rejection> {
        report_panics();
        query::<M>(Box::new(Imports), at_index, &name, &body).map_err(types::Rejection::from)
    }

    fn migrate(
        entry: EntryContext,
        from_version: u32,
        resume: Option<Vec<u8>>,
    ) -> Result<contract::Migration, types::Rejection> {
        report_panics();
        match migrate::<M>(Box::new(Imports), entry, from_version, resume.as_deref())? {
            Migration::More(resume) => Ok(contract::Migration::More(resume)),
            Migration::Finished => Ok(contract::Migration::Finished),
        }
    }
}

pub(crate) fn describe<M: StateMachine>() -> contract::Descriptor {
    contract::Descriptor {
        name: M::NAME.into(),
        version: M::VERSION.into(),
        schema_version: M::SCHEMA_VERSION,
        migrates_from: M::MIGRATES_FROM.to_vec(),
        critical: M::CRITICAL.iter().map(|name| (*name).into()).collect(),
        schema: schema::of_machine::<M>(),
    }
}

pub(crate) fn init<M: StateMachine>(
    host: Box<dyn Host>,
    entry: EntryContext,
    parameters: &[u8],
) -> Result<(), Rejection> {
    let mut ctx = Context::new(host, entry);
    let result = M::init(&mut ctx, Body::borrowed("parameters", parameters));
    ctx.conclude(result)?;
    ctx.finish();
    Ok(())
}

pub(crate) fn apply<M: StateMachine>(
    host: Box<dyn Host>,
    entry: EntryContext,
    commands: Vec<types::Command>,
) -> Vec<Outcome> {
    let mut ctx = Context::new(host, entry);
    let mut outcomes = Vec::with_capacity(commands.len());
    for (position, command) in commands.into_iter().enumerate() {
        let types::Command { origin, name, body } = command;
        outcomes.push(match apply_one::<M>(&mut ctx, position as u32, origin.into(), &name, &body) {
            Ok(answer) => Outcome::Done(answer),
            Err(rejection) => Outcome::Rejected(rejection.into()),
        });
    }
    ctx.finish();
    outcomes
}

fn apply_one<M: StateMachine>(
    ctx: &mut Context,
    position: u32,
    origin: Origin,
    name: &str,
    body: &[u8],
) -> Result<Vec<u8>, Rejection> {
    let timer = match &origin {
        Origin::Timer(id) => Some(id.clone()),
        Origin::Session { .. } | Origin::System => None,
    };
    ctx.begin(position, origin);
    let result = match timer {
        Some(id) => M::timer(ctx, &id, Body::borrowed("the timer's body", body)).map(|()| Vec::new()),
        None => match named::decode::<M::Command>(name, body) {
            Ok(typed) => M::apply(ctx, typed).map(|answer| answer.0),
            Err(error) => {
                Err(misnamed(Rejection::UNKNOWN_COMMAND, ["unknown-command", "command"], name, &error))
            }
        },
    };
    ctx.conclude(result)
}

pub(crate) fn query<M: StateMachine>(
    host: Box<dyn Host>,
    at_index: u64,
    name: &str,
    body: &[u8],
) -> Result<Vec<u8>, Rejection> {
    let view = View::new(host, at_index);
    let query = named::decode::<M::Query>(name, body)
        .map_err(|error| misnamed(Rejection::UNKNOWN_QUERY, ["unknown-query", "query"], name, &error))?;
    let result = M::query(&view, query).map(|answer| answer.0);
    view.conclude(result)
}

pub(crate) fn migrate<M: StateMachine>(
    host: Box<dyn Host>,
    entry: EntryContext,
    from_version: u32,
    resume: Option<&[u8]>,
) -> Result<Migration, Rejection> {
    let mut ctx = Context::new(host, entry);
    let result =
        M::migrate(&mut ctx, from_version, resume.map(|bytes| Body::borrowed("the resumed step", bytes)));
    let migration = ctx.conclude(result)?;
    ctx.finish();
    Ok(migration)
}

/// The refusal of a name or body that is none of the machine's; `words` are the refusal's name and what
/// was called.
fn misnamed(unknown: u32, words: [&str; 2], called: &str, error: &NamedError) -> Rejection {
    let [name, what] = words;
    match error {
        NamedError::UnknownName => Rejection::new(unknown, name, format!("there is no {what} `{called}`")),
        NamedError::Body(error) => Rejection::malformed(&format!("the body of {what} `{called}`"), error),
    }
}

impl From<types::Origin> for Origin {
    fn from(origin: types::Origin) -> Self {
        match origin {
            types::Origin::Session((session, sequence)) => Self::Session { session, sequence },
            types::Origin::Timer(id) => Self::Timer(id),
            types::Origin::System => Self::System,
        }
    }
}

impl From<Rejection> for types::Rejection {
    fn from(rejection: Rejection) -> Self {
        Self { code: rejection.code, name: rejection.name, message: rejection.message }
    }
}
