//! Tests of snapshots that members offer: what is believed, whom it is fetched from, and what a liar gains.
//!
//! Relies on the simulated cluster, whose snapshots are marks and whose contents are made of their index. Promises
//! a run for each reason to refuse an offer or to ask another member.

use std::time::Duration;

use quorate_crypto::{Stated, Verified};
use quorate_types::{Digest, LogIndex, NodeId};

use super::super::cluster::{Cluster, Imitation, content_at};
use super::super::planted::{RuleBroken, break_rule};
use super::super::{Body, Justify, Message, Offer, Signer};
use super::{honest, ms};
use crate::{Input, SnapshotContent, SnapshotFetch};

/// Where everybody but the last member has a snapshot.
const SNAPSHOT: LogIndex = LogIndex(20);

/// A cluster whose last member was away while the others went on and forgot the log; nothing reaches it yet.
fn far_behind(count: u64, seed: u64) -> Cluster {
    let mut cluster = honest(count, seed);
    let last = count as usize - 1;
    cluster.crash(last);
    for _ in 0..12 {
        cluster.propose(0);
        cluster.run(ms(50));
    }
    for at in 0..last {
        cluster.compact(at, SNAPSHOT);
        cluster.flush(at);
    }
    cluster.instances[last].part = 1;
    cluster.start(last);
    cluster.run(ms(300));
    assert_eq!(cluster.violation, None);
    cluster
}

fn input(cluster: &Cluster, from: u64, body: Body) -> Input {
    let scope = *cluster.set().scope();
    let signature = Imitation(NodeId(from)).sign(&body.statement(scope));
    let message = Message { scope, body, signature };
    Input::Message(Verified::from_authenticated_peer(NodeId(from), message).widen())
}

/// What the first member offers to whoever is far behind.
fn true_offer(cluster: &mut Cluster) -> Offer {
    let (now, last) = (cluster.clock(), cluster.instances.len() as u64);
    let request = input(cluster, last, Body::Request { after: LogIndex::ZERO, high: Justify::Genesis });
    let effects = cluster.instances[0].replica.as_mut().unwrap().step(now, request);
    let bodies = effects.messages.iter().map(|outgoing| match outgoing.message() {
        crate::Message::HotStuff(message) => message.body.clone(),
        crate::Message::Raft(_) => unreachable!("this cluster runs HotStuff"),
    });
    let offers: Vec<Offer> =
        bodies.filter_map(|body| if let Body::Offer(offer) = body { Some(*offer) } else { None }).collect();
    assert_eq!(offers[0].content, content_at(offers[0].proof.root.position).unwrap());
    assert_eq!((offers.len(), offers[0].proof.root.position.index), (1, SNAPSHOT));
    offers[0].clone()
}

fn false_content() -> SnapshotContent {
    SnapshotContent { digest: Digest([9; 32]), bytes: 100 }
}

/// Lets the last member hear an offer; what it fetches then.
fn hear(cluster: &mut Cluster, from: u64, offer: &Offer) -> Option<SnapshotFetch> {
    let last = cluster.instances.len() - 1;
    let input = input(cluster, from, Body::Offer(Box::new(offer.clone())));
    cluster.step(last, input);
    cluster.instances[last].fetch.take()
}

/// What could go wrong: a liar's state is installed on the word of one member, or of all liars together.
#[test]
fn what_fewer_than_f_and_one_members_offer_is_not_fetched() {
    let mut cluster = far_behind(7, 21);
    let honest = true_offer(&mut cluster);
    let lie = Offer { content: false_content(), ..honest.clone() };
    let smaller = Offer { content: SnapshotContent { bytes: 99, ..honest.content }, ..honest.clone() };
    assert_eq!(hear(&mut cluster, 1, &lie), None);
    assert_eq!(hear(&mut cluster, 2, &lie), None, "two equal lies of two liars");
    (0..3).for_each(|_| assert_eq!(hear(&mut cluster, 2, &lie), None, "one member counts once"));
    assert_eq!(hear(&mut cluster, 3, &honest), None);
    assert_eq!(hear(&mut cluster, 4, &honest), None, "two of seven may lie");
    assert_eq!(hear(&mut cluster, 5, &smaller), None, "another size is another content");
    assert_eq!(cluster.instances[6].replica.as_ref().unwrap().offers.len(), 5, "one of each member");
    let fetch = hear(&mut cluster, 5, &honest).unwrap();
    assert_eq!((fetch.position.index, fetch.content), (SNAPSHOT, Some(honest.content)));
    assert!([3, 4, 5].map(NodeId).contains(&fetch.from), "one who offered it: {fetch:?}");
}

#[test]
fn a_replica_that_trusts_one_offer_is_seen() {
    let mut cluster = far_behind(4, 22);
    let lie = Offer { content: false_content(), ..true_offer(&mut cluster) };
    break_rule(Some(RuleBroken::OffersAreAlike));
    let fetch = hear(&mut cluster, 1, &lie);
    break_rule(None);
    let fetch = fetch.unwrap();
    assert_eq!((fetch.from, fetch.content), (NodeId(1), None));
}

#[test]
fn an_offer_of_what_is_not_proved_to_be_committed_is_refused() {
    let mut cluster = far_behind(4, 23);
    let offer = true_offer(&mut cluster);
    let refused = |cluster: &Cluster| {
        let counters = cluster.instances[3].replica.as_ref().unwrap().counters();
        counters.certificates_refused + counters.messages_ignored
    };
    let mut without_headers = offer.clone();
    without_headers.proof.headers.clear();
    let mut elsewhere = offer.clone();
    elsewhere.proof.root.position.index = SNAPSHOT.next();
    let mut another_time = offer.clone();
    another_time.proof.root.hlc.0 += 1;
    let mut with_entries = offer.clone();
    with_entries.proof.entries = vec![cluster.agreed[&SNAPSHOT.next()].clone()];
    for (number, lie) in [without_headers, elsewhere, another_time, with_entries].iter().enumerate() {
        for from in 1..=3 {
            assert_eq!(hear(&mut cluster, from, lie), None, "lie {number}");
        }
        assert_eq!(refused(&cluster), 3 * (number as u64 + 1), "lie {number}");
    }
    assert!(cluster.instances[3].replica.as_ref().unwrap().offers.is_empty());
}

/// What could go wrong: a liar that offers again and again keeps an honest member from being asked.
#[test]
fn when_a_fetch_fails_the_others_who_offered_are_asked_each_once() {
    let mut cluster = far_behind(7, 24);
    let offer = true_offer(&mut cluster);
    assert_eq!(hear(&mut cluster, 1, &offer), None);
    assert_eq!(hear(&mut cluster, 2, &offer), None);
    let first = hear(&mut cluster, 3, &offer).unwrap();
    assert_eq!(hear(&mut cluster, 4, &offer), None, "one more who has it");
    let mut asked = vec![first.from];
    for _ in 0..3 {
        assert_eq!(hear(&mut cluster, asked[0].0, &offer), None);
        cluster.step(6, Input::SnapshotFailed(first.position));
        asked.push(cluster.instances[6].fetch.take().unwrap().from);
    }
    asked.sort_unstable();
    assert_eq!(asked, [1, 2, 3, 4].map(NodeId));
    cluster.step(6, Input::SnapshotFailed(first.position));
    assert_eq!(cluster.instances[6].fetch.take(), None);
    let replica = cluster.instances[6].replica.as_ref().unwrap();
    assert_eq!(replica.counters().fetches_failed, 4);
    assert!(replica.search.is_some(), "and looks for another");
}

/// What could go wrong: each offer of a liar makes the others send blocks.
#[test]
fn the_first_offer_calls_for_those_of_the_others_and_a_repeated_one_for_nothing() {
    let mut cluster = far_behind(7, 25);
    let offer = true_offer(&mut cluster);
    let lie = Offer { content: false_content(), ..offer.clone() };
    let before = cluster.counts.messages;
    assert_eq!(hear(&mut cluster, 1, &lie), None);
    assert_eq!(cluster.counts.messages - before, 5, "one request to each other member");
    for _ in 0..20 {
        assert_eq!(hear(&mut cluster, 1, &offer), None);
        assert_eq!(hear(&mut cluster, 1, &lie), None);
    }
    assert_eq!(cluster.counts.messages - before, 5);
}

/// Lets the network bring the last member what the others say; liars offer something else, and their snapshots
/// are refused. A new entry shows it that it is behind. Whether it got in.
fn gets_in(cluster: &mut Cluster, liars: &[NodeId], within: Duration) -> bool {
    let last = cluster.instances.len() - 1;
    cluster.instances[last].part = 0;
    cluster.propose(0);
    let until = cluster.now.after(within);
    while cluster.advance(until) && cluster.violation.is_none() {
        for packet in cluster.packets.values_mut() {
            let from = packet.from;
            if let Body::Offer(offer) = &mut packet.message.body
                && liars.contains(&from)
            {
                offer.content = false_content();
                packet.message.signature = Imitation(from).sign(&packet.message.statement());
            }
        }
        let Some(fetch) = cluster.instances[last].fetch.take() else { continue };
        assert_eq!(fetch.content, content_at(fetch.position), "{fetch:?}");
        if liars.contains(&fetch.from) {
            cluster.step(last, Input::SnapshotFailed(fetch.position));
        } else {
            cluster.install(last, fetch.position.index);
        }
    }
    cluster.instances[last].delivered > SNAPSHOT
}

#[test]
fn a_replica_far_behind_gets_in_among_as_many_liars_as_are_tolerated() {
    for (count, liars) in [(4, vec![]), (4, vec![1]), (4, vec![3]), (7, vec![1, 2]), (10, vec![2, 4, 6])] {
        let liars: Vec<NodeId> = liars.into_iter().map(NodeId).collect();
        let mut cluster = far_behind(count, 26);
        assert!(gets_in(&mut cluster, &liars, ms(3_000)), "n = {count}, liars {liars:?}");
        assert_eq!(cluster.violation, None);
        assert!(cluster.heals_within(ms(5_000)), "n = {count}, liars {liars:?}");
    }
}

/// Snapshots of the others move on while this one looks: what it heard before must not hold it back.
#[test]
fn offers_of_a_place_that_the_others_left_are_replaced() {
    let mut cluster = far_behind(4, 27);
    let old = true_offer(&mut cluster);
    assert_eq!(hear(&mut cluster, 1, &old), None);
    for at in 0..3 {
        cluster.compact(at, LogIndex(SNAPSHOT.0 + 6));
        cluster.flush(at);
    }
    assert!(gets_in(&mut cluster, &[], ms(3_000)));
    assert!(cluster.instances[3].delivered > LogIndex(SNAPSHOT.0 + 6));
    assert_eq!(cluster.violation, None);
}

/// A crash between offer and installation forgets both, and the replica asks again.
#[test]
fn a_crash_while_a_snapshot_is_fetched_costs_only_time() {
    let mut cluster = far_behind(4, 28);
    let offer = true_offer(&mut cluster);
    assert_eq!(hear(&mut cluster, 1, &offer), None);
    assert!(hear(&mut cluster, 2, &offer).is_some());
    cluster.crash(3);
    cluster.start(3);
    assert!(gets_in(&mut cluster, &[], ms(3_000)));
    assert!(cluster.heals_within(ms(5_000)));
}
