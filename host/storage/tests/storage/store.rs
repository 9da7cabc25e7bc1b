//! The tables against crashes and decay.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use quorate_storage::{
    Change, Disk, DiskFile, Identity, LoadedCheckpoint, Pair, SimDisk, Space, Store, StoreError,
};
use quorate_types::{BootNumber, Digest, GroupId, NodeId};

use crate::common::identity;

const FILE: &str = "state.redb";

fn open(disk: &SimDisk) -> Result<Store, StoreError> {
    Store::open_on(disk, FILE, &identity())
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Change {
    (Space::User, bytes(key), Some(bytes(value)))
}

fn pair(space: Space, key: &str, value: &str) -> Pair {
    (space, bytes(key), bytes(value))
}

#[test]
fn a_checkpoint_changes_what_it_names_and_keeps_the_rest() {
    let store = open(&SimDisk::new()).unwrap();
    let (one, two) = (GroupId(1), GroupId(256));
    assert_eq!(store.load(one).unwrap(), None);
    let host = (Space::Host, bytes("a"), Some(bytes("session")));
    store.checkpoint(one, b"h1", [put("b", "1"), put("a", "1"), put("", "0"), host].into_iter()).unwrap();
    store.checkpoint(two, b"h2", [put("a", "other")].into_iter()).unwrap();
    let remove = (Space::User, bytes("b"), None);
    store.checkpoint(one, b"h3", [put("a", "2"), remove].into_iter()).unwrap();
    let expected = LoadedCheckpoint {
        header: bytes("h3"),
        pairs: vec![
            pair(Space::User, "", "0"),
            pair(Space::User, "a", "2"),
            pair(Space::Host, "a", "session"),
        ],
    };
    assert_eq!(store.load(one).unwrap(), Some(expected));
    store.install(one, b"h4", [pair(Space::User, "z", "9")].into_iter()).unwrap();
    let installed = store.load(one).unwrap().unwrap();
    assert_eq!((installed.header, installed.pairs), (bytes("h4"), vec![pair(Space::User, "z", "9")]));
    assert_eq!(store.load(two).unwrap().unwrap().pairs, [pair(Space::User, "a", "other")]);
}

#[test]
fn a_removed_group_leaves_nothing_but_its_tombstone() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    store.put_group(GroupId(1), b"ledger").unwrap();
    store.put_group(GroupId(2), b"kv").unwrap();
    store.put_group(GroupId(2), b"kv, described anew").unwrap();
    store.checkpoint(GroupId(1), b"h", [put("a", "1")].into_iter()).unwrap();
    store.remove_group(GroupId(1)).unwrap();
    drop(store);
    disk.crash(2);
    let store = open(&disk).unwrap();
    assert_eq!(store.groups().unwrap(), [GroupId(2)]);
    assert_eq!(store.group(GroupId(2)).unwrap(), Some(bytes("kv, described anew")));
    assert_eq!((store.group(GroupId(1)).unwrap(), store.load(GroupId(1)).unwrap()), (None, None));
    assert!(store.is_removed(GroupId(1)).unwrap() && !store.is_removed(GroupId(2)).unwrap());
    assert!(!store.is_removed(GroupId(3)).unwrap());
    let refused = store.put_group(GroupId(1), b"again").unwrap_err();
    assert!(matches!(refused, StoreError::GroupRemoved { group: GroupId(1) }), "{refused}");
    store.put_group(GroupId(3), b"new").unwrap();
}

#[test]
fn components_and_facts_are_kept_until_removed() {
    let store = open(&SimDisk::new()).unwrap();
    let (one, two) = (Digest([1; 32]), Digest([2; 32]));
    store.put_component(two, b"wasm two").unwrap();
    store.put_component(one, b"wasm").unwrap();
    assert_eq!(store.components().unwrap(), [(one, 4), (two, 8)]);
    assert_eq!(store.component(one).unwrap(), Some(bytes("wasm")));
    store.remove_component(one).unwrap();
    assert_eq!(store.component(one).unwrap(), None);
    assert_eq!(store.meta("genesis").unwrap(), None);
    store.put_meta("genesis", b"digest").unwrap();
    assert_eq!(store.meta("genesis").unwrap(), Some(bytes("digest")));
    // The owner's names never meet the store's own.
    store.put_meta("quorate.identity", b"mine").unwrap();
    store.put_meta("quorate.boot", b"mine").unwrap();
    assert_eq!(store.raise_boot().unwrap(), BootNumber(1));
}

/// What could go wrong: the proof of a lie is forgotten with the process that found it, or comes back under the name
/// of another group.
#[test]
fn evidence_is_kept_once_by_group_and_digest_and_survives_a_restart() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    assert_eq!(store.evidence().unwrap(), [], "none was kept yet");
    let (one, two) = (Digest([1; 32]), Digest([2; 32]));
    store.put_evidence(GroupId(7), one, b"two votes").unwrap();
    store.put_evidence(GroupId(3), two, b"two blocks").unwrap();
    store.put_evidence(GroupId(3), one, b"two timeouts").unwrap();
    store.put_evidence(GroupId(7), one, b"two votes").unwrap();
    let kept = [(3, "two timeouts"), (3, "two blocks"), (7, "two votes")];
    let kept = kept.map(|(group, text)| (GroupId(group), bytes(text)));
    assert_eq!(store.evidence().unwrap(), kept);
    drop(store);
    disk.crash(1);
    assert_eq!(open(&disk).unwrap().evidence().unwrap(), kept, "what was put is durable");
    corrupt(&disk, b"two blocks");
    match open(&disk).unwrap().evidence().unwrap_err() {
        StoreError::Damaged { what, .. } => assert!(what.contains("evidence of group"), "{what}"),
        other => panic!("{other}"),
    }
}

#[test]
fn the_database_of_another_owner_is_refused() {
    let disk = SimDisk::new();
    drop(open(&disk).unwrap());
    let other = Identity { node: NodeId(2), ..identity() };
    let error = Store::open_on(&disk, FILE, &other).unwrap_err();
    assert!(matches!(error, StoreError::WrongIdentity { found, .. } if found == identity()), "{error}");
    open(&disk).unwrap();
}

#[test]
fn boot_numbers_grow_across_crashes_at_any_operation() {
    for halt in 0..60 {
        let disk = SimDisk::new();
        let mut last = BootNumber(0);
        for life in 0..3 {
            disk.halt_after(halt + life);
            if let Ok(store) = open(&disk) {
                while let Ok(boot) = store.raise_boot() {
                    assert!(boot > last, "{boot} after {last}");
                    last = boot;
                    if boot.0.is_multiple_of(4) {
                        break;
                    }
                }
            }
            disk.crash(halt * 10 + life);
        }
        let boot = open(&disk).unwrap().raise_boot().unwrap();
        assert!(boot > last);
    }
}

fn old_state() -> Vec<Pair> {
    (0..40).map(|key| pair(Space::User, &format!("old {key}"), &"o".repeat(200))).collect()
}

fn new_state() -> Vec<Pair> {
    (0..60).map(|key| pair(Space::Host, &format!("new {key:02}"), &"n".repeat(300))).collect()
}

#[test]
fn an_install_is_whole_or_not_at_all_wherever_it_crashes() {
    let mut outcomes = [0, 0];
    for halt in 0..40 {
        for seed in 0..3 {
            let disk = SimDisk::new();
            let store = open(&disk).unwrap();
            store.install(GroupId(1), b"old", old_state().into_iter()).unwrap();
            disk.halt_after(halt);
            let returned = store.install(GroupId(1), b"new", new_state().into_iter()).is_ok();
            drop(store);
            disk.crash(halt * 10 + seed);
            let found = open(&disk).unwrap().load(GroupId(1)).unwrap().unwrap();
            let is_new = found.header == bytes("new");
            let mut expected = if is_new { new_state() } else { old_state() };
            expected.sort();
            assert_eq!(found.pairs, expected, "halted after {halt}, seed {seed}");
            assert!(is_new || !returned, "what was acknowledged is there");
            outcomes[usize::from(is_new)] += 1;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// Flips a bit of every occurrence of `text` in the database file.
fn corrupt(disk: &SimDisk, text: &[u8]) {
    let file = disk.open(FILE).unwrap();
    let mut content = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut content).unwrap();
    let places: Vec<_> = content.windows(text.len()).enumerate().filter(|(_, at)| *at == text).collect();
    assert!(!places.is_empty());
    for (offset, _) in places {
        disk.corrupt(FILE, offset as u64 + 3, 0x04).unwrap();
    }
}

#[test]
fn a_changed_value_is_reported_with_its_group_and_key() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    store
        .checkpoint(GroupId(3), b"the header of three", [put("balance", "one hundred")].into_iter())
        .unwrap();
    store.checkpoint(GroupId(4), b"another", [put("balance", "unharmed")].into_iter()).unwrap();
    store.put_group(GroupId(5), b"description of five").unwrap();
    store.put_component(Digest([6; 32]), b"component six").unwrap();
    drop(store);
    corrupt(&disk, b"one hundred");
    let store = open(&disk).unwrap();
    match store.load(GroupId(3)).unwrap_err() {
        StoreError::DamagedPair { group: GroupId(3), space: Space::User, key } => assert_eq!(key, b"balance"),
        other => panic!("{other}"),
    }
    assert_eq!(store.load(GroupId(4)).unwrap().unwrap().pairs, [pair(Space::User, "balance", "unharmed")]);
    drop(store);
    for text in ["the header of three", "description of five", "component six"] {
        corrupt(&disk, text.as_bytes());
    }
    let store = open(&disk).unwrap();
    assert!(matches!(store.load(GroupId(3)), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.group(GroupId(5)), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.component(Digest([6; 32])), Err(StoreError::DamagedComponent { .. })));
}

#[test]
fn a_failed_flush_fails_the_checkpoint_and_leaves_the_one_before() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    store.checkpoint(GroupId(1), b"one", [put("a", "1")].into_iter()).unwrap();
    disk.fail_after(quorate_storage::SimOperation::Flush, 0);
    let error = store.checkpoint(GroupId(1), b"two", [put("a", "2")].into_iter()).unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error}");
    drop(store);
    disk.crash(0);
    assert_eq!(open(&disk).unwrap().load(GroupId(1)).unwrap().unwrap().header, bytes("one"));
}

#[test]
fn the_store_works_on_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    for life in 1..=3 {
        let store = Store::open(&path, &identity()).unwrap();
        assert_eq!(store.raise_boot().unwrap(), BootNumber(life));
    }
}
