//! The log in ordinary life: what it gives back, what it refuses, and what happens when the disk is
//! full or fails.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use quorate_storage::{
    FileDisk, GroupAppend, HARD_STATE_BYTES_MAX, Identity, SimDisk, SimOperation, Wal, WalError,
};
use quorate_types::{ENTRY_BYTES_MAX, GroupId, Incarnation, LogIndex, NodeId};

use crate::common::{SEGMENT_BYTES, after, append, entries, entry, identity, indices, open, options};

#[test]
fn groups_come_back_with_their_last_hard_state_and_replaced_entries_are_gone() {
    let disk = SimDisk::new();
    let (mut wal, recovery) = open(&disk).unwrap();
    assert!(recovery.is_new && recovery.groups.is_empty());
    wal.append(&[append(1, Some("t1"), entries(1..=5, 1)), append(2, None, entries(1..=2, 1))]).unwrap();
    wal.append(&[append(1, Some("t2"), entries(4..=4, 2)), append(2, None, entries(3..=3, 1))]).unwrap();
    wal.flush().unwrap();
    disk.crash(1);
    let (_, recovery) = open(&disk).unwrap();
    assert!(!recovery.is_new);
    let one = &recovery.groups[&GroupId(1)];
    assert_eq!(indices(one), [1, 2, 3, 4]);
    assert_eq!(one.entries[3].position.term.0, 2);
    assert_eq!(one.hard_state.as_deref(), Some(b"t2".as_slice()));
    assert_eq!(indices(&recovery.groups[&GroupId(2)]), [1, 2, 3]);
}

#[test]
fn what_a_log_cannot_take_is_refused_before_anything_is_written() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[append(1, None, entries(1..=5, 1))]).unwrap();
    wal.compact(GroupId(1), LogIndex(3));
    let before = disk.writes();
    let refused =
        |wal: &mut Wal<SimDisk>, item: GroupAppend| wal.append(&[append(2, Some("x"), vec![]), item]);
    let gap = refused(&mut wal, append(1, None, entries(7..=7, 1))).unwrap_err();
    assert!(
        matches!(gap, WalError::Gap { from: LogIndex(4), to: LogIndex(6), given: LogIndex(7), .. }),
        "{gap}"
    );
    let below = refused(&mut wal, append(1, None, entries(3..=6, 1))).unwrap_err();
    assert!(matches!(below, WalError::Gap { given: LogIndex(3), .. }), "{below}");
    let hole = refused(&mut wal, append(1, None, vec![entry(6, 1, 1), entry(8, 1, 1)])).unwrap_err();
    assert!(matches!(hole, WalError::Gap { given: LogIndex(8), .. }), "{hole}");
    let large = refused(&mut wal, append(1, None, vec![entry(6, 1, ENTRY_BYTES_MAX + 1)])).unwrap_err();
    assert!(matches!(large, WalError::TooLarge { what: "entry", .. }), "{large}");
    let hard_state = Some(Bytes::from(vec![0; HARD_STATE_BYTES_MAX + 1]));
    let large = refused(&mut wal, GroupAppend { hard_state, ..append(1, None, vec![]) }).unwrap_err();
    assert!(matches!(large, WalError::TooLarge { what: "hard state", .. }), "{large}");
    let old = GroupAppend { incarnation: Incarnation(0), ..append(1, Some("x"), vec![]) };
    let stale = refused(&mut wal, old).unwrap_err();
    assert!(matches!(stale, WalError::StaleIncarnation { .. }), "{stale}");
    assert_eq!(disk.writes(), before);
    wal.append(&[append(1, None, entries(6..=6, 1)), append(1, None, entries(7..=7, 1))]).unwrap();
}

#[test]
fn a_greater_incarnation_voids_what_came_before() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[append(1, Some("old"), entries(1..=5, 1))]).unwrap();
    let reborn = GroupAppend { incarnation: Incarnation(2), ..append(1, None, entries(9..=9, 3)) };
    wal.append(&[reborn]).unwrap();
    wal.flush().unwrap();
    let (_, recovery) = open(&disk).unwrap();
    let group = &recovery.groups[&GroupId(1)];
    assert_eq!((group.incarnation, indices(group)), (Incarnation(2), vec![9]));
    assert_eq!(group.hard_state, None);
}

#[test]
fn a_reset_group_continues_behind_its_snapshot_and_a_forgotten_one_is_gone() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[append(1, Some("t1"), entries(1..=5, 1)), append(2, Some("t1"), entries(1..=5, 1))])
        .unwrap();
    wal.reset(GroupId(1), after(100));
    wal.forget(GroupId(2));
    let gap = wal.append(&[append(1, None, entries(6..=6, 1))]).unwrap_err();
    assert!(matches!(gap, WalError::Gap { from: LogIndex(101), .. }), "{gap}");
    wal.append(&[append(1, None, entries(101..=102, 2))]).unwrap();
    wal.flush().unwrap();
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.groups.keys().copied().collect::<Vec<_>>(), [GroupId(1)]);
    let group = &recovery.groups[&GroupId(1)];
    assert_eq!((group.base, indices(group)), (LogIndex(100), vec![101, 102]));
    assert_eq!(group.hard_state.as_deref(), Some(b"t1".as_slice()));
}

#[test]
fn batches_and_entries_greater_than_a_segment_are_split_or_get_their_own() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    let many: Vec<_> = (1..=200).map(|index| entry(index, 1, 300)).collect();
    let large = entry(201, 1, 3 * SEGMENT_BYTES as usize);
    wal.append(&[append(1, Some("t1"), many.clone()), append(1, None, vec![large.clone()])]).unwrap();
    wal.append(&[append(1, None, vec![entry(202, 1, 10)])]).unwrap();
    wal.flush().unwrap();
    disk.crash(5);
    let (_, recovery) = open(&disk).unwrap();
    let found = &recovery.groups[&GroupId(1)].entries;
    assert_eq!(found.len(), 202);
    assert_eq!(found[..200], many);
    assert_eq!(found[200], large);
}

#[test]
fn the_log_of_another_owner_or_format_is_refused_and_left_alone() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[append(1, Some("t1"), entries(1..=5, 1))]).unwrap();
    wal.flush().unwrap();
    let before = disk.operations();
    let others = [
        Identity { node: NodeId(2), ..identity() },
        Identity { cluster: quorate_types::ClusterId([9; 16]), ..identity() },
        Identity { incarnation: Incarnation(2), ..identity() },
    ];
    for other in others {
        let error = Wal::open(disk.clone(), other, options()).unwrap_err();
        assert!(matches!(error, WalError::WrongIdentity { found, .. } if found == identity()), "{error}");
    }
    let name = "wal-0000000000000001";
    for copy in [8, 4_096 + 8] {
        disk.corrupt(name, copy, 1 ^ 2).unwrap();
    }
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, WalError::UnsupportedVersion { found: 2, supported: 1, .. }), "{error}");
    assert_eq!(disk.operations(), before, "nothing was changed");
    for copy in [8, 4_096 + 8] {
        disk.corrupt(name, copy, 1 ^ 2).unwrap();
    }
    assert_eq!(indices(&open(&disk).unwrap().1.groups[&GroupId(1)]), [1, 2, 3, 4, 5]);
}

#[test]
fn a_full_disk_refuses_a_batch_whole_and_takes_it_when_there_is_room() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    let mut next = 1;
    disk.set_room(Some(3 * SEGMENT_BYTES));
    let full = loop {
        match wal.append(&[append(1, None, vec![entry(next, 1, 700)])]) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        wal.flush().unwrap();
    };
    assert!(matches!(full, WalError::DiskFull { .. }), "{full}");
    assert!(!full.is_final());
    assert!(next > 10, "the disk had room for more than {next} entries");
    wal.flush().unwrap();
    assert!(matches!(
        wal.append(&[append(1, None, vec![entry(next, 1, 700)])]),
        Err(WalError::DiskFull { .. })
    ));
    disk.set_room(None);
    wal.append(&[append(1, None, vec![entry(next, 1, 700)])]).unwrap();
    wal.flush().unwrap();
    disk.crash(3);
    assert_eq!(indices(&open(&disk).unwrap().1.groups[&GroupId(1)]), (1..=next).collect::<Vec<_>>());
}

#[test]
fn a_failed_write_or_flush_is_final() {
    for operation in [SimOperation::Flush, SimOperation::Write] {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk).unwrap();
        wal.append(&[append(1, None, entries(1..=1, 1))]).unwrap();
        wal.flush().unwrap();
        disk.fail_after(operation, 0);
        let failed =
            wal.append(&[append(1, None, entries(2..=2, 1))]).and_then(|()| wal.flush()).unwrap_err();
        assert!(matches!(failed, WalError::Final { .. }) && failed.is_final(), "{failed}");
        for error in [
            wal.flush().unwrap_err(),
            wal.append(&[append(1, None, entries(2..=2, 1))]).unwrap_err(),
            wal.maintain().unwrap_err(),
        ] {
            assert!(matches!(error, WalError::Failed) && error.is_final(), "{error}");
        }
        disk.crash(0);
        assert!(indices(&open(&disk).unwrap().1.groups[&GroupId(1)]).starts_with(&[1]));
    }
}

#[test]
fn a_flush_on_another_thread_covers_what_was_appended_before_it() {
    for seed in 0..30 {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk).unwrap();
        assert!(wal.begin_flush().is_none(), "nothing was appended");
        wal.append(&[append(1, None, entries(1..=3, 1))]).unwrap();
        let pending = wal.begin_flush().unwrap();
        let done = std::thread::spawn(|| pending.run()).join().unwrap().unwrap();
        wal.append(&[append(1, None, entries(4..=6, 1))]).unwrap();
        wal.finish_flush(&done);
        assert!(wal.begin_flush().is_some(), "the second batch came after the flush");
        disk.crash(seed);
        let found = indices(&open(&disk).unwrap().1.groups[&GroupId(1)]);
        assert!(found == [1, 2, 3] || found == [1, 2, 3, 4, 5, 6], "{found:?}");
    }
}

#[test]
fn one_flush_serves_all_groups_and_an_idle_one_costs_nothing() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    let batch: Vec<_> = (1..=50).map(|group| append(group, None, entries(1..=1, 1))).collect();
    wal.append(&batch).unwrap();
    let before = disk.flushes();
    wal.flush().unwrap();
    wal.flush().unwrap();
    assert_eq!(disk.flushes(), before + 1);
    let writes = disk.writes();
    wal.append(&[]).unwrap();
    assert_eq!(disk.writes(), writes);
}

#[test]
fn a_segment_too_small_for_its_header_is_refused() {
    let disk = SimDisk::new();
    let small = quorate_storage::WalOptions { segment_bytes: 4_096, ..options() };
    let error = Wal::open(disk, identity(), small).unwrap_err();
    assert!(matches!(error, WalError::SegmentTooSmall { given: 4_096, .. }), "{error}");
}

#[test]
fn the_log_works_on_files() {
    let directory = tempfile::tempdir().unwrap();
    let disk = || FileDisk::open(&directory.path().join("wal")).unwrap().writing_directly();
    let mut expected = Vec::new();
    for life in 0..4u64 {
        let (mut wal, recovery) = Wal::open(disk(), identity(), options()).unwrap();
        let found = recovery.groups.get(&GroupId(1)).map(|group| group.entries.clone()).unwrap_or_default();
        assert_eq!(found, expected);
        for index in life * 50 + 1..=life * 50 + 50 {
            let new = entry(index, 1, 200);
            wal.append(&[append(1, Some("t"), vec![new.clone()])]).unwrap();
            expected.push(new);
            if index % 10 == 0 {
                wal.flush().unwrap();
                wal.compact(GroupId(1), LogIndex(index - 5));
                expected.retain(|entry| entry.index().0 > index - 5);
                while wal.maintain().unwrap() {}
            }
        }
        // A release without a record of its own yet goes out with the next append.
        wal.append(&[append(2, Some("t"), vec![])]).unwrap();
        wal.flush().unwrap();
        assert!(wal.statistics().segments <= 4, "{:?}", wal.statistics());
    }
    let names = std::fs::read_dir(directory.path().join("wal")).unwrap().count();
    assert!(names <= 6, "{names} files for a log of a few entries");
}
