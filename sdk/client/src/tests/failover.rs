//! Finding the leader: after it moved, died, fell silent, or when nodes name the wrong one.

use std::time::Duration;

use tokio::time::Instant;

use super::world::{Act, World, address};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_without_a_search() {
    let world = World::new();
    let session = session_of(&world).await;
    submit(&session, 1).await.unwrap();
    let resolved = world.state().resolved;
    world.elect(Some(2));
    let started = Instant::now();
    submit(&session, 2).await.unwrap();
    assert_eq!(world.state().resolved, resolved);
    assert!(started.elapsed() < ms(1), "{:?}", started.elapsed());
    world.assert_once(1..=2);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_found_soon_after_its_election() {
    for election_ms in [0, 20, 150, 300, 1_000] {
        let world = World::new();
        let session = session_of(&world).await;
        submit(&session, 1).await.unwrap();
        world.elect(None);
        world.kill(0);
        let started = Instant::now();
        let election = tokio::spawn({
            let world = world.clone();
            async move {
                tokio::time::sleep(ms(election_ms)).await;
                world.elect(Some(1));
            }
        });
        submit(&session, 2).await.unwrap();
        election.await.unwrap();
        let allowed = ms(election_ms + election_ms / 6 + 12);
        assert!(started.elapsed() <= allowed, "{election_ms} ms: {:?}", started.elapsed());
        world.assert_once(1..=2);
    }
}

/// A stopped process keeps its connections: nothing tells that it is gone but its silence.
#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_left_for_its_successor() {
    let world = World::new();
    let session = session_of(&world).await;
    world.script([Act::LoseCommand]);
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { submit(&session, 1).await }
    });
    tokio::time::sleep(ms(10)).await;
    world.elect(Some(1));
    world.silence(0);
    let started = Instant::now();
    waiting.await.unwrap().unwrap();
    assert!(started.elapsed() < ms(1_100), "{:?}", started.elapsed());
    world.assert_once([1]);
}

#[tokio::test(start_paused = true)]
async fn wrong_hints_end_at_the_true_leader() {
    let world = World::new();
    let session = session_of(&world).await;
    submit(&session, 1).await.unwrap();
    world.elect(Some(2));
    // Both followers name a dead node, in the newest term.
    world.state().false_hint = Some(1);
    world.kill(1);
    submit(&session, 2).await.unwrap();
    world.assert_once(1..=2);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_name_one_which_does_not_lead_are_not_asked_without_pause() {
    let world = World::new();
    let session = session_of(&world).await;
    submit(&session, 1).await.unwrap();
    world.elect(None);
    world.state().false_hint = Some(1);
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { submit(&session, 2).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let arrived = world.state().arrived;
    let resolved = world.state().resolved;
    assert!(arrived < 100 && resolved < 400, "{arrived} sendings, {resolved} searches");
    world.state().false_hint = None;
    world.elect(Some(0));
    waiting.await.unwrap().unwrap();
    world.assert_once(1..=2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_everybody_sends_elsewhere_gives_up_at_its_deadline_and_says_who_refused() {
    let world = World::new();
    let session = session_of(&world).await;
    submit(&session, 1).await.unwrap();
    world.elect(None);
    world.state().false_hint = Some(1);
    let started = Instant::now();
    let error = submit(&session, 2).await.unwrap_err();
    assert!(started.elapsed() <= Duration::from_secs(10) + ms(1), "{:?}", started.elapsed());
    let Error::DeadlineExceeded { maybe_applied: false, reason, .. } = error else { panic!("{error:?}") };
    assert!(reason.contains("node-1:7101: node 2 leads the group"), "{reason}");
    world.assert_once([1]);
}

#[tokio::test(start_paused = true)]
async fn an_older_leader_does_not_win_over_a_newer_one() {
    let world = World::new();
    let session = session_of(&world).await;
    world.elect(Some(1));
    submit(&session, 1).await.unwrap();
    // Node 1 stops leading; everything that is known of terms below its own is old.
    world.state().term = 1;
    world.state().leader = Some(0);
    let error = tokio::time::timeout(ms(2_000), submit(&session, 2)).await;
    assert!(error.is_err(), "{error:?}");
    world.state().term = 5;
    submit(&session, 3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_sessions_share_one_search() {
    let world = World::new();
    let group = group_of(&world).await;
    let mut sessions = Vec::new();
    for _ in 0..50 {
        sessions.push(group.session(SessionOptions::default()).await.unwrap());
    }
    world.elect(Some(1));
    world.kill(0);
    let before = world.state().resolved;
    let running: Vec<_> = sessions
        .iter()
        .enumerate()
        .map(|(at, session)| session.try_submit(&format!("c{at}"), Bytes::new()).unwrap())
        .map(tokio::spawn)
        .collect();
    for outcome in running {
        outcome.await.unwrap().unwrap();
    }
    world.assert_once(0..50);
    let asked = world.state().resolved - before;
    assert!(asked <= 4, "{asked} nodes were asked");
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_is_enough_to_find_the_others() {
    let world = World::new();
    world.elect(Some(2));
    let mut config = config_of(&world);
    config.endpoints = vec![address(1)];
    let group = Client::connect(config).await.unwrap().group("ledger").await.unwrap();
    let session = group.session(SessionOptions::default()).await.unwrap();
    submit(&session, 1).await.unwrap();
    world.kill(1);
    world.elect(Some(0));
    submit(&session, 2).await.unwrap();
    world.assert_once(1..=2);
    assert_eq!(world.network().dialled(&address(0)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_is_a_typed_error() {
    let world = World::new();
    let client = client_of(&world).await;
    (0..3).for_each(|node| world.kill(node));
    // A call on a connection that is just ending may have arrived; later ones cannot.
    tokio::time::sleep(ms(10)).await;
    let error = client.group("ledger").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "what was never sent is not in doubt: {error:?}");
    let error = Client::connect(config_of(&world)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("node-0:7101"), "{error}");
    (0..3).for_each(|node| world.silence(node));
    let error = Client::connect(config_of(&world)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_group_is_refused_after_all_nodes_were_asked() {
    let world = World::new();
    let client = client_of(&world).await;
    let before = world.state().resolved;
    let error = client.group("nothing").await.unwrap_err();
    assert!(crate::client::is_unknown_group(&error), "{error:?}");
    assert_eq!(world.state().resolved - before, 3);
}

#[tokio::test(start_paused = true)]
async fn all_nodes_may_restart_under_a_session() {
    let world = World::new();
    let session = session_of(&world).await;
    submit(&session, 1).await.unwrap();
    (0..3).for_each(|node| world.kill(node));
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { submit(&session, 2).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    (0..3).for_each(|node| world.start(node));
    world.elect(Some(1));
    let started = Instant::now();
    waiting.await.unwrap().unwrap();
    assert!(started.elapsed() <= ms(260), "{:?}", started.elapsed());
    world.assert_once(1..=2);
}
