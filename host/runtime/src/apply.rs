//! Running entries, queries and migrations.
//!
//! Relies on [`Component`] having passed its check. Promises that an entry's effect is a function of the
//! state, the context, the commands and the limits, that a rejected command leaves nothing behind, and
//! that after a [`Halt`] nothing has changed. Knows no log: the caller brings entries in order.
//!
//! ```text
//! all commands in one instance --answers--> keep
//!        |
//!      fault (nothing kept)
//!        v
//! each command in an instance of its own, on what the ones before it kept:
//!        answer -> keep     fault -> reject, keep nothing of it
//! ```
//!
//! The one instance has the limits of all its commands together; alone, each command has its own. A
//! command that uses more than its share in company may thus pass where the others leave enough: every
//! replica runs the same company, so all agree. A component that draws from the context's seed and a
//! command's position would draw the same for every command that runs alone, at position 0: the seed of
//! such a run is therefore mixed with the command's place in the entry.
//!
//! What it costs, measured on one of two busy cores: 9 µs for an entry of one command, instance included;
//! 1.5 µs for each of 256 commands with one get and one put of 256 bytes in a state of 10,000 keys, 3.3 µs
//! in one of a million, where memory is what it waits for. Of that, 0.26 µs is the crossing of a command as
//! a record in a list; as part of one packed buffer it would be 0.15 µs, before the component takes it apart.
//! That is too little to give up a typed interface for.

use bytes::Bytes;
use quorate_types::{
    ComponentLimits, Epoch, HlcTimestamp, LogIndex, Outcome, Rejection, Sequence, SessionId,
};
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::abi::{CommandAbi, ContextAbi, MigrationAbi, OutcomeAbi, RejectionAbi, function};
use crate::component::{Component, Ended};
use crate::error::{Fault, Halt, Limit};
use crate::host::{Access, HostState};
use crate::limits::{Allowance, Meter};
use crate::overlay::{Overlay, Writes, merge};
use crate::state::{Map, Space, State, StateView};

/// The most steps of one migration.
const MIGRATION_STEPS_MAX: usize = 4_096;

/// What is the same for every command of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryContext {
    /// The group's name in the catalog.
    pub group: String,
    /// The group's epoch.
    pub epoch: Epoch,
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's stamp.
    pub hlc: HlcTimestamp,
    /// Different for every entry, the same on every replica.
    pub seed: (u64, u64),
    /// The layout version that the state is in.
    pub schema_version: u32,
}

/// One command for a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Who asked.
    pub origin: Origin,
    /// What the component calls it.
    pub name: String,
    /// Its arguments.
    pub body: Bytes,
}

/// Who asked for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's session, and the command's number in it.
    Session(SessionId, Sequence),
    /// The timer of this identity came due.
    Timer(String),
    /// The host itself.
    System,
}

/// What running commands gave beside the changed state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// In order of emission.
    pub events: Vec<Event>,
    /// In order of the calls; a later one of the same identity wins.
    pub timers: Vec<TimerChange>,
    /// Fuel used by all instances together; the same on every replica.
    pub fuel: u64,
    /// The commands were run one by one after a fault in their common run.
    pub redone: bool,
}

/// Something a component shows to whoever watches its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind of event.
    pub topic: String,
    /// What it is about.
    pub key: Bytes,
    /// The rest.
    pub body: Bytes,
}

/// A timer set or forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange {
    /// Come back with this body in the first entry whose stamp is not below `due`; replaces a timer of the
    /// same identity.
    Set {
        /// The timer's identity.
        id: String,
        /// When.
        due: HlcTimestamp,
        /// What the command will carry.
        body: Bytes,
    },
    /// Forget the timer, if it is set.
    Cancel {
        /// The timer's identity.
        id: String,
    },
}

/// What runs of one entry have kept so far.
#[derive(Default)]
struct Kept {
    writes: Writes,
    applied: Applied,
}

impl Kept {
    /// Keeps what a good run left.
    fn keep(&mut self, host: HostState) {
        self.writes = host.overlay.into_writes();
        self.applied.events.extend(host.events);
        self.applied.timers.extend(host.timers);
    }

    /// Makes everything part of the state.
    fn finish(self, state: &mut State) -> Applied {
        merge(state, self.writes);
        self.applied
    }
}

impl Component {
    /// Prepares an empty group's state.
    ///
    /// # Errors
    ///
    /// The inner error when the component refuses or fails, the same on every replica; [`Halt`] when this
    /// replica cannot go on. The state is unchanged after either.
    pub fn init(
        &self,
        state: &mut State,
        context: &EntryContext,
        parameters: &Bytes,
        limits: &ComponentLimits,
    ) -> Result<Result<Applied, Rejection>, Halt> {
        let mut kept = Kept::default();
        let ended =
            self.run_change(user_map(state), &kept, &Allowance::of(limits, 1), |store, instance| {
                let init: function::Init<'_> =
                    instance.get_typed_func(&mut *store, self.code().exports.init)?;
                Ok(init.call(store, (context.into(), parameters))?.0)
            })?;
        kept.applied.fuel = ended.fuel;
        match settle(ended) {
            Ok(((), host)) => {
                kept.keep(host);
                Ok(Ok(kept.finish(state)))
            }
            Err(rejection) => Ok(Err(rejection)),
        }
    }

    /// Applies one entry's commands and returns one outcome for each.
    ///
    /// # Errors
    ///
    /// [`Halt`] when this replica cannot tell what the others will see. The state is unchanged then.
    pub fn apply(
        &self,
        state: &mut State,
        context: &EntryContext,
        commands: &[Invocation],
        limits: &ComponentLimits,
    ) -> Result<Applied, Halt> {
        if commands.is_empty() {
            return Ok(Applied::default());
        }
        let mut kept = Kept::default();
        let mut fault = self.apply_together(user_map(state), context, commands, limits, &mut kept)?;
        if commands.len() > 1 && fault.is_some() {
            kept.applied.redone = true;
            fault = None;
            for (place, command) in commands.iter().enumerate() {
                let context = EntryContext { seed: seed_alone(context.seed, place), ..context.clone() };
                let alone = std::slice::from_ref(command);
                if let Some(fault) =
                    self.apply_together(user_map(state), &context, alone, limits, &mut kept)?
                {
                    kept.applied.outcomes.push(Outcome::Rejected(fault.rejection()));
                }
            }
        }
        if let Some(fault) = fault {
            kept.applied.outcomes.push(Outcome::Rejected(fault.rejection()));
        }
        Ok(kept.finish(state))
    }

    /// Answers a query from a view of the state.
    ///
    /// # Errors
    ///
    /// The inner error when the component refuses or fails; [`Halt`] when this replica cannot answer though
    /// others may.
    pub fn query(
        &self,
        state: &StateView,
        at: LogIndex,
        name: &str,
        body: &Bytes,
        limits: &ComponentLimits,
    ) -> Result<Result<Bytes, Rejection>, Halt> {
        let overlay = Overlay::new(state.maps.of(Space::User).clone(), Writes::default());
        let allowance = Allowance::of(limits, 1);
        let ended =
            self.code().run(&self.inner.shared, Access::Read, overlay, &allowance, |store, instance| {
                let query: function::Query<'_> =
                    instance.get_typed_func(&mut *store, self.code().exports.query)?;
                let answer = query.call(&mut *store, (at.0, name, body))?.0;
                let bytes = answer.as_ref().map_or_else(RejectionAbi::bytes, Bytes::len);
                store.data_mut().meter.output(bytes)?;
                Ok(answer)
            })?;
        Ok(settle(ended).map(|(body, _)| body))
    }

    /// Brings the state from another layout version to this component's, in bounded steps, all or nothing.
    ///
    /// # Errors
    ///
    /// The inner error when the component refuses or fails, the same on every replica; [`Halt`] when this
    /// replica cannot go on. The state is unchanged after either.
    pub fn migrate(
        &self,
        state: &mut State,
        context: &EntryContext,
        from_version: u32,
        limits: &ComponentLimits,
    ) -> Result<Result<Applied, Rejection>, Halt> {
        let descriptor = self.descriptor();
        if !descriptor.migrates_from.contains(&from_version) {
            return Ok(Err(cannot_migrate(from_version, &descriptor.migrates_from)));
        }
        let mut kept = Kept::default();
        let mut resume: Option<Bytes> = None;
        for _ in 0..MIGRATION_STEPS_MAX {
            let ended =
                self.run_change(user_map(state), &kept, &Allowance::of(limits, 1), |store, instance| {
                    let migrate: function::Migrate<'_> =
                        instance.get_typed_func(&mut *store, self.code().exports.migrate)?;
                    Ok(migrate.call(store, (context.into(), from_version, resume.as_deref()))?.0)
                })?;
            kept.applied.fuel = kept.applied.fuel.saturating_add(ended.fuel);
            let (stands, host) = match settle(ended) {
                Ok(answered) => answered,
                Err(rejection) => return Ok(Err(rejection)),
            };
            kept.keep(host);
            match stands {
                MigrationAbi::More(next) => resume = Some(next),
                MigrationAbi::Finished => return Ok(Ok(kept.finish(state))),
            }
        }
        Ok(Err(Fault::OverLimit(Limit::MigrationSteps).rejection()))
    }

    /// Runs commands in one instance on top of what is kept, and keeps what they leave unless they fail.
    fn apply_together(
        &self,
        base: Map,
        context: &EntryContext,
        commands: &[Invocation],
        limits: &ComponentLimits,
        kept: &mut Kept,
    ) -> Result<Option<Fault>, Halt> {
        let allowance = Allowance::of(limits, commands.len());
        let ended = self.run_change(base, kept, &allowance, |store, instance| {
            let apply: function::Apply<'_> =
                instance.get_typed_func(&mut *store, self.code().exports.apply)?;
            let context: ContextAbi<'_> = context.into();
            let lowered: Vec<CommandAbi<'_>> = commands.iter().map(CommandAbi::from).collect();
            let outcomes = apply.call(&mut *store, (context, &lowered))?.0;
            check_outcomes(&outcomes, commands.len(), &mut store.data_mut().meter)?;
            Ok(outcomes)
        })?;
        kept.applied.fuel = kept.applied.fuel.saturating_add(ended.fuel);
        match ended.result {
            Ok(outcomes) => {
                kept.applied.outcomes.extend(outcomes.into_iter().map(Outcome::from));
                kept.keep(ended.host);
                Ok(None)
            }
            Err(fault) => Ok(Some(fault)),
        }
    }

    fn run_change<R>(
        &self,
        base: Map,
        kept: &Kept,
        allowance: &Allowance,
        call: impl FnOnce(&mut Store<HostState>, &Instance) -> wasmtime::Result<R>,
    ) -> Result<Ended<R>, Halt> {
        let overlay = Overlay::new(base, kept.writes.clone());
        self.code().run(&self.inner.shared, Access::Change, overlay, allowance, call)
    }
}

fn user_map(state: &State) -> Map {
    state.view().maps.user
}

fn check_outcomes(outcomes: &[OutcomeAbi], commands: usize, meter: &mut Meter) -> Result<(), Fault> {
    if outcomes.len() != commands {
        return Err(Fault::BadAnswer);
    }
    meter.output(outcomes.iter().map(OutcomeAbi::bytes).sum())
}

/// The answer with what the run left, or why there is none.
fn settle<R>(ended: Ended<Result<R, RejectionAbi>>) -> Result<(R, HostState), Rejection> {
    match ended.result {
        Ok(Ok(answer)) => Ok((answer, ended.host)),
        Ok(Err(refused)) => Err(refused.into()),
        Err(fault) => Err(fault.rejection()),
    }
}

fn cannot_migrate(from_version: u32, supported: &[u32]) -> Rejection {
    Rejection {
        code: Rejection::ACTIVATION_FAILED,
        name: "no-migration".to_owned(),
        message: format!("the state has layout {from_version} and the component migrates from {supported:?}"),
    }
}

/// The seed for a command that runs alone: a bijective mix (the finalizer of SplitMix64) of its place.
fn seed_alone(seed: (u64, u64), place: usize) -> (u64, u64) {
    let mut mixed = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (seed.0 ^ mixed ^ (mixed >> 31), seed.1)
}
