//! Client sessions: the part of a group's state that makes each command count exactly once.
//!
//! Relies on the entries' stamps for time. Promises that a sequence number is carried out at most once
//! while its session lives, that a retry receives the first outcome, and that a command of an expired
//! session is refused and never carried out again (Ongaro thesis §6.3), and that a session opened under a
//! key is moved by frames of that key alone. Everything here is replicated state: it is a function of the
//! log and is part of snapshots and digests. Knows no connection, no clock and no signature.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_runtime::{Space, State};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{
    COMMAND_BODY_BYTES_MAX, ClientKey, HlcTimestamp, LogIndex, Outcome, Rejection, Sequence, SessionId,
};

/// The most sessions a group keeps; bounds its session table to a few hundred megabytes at worst.
pub const SESSIONS_MAX: usize = 100_000;
/// The most outcomes kept for a client that has not acknowledged them.
pub const WINDOW_MAX: usize = 1_024;
/// The longest a session may outlive its last item, in milliseconds: one day.
pub const TTL_MS_MAX: u32 = 86_400_000;
/// The shortest, in milliseconds.
pub const TTL_MS_MIN: u32 = 1_000;
/// Expired sessions are removed at every index that is a multiple of this; fixed so that all replicas
/// remove them at the same entry.
const SWEEP_INTERVAL: u64 = 256;
/// Item positions within an entry fit below this many bits of a session's number.
const POSITION_BITS: u32 = 12;

const _: () = assert!(1 << POSITION_BITS >= quorate_types::COMMANDS_PER_ENTRY_MAX);

/// What the state knows of keys in the host space that hold sessions.
const KEY_PREFIX: u8 = b's';

#[derive(Debug)]
struct Session {
    client: [u8; 16],
    /// Whose frame opened it, in groups whose clients sign: nobody else's items concern it.
    owner: Option<ClientKey>,
    ttl_ms: u32,
    /// The stamp of the last entry with an item of this session.
    active: HlcTimestamp,
    /// Outcomes below this number were received and are forgotten.
    acknowledged_below: Sequence,
    /// In order of sequence number.
    outcomes: VecDeque<(Sequence, Slot)>,
    /// Whether the table's stored form is older than this.
    dirty: bool,
}

/// What is kept for one sequence number.
#[derive(Debug)]
enum Slot {
    /// Admitted by this item of the entry that is being applied.
    Admitted(usize),
    Answered(Outcome),
}

/// What to do with a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new: carry it out, then [`Sessions::record`] its outcome.
    New,
    /// It was answered before.
    Known(Outcome),
    /// This earlier item of the same entry is the same command.
    SameAs(usize),
    /// It cannot be carried out, and its number stays free.
    Refused(Rejection),
}

/// The session table of one group.
#[derive(Debug, Default)]
pub struct Sessions {
    table: BTreeMap<SessionId, Session>,
    by_client: BTreeMap<(Option<ClientKey>, [u8; 16]), SessionId>,
    /// Sessions whose stored form is out of date, removed ones included.
    dirty: BTreeSet<SessionId>,
}

fn refusal(code: u32, name: &str, message: &str) -> Rejection {
    Rejection { code, name: name.to_owned(), message: message.to_owned() }
}

fn expired() -> Rejection {
    refusal(
        Rejection::SESSION_EXPIRED,
        "session-expired",
        "the session is unknown or has expired; open a new one and decide anew what to submit",
    )
}

fn foreign() -> Rejection {
    refusal(
        Rejection::FOREIGN_SESSION,
        "foreign-session",
        "the session belongs to whoever signs with another key; open one of your own",
    )
}

impl Sessions {
    /// Opens a session, or returns the open one of the same client and owner.
    ///
    /// # Errors
    ///
    /// A rejection when the group holds [`SESSIONS_MAX`] sessions.
    pub fn open(
        &mut self,
        index: LogIndex,
        position: usize,
        stamp: HlcTimestamp,
        owner: Option<ClientKey>,
        client: [u8; 16],
        ttl_ms: u32,
    ) -> Result<SessionId, Rejection> {
        if let Some(&open) = self.by_client.get(&(owner, client))
            && self.touch(open, owner, stamp).is_ok()
        {
            return Ok(open);
        }
        if self.table.len() >= SESSIONS_MAX {
            return Err(refusal(
                Rejection::TOO_MANY_SESSIONS,
                "too-many-sessions",
                "the group holds its greatest number of sessions; close some or wait for them to expire",
            ));
        }
        let id = SessionId((index.0 << POSITION_BITS) | position as u64);
        let session = Session {
            client,
            owner,
            ttl_ms: ttl_ms.clamp(TTL_MS_MIN, TTL_MS_MAX),
            active: stamp,
            acknowledged_below: Sequence(1),
            outcomes: VecDeque::new(),
            dirty: true,
        };
        self.table.insert(id, session);
        self.by_client.insert((owner, client), id);
        self.dirty.insert(id);
        Ok(id)
    }

    /// Notes a sign of life.
    ///
    /// # Errors
    ///
    /// A rejection when the session is unknown, has expired, or is another's.
    pub fn touch(
        &mut self,
        id: SessionId,
        owner: Option<ClientKey>,
        stamp: HlcTimestamp,
    ) -> Result<(), Rejection> {
        self.live(id, owner, stamp).map(|_| ())
    }

    /// Ends a session; unknown ones are ended already.
    ///
    /// # Errors
    ///
    /// A rejection when the session is another's.
    pub fn close(&mut self, id: SessionId, owner: Option<ClientKey>) -> Result<(), Rejection> {
        match self.table.get(&id) {
            Some(session) if session.owner != owner => return Err(foreign()),
            Some(_) => self.remove(id),
            None => {}
        }
        Ok(())
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.table.remove(&id) {
            self.by_client.remove(&(session.owner, session.client));
            self.dirty.insert(id);
        }
    }

    /// Decides about a command, the `item`th of its entry, and forgets what its client acknowledged.
    pub fn admit(
        &mut self,
        id: SessionId,
        owner: Option<ClientKey>,
        stamp: HlcTimestamp,
        sequence: Sequence,
        acknowledged_below: Sequence,
        item: usize,
    ) -> Admission {
        let session = match self.live(id, owner, stamp) {
            Ok(session) => session,
            Err(rejection) => return Admission::Refused(rejection),
        };
        if acknowledged_below > session.acknowledged_below {
            session.acknowledged_below = acknowledged_below;
            while session.outcomes.front().is_some_and(|(known, _)| *known < acknowledged_below) {
                session.outcomes.pop_front();
            }
        }
        if sequence < session.acknowledged_below {
            return Admission::Refused(refusal(
                Rejection::SEQUENCE_STALE,
                "sequence-stale",
                "the client acknowledged this number before; its outcome is no longer kept",
            ));
        }
        match session.outcomes.binary_search_by_key(&sequence, |(known, _)| *known) {
            Ok(at) => match &session.outcomes[at].1 {
                Slot::Answered(outcome) => Admission::Known(outcome.clone()),
                Slot::Admitted(item) => Admission::SameAs(*item),
            },
            Err(_) if session.outcomes.len() >= WINDOW_MAX => Admission::Refused(refusal(
                Rejection::WINDOW_FULL,
                "window-full",
                "too many outcomes of this session wait for acknowledgement; acknowledge some first",
            )),
            Err(at) => {
                session.outcomes.insert(at, (sequence, Slot::Admitted(item)));
                Admission::New
            }
        }
    }

    /// Keeps the outcome of a command that [`Sessions::admit`] found new.
    pub fn record(&mut self, id: SessionId, sequence: Sequence, outcome: Outcome) {
        // A session may be closed, or a number acknowledged, by a later item of the same entry.
        if let Some(session) = self.table.get_mut(&id)
            && let Ok(at) = session.outcomes.binary_search_by_key(&sequence, |(known, _)| *known)
        {
            session.outcomes[at].1 = Slot::Answered(outcome);
        }
    }

    /// Removes expired sessions, at the indices fixed for it.
    pub fn sweep(&mut self, index: LogIndex, stamp: HlcTimestamp) {
        if !index.0.is_multiple_of(SWEEP_INTERVAL) {
            return;
        }
        let gone: Vec<_> =
            self.table.iter().filter(|(_, s)| is_expired(s, stamp)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.remove(id));
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Writes what changed since the last call into the host space of the state.
    pub fn store(&mut self, state: &mut State) {
        for id in std::mem::take(&mut self.dirty) {
            match self.table.get_mut(&id) {
                Some(session) => {
                    session.dirty = false;
                    state.put(Space::Host, key(id), encode(session));
                }
                None => state.delete(Space::Host, &key(id)),
            }
        }
    }

    /// Reads the table from the host space of a state.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for a value that no version wrote.
    pub fn load(state: &State) -> Result<Self, DecodeError> {
        let mut sessions = Self::default();
        for (key, value) in state.range(Space::Host, &[KEY_PREFIX], Some(&[KEY_PREFIX + 1])) {
            let mut from = Reader::new(key);
            from.u8("session key")?;
            let id = SessionId(u64::from_be_bytes(from.array("session key")?));
            let session = decode(value.clone())?;
            sessions.by_client.insert((session.owner, session.client), id);
            sessions.table.insert(id, session);
        }
        Ok(sessions)
    }

    fn live(
        &mut self,
        id: SessionId,
        owner: Option<ClientKey>,
        stamp: HlcTimestamp,
    ) -> Result<&mut Session, Rejection> {
        let session =
            self.table.get_mut(&id).filter(|session| !is_expired(session, stamp)).ok_or_else(expired)?;
        if session.owner != owner {
            return Err(foreign());
        }
        session.active = stamp;
        if !session.dirty {
            session.dirty = true;
            self.dirty.insert(id);
        }
        Ok(session)
    }
}

fn is_expired(session: &Session, stamp: HlcTimestamp) -> bool {
    stamp.unix_ms() > session.active.unix_ms() + u64::from(session.ttl_ms)
}

fn key(id: SessionId) -> Bytes {
    let mut out = Writer::with_capacity(9);
    out.u8(KEY_PREFIX);
    out.raw(&id.0.to_be_bytes());
    out.finish()
}

fn encode(session: &Session) -> Bytes {
    let mut out = Writer::with_capacity(64);
    out.raw(&session.client);
    out.u32(session.ttl_ms);
    out.u64(session.active.0);
    out.u64(session.acknowledged_below.0);
    out.u32(session.outcomes.len() as u32);
    for (sequence, slot) in &session.outcomes {
        out.u64(sequence.0);
        match slot {
            Slot::Admitted(_) => {
                unreachable!("state is stored between entries, when every command is answered")
            }
            Slot::Answered(Outcome::Done(body)) => {
                out.u8(0);
                out.bytes(body);
            }
            Slot::Answered(Outcome::Rejected(rejection)) => {
                out.u8(1);
                out.u32(rejection.code);
                out.bytes(rejection.name.as_bytes());
                out.bytes(rejection.message.as_bytes());
            }
        }
    }
    if let Some(owner) = &session.owner {
        out.raw(&owner.0);
    }
    out.finish()
}

fn decode(value: Bytes) -> Result<Session, DecodeError> {
    /// No outcome is larger than what one command may put out.
    const OUTCOME_BYTES_MAX: usize = 16 * COMMAND_BODY_BYTES_MAX;
    let mut from = Reader::new(value);
    let client = from.array("session client")?;
    let ttl_ms = from.u32("session lifetime")?;
    let active = HlcTimestamp(from.u64("session activity")?);
    let acknowledged_below = Sequence(from.u64("session acknowledgement")?);
    let count = from.count(WINDOW_MAX, "session outcomes")?;
    let mut outcomes = VecDeque::with_capacity(count);
    for _ in 0..count {
        let sequence = Sequence(from.u64("outcome sequence")?);
        let outcome = if from.flag("outcome kind")? {
            Outcome::Rejected(Rejection {
                code: from.u32("rejection code")?,
                name: from.text(OUTCOME_BYTES_MAX, "rejection name")?,
                message: from.text(OUTCOME_BYTES_MAX, "rejection message")?,
            })
        } else {
            Outcome::Done(from.bytes(OUTCOME_BYTES_MAX, "outcome body")?)
        };
        outcomes.push_back((sequence, Slot::Answered(outcome)));
    }
    let owner = if from.left() == 0 { None } else { Some(ClientKey(from.array("session owner")?)) };
    from.end()?;
    Ok(Session { client, owner, ttl_ms, active, acknowledged_below, outcomes, dirty: false })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(ms: u64) -> HlcTimestamp {
        HlcTimestamp::from_unix_ms(ms)
    }

    fn done(text: &'static str) -> Outcome {
        Outcome::Done(Bytes::from_static(text.as_bytes()))
    }

    fn opened(sessions: &mut Sessions) -> SessionId {
        sessions.open(LogIndex(5), 3, at(1_000), None, [7; 16], 10_000).unwrap()
    }

    fn answer(sessions: &mut Sessions, id: SessionId, sequence: u64, outcome: Outcome) {
        let admission = sessions.admit(id, None, at(1_001), Sequence(sequence), Sequence(1), 0);
        assert_eq!(admission, Admission::New);
        sessions.record(id, Sequence(sequence), outcome);
    }

    fn code(admission: Admission) -> u32 {
        match admission {
            Admission::Refused(rejection) => rejection.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_retry_gets_the_first_outcome_and_is_not_carried_out_again() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        assert_eq!(sessions.admit(id, None, at(1_001), Sequence(1), Sequence(1), 0), Admission::New);
        sessions.record(id, Sequence(1), done("one"));
        assert_eq!(
            sessions.admit(id, None, at(1_002), Sequence(1), Sequence(1), 0),
            Admission::Known(done("one"))
        );
    }

    #[test]
    fn numbers_may_arrive_out_of_order_and_each_counts_once() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        for sequence in [3, 1, 2] {
            assert_eq!(
                sessions.admit(id, None, at(1_001), Sequence(sequence), Sequence(1), 0),
                Admission::New
            );
            sessions.record(id, Sequence(sequence), done("x"));
        }
        for sequence in 1..=3 {
            assert!(matches!(
                sessions.admit(id, None, at(1_001), Sequence(sequence), Sequence(1), 0),
                Admission::Known(_)
            ));
        }
    }

    #[test]
    fn acknowledged_numbers_are_refused_and_not_carried_out_again() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        answer(&mut sessions, id, 1, done("one"));
        assert_eq!(sessions.admit(id, None, at(1_001), Sequence(2), Sequence(2), 0), Admission::New);
        assert_eq!(
            code(sessions.admit(id, None, at(1_001), Sequence(1), Sequence(1), 0)),
            Rejection::SEQUENCE_STALE
        );
    }

    #[test]
    fn an_expired_session_is_refused_before_and_after_the_sweep() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        assert_eq!(sessions.touch(id, None, at(11_000)), Ok(()));
        let late = at(21_001);
        assert_eq!(
            code(sessions.admit(id, None, late, Sequence(1), Sequence(1), 0)),
            Rejection::SESSION_EXPIRED
        );
        sessions.sweep(LogIndex(SWEEP_INTERVAL + 1), late);
        assert_eq!(sessions.len(), 1);
        sessions.sweep(LogIndex(SWEEP_INTERVAL), late);
        assert_eq!(sessions.len(), 0);
        assert_eq!(
            code(sessions.admit(id, None, at(1_000), Sequence(1), Sequence(1), 0)),
            Rejection::SESSION_EXPIRED
        );
    }

    #[test]
    fn a_command_twice_in_one_entry_is_carried_out_once() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        assert_eq!(sessions.admit(id, None, at(1_001), Sequence(1), Sequence(1), 4), Admission::New);
        assert_eq!(sessions.admit(id, None, at(1_001), Sequence(1), Sequence(1), 9), Admission::SameAs(4));
    }

    #[test]
    fn opening_twice_gives_one_session() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        assert_eq!(sessions.open(LogIndex(9), 0, at(1_500), None, [7; 16], 10_000), Ok(id));
        assert_ne!(sessions.open(LogIndex(9), 1, at(1_500), None, [8; 16], 10_000), Ok(id));
    }

    #[test]
    fn the_window_of_unacknowledged_outcomes_is_bounded() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        for sequence in 1..=WINDOW_MAX as u64 {
            answer(&mut sessions, id, sequence, done("x"));
        }
        let next = Sequence(WINDOW_MAX as u64 + 1);
        assert_eq!(code(sessions.admit(id, None, at(1_001), next, Sequence(1), 0)), Rejection::WINDOW_FULL);
        assert_eq!(sessions.admit(id, None, at(1_001), next, Sequence(2), 0), Admission::New);
    }

    #[test]
    fn the_table_survives_a_snapshot() {
        let mut sessions = Sessions::default();
        let id = opened(&mut sessions);
        answer(&mut sessions, id, 1, done("one"));
        let no = Rejection { code: 100, name: "no".into(), message: "No.".into() };
        answer(&mut sessions, id, 2, Outcome::Rejected(no.clone()));
        let gone = sessions.open(LogIndex(6), 0, at(1_000), None, [9; 16], 10_000).unwrap();
        let mut state = State::new();
        sessions.store(&mut state);
        sessions.close(gone, None).unwrap();
        sessions.store(&mut state);
        let mut loaded = Sessions::load(&state).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(
            loaded.admit(id, None, at(1_001), Sequence(1), Sequence(1), 0),
            Admission::Known(done("one"))
        );
        assert_eq!(
            loaded.admit(id, None, at(1_001), Sequence(2), Sequence(1), 0),
            Admission::Known(Outcome::Rejected(no))
        );
        assert_eq!(
            code(loaded.admit(gone, None, at(1_001), Sequence(1), Sequence(1), 0)),
            Rejection::SESSION_EXPIRED
        );
    }

    /// What could go wrong: a leader acts in the name of another's session with a key, or without one.
    #[test]
    fn a_session_obeys_the_key_that_opened_it_and_nobody_else() {
        let (mine, other) = (Some(ClientKey([1; 32])), Some(ClientKey([2; 32])));
        let mut sessions = Sessions::default();
        let id = sessions.open(LogIndex(5), 0, at(1_000), mine, [7; 16], 10_000).unwrap();
        let theirs = sessions.open(LogIndex(6), 0, at(1_000), other, [7; 16], 10_000).unwrap();
        assert_ne!(id, theirs, "the same name under another key is another session");
        let mut state = State::new();
        sessions.store(&mut state);
        let mut sessions = Sessions::load(&state).unwrap();
        for foreign in [other, None] {
            let refused = sessions.admit(id, foreign, at(1_001), Sequence(1), Sequence(1), 0);
            assert_eq!(code(refused), Rejection::FOREIGN_SESSION);
            assert_eq!(sessions.touch(id, foreign, at(1_001)).unwrap_err().code, Rejection::FOREIGN_SESSION);
            assert_eq!(sessions.close(id, foreign).unwrap_err().code, Rejection::FOREIGN_SESSION);
        }
        assert_eq!(sessions.admit(id, mine, at(1_001), Sequence(1), Sequence(1), 0), Admission::New);
        let unowned = opened(&mut sessions);
        let refused = sessions.admit(unowned, mine, at(1_001), Sequence(1), Sequence(1), 0);
        assert_eq!(code(refused), Rejection::FOREIGN_SESSION);
        assert_eq!(sessions.close(id, mine), Ok(()));
        assert_eq!(sessions.len(), 2);
    }
}
