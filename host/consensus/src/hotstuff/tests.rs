//! Tests of whole replicas: the good path, faults of every kind under a seed, liars, and planted faults.
//!
//! Relies on the simulated cluster, which checks agreement at each delivery. Promises that each rule of the
//! design which can be seen from outside has a run that shows it.
#![allow(clippy::unwrap_used)]

mod offers;

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_crypto::{
    Certificate, Scope, SecretKey, Signature, Statement, StatementKind, Validator, ValidatorSet, Verified,
};
use quorate_types::codec::{Reader, Writer};
use quorate_types::{ClusterId, Digest, EntryKind, Epoch, GroupId, LogIndex, NodeId, Protocol, Time, View};

use super::cluster::{Cluster, Conduct, Random, Weather, keys};
use super::planted::{RuleBroken, break_rule};
use super::rules;
use super::state::Turn;
use super::twins::{Healing, scenario};
use super::{
    Block, Blocks, Body, CommitRule, Evidence, EvidenceError, Header, Justify, Message, Proposal, Settings,
};
use crate::{Input, Now, ReadError, ReadId, SnapshotMark};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A started cluster of honest replicas that came to rest, led by the first.
fn honest(count: u64, seed: u64) -> Cluster {
    with(count, &vec![Conduct::Honest; count as usize], seed)
}

/// Four honest replicas, the last of which hears of none of these commands, given one after the other.
fn left_alone(seed: u64, commands: usize, apart: Duration) -> Cluster {
    let mut cluster = honest(4, seed);
    cluster.instances[3].part = 1;
    for _ in 0..commands {
        cluster.propose(0);
        cluster.run(apart);
    }
    cluster
}

fn with(count: u64, conduct: &[Conduct], seed: u64) -> Cluster {
    let mut cluster = Cluster::new(&keys(count), conduct, Settings::default(), 1, seed);
    cluster.run(ms(500));
    assert!(cluster.is_silent(), "an idle group sends nothing");
    cluster
}

fn batches(cluster: &Cluster, at: usize) -> usize {
    let upto = cluster.instances[at].delivered;
    let entries = cluster.agreed.range(..=upto);
    entries.filter(|(_, entry)| !entry.body.is_empty()).count()
}

/// A leader that never stops proposing empty blocks keeps every idle group of a node awake; one that stops
/// too early leaves followers without the commit.
#[test]
fn a_command_commits_everywhere_and_then_all_is_silent() {
    for rule in [CommitRule::TwoChain, CommitRule::ThreeChain] {
        let settings = Settings { commit_rule: rule, ..Settings::default() };
        let mut cluster = Cluster::new(&keys(4), &[Conduct::Honest; 4], settings, 1, 1);
        cluster.run(ms(500));
        cluster.propose(0);
        cluster.run(ms(50));
        assert_eq!(cluster.violation, None);
        assert!((0..4).all(|at| batches(&cluster, at) == 1), "{rule:?}");
        let blocks = if rule == CommitRule::TwoChain { 3 } else { 4 };
        assert_eq!(
            cluster.instances[0].replica.as_ref().unwrap().chain.tip().position.index,
            LogIndex(blocks)
        );
        assert!(cluster.is_silent(), "{rule:?}");
    }
}

/// A proposal or vote that leaves before its flush is forgotten by a crash and contradicted afterwards.
#[test]
fn nothing_that_binds_leaves_before_it_is_durable() {
    let mut cluster = honest(4, 2);
    cluster.propose(0);
    assert!(cluster.packets.is_empty() && !cluster.instances[0].unflushed.is_empty());
    cluster.flush(0);
    assert!(cluster.packets.values().any(|packet| matches!(packet.message.body, Body::Proposal(_))));
    assert!(cluster.packets.values().all(|packet| !matches!(packet.message.body, Body::Vote { .. })));
    let hard_state = cluster.instances[0].disk.hard_state.clone();
    assert!(hard_state.is_some() && cluster.instances[0].disk.entries.len() == 1);
}

#[test]
fn messages_of_a_decision_grow_linearly_with_the_members() {
    for count in [4, 7, 10, 13, 31] {
        let mut cluster = honest(count, 3);
        let before = cluster.counts.messages;
        for _ in 0..10 {
            cluster.propose(0);
            cluster.run(ms(20));
        }
        assert_eq!(cluster.counts.commits, 10);
        // A command, and two empty blocks since it is alone: each goes to all, and a vote comes from each. Before
        // the silence, the last certificate goes to all.
        let sent = cluster.counts.messages - before;
        assert!(sent <= 10 * (3 * 2 + 1) * count, "{sent} messages for 10 decisions of {count}");
    }
}

#[test]
fn a_dead_leader_is_replaced_and_the_group_goes_on() {
    for count in [4, 7] {
        let mut cluster = honest(count, 4);
        cluster.crash(0);
        // A request at one follower is enough.
        cluster.propose(1);
        cluster.run(ms(1_000));
        assert!(cluster.is_silent(), "a leader was found and nothing waits");
        for _ in 0..3 {
            (1..count as usize).for_each(|at| cluster.propose(at));
            cluster.run(ms(300));
        }
        assert_eq!(cluster.violation, None);
        assert!(cluster.counts.commits > 0);
        assert!(cluster.heals_within(ms(20_000)), "the old leader catches up");
    }
}

#[test]
fn a_part_without_a_quorum_commits_nothing_and_catches_up() {
    let mut cluster = honest(4, 5);
    cluster.propose(0);
    cluster.run(ms(50));
    cluster.instances[2].part = 1;
    cluster.instances[3].part = 1;
    for _ in 0..10 {
        cluster.propose_everywhere();
        cluster.run(ms(200));
    }
    assert_eq!(cluster.counts.commits, 1);
    assert!(cluster.heals_within(ms(60_000)));
    assert_eq!(cluster.violation, None);
}

/// Views that drift apart never meet again without the certificates that open them.
#[test]
fn a_replica_that_was_alone_learns_the_view_and_the_blocks() {
    let mut cluster = left_alone(6, 20, ms(20));
    assert_eq!((batches(&cluster, 0), batches(&cluster, 3)), (20, 0));
    cluster.instances[3].part = 0;
    cluster.propose(3);
    cluster.run(ms(1_000));
    assert_eq!(batches(&cluster, 3), 20);
    let view = |at: usize| cluster.instances[at].replica.as_ref().unwrap().view;
    assert!(view(3).0 + 1 >= view(0).0);
}

/// A faulty leader that proposes and goes no further must not keep the others impatient.
#[test]
fn waiting_times_grow_until_a_commit_and_only_then_fall() {
    let mut cluster = honest(4, 7);
    cluster.crash(0);
    cluster.crash(1);
    cluster.propose(2);
    cluster.run(ms(2_000));
    assert!(cluster.instances[2].replica.as_ref().unwrap().counters().timeouts > 1);
    cluster.start(1);
    cluster.run(ms(2_000));
    let failures = |cluster: &Cluster| cluster.instances[2].replica.as_ref().unwrap().failures;
    assert!(failures(&cluster) > 0, "an empty block alone commits nothing");
    (1..4).for_each(|at| cluster.propose(at));
    cluster.run(ms(5_000));
    (1..4).for_each(|at| cluster.propose(at));
    cluster.run(ms(5_000));
    assert!(cluster.counts.commits > 0);
    assert_eq!(failures(&cluster), 0);
}

/// Each crash loses another part of what was under way.
#[test]
fn a_crash_at_any_point_loses_no_vote_and_no_commit() {
    for at in 0..4 {
        for events in 0..60 {
            let mut cluster = honest(4, 8);
            cluster.propose(0);
            for _ in 0..events {
                let until = cluster.now.after(ms(200));
                cluster.advance(until);
            }
            let before = cluster.instances[at].replica.as_ref().unwrap().voter.safety().proposed;
            cluster.crash(at);
            cluster.start(at);
            cluster.run(ms(300));
            assert!(cluster.heals_within(ms(20_000)), "n{} after {events} events", at + 1);
            assert_eq!(cluster.violation, None, "n{} after {events} events", at + 1);
            assert!(before <= View(1_000));
        }
    }
}

#[test]
fn a_restarted_replica_knows_what_it_signed_and_gives_the_same_answer() {
    let mut cluster = honest(4, 9);
    cluster.propose(0);
    cluster.run(ms(50));
    let safety = |cluster: &Cluster| *cluster.instances[2].replica.as_ref().unwrap().voter.safety();
    let before = safety(&cluster);
    assert!(before.vote.is_some());
    cluster.crash(2);
    cluster.start(2);
    assert_eq!(safety(&cluster), before);
    cluster.run(ms(500));
    assert_eq!(batches(&cluster, 2), 1, "the commit that was known is delivered again");
    assert!(cluster.is_silent());
}

/// Such a replica would vote in views that it voted in before the backup was restored.
#[test]
fn a_replica_from_an_old_backup_is_fenced_by_its_peers() {
    let mut cluster = honest(4, 10);
    let backup = cluster.instances[3].disk.clone();
    cluster.crash(3);
    cluster.start(3);
    cluster.run(ms(500));
    cluster.crash(3);
    cluster.instances[3].disk = backup;
    cluster.start_as(3, 2);
    cluster.run(ms(500));
    let fenced = cluster.instances[3].fenced.clone().unwrap();
    assert!(fenced.contains("old backup"), "{fenced}");
    cluster.violation = None;
    cluster.propose(0);
    cluster.run(ms(100));
    assert_eq!(cluster.counts.commits, 1, "the others go on");
}

/// Loss, delay, crashes, parts, and as many liars or silent replicas as are tolerated.
fn storm(count: u64, seed: u64, rule: CommitRule) {
    let mut random = Random(seed);
    let mut conduct = vec![Conduct::Honest; count as usize];
    for _ in 0..(count - 1) / 3 {
        let kind = [Conduct::Silent, Conduct::Twin, Conduct::Honest][random.below(3) as usize];
        conduct[random.below(count) as usize] = kind;
    }
    let settings = Settings { commit_rule: rule, tenure_views: 1 + random.below(20) };
    let mut cluster = Cluster::new(&keys(count), &conduct, settings, 1 + random.below(count), seed);
    cluster.run(ms(100));
    for _ in 0..12 {
        cluster.weather = Weather {
            loss_percent: random.below(40),
            proposals_lost_percent: 0,
            delay_us_max: [500, 5_000, 80_000][random.below(3) as usize],
        };
        let parts = 1 + random.below(2);
        for at in 0..cluster.instances.len() {
            cluster.instances[at].part = random.below(parts) as usize;
            let may_crash = cluster.instances[at].conduct == Conduct::Honest;
            match random.below(6) {
                0 if may_crash && cluster.instances[at].replica.is_some() => cluster.crash(at),
                _ if cluster.instances[at].replica.is_none() => cluster.start(at),
                _ => {}
            }
        }
        cluster.propose_everywhere();
        cluster.run(ms(random.below(300)));
    }
    assert_eq!(cluster.violation, None, "n = {count}, seed {seed}, {rule:?}");
    assert!(cluster.heals_within(ms(60_000)), "n = {count}, seed {seed}, {rule:?} makes no progress");
    assert_eq!(cluster.violation, None, "n = {count}, seed {seed}, {rule:?}");
}

#[test]
fn honest_replicas_agree_through_storms_and_go_on_afterwards() {
    for seed in 0..30 {
        storm(4, seed, CommitRule::TwoChain);
        storm(4, seed, CommitRule::ThreeChain);
    }
    for seed in 0..10 {
        storm(7, seed, CommitRule::TwoChain);
    }
    for seed in 0..4 {
        storm(10, seed, CommitRule::TwoChain);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = || {
        let mut cluster = honest(4, 11);
        cluster.weather.loss_percent = 10;
        for _ in 0..10 {
            cluster.propose_everywhere();
            cluster.run(ms(100));
        }
        cluster.trace()
    };
    assert_eq!(trace(), trace());
}

#[test]
fn twins_break_neither_rule_and_are_found_out() {
    for (count, rule) in [(4, CommitRule::TwoChain), (4, CommitRule::ThreeChain), (7, CommitRule::TwoChain)] {
        let (members, mut useful) = (keys(count), 0);
        for number in 0..60 {
            let outcome = scenario(&members, rule, number, Healing::Shown);
            assert_eq!(outcome.violation, None, "n = {count}, {rule:?}, scenario {number}");
            assert!(outcome.healed, "n = {count}, {rule:?}, scenario {number} makes no progress");
            useful += u32::from(outcome.equivocated && outcome.commits > 0);
        }
        assert!(useful > 30, "n = {count}, {rule:?}: only {useful} of 60 scenarios show anything");
    }
}

/// Without the check, a certificate that stayed hidden commits against another one. The range is short since it
/// is known to hold a scenario that shows it; the simulator looks through many more.
#[test]
fn twins_find_a_commit_without_the_check_for_consecutive_views() {
    let members = keys(4);
    let run = |number| scenario(&members, CommitRule::TwoChain, number, Healing::Skipped).violation;
    break_rule(Some(RuleBroken::CommitConsecutiveViews));
    let found = (0..40).find(|number| run(*number).is_some());
    break_rule(None);
    assert!(found.is_some(), "the planted fault is not found");
    assert_eq!(found.and_then(run), None, "the same scenario is sound with the rule in place");
}

/// A replica that votes under keys of another epoch would make certificates that nobody can check.
#[test]
fn a_replica_starts_only_with_the_keys_of_its_epoch() {
    use super::cluster::{Imitation, TIMINGS};
    use crate::{Now, Replica, Start, StartError};
    let cluster = honest(4, 14);
    let start = || Start {
        group: GroupId(9),
        node: NodeId(1),
        seed: 1,
        timings: TIMINGS,
        base: cluster.instances[0].disk.mark.clone(),
        content: None,
        hard_state: None,
        entries: Vec::new(),
    };
    let now = Now { time: cluster.now, wall: quorate_types::HlcTimestamp::from_unix_ms(1_000) };
    let refused = Replica::start(start(), now).map(|_| ());
    assert_eq!(refused, Err(StartError::NoIdentity(Protocol::HotStuff)));
    let with = |set: ValidatorSet, group: GroupId| {
        let identity = super::Identity {
            set: std::sync::Arc::new(set),
            signer: std::sync::Arc::new(Imitation(NodeId(1))),
            certifier: std::sync::Arc::new(super::Inline),
            boot: quorate_types::BootNumber(1),
            settings: Settings::default(),
        };
        Replica::start_signing(Start { group, ..start() }, identity, now).map(|_| ())
    };
    assert_eq!(with(cluster.set().clone(), GroupId(9)), Ok(()));
    assert_eq!(with(cluster.set().clone(), GroupId(8)), Err(StartError::OtherSigners(Epoch(1))));
    let five = Cluster::new(&keys(5), &[Conduct::Honest; 5], Settings::default(), 1, 1);
    assert_eq!(with(five.set().clone(), GroupId(9)), Err(StartError::OtherSigners(Epoch(1))));
}

#[test]
fn a_timeout_that_does_not_raise_the_last_voted_view_is_seen() {
    break_rule(Some(RuleBroken::TimeoutRaisesLastVoted));
    let mut cluster = honest(4, 12);
    cluster.crash(0);
    cluster.crash(1);
    cluster.propose(2);
    cluster.run(ms(1_000));
    let safety = *cluster.instances[2].replica.as_ref().unwrap().voter.safety();
    break_rule(None);
    assert!(safety.timeout.is_some_and(|(view, _)| view > safety.last_voted));
}

/// Runs a group of four whose last member is away, through a change of leaders, and gathers the certificates that
/// its blocks carry, by index.
fn without_the_last(seed: u64) -> (Cluster, BTreeMap<LogIndex, Certificate>) {
    let mut cluster = honest(4, seed);
    cluster.crash(3);
    let mut certificates = BTreeMap::new();
    for round in 0..6 {
        if round == 3 {
            cluster.step(0, Input::MayLead(false));
        }
        cluster.propose_everywhere();
        let until = cluster.now.after(ms(400));
        while cluster.advance(until) {
            for packet in cluster.packets.values() {
                if let Body::Proposal(proposal) = &packet.message.body
                    && let Justify::Certified(certificate) = &proposal.justify
                {
                    certificates.insert(certificate.statement().index, certificate.as_ref().clone());
                }
            }
        }
    }
    (cluster, certificates)
}

/// A kept certificate of a block whose parent is of an earlier view than the one before commits nothing: whoever is
/// behind was given the same blocks again and again.
#[test]
fn a_certificate_that_commits_nothing_holds_nobody_back() {
    let (mut cluster, certificates) = without_the_last(15);
    let view = |cluster: &Cluster, index: LogIndex| {
        let replica = cluster.instances[0].replica.as_ref().unwrap();
        replica.chain.header_at(index).map(Header::view)
    };
    let is_after_gap = |index: LogIndex| {
        let before = view(&cluster, index.previous());
        before.is_some() && before.map(View::next) != view(&cluster, index)
    };
    let (index, certificate) = certificates.iter().find(|(index, _)| is_after_gap(**index)).unwrap();
    for at in 0..3 {
        let replica = cluster.instances[at].replica.as_mut().unwrap();
        replica.milestones = BTreeMap::from([(*index, certificate.clone())]);
    }
    cluster.start(3);
    cluster.run(ms(1_000));
    assert!(cluster.instances[3].delivered >= *index, "only up to {}", cluster.instances[3].delivered);
}

/// After a commit comes a certified block of a later view, and no view goes well from then on: the highest
/// certificate commits nothing. A quorum that needs whoever lacks the snapshot would wait for ever.
#[test]
fn a_snapshot_is_offered_with_the_certificate_that_committed_it_after_a_restart_too() {
    let mut cluster = left_alone(18, 3, ms(50));
    let high = |cluster: &Cluster| cluster.instances[0].replica.as_ref().unwrap().high.view();
    let lose_proposals = |cluster: &mut Cluster| {
        cluster.weather.proposals_lost_percent = 100;
        cluster.packets.retain(|_, packet| !matches!(packet.message.body, Body::Proposal(_)));
    };
    let before = high(&cluster);
    lose_proposals(&mut cluster);
    cluster.propose(0);
    cluster.run(ms(1_000));
    assert_eq!(high(&cluster), before, "a view without proposals certifies something");
    cluster.weather.proposals_lost_percent = 0;
    while high(&cluster) == before {
        assert!(cluster.advance(Time(cluster.now.0 + 10_000_000)), "nothing is certified after the timeouts");
    }
    lose_proposals(&mut cluster);
    cluster.run(ms(1_000));
    cluster.crash(0);
    cluster.start(0);
    cluster.run(ms(1_000));
    let mut offering = cluster.instances[0].replica.take().unwrap();
    let chain = offering.chain.ancestry(offering.high_digest());
    assert!(
        rules::commits(CommitRule::TwoChain, chain).is_none(),
        "the highest certificate commits something"
    );
    let header = *offering.chain.header_at(offering.commit).unwrap();
    let mark = SnapshotMark { position: header.position, hlc: header.hlc, config: cluster.config.clone() };
    let now = Now { time: cluster.now, wall: header.hlc };
    let mut turn = Turn::new(now);
    let content = super::cluster::content_at(header.position);
    offering.compact(&mut turn, mark, content, header.position.index);
    offering.on_request(&mut turn, NodeId(4), LogIndex::ZERO, &Justify::Genesis);
    let offer = turn.effects.messages.pop().map(|outgoing| outgoing.into_parts().1);
    let Some(crate::Message::HotStuff(Message { body: Body::Offer(offer), .. })) = offer else {
        panic!("a snapshot is offered and not {offer:?}");
    };
    let mut behind = cluster.instances[3].replica.take().unwrap();
    let mut turn = Turn::new(now);
    behind.on_offer(&mut turn, NodeId(1), *offer.clone());
    behind.on_offer(&mut turn, NodeId(2), *offer);
    assert_eq!(turn.effects.fetch.map(|fetch| fetch.position), Some(header.position));
}

/// A leader that was alone catches up with others' blocks, and may lead again before it ever knew that it did not:
/// one in the place of the block that a read waits for would let it miss what was acknowledged meanwhile.
#[test]
fn a_read_is_answered_by_its_own_block_and_by_no_other_in_its_place() {
    let mut cluster = honest(4, 19);
    cluster.propose(0);
    cluster.run(ms(200));
    cluster.instances[0].part = 1;
    cluster.step(0, Input::Read(ReadId(7)));
    cluster.run(ms(20));
    for _ in 0..5 {
        (1..4).for_each(|at| cluster.step(at, Input::LeaderMissing));
        cluster.propose_everywhere();
        cluster.run(ms(300));
    }
    let mut alone = cluster.instances[0].replica.take().unwrap();
    let target = alone.reads.front().and_then(|read| read.target).unwrap();
    let mut ahead = cluster.instances[1].replica.take().unwrap();
    let now = Now { time: cluster.now, wall: ahead.chain.tip().hlc };
    let mut turn = Turn::new(now);
    ahead.on_request(&mut turn, NodeId(1), alone.commit, &Justify::Genesis);
    let answer = turn.effects.messages.pop().map(|outgoing| outgoing.into_parts().1);
    let Some(crate::Message::HotStuff(Message { body: Body::Blocks(blocks), .. })) = answer else {
        panic!("blocks are sent and not {answer:?}");
    };
    let mut turn = Turn::new(now);
    alone.on_blocks(&mut turn, NodeId(2), *blocks);
    assert!(alone.commit >= target.index && !alone.chain.holds(target), "{target} is not replaced");
    assert_eq!(turn.effects.reads, [(ReadId(7), Err(ReadError::LeadershipLost))]);
}

/// Otherwise a replica that lacks what nobody sends asks as fast as answers come, and a lying peer keeps it busy.
#[test]
fn an_answer_that_brings_nothing_calls_for_no_other_at_once() {
    let (mut cluster, certificates) = without_the_last(16);
    cluster.start(3);
    cluster.instances[3].part = 1;
    cluster.run(ms(1));
    let say = |cluster: &mut Cluster, body: Body| {
        let message = Message { scope: *cluster.set().scope(), body, signature: Signature([0; 64]) };
        let before = cluster.counts.messages;
        cluster.step(3, Input::Message(Verified::from_authenticated_peer(NodeId(2), message).widen()));
        cluster.counts.messages - before
    };
    let certificate = |index: &LogIndex| certificates[index].clone();
    let highest = certificates.last_key_value().map(|(index, _)| certificate(index)).unwrap();
    let first = certificates.first_key_value().map(|(index, _)| certificate(index)).unwrap();
    let genesis = *cluster.instances[3].replica.as_ref().unwrap().chain.root();
    let entries = cluster.agreed.range(..=first.statement().index).map(|(_, entry)| entry.clone()).collect();
    let blocks = Blocks { root: genesis, entries, headers: Vec::new(), certificate: first };
    let shown = Body::NewView { high: Justify::Certified(Box::new(highest)), timed_out: None };
    say(&mut cluster, shown);
    assert_eq!(say(&mut cluster, Body::Blocks(Box::new(blocks.clone()))), 1, "there is more to ask for");
    assert_eq!(say(&mut cluster, Body::Blocks(Box::new(blocks))), 0, "the same again calls for nothing");
}

/// A lying leader proposes two blocks at one place; a replica that logged the one installs a snapshot of the other.
#[test]
fn a_snapshot_of_another_block_at_the_same_place_voids_the_log() {
    let mut cluster = left_alone(17, 1, ms(50));
    let entry = cluster.agreed[&LogIndex(1)].clone();
    let genesis = *cluster.instances[3].replica.as_ref().unwrap().chain.root();
    let header = Header {
        parent: genesis.digest(),
        tenure: View(1),
        position: entry.position,
        hlc: entry.hlc,
        kind: EntryKind::Empty,
        body: Digest::default(),
    };
    let block = Block::new(header, bytes::Bytes::new());
    let body = Body::Proposal(Box::new(Proposal { block, justify: Justify::Genesis, timed_out: None }));
    let message = Message { scope: *cluster.set().scope(), body, signature: Signature([0; 64]) };
    cluster.step(3, Input::Message(Verified::from_authenticated_peer(NodeId(1), message).widen()));
    cluster.flush(3);
    assert_eq!(cluster.instances[3].disk.entries.len(), 1, "the other block is in the log");
    let mark = SnapshotMark { position: entry.position, hlc: entry.hlc, config: cluster.config.clone() };
    cluster.instances[3].delivered = LogIndex(1);
    cluster.instances[3].disk.mark = mark.clone();
    cluster.step(3, Input::SnapshotInstalled(mark));
    cluster.flush(3);
    assert_eq!(cluster.instances[3].disk.entries, [], "and must not stay below the snapshot");
    assert!(cluster.heals_within(ms(5_000)));
    assert_eq!(cluster.violation, None);
}

fn set_of_real_keys() -> (ValidatorSet, Vec<SecretKey>) {
    let scope = Scope {
        cluster: ClusterId([5; 16]),
        group: GroupId(9),
        epoch: Epoch(1),
        protocol: Protocol::HotStuff,
    };
    let keys: Vec<SecretKey> = (1..=4).map(|node| SecretKey::from_seed(&[node; 32])).collect();
    let member =
        |(at, key): (usize, &SecretKey)| Validator { node: NodeId(at as u64 + 1), key: key.public() };
    (ValidatorSet::new(scope, keys.iter().enumerate().map(member).collect()).unwrap(), keys)
}

#[test]
fn evidence_proves_itself_and_nothing_else_does() {
    let (set, keys) = set_of_real_keys();
    let vote = |view, digest| Statement {
        scope: *set.scope(),
        kind: StatementKind::Vote,
        view: View(view),
        index: LogIndex(3),
        digest: Digest([digest; 32]),
    };
    let signed = |statement: Statement| (statement, keys[1].sign(&statement));
    let evidence = Evidence::of(NodeId(2), signed(vote(5, 1)), signed(vote(5, 2))).unwrap();
    assert_eq!(evidence.verify(&set), Ok(()));
    assert_eq!(Evidence::of(NodeId(2), signed(vote(5, 2)), signed(vote(5, 1))), Some(evidence.clone()));
    assert_eq!(Evidence::of(NodeId(2), signed(vote(5, 1)), signed(vote(5, 1))), None);
    assert_eq!(Evidence::of(NodeId(2), signed(vote(5, 1)), signed(vote(6, 2))), None);
    let sync = |digest| Statement { kind: StatementKind::Sync, ..vote(5, digest) };
    assert_eq!(Evidence::of(NodeId(2), signed(sync(1)), signed(sync(2))), None);
    let framed = Evidence::of(NodeId(3), signed(vote(5, 1)), signed(vote(5, 2))).unwrap();
    assert_eq!(framed.verify(&set), Err(EvidenceError::InvalidSignature { signer: NodeId(3) }));
    let stranger = Evidence::of(NodeId(9), signed(vote(5, 1)), signed(vote(5, 2))).unwrap();
    assert_eq!(stranger.verify(&set), Err(EvidenceError::UnknownSigner { signer: NodeId(9) }));
    let mut out = Writer::default();
    evidence.encode(&mut out);
    assert_eq!(Evidence::decode(&mut Reader::new(out.finish())), Ok(evidence));
}

/// What every replica of a run sends is read back as it was written, and no cut of it panics.
#[test]
fn messages_round_trip() {
    let mut cluster = honest(4, 13);
    let mut seen = std::collections::BTreeSet::new();
    cluster.weather.loss_percent = 20;
    for round in 0..40 {
        cluster.propose_everywhere();
        if round % 10 == 5 {
            cluster.crash(round / 10);
            cluster.start(round / 10);
        }
        let until = cluster.now.after(ms(200));
        while cluster.advance(until) {
            for packet in cluster.packets.values() {
                check_round_trip(&packet.message, &mut seen);
            }
        }
    }
    for kind in ["Proposal", "Vote", "Timeout", "NewView", "Request", "Blocks", "Boot", "Recorded"] {
        assert!(seen.contains(kind), "no {kind} among {seen:?}");
    }
}

fn check_round_trip(message: &Message, seen: &mut std::collections::BTreeSet<String>) {
    let kind = format!("{:?}", message.body).split(['(', ' ']).next().unwrap().to_owned();
    let mut out = Writer::default();
    message.encode(&mut out);
    let bytes = out.finish();
    let mut reader = Reader::new(bytes.clone());
    assert_eq!(Message::decode(&mut reader).as_ref(), Ok(message));
    assert_eq!(reader.end(), Ok(()));
    if seen.insert(kind) {
        assert!((0..bytes.len()).all(|len| Message::decode(&mut Reader::new(bytes.slice(..len))).is_err()));
    }
}

#[test]
fn a_vote_under_another_signature_makes_no_certificate() {
    let (set, keys) = set_of_real_keys();
    let statement = Statement {
        scope: *set.scope(),
        kind: StatementKind::Vote,
        view: View(1),
        index: LogIndex(1),
        digest: Digest([1; 32]),
    };
    let vote = |node: u64| (NodeId(node), keys[node as usize - 1].sign(&statement));
    let assemble =
        |votes: Vec<(NodeId, Signature)>| quorate_crypto::Certificate::assemble(statement, &set, votes);
    use super::{Certifier, Inline};
    assert!(Inline.holds(&assemble(vec![vote(1), vote(2), vote(3)]).unwrap(), &set));
    assert!(!Inline.holds(&assemble(vec![vote(1), vote(2), (NodeId(3), vote(4).1)]).unwrap(), &set));
    assert!(assemble(vec![vote(1), vote(2), vote(2)]).is_err(), "a signer counts once");
}
