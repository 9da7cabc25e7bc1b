//! Deployments as a group's machine carries them out: each signature is good for one of them, in its place.
//!
//! Relies on the component that the tests of `runtime` use. Promises nothing of who signed: `signatures` looks at that.

#![allow(clippy::unwrap_used)]

#[path = "../../runtime/tests/guest/mod.rs"]
mod guest;

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::SnapshotMark;
use quorate_node::catalog::crash_group;
use quorate_node::{DigestInterval, Machine, MachineIdentity};
use quorate_runtime::{Component, Engine, State};
use quorate_types::{
    Batch, BatchItem, ClusterId, ComponentLimits, Digest, Entry, EntryKind, Epoch, GroupId, HlcTimestamp,
    LogIndex, NodeId, Outcome, Position, Rejection, Term,
};

struct Group {
    machine: Machine,
    components: BTreeMap<Digest, Component>,
}

/// The tests' component under another version, so that its digest is another one.
fn version(engine: &Engine, version: &str) -> Component {
    let module = guest::MACHINE.replace("\"1.2.3\"", &format!("\"{version}\""));
    engine.compile(&guest::encode(&module, guest::CONTRACT, "state-machine")).unwrap()
}

impl Group {
    fn new(components: &[Component]) -> Self {
        let identity = MachineIdentity {
            cluster: ClusterId([7; 16]),
            group: GroupId(3),
            name: "tests".into(),
            digest_interval: DigestInterval::default(),
        };
        let config = crash_group(&[NodeId(1)], ComponentLimits::default());
        let mark = SnapshotMark { position: Position::ZERO, hlc: HlcTimestamp(0), config };
        let components = components.iter().map(|code| (code.digest(), code.clone())).collect();
        Self { machine: Machine::new(identity, mark), components }
    }

    fn deploy(&mut self, component: &Component, parameters: &'static [u8], after: Option<u64>) -> Outcome {
        let (component, parameters) = (component.digest(), Bytes::from_static(parameters));
        let items = vec![BatchItem::Activate { component, parameters, after }];
        let index = self.machine.applied().next();
        let entry = Entry {
            position: Position { epoch: Epoch(1), term: Term(1), index },
            hlc: HlcTimestamp(index.0),
            kind: EntryKind::Batch,
            body: Batch { items }.encode(),
        };
        self.machine.apply(&entry, &self.components).unwrap().outcomes.remove(0)
    }
}

fn refused(outcome: Outcome) -> (u32, String) {
    match outcome {
        Outcome::Rejected(rejection) => (rejection.code, rejection.message),
        done => panic!("{done:?}"),
    }
}

/// What could go wrong: a leader orders again what an operator once signed, and an old version is back in force.
#[test]
fn a_signed_deployment_counts_once_and_only_as_the_next_one() {
    let engine = guest::engine();
    let (old, new) = (version(&engine, "1.2.3"), version(&engine, "1.2.4"));
    let mut group = Group::new(&[old.clone(), new.clone()]);
    let done = Outcome::Done(Bytes::new());
    assert_eq!(refused(group.deploy(&old, b"", Some(1))).0, Rejection::DEPLOYMENT_SUPERSEDED);
    assert_eq!((group.machine.component(), group.machine.deployments()), (None, 0));
    assert_eq!(group.deploy(&old, b"", Some(0)), done);
    assert_eq!(group.deploy(&new, b"", Some(1)), done);
    assert_eq!(group.machine.deployments(), 2);
    let (code, why) = refused(group.deploy(&old, b"", Some(0)));
    assert_eq!(code, Rejection::DEPLOYMENT_SUPERSEDED);
    assert!(why.contains(&new.digest().short()) && why.contains("carried out 2"), "{why}");
    assert_eq!(refused(group.deploy(&old, b"", Some(1))).0, Rejection::DEPLOYMENT_SUPERSEDED);
    assert_eq!(refused(group.deploy(&old, b"", Some(u64::MAX))).0, Rejection::DEPLOYMENT_SUPERSEDED);
    // Whoever did not hear of it asks again, and nothing changes.
    assert_eq!(group.deploy(&new, b"", Some(1)), done);
    assert_eq!((group.machine.component(), group.machine.deployments()), (Some(new.digest()), 2));
    assert_eq!(group.deploy(&old, b"", Some(2)), done, "signed anew, the old version may come back");
}

/// What could go wrong: a deployment that was refused takes effect later, when nobody asks for it any more.
#[test]
fn a_deployment_that_failed_is_used_up() {
    let engine = guest::engine();
    let code = version(&engine, "1.2.3");
    let mut group = Group::new(std::slice::from_ref(&code));
    assert_eq!(refused(group.deploy(&code, b"!", Some(0))).0, Rejection::ACTIVATION_FAILED);
    assert_eq!((group.machine.component(), group.machine.deployments()), (None, 1));
    let (used_up, why) = refused(group.deploy(&code, b"", Some(0)));
    assert_eq!(used_up, Rejection::DEPLOYMENT_SUPERSEDED);
    assert!(why.contains("no component is in force"), "{why}");
    assert_eq!(group.deploy(&code, b"", Some(1)), Outcome::Done(Bytes::new()));
}

/// What could go wrong: a replica that starts from a snapshot counts anew, and decides otherwise than the others.
#[test]
fn the_count_is_part_of_the_state_and_crash_groups_need_none() {
    let engine = guest::engine();
    let code = version(&engine, "1.2.3");
    let mut group = Group::new(std::slice::from_ref(&code));
    for _ in 0..3 {
        assert_eq!(group.deploy(&code, b"", None), Outcome::Done(Bytes::new()));
    }
    let frozen = group.machine.freeze();
    let mark = group.machine.mark().clone();
    assert_eq!(mark.position.index, LogIndex(3));
    let pairs = frozen.pairs_after(None).map(|(space, key, value)| (space, key, value.clone()));
    let state = State::load(pairs);
    let loaded = Machine::load(group.machine.identity().clone(), mark, state).unwrap();
    assert_eq!(loaded.deployments(), 3);
}
