//! Queries and watches.

use quorate_proto::v1::{ComponentEvent, ErrorCode, WatchGap, WatchStatus, watch_event};

use super::world::World;
use super::*;
use crate::{Consistency, Happening, WatchFrom};

#[tokio::test(start_paused = true)]
async fn a_linearizable_query_is_answered_by_the_leader() {
    let world = World::new();
    let group = group_of(&world).await;
    world.elect(Some(2));
    let answer = group.query("balance", Bytes::from_static(b"x"), Consistency::Linearizable).await.unwrap();
    assert_eq!((answer.node, &answer.body[..]), (3, &b"x"[..]));
    world.elect(Some(1));
    world.kill(2);
    let answer: u64 = group.ask("balance", &42_u64, Consistency::Linearizable).await.unwrap();
    assert_eq!(answer, 42);
    assert_eq!(world.state().queried.last(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_stale_query_is_answered_without_a_leader() {
    let world = World::new();
    let group = group_of(&world).await;
    world.elect(None);
    world.kill(0);
    for _ in 0..3 {
        group.query("balance", Bytes::new(), Consistency::STALE).await.unwrap();
    }
    assert_eq!(world.state().queried.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn queries_are_repeated_where_that_helps_and_nowhere_else() {
    let world = World::new();
    let group = group_of(&world).await;
    world.state().query_script.extend([
        ErrorCode::Overloaded,
        ErrorCode::Unavailable,
        ErrorCode::LeadershipLost,
    ]);
    group.query("balance", Bytes::new(), Consistency::Linearizable).await.unwrap();
    assert_eq!(world.state().queried.len(), 4);
    for consistency in [Consistency::Linearizable, Consistency::STALE] {
        world.state().query_script.push_back(ErrorCode::Unauthorized);
        let error = group.query("balance", Bytes::new(), consistency).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
    }
    assert_eq!(world.state().queried.len(), 6);
    let error = group.query("refused", Bytes::new(), Consistency::Linearizable).await.unwrap_err();
    assert!(matches!(error, Error::Rejected(rejection) if rejection.code == 101));
}

#[tokio::test(start_paused = true)]
async fn a_query_without_a_leader_ends_at_the_deadline() {
    let world = World::new();
    let group = group_of(&world).await;
    world.elect(None);
    let started = tokio::time::Instant::now();
    let error = group.query("balance", Bytes::new(), Consistency::Linearizable).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!(started.elapsed(), ms(10_000));
}

fn event(index: u64, position: u32) -> watch_event::Kind {
    let event = ComponentEvent { index, position, topic: "transfer".into(), ..ComponentEvent::default() };
    watch_event::Kind::Event(event)
}

fn status(applied_index: u64) -> watch_event::Kind {
    watch_event::Kind::Status(WatchStatus { applied_index, ..WatchStatus::default() })
}

async fn next_event(watch: &mut crate::Watch) -> (u64, u32) {
    loop {
        match watch.next().await.unwrap() {
            Happening::Event { index, position, .. } => return (index, position),
            Happening::Status { .. } | Happening::Gap { .. } => {}
        }
    }
}

/// A new connection starts at the last entry, whose events may have been seen in part.
#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_after_a_lost_connection_without_repeating_events() {
    let world = World::new();
    let group = group_of(&world).await;
    world.state().watch_script.extend([
        vec![status(4), event(5, 0), event(6, 0)],
        vec![status(8), event(6, 0), event(6, 1), event(7, 0)],
    ]);
    let mut watch = group.watch(&["transfer"], WatchFrom::Now).unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next_event(&mut watch).await);
    }
    assert_eq!(seen, [(5, 0), (6, 0), (6, 1), (7, 0)]);
    let starts: Vec<_> = world.state().watched.iter().map(|request| request.from_index).collect();
    assert_eq!(starts, [None, Some(6)]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_saw_no_event_goes_on_where_it_began() {
    let world = World::new();
    let group = group_of(&world).await;
    world.state().watch_script.extend([vec![status(4)], vec![status(9), event(5, 0)]]);
    let mut watch = group.watch(&[], WatchFrom::Now).unwrap();
    assert_eq!(next_event(&mut watch).await, (5, 0));
    let starts: Vec<_> = world.state().watched.iter().map(|request| request.from_index).collect();
    assert_eq!(starts, [None, Some(5)]);
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_told_and_refusals_end_the_watch() {
    let world = World::new();
    let group = group_of(&world).await;
    let gap = watch_event::Kind::Gap(WatchGap { from_index: 2, to_index: 9 });
    world.state().watch_script.push_back(vec![status(10), gap, event(9, 0)]);
    let mut watch = group.watch(&[], WatchFrom::Index(2)).unwrap();
    assert!(matches!(watch.next().await, Ok(Happening::Status { applied_index: 10, .. })));
    assert_eq!(watch.next().await, Ok(Happening::Gap { from_index: 2, to_index: 9 }));
    assert_eq!(next_event(&mut watch).await, (9, 0));
    let error = watch.next().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(group.watch(&["x"; 65], WatchFrom::Now).is_err());
}
