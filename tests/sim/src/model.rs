//! What a group's history means, worked out a second time: sessions, exactly once, and the ledger.
//!
//! Relies on the committed entries in order. Promises an outcome for each command by rules of its own,
//! so that product and model can only agree if both are right. Knows no replica.

use std::collections::BTreeMap;

use quorate_types::{
    Batch, BatchItem, Command, Entry, EntryKind, LogIndex, Outcome, Rejection, Sequence, SessionId,
};

use crate::workload::{Answer, Books};

/// What a command's outcome must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Carried out, with this answer.
    Done(Answer),
    /// Refused under this name.
    Refused(&'static str),
    /// Not looked at: its number was acknowledged before.
    Stale,
}

impl Expected {
    /// Whether an outcome is the expected one.
    #[must_use]
    pub fn matches(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Done(answer), Outcome::Done(body)) => answer.is(body),
            (Self::Refused(name), Outcome::Rejected(rejection)) => rejection.name == *name,
            (Self::Stale, Outcome::Rejected(rejection)) => rejection.code == Rejection::SEQUENCE_STALE,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Session {
    acknowledged_below: Sequence,
}

/// A group's state as the history gives it.
#[derive(Debug, Default)]
pub struct ReferenceModel {
    sessions: BTreeMap<SessionId, Session>,
    by_client: BTreeMap<[u8; 16], SessionId>,
    books: Books,
    active: bool,
    /// The outcome with which each command was carried out, for ever.
    outcomes: BTreeMap<(SessionId, Sequence), Expected>,
    /// Every answer that an entry gave for a command.
    answers: BTreeMap<(SessionId, Sequence, LogIndex), Vec<Expected>>,
    /// What the query reads, after each entry.
    readings: Vec<Answer>,
}

impl ReferenceModel {
    /// Applies the next committed entry.
    pub fn apply(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::Batch
            && let Ok(batch) = Batch::decode(entry.body.clone())
        {
            for (position, item) in batch.items.into_iter().enumerate() {
                self.apply_item(entry.index(), position as u64, item);
            }
        }
        self.readings.push(self.books.reading());
    }

    /// The outcome with which a command was carried out.
    #[must_use]
    pub fn outcome(&self, session: SessionId, sequence: Sequence) -> Option<&Expected> {
        self.outcomes.get(&(session, sequence))
    }

    /// What the entry at an index may have answered for a command.
    #[must_use]
    pub fn outcomes_at(&self, session: SessionId, sequence: Sequence, index: LogIndex) -> &[Expected] {
        self.answers.get(&(session, sequence, index)).map_or(&[], Vec::as_slice)
    }

    /// What is wrong with an answer to the workload's query from the state at an index, if anything.
    #[must_use]
    pub fn query_fault(&self, index: LogIndex, outcome: &Outcome) -> Option<String> {
        let expected = (index.0 as usize).checked_sub(1).and_then(|at| self.readings.get(at));
        match (expected, outcome) {
            (Some(expected), Outcome::Done(body)) if expected.is(body) => None,
            (expected, _) => Some(format!("the history gives {expected:?}")),
        }
    }

    fn apply_item(&mut self, index: LogIndex, position: u64, item: BatchItem) {
        match item {
            BatchItem::Command(command) => {
                let key = (command.session, command.sequence);
                let expected = self.command(command);
                self.answers.entry((key.0, key.1, index)).or_default().push(expected);
            }
            BatchItem::OpenSession { client, .. } => {
                self.by_client.entry(client).or_insert_with(|| {
                    let id = SessionId((index.0 << 12) | position);
                    self.sessions.insert(id, Session::default());
                    id
                });
            }
            BatchItem::Activate { .. } => self.active = true,
            BatchItem::KeepSession(_)
            | BatchItem::CloseSession(_)
            | BatchItem::Tick
            | BatchItem::Checkpoint
            | BatchItem::Evidence(_) => {}
        }
    }

    fn command(&mut self, command: Command) -> Expected {
        let Some(session) = self.sessions.get_mut(&command.session) else {
            return Expected::Refused("session-expired");
        };
        session.acknowledged_below = session.acknowledged_below.max(command.acknowledged_below);
        if command.sequence < session.acknowledged_below {
            return Expected::Stale;
        }
        let key = (command.session, command.sequence);
        if let Some(known) = self.outcomes.get(&key) {
            return known.clone();
        }
        let expected = match self.active {
            true => match self.books.book(&command.name, &command.body) {
                Ok(answer) => Expected::Done(answer),
                Err(name) => Expected::Refused(name),
            },
            false => Expected::Refused("no-component"),
        };
        self.outcomes.insert(key, expected.clone());
        expected
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_types::{Digest, Epoch, HlcTimestamp, Position, Term};

    use super::*;
    use crate::random::Random;
    use crate::workload::Workload;

    fn entry(index: u64, items: Vec<BatchItem>) -> Entry {
        Entry {
            position: Position { epoch: Epoch(1), term: Term(1), index: LogIndex(index) },
            hlc: HlcTimestamp(index),
            kind: EntryKind::Batch,
            body: Batch { items }.encode(),
        }
    }

    /// A model with the ledger active and one session open.
    fn opened() -> (ReferenceModel, SessionId) {
        let mut model = ReferenceModel::default();
        let activate =
            BatchItem::Activate { component: Digest([1; 32]), parameters: Bytes::new(), after: None };
        let open = BatchItem::OpenSession { client: [1; 16], ttl_ms: 1 };
        model.apply(&entry(1, vec![activate, open]));
        (model, SessionId((1 << 12) | 1))
    }

    fn open_account(session: SessionId, sequence: u64, below: u64) -> BatchItem {
        // The first command of every workload opens an account, the same one under the same seed.
        let (name, body) = Workload::new(0, Random::new(1)).command();
        let (sequence, acknowledged_below) = (Sequence(sequence), Sequence(below));
        BatchItem::Command(Command { session, sequence, acknowledged_below, name, body })
    }

    #[test]
    fn a_number_counts_once_and_keeps_its_outcome() {
        let (mut model, session) = opened();
        model.apply(&entry(2, vec![open_account(session, 1, 1)]));
        model.apply(&entry(3, vec![open_account(session, 1, 1)]));
        let done = Expected::Done(Answer::Nothing);
        assert_eq!(model.outcomes_at(session, Sequence(1), LogIndex(2)), std::slice::from_ref(&done));
        assert_eq!(model.outcomes_at(session, Sequence(1), LogIndex(3)), [done]);
        assert_eq!(model.outcomes.len(), 1);
        model.apply(&entry(4, vec![open_account(session, 2, 1)]));
        assert_eq!(model.outcome(session, Sequence(2)), Some(&Expected::Refused("already-open")));
    }

    #[test]
    fn an_acknowledged_number_is_stale_and_an_unknown_session_is_refused() {
        let (mut model, session) = opened();
        model.apply(&entry(2, vec![open_account(session, 1, 1), open_account(session, 2, 2)]));
        model.apply(&entry(3, vec![open_account(session, 1, 1)]));
        assert_eq!(model.outcomes_at(session, Sequence(1), LogIndex(3)), [Expected::Stale]);
        model.apply(&entry(4, vec![open_account(SessionId(9), 1, 1)]));
        let refused = [Expected::Refused("session-expired")];
        assert_eq!(model.outcomes_at(SessionId(9), Sequence(1), LogIndex(4)), refused);
    }

    #[test]
    fn an_outcome_is_told_from_another() {
        let rejected = |code, name: &str| {
            Outcome::Rejected(Rejection { code, name: name.to_owned(), message: String::new() })
        };
        assert!(Expected::Done(Answer::Nothing).matches(&Outcome::Done(Bytes::new())));
        assert!(!Expected::Done(Answer::Nothing).matches(&rejected(200, "not-open")));
        assert!(Expected::Refused("not-open").matches(&rejected(200, "not-open")));
        assert!(!Expected::Refused("not-open").matches(&rejected(201, "already-open")));
        assert!(Expected::Stale.matches(&rejected(Rejection::SEQUENCE_STALE, "sequence-stale")));
    }

    #[test]
    fn a_query_is_judged_by_the_state_it_was_read_from() {
        let (mut model, session) = opened();
        model.apply(&entry(2, vec![open_account(session, 1, 1)]));
        let before = Outcome::Done(Bytes::from_static(b"\xa5"));
        assert!(model.query_fault(LogIndex(2), &before).is_some());
        assert!(model.query_fault(LogIndex(3), &before).is_some());
    }
}
