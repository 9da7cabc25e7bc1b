//! Bounds, refusals, and messages that no replica in its right mind would send.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use quorate_crypto::Verified;
use quorate_types::{
    ENTRY_BYTES_MAX, Entry, EntryKind, Epoch, HlcTimestamp, LogIndex, NodeId, Position, Role, Term,
};

use super::cluster::{Cluster, config, mark, member};
use crate::raft::{
    APPEND_BYTES_MAX, Body, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MESSAGES_MAX, Message, PENDING_READS_MAX, Pledge,
    ReadRound, Statement, UNCOMMITTED_BYTES_MAX, UNCOMMITTED_ENTRIES_MAX,
};
use crate::{
    Effects, Input, Proposal, ProposalId, ProposeError, ReadError, ReadId, ReplicaRole, StartError, Token,
};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn three() -> Cluster {
    let mut cluster = Cluster::new(config((1..=3).map(|node| member(node, Role::Voter, 1)).collect()), 1);
    cluster.run(Duration::from_millis(50));
    cluster
}

fn propose(cluster: &mut Cluster, kind: EntryKind, bytes: usize) -> Effects {
    let body = Bytes::from(vec![0; bytes]);
    cluster.step(ONE, Input::Propose(Proposal { id: ProposalId(1), kind, body }))
}

fn refusal(effects: &Effects) -> Option<ProposeError> {
    effects.proposed[0].1.err()
}

/// How many entries each append to n2 carries.
fn appends_to_two(effects: &Effects) -> Vec<usize> {
    let sent = effects.messages.iter().filter(|outgoing| outgoing.to() == TWO);
    sent.filter_map(|outgoing| match outgoing.message() {
        crate::Message::Raft(Message {
            body: Body::Statement(Statement::Append { entries, .. }), ..
        }) => Some(entries.len()),
        _ => None,
    })
    .collect()
}

fn receive(cluster: &mut Cluster, to: NodeId, from: NodeId, term: u64, body: Body) -> Effects {
    let message = crate::Message::Raft(Message { term: Term(term), body });
    cluster.step(to, Input::Message(Verified::from_authenticated_peer(from, message)))
}

fn at(term: u64, index: u64) -> Position {
    Position { epoch: Epoch(1), term: Term(term), index: LogIndex(index) }
}

fn entry(term: u64, index: u64, hlc: u64) -> Entry {
    Entry { position: at(term, index), hlc: HlcTimestamp(hlc), kind: EntryKind::Batch, body: Bytes::new() }
}

#[test]
fn appends_in_flight_are_bounded_in_messages_and_go_on_with_acknowledgements() {
    let mut cluster = three();
    let sent = |cluster: &mut Cluster| appends_to_two(&propose(cluster, EntryKind::Batch, 10)).len();
    assert!((0..IN_FLIGHT_MESSAGES_MAX).all(|_| sent(&mut cluster) == 1));
    assert_eq!(sent(&mut cluster), 0);
    assert_eq!(sent(&mut cluster), 0);
    // The acknowledgement of the oldest makes room for one message, which holds all that waits.
    let ack = Body::Pledge(Pledge::AppendAck { matched: LogIndex(2) });
    let effects = receive(&mut cluster, ONE, TWO, 1, ack);
    assert_eq!(appends_to_two(&effects), [2]);
}

#[test]
fn appends_in_flight_are_bounded_in_bytes() {
    let mut cluster = three();
    let bytes = ENTRY_BYTES_MAX;
    let messages = (0..6).map(|_| appends_to_two(&propose(&mut cluster, EntryKind::Batch, bytes)).len());
    assert_eq!(messages.sum::<usize>(), IN_FLIGHT_BYTES_MAX / bytes);
}

#[test]
fn one_append_holds_a_bounded_number_of_bytes() {
    let mut cluster = three();
    cluster.cut.insert((ONE, TWO));
    for _ in 0..IN_FLIGHT_MESSAGES_MAX {
        propose(&mut cluster, EntryKind::Batch, 10);
    }
    let body = APPEND_BYTES_MAX / 4;
    (0..8).for_each(|_| drop(propose(&mut cluster, EntryKind::Batch, body)));
    let ack = Body::Pledge(Pledge::AppendAck { matched: LogIndex(3) });
    let effects = receive(&mut cluster, ONE, TWO, 1, ack);
    assert_eq!(appends_to_two(&effects), [3, 3]);
}

#[test]
fn uncommitted_entries_and_bytes_are_bounded() {
    let mut cluster = three();
    for _ in 0..UNCOMMITTED_ENTRIES_MAX {
        assert_eq!(refusal(&propose(&mut cluster, EntryKind::Batch, 1)), None);
    }
    assert_eq!(refusal(&propose(&mut cluster, EntryKind::Batch, 1)), Some(ProposeError::Overloaded));
    cluster.settle();
    assert_eq!(refusal(&propose(&mut cluster, EntryKind::Batch, 1)), None);
    cluster.settle();
    let fitting = UNCOMMITTED_BYTES_MAX.div_ceil(ENTRY_BYTES_MAX);
    for _ in 0..fitting {
        assert_eq!(refusal(&propose(&mut cluster, EntryKind::Batch, ENTRY_BYTES_MAX)), None);
    }
    assert_eq!(refusal(&propose(&mut cluster, EntryKind::Batch, 1)), Some(ProposeError::Overloaded));
    cluster.settle();
    assert_eq!(refusal(&propose(&mut cluster, EntryKind::Batch, 1)), None);
}

#[test]
fn only_batches_of_a_bounded_size_are_proposed() {
    let mut cluster = three();
    for (kind, bytes) in
        [(EntryKind::Stop, 8), (EntryKind::Empty, 0), (EntryKind::Batch, ENTRY_BYTES_MAX + 1)]
    {
        assert_eq!(refusal(&propose(&mut cluster, kind, bytes)), Some(ProposeError::NotAllowed));
    }
    assert_eq!(refusal(&propose(&mut cluster, EntryKind::Batch, 8)), None);
}

#[test]
fn waiting_reads_are_bounded() {
    let mut cluster = three();
    for id in 0..PENDING_READS_MAX as u64 {
        assert!(cluster.step(ONE, Input::Read(ReadId(id))).reads.is_empty());
    }
    let over = cluster.step(ONE, Input::Read(ReadId(0))).reads;
    assert_eq!(over, [(ReadId(0), Err(ReadError::Overloaded))]);
    let ack = Body::Statement(Statement::HeartbeatAck { round: ReadRound(1) });
    assert_eq!(receive(&mut cluster, ONE, TWO, 1, ack).reads.len(), 1);
    let ack = Body::Statement(Statement::HeartbeatAck { round: ReadRound(2) });
    assert_eq!(receive(&mut cluster, ONE, TWO, 1, ack).reads.len(), PENDING_READS_MAX - 1);
}

#[test]
fn strangers_and_false_leaders_change_nothing() {
    let mut cluster = three();
    let heartbeat = || Body::Statement(Statement::Heartbeat { commit: LogIndex(1), round: ReadRound(9) });
    for (to, from, term) in [(TWO, NodeId(9), 7), (TWO, NodeId(3), 1), (TWO, TWO, 7), (ONE, TWO, 1)] {
        let before = cluster.raft(to).counters().messages_ignored;
        assert!(receive(&mut cluster, to, from, term, heartbeat()).is_empty());
        assert_eq!(cluster.raft(to).counters().messages_ignored, before + 1);
    }
    // The same from the leader is answered.
    assert_eq!(receive(&mut cluster, TWO, ONE, 1, heartbeat()).messages.len(), 1);
}

#[test]
fn appends_that_are_no_run_are_dropped() {
    let mut cluster = three();
    let mut append = |prev, entries: Vec<Entry>| {
        let body = Body::Statement(Statement::Append { prev, commit: LogIndex(0), entries });
        receive(&mut cluster, TWO, ONE, 1, body)
    };
    let hlc = HlcTimestamp::from_unix_ms(1_001_100).0;
    assert!(append(at(1, 1), vec![entry(1, 3, hlc)]).is_empty());
    assert!(append(at(1, 1), vec![entry(2, 2, hlc)]).is_empty());
    assert!(append(at(1, 1), vec![entry(1, 2, hlc), entry(1, 3, hlc)]).is_empty());
    assert!(append(at(1, 1), vec![entry(1, 2, 5)]).is_empty());
    let later_epoch = Position { epoch: Epoch(2), ..at(1, 2) };
    assert!(append(at(1, 1), vec![Entry { position: later_epoch, ..entry(1, 2, hlc) }]).is_empty());
    assert!(append(at(1, 1), vec![entry(1, 2, hlc)]).persist.is_some());
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_dropped() {
    let mut cluster = three();
    propose(&mut cluster, EntryKind::Batch, 1);
    cluster.step(ONE, Input::Persisted(Token(3)));
    let mut ack = |index| {
        let body = Body::Pledge(Pledge::AppendAck { matched: LogIndex(index) });
        receive(&mut cluster, ONE, TWO, 1, body).deliver.len()
    };
    assert_eq!(ack(3), 0);
    assert_eq!(ack(2), 1);
}

#[test]
fn stamps_too_far_ahead_are_refused_and_counted() {
    let mut cluster = three();
    let now_ms = 1_000_000 + cluster.now.0 / 1_000;
    let mut append = |ms| {
        let entries = vec![entry(1, 2, HlcTimestamp::from_unix_ms(ms).0)];
        let body = Body::Statement(Statement::Append { prev: at(1, 1), commit: LogIndex(1), entries });
        receive(&mut cluster, TWO, ONE, 1, body)
    };
    assert!(append(now_ms + 1_001).persist.is_none());
    assert!(append(now_ms + 1_000).persist.is_some());
    assert_eq!(cluster.raft(TWO).counters().stamps_refused, 1);
}

#[test]
fn an_entry_against_what_is_committed_fences_and_a_fenced_replica_is_silent() {
    let mut cluster = three();
    assert_eq!(cluster.node(TWO).status.as_ref().unwrap().commit, LogIndex(1));
    let hlc = HlcTimestamp::from_unix_ms(1_001_100).0;
    let body = Body::Statement(Statement::Append {
        prev: Position::ZERO,
        commit: LogIndex(0),
        entries: vec![entry(2, 1, hlc)],
    });
    let effects = receive(&mut cluster, TWO, NodeId(3), 2, body);
    assert!(effects.fence.is_some() && effects.persist.is_none() && effects.messages.is_empty());
    assert_eq!(cluster.raft(TWO).next_deadline(), None);
    assert!(cluster.step(TWO, Input::Tick).is_empty());
}

#[test]
fn false_reports_of_the_own_node_fence() {
    let faults = [
        Input::Persisted(Token(99)),
        Input::Applied(LogIndex(2)),
        Input::Compact {
            mark: mark(at(1, 2), HlcTimestamp(1), &three().config),
            content: None,
            keep_from: LogIndex(1),
        },
        Input::Compact {
            mark: mark(at(9, 1), HlcTimestamp(1), &three().config),
            content: None,
            keep_from: LogIndex(1),
        },
        Input::SnapshotInstalled(mark(at(1, 9), HlcTimestamp(1), &three().config)),
    ];
    for fault in faults {
        assert!(three().step(ONE, fault.clone()).fence.is_some(), "{fault:?}");
    }
    assert!(three().step(ONE, Input::Applied(LogIndex(1))).fence.is_none());
    assert!(three().step(ONE, Input::Persisted(Token(1))).fence.is_none());
}

#[test]
fn a_snapshot_that_meets_its_own_entries_keeps_those_after_it() {
    let mut cluster = three();
    propose(&mut cluster, EntryKind::Batch, 1);
    propose(&mut cluster, EntryKind::Batch, 1);
    while let Some(packet) = cluster.network.pop_front() {
        cluster.hand_over(packet);
    }
    let position = cluster.raft(TWO).log.position_at(LogIndex(2)).unwrap();
    let hlc = cluster.raft(TWO).log.hlc_at(LogIndex(2)).unwrap();
    let mark = mark(position, hlc, &cluster.config);
    let effects = cluster.nodes.get_mut(&TWO).unwrap().raft.as_mut().unwrap();
    let now = crate::Now { time: cluster.now, wall: HlcTimestamp::from_unix_ms(2_000_000) };
    let effects = effects.step(now, Input::SnapshotInstalled(mark));
    assert!(effects.persist.is_none() && effects.fence.is_none());
    assert_eq!(effects.messages.len(), 1);
    let log = &cluster.raft(TWO).log;
    assert_eq!((log.base(), log.last()), (at(1, 2), at(1, 3)));
}

#[test]
fn a_log_with_a_gap_or_of_a_later_term_does_not_start() {
    let base = mark(Position::ZERO, HlcTimestamp::ZERO, &three().config);
    let hard = super::super::state::HardState { epoch: Epoch(1), term: Term(2), vote: None };
    let start = |hard_state: bool, base: &crate::SnapshotMark, entries: Vec<Entry>| {
        let start = crate::Start {
            group: quorate_types::GroupId(1),
            node: ONE,
            seed: 1,
            timings: crate::Timings::default(),
            base: base.clone(),
            content: None,
            hard_state: hard_state.then(|| hard.encode()),
            entries,
        };
        let now = crate::Now { time: quorate_types::Time(0), wall: HlcTimestamp(0) };
        crate::raft::Raft::start(start, now)
    };
    assert!(matches!(start(true, &base, vec![entry(1, 2, 5)]), Err(StartError::Gap { .. })));
    assert!(matches!(start(true, &base, vec![entry(3, 1, 5)]), Err(StartError::Disorder { .. })));
    let falling = vec![entry(2, 1, 5), entry(1, 2, 6)];
    assert!(matches!(start(true, &base, falling), Err(StartError::Disorder { index: LogIndex(2) })));
    assert!(matches!(start(false, &base, vec![entry(1, 1, 5)]), Err(StartError::Disorder { .. })));
    let good = start(true, &base, vec![entry(1, 1, 5), entry(2, 2, 6)]).unwrap();
    assert_eq!(good.log.last(), at(2, 2));
    // A snapshot replaced the history that the log still holds.
    let replaced = crate::SnapshotMark { position: at(2, 1), ..base.clone() };
    let other = start(true, &replaced, vec![entry(1, 1, 5), entry(1, 2, 6)]).unwrap();
    assert_eq!(other.log.last(), at(2, 1));
    let same = crate::SnapshotMark { position: at(1, 1), ..base };
    assert_eq!(start(true, &same, vec![entry(1, 1, 5), entry(1, 2, 6)]).unwrap().log.last(), at(1, 2));
}

#[test]
fn equal_inputs_give_equal_effects() {
    let trace = || {
        let mut cluster = three();
        cluster.crash(ONE);
        cluster.run(Duration::from_millis(400));
        let leader = cluster.ids().into_iter().find(|id| {
            cluster.node(*id).status.as_ref().is_some_and(|status| status.role == ReplicaRole::Leader)
        });
        let effects = cluster.propose(leader.unwrap(), 1, "x");
        format!("{effects:?} {:?}", cluster.nodes)
    };
    assert_eq!(trace(), trace());
}
