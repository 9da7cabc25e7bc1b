//! The state against a plain model of it.
//!
//! What could go wrong: a view that moves, a change that a freeze does not report, a digest that depends on
//! history, a range with its ends confused.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_crypto::SetDigest;
use quorate_runtime::{Space, State, StateView};

type Model = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Put(Space, Vec<u8>, u8),
    Delete(Space, Vec<u8>),
    Freeze,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let space = prop_oneof![3 => Just(Space::User), 1 => Just(Space::Host)];
    let key = prop::collection::vec(0u8..6, 0..4);
    let put = (space.clone(), key.clone(), any::<u8>());
    let step = prop_oneof![
        12 => put.prop_map(|(space, key, value)| Step::Put(space, key, value)),
        6 => (space, key).prop_map(|(space, key)| Step::Delete(space, key)),
        1 => Just(Step::Freeze),
    ];
    prop::collection::vec(step, 0..600)
}

fn content(view: &StateView) -> Model {
    view.pairs_after(None).map(|(space, key, value)| ((space, key.to_vec()), value.to_vec())).collect()
}

fn digest_from_scratch(model: &Model) -> SetDigest {
    let mut digest = SetDigest::default();
    model.iter().for_each(|((space, key), value)| digest.add(&space.tagged(key), value));
    digest
}

fn put(state: &mut State, model: &mut Model, space: Space, key: Vec<u8>, value: u8) {
    state.put(space, Bytes::from(key.clone()), Bytes::from(vec![value; 3]));
    model.insert((space, key), vec![value; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_freeze_reports_exactly_what_changed_and_brings_the_digest_along(steps in steps()) {
        let (mut state, mut model) = (State::new(), Model::new());
        let (mut stored, mut digest) = (Model::new(), SetDigest::default());
        let mut views = Vec::new();
        for step in steps.into_iter().chain([Step::Freeze]) {
            match step {
                Step::Put(space, key, value) => put(&mut state, &mut model, space, key, value),
                Step::Delete(space, key) => {
                    state.delete(space, &key);
                    model.remove(&(space, key));
                }
                Step::Freeze => {
                    let frozen = state.freeze();
                    frozen.update_digest(&mut digest);
                    for (space, key, value) in frozen.changes() {
                        let at = (space, key.to_vec());
                        let before = match value {
                            Some(value) => stored.insert(at, value.to_vec()),
                            None => stored.remove(&at),
                        };
                        let now = value.map(|value| &value[..]);
                        prop_assert_ne!(before.as_deref(), now, "listed, so changed");
                    }
                    prop_assert_eq!(&stored, &model);
                    prop_assert_eq!(&digest, &digest_from_scratch(&model));
                    views.push((frozen.view().clone(), model.clone()));
                }
            }
            prop_assert_eq!(state.pairs(), model.len() as u64);
        }
        let bytes: usize = model.iter().map(|((_, key), value)| key.len() + value.len()).sum();
        prop_assert_eq!(state.bytes(), bytes as u64);
        for (view, then) in views {
            prop_assert_eq!(content(&view), then, "a view does not move");
        }
    }

    #[test]
    fn ranges_and_pieces_of_a_snapshot_agree_with_the_model(
        steps in steps(),
        start in prop::collection::vec(0u8..6, 0..4),
        end in prop::option::of(prop::collection::vec(0u8..6, 0..4)),
    ) {
        let (mut state, mut model) = (State::new(), Model::new());
        for step in steps {
            if let Step::Put(space, key, value) = step {
                put(&mut state, &mut model, space, key, value);
            }
        }
        let found: Vec<_> =
            state.range(Space::User, &start, end.as_deref()).map(|(key, _)| key.to_vec()).collect();
        let expected: Vec<_> = model
            .keys()
            .filter(|(space, key)| {
                *space == Space::User && *key >= start && end.as_ref().is_none_or(|end| key < end)
            })
            .map(|(_, key)| key.clone())
            .collect();
        prop_assert_eq!(found, expected);

        let view = state.view();
        let mut pieces = Vec::new();
        let mut after: Option<(Space, Bytes)> = None;
        loop {
            let from = after.as_ref().map(|(space, key)| (*space, &key[..]));
            let piece: Vec<_> = view.pairs_after(from).take(3).collect();
            let Some((space, key, _)) = piece.last() else { break };
            after = Some((*space, key.clone()));
            pieces.extend(piece.into_iter().map(|(space, key, _)| (space, key.to_vec())));
        }
        prop_assert_eq!(pieces, model.keys().cloned().collect::<Vec<_>>());
    }
}

#[test]
fn what_was_loaded_counts_as_frozen() {
    let pair =
        |key: &'static str| (Space::User, Bytes::from_static(key.as_bytes()), Bytes::from_static(b"v"));
    let mut state = State::load([pair("a"), pair("b")]);
    assert_eq!(state.freeze().changes().count(), 0);
    state.put(Space::User, Bytes::from_static(b"a"), Bytes::from_static(b"v"));
    state.delete(Space::User, b"b");
    let frozen = state.freeze();
    let changes: Vec<_> = frozen.changes().map(|(_, key, value)| (key, value.cloned())).collect();
    assert_eq!(changes, [(Bytes::from_static(b"b"), None)], "a value put back is no change");
    assert_eq!(frozen.pairs_after(None).count(), 1);
}
