//! Commands of sessions: exactly once, in bounds, and answered or known to be unanswered.

use std::time::Duration;

use quorate_proto::v1::ErrorCode;
use tokio::time::Instant;

use super::world::{Act, World};
use super::*;
use crate::Rejection;

fn body_of(outcome: Outcome) -> Bytes {
    match outcome {
        Outcome::Done { body, .. } => body,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_is_applied_once_and_its_answer_comes_back() {
    let world = World::new();
    let session = session_of(&world).await;
    assert_eq!(body_of(submit(&session, 1).await.unwrap()), "c1");
    assert_eq!(body_of(submit(&session, 2).await.unwrap()), "c2");
    let applied = world.state().applied.clone();
    assert_eq!(applied, [(session.id(), 1, "c1".to_owned()), (session.id(), 2, "c2".to_owned())]);
}

/// Each way of losing an answer could apply the command again, or lose it.
#[tokio::test(start_paused = true)]
async fn whatever_is_lost_on_the_way_each_command_counts_once() {
    use Act::*;
    for act in [
        LoseReply,
        LoseCommand,
        ApplyAndBreak,
        Break,
        AnswerTwice,
        Garbage,
        ApplyAndError(ErrorCode::LeadershipLost),
        ApplyAndError(ErrorCode::Unavailable),
        ApplyAndError(ErrorCode::ApplyHalted),
        Error(ErrorCode::NotLeader),
        Error(ErrorCode::ShuttingDown),
        Error(ErrorCode::Overloaded),
        Error(ErrorCode::RequiresByzantine),
        Error(ErrorCode::WindowFull),
        HostRejects(10),
    ] {
        let world = World::new();
        let session = session_of(&world).await;
        world.script([Answer, act, act]);
        for number in 1..=3 {
            let outcome = submit(&session, number).await;
            assert_eq!(body_of(outcome.unwrap()), format!("c{number}"), "{act:?}");
        }
        world.assert_once(1..=3);
        assert_eq!(world.state().arrived, if act == AnswerTwice { 3 } else { 5 }, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_commands_in_flight_survive_a_broken_stream() {
    let world = World::new();
    let session = session_of(&world).await;
    world.script((0..100).map(|at| if at == 40 { Act::ApplyAndBreak } else { Act::Answer }));
    let running: Vec<_> = (1..=200)
        .map(|number| session.try_submit(&format!("c{number}"), Bytes::new()).unwrap())
        .map(tokio::spawn)
        .collect();
    for (number, outcome) in running.into_iter().enumerate() {
        assert_eq!(body_of(outcome.await.unwrap().unwrap()), format!("c{}", number + 1));
    }
    world.assert_once(1..=200);
}

#[tokio::test(start_paused = true)]
async fn commands_that_queue_up_share_frames() {
    let world = World::new();
    let session = session_of(&world).await;
    let before = world.state().frames.len();
    let running: Vec<_> = (1..=100)
        .map(|number| tokio::spawn(session.try_submit(&format!("c{number}"), Bytes::new()).unwrap()))
        .collect();
    for outcome in running {
        outcome.await.unwrap().unwrap();
    }
    let frames = world.state().frames[before..].to_vec();
    assert_eq!(frames.iter().sum::<usize>(), 100);
    assert!(frames.len() <= 10, "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_command_that_nobody_answers() {
    let world = World::new();
    let session = session_of(&world).await;
    world.script([Act::LoseReply; 100]);
    let started = Instant::now();
    let error = submit(&session, 1).await.unwrap_err();
    assert!(
        matches!(error, Error::DeadlineExceeded { maybe_applied: true, waited_ms: 10_000, .. }),
        "{error:?}"
    );
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    world.assert_once([1]);
    assert!(world.state().arrived <= 5, "silent sendings wait longer each time");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_only_turned_away_is_surely_not_applied() {
    let world = World::new();
    let session = session_of(&world).await;
    world.script(vec![Act::Error(ErrorCode::Overloaded); 1_000]);
    let error = submit(&session, 1).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { maybe_applied: false, .. }), "{error:?}");
    world.assert_once([]);
    let arrived = world.state().arrived;
    assert!((40..120).contains(&arrived), "{arrived} sendings in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_says_what_is_known_of_the_command() {
    let world = World::new();
    let session = session_of(&world).await;
    submit(&session, 1).await.unwrap();
    world.state().expire(session.id());
    let error = submit(&session, 2).await.unwrap_err();
    let expected = Error::SessionExpired { session: session.id(), sequence: 2, maybe_applied: false };
    assert_eq!(error, expected);

    let session = session_of(&world).await;
    world.script([Act::ApplyAndError(ErrorCode::LeadershipLost), Act::HostRejects(7)]);
    let error = submit(&session, 3).await.unwrap_err();
    assert!(matches!(error, Error::SessionExpired { sequence: 1, maybe_applied: true, .. }), "{error:?}");
    let arrived = world.state().arrived;
    let error = submit(&session, 4).await.unwrap_err();
    assert!(matches!(error, Error::SessionExpired { sequence: 2, maybe_applied: false, .. }), "{error:?}");
    assert_eq!(world.state().arrived, arrived, "a session that is gone sends nothing");
}

#[tokio::test(start_paused = true)]
async fn refusals_and_rejections_are_final() {
    let world = World::new();
    let session = session_of(&world).await;
    world.script([Act::Error(ErrorCode::Unauthorized), Act::Error(ErrorCode::SequenceStale), Act::Reject]);
    let refused = submit(&session, 1).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Unauthorized));
    let forgotten = submit(&session, 2).await.unwrap_err();
    assert!(matches!(forgotten, Error::OutcomeUnknown { sequence: 2, .. }), "{forgotten:?}");
    let outcome = submit(&session, 3).await.unwrap();
    let Outcome::Rejected(Rejection { code: 100, name, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(name, "insufficient-funds");
    world.script([Act::Reject]);
    let rejected = session.command::<u64>("c4", &1).await.unwrap_err();
    assert!(matches!(rejected, Error::Rejected(Rejection { code: 100, .. })), "{rejected:?}");
    assert_eq!(world.state().arrived, 4, "nothing was repeated");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_open_outcome_leaves_it_open() {
    let world = World::new();
    let session = session_of(&world).await;
    world.script([Act::ApplyAndError(ErrorCode::LeadershipLost), Act::Error(ErrorCode::Unauthorized)]);
    let error = submit(&session, 1).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { sequence: 1, .. }), "{error:?}");
    assert!(error.maybe_applied());
}

#[tokio::test(start_paused = true)]
async fn a_full_window_is_an_error_or_a_wait() {
    let world = World::new();
    let options = SessionOptions { window: 2, ..SessionOptions::default() };
    let session = group_of(&world).await.session(options).await.unwrap();
    let one = session.try_submit("c1", Bytes::new()).unwrap();
    let two = session.try_submit("c2", Bytes::new()).unwrap();
    let full = session.try_submit("c3", Bytes::new()).err();
    assert_eq!(full, Some(Error::WindowFull { window: 2 }));
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { submit(&session, 3).await }
    });
    tokio::time::sleep(ms(100)).await;
    assert!(!waiting.is_finished());
    two.await.unwrap();
    tokio::time::sleep(ms(100)).await;
    assert!(!waiting.is_finished(), "the oldest command holds the window");
    one.await.unwrap();
    assert_eq!(body_of(waiting.await.unwrap().unwrap()), "c3");
    world.assert_once(1..=3);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_window_ends_at_the_deadline() {
    let world = World::new();
    let options = SessionOptions { window: 1, deadline: Some(ms(500)), ..SessionOptions::default() };
    let session = group_of(&world).await.session(options).await.unwrap();
    let held = session.try_submit("c1", Bytes::new()).unwrap();
    let error = submit(&session, 2).await.unwrap_err();
    assert!(
        matches!(error, Error::DeadlineExceeded { maybe_applied: false, waited_ms: 500, .. }),
        "{error:?}"
    );
    drop(held);
    submit(&session, 3).await.unwrap();
    world.assert_once([3]);
}

/// A number that is given up must not hold the window, nor be used for another command.
#[tokio::test(start_paused = true)]
async fn a_dropped_command_is_given_up_and_its_number_not_used_again() {
    let world = World::new();
    let session = session_of(&world).await;
    world.script([Act::LoseReply]);
    let dropped = tokio::time::timeout(ms(100), submit(&session, 1)).await;
    assert!(dropped.is_err());
    submit(&session, 2).await.unwrap();
    let sequences: Vec<_> = world.state().applied.iter().map(|(_, sequence, _)| *sequence).collect();
    assert_eq!(sequences, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_kept_alive_and_a_busy_one_needs_no_keeping() {
    let world = World::new();
    let options = SessionOptions { ttl: Duration::from_secs(9), ..SessionOptions::default() };
    let session = group_of(&world).await.session(options).await.unwrap();
    for number in 1..=20 {
        submit(&session, number).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.state().kept, 0);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let kept = world.state().kept;
    assert!((9..=10).contains(&kept), "{kept}");
    world.state().expire(session.id());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let error = submit(&session, 21).await.unwrap_err();
    assert!(matches!(error, Error::SessionExpired { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_closed_by_close_and_by_the_last_drop() {
    let world = World::new();
    let group = group_of(&world).await;
    let first = group.session(SessionOptions::default()).await.unwrap();
    let id = first.id();
    first.close().await.unwrap();
    assert_eq!(world.state().closed, [id]);
    let second = group.session(SessionOptions::default()).await.unwrap();
    let clone = second.clone();
    let second_id = second.id();
    drop(second);
    tokio::time::sleep(ms(10)).await;
    assert_eq!(world.state().closed, [id], "a clone still holds it");
    drop(clone);
    tokio::time::sleep(ms(10)).await;
    assert_eq!(world.state().closed, [id, second_id]);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.state().kept, 0, "nobody keeps a session that was dropped");
}

#[tokio::test(start_paused = true)]
async fn oversized_commands_are_refused_before_they_are_sent() {
    let world = World::new();
    let session = session_of(&world).await;
    let body = session.submit("c1", vec![0; (1 << 20) + 1].into()).await.unwrap_err();
    assert!(matches!(body, Error::TooLarge { what: "the body", .. }), "{body:?}");
    let name = session.submit(&"x".repeat(129), Bytes::new()).await.unwrap_err();
    assert!(matches!(name, Error::TooLarge { what: "the name", .. }), "{name:?}");
    assert_eq!(world.state().arrived, 0);
    session.submit("c1", vec![0; 1 << 20].into()).await.unwrap();
    world.assert_once([1]);
}

#[tokio::test(start_paused = true)]
async fn session_options_outside_their_range_are_refused() {
    let world = World::new();
    let group = group_of(&world).await;
    for options in [
        SessionOptions { window: 0, ..SessionOptions::default() },
        SessionOptions { window: 1_025, ..SessionOptions::default() },
        SessionOptions { ttl: ms(999), ..SessionOptions::default() },
        SessionOptions { deadline: Some(Duration::ZERO), ..SessionOptions::default() },
    ] {
        let error = group.session(options).await.err();
        assert!(matches!(error, Some(Error::Config { .. })), "{error:?}");
    }
}
