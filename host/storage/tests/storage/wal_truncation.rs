//! Old segments are freed, and nothing that is still needed goes with them.

#![allow(clippy::unwrap_used)]

use quorate_storage::SimDisk;
use quorate_types::{GroupId, LogIndex};

use crate::common::{append, entries, entry, indices, open};

#[test]
fn hundreds_of_groups_share_a_log_that_stays_short() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    const GROUPS: u64 = 300;
    for group in 0..GROUPS {
        wal.append(&[append(group, Some("born"), entries(1..=2, 1))]).unwrap();
    }
    for index in 3..=40 {
        // A tenth of the groups is busy; the rest keeps two entries and a hard state in the oldest part.
        let batch: Vec<_> =
            (0..GROUPS / 10).map(|group| append(group, Some("busy"), entries(index..=index, 1))).collect();
        wal.append(&batch).unwrap();
        wal.flush().unwrap();
        for group in 0..GROUPS / 10 {
            wal.compact(GroupId(group), LogIndex(index - 1));
        }
        while wal.maintain().unwrap() {}
    }
    // The idle groups' entries are most of what is live and wait for checkpoints.
    let holders = wal.groups_holding_back();
    assert!(!holders.is_empty());
    for group in 0..GROUPS {
        wal.compact(GroupId(group), LogIndex(2));
    }
    while wal.maintain().unwrap() {}
    assert!(wal.groups_holding_back().is_empty());
    let statistics = wal.statistics();
    assert!(statistics.segments_freed > 10, "{statistics:?}");
    wal.flush().unwrap();
    disk.crash(4);
    let (wal, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.groups.len() as u64, GROUPS);
    for (group, found) in &recovery.groups {
        let (state, last) = if group.0 < GROUPS / 10 { ("busy", vec![40]) } else { ("born", vec![]) };
        assert_eq!(found.hard_state.as_deref(), Some(state.as_bytes()), "{group}");
        assert_eq!(indices(found), last, "{group}");
        assert_eq!(found.damage, None);
    }
    drop(wal);
}

#[test]
fn live_entries_of_a_quiet_group_outlive_many_segments() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[append(1, Some("quiet"), entries(1..=9, 1))]).unwrap();
    // The tail was replaced once: only the replacement may be carried along.
    wal.append(&[append(1, None, entries(8..=8, 2))]).unwrap();
    for index in 1..=300 {
        wal.append(&[append(2, None, vec![entry(index, 1, 400)])]).unwrap();
        wal.flush().unwrap();
        wal.compact(GroupId(2), LogIndex(index));
        wal.maintain().unwrap();
    }
    assert!(wal.statistics().segments_freed > 20, "{:?}", wal.statistics());
    disk.crash(9);
    let found = open(&disk).unwrap().1.groups[&GroupId(1)].clone();
    assert_eq!(indices(&found), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(found.entries[7].position.term.0, 2);
    assert_eq!(found.hard_state.as_deref(), Some(b"quiet".as_slice()));
}

#[test]
fn nothing_is_copied_round_and_round_while_everything_is_live() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    for index in 1..=100 {
        wal.append(&[append(1, None, vec![entry(index, 1, 600)])]).unwrap();
        wal.flush().unwrap();
        while wal.maintain().unwrap() {}
    }
    assert_eq!(wal.statistics().bytes_moved, 0);
    assert_eq!(wal.groups_holding_back(), [GroupId(1)]);
    wal.compact(GroupId(1), LogIndex(100));
    while wal.maintain().unwrap() {}
    assert_eq!(wal.statistics().segments, 1, "{:?}", wal.statistics());
}

#[test]
fn a_full_disk_stops_truncation_without_harm() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[append(1, Some("kept"), vec![entry(1, 1, 300)])]).unwrap();
    for index in 1..=60 {
        wal.append(&[append(2, None, vec![entry(index, 1, 600)])]).unwrap();
    }
    wal.flush().unwrap();
    disk.set_room(Some(0));
    wal.compact(GroupId(2), LogIndex(60));
    let mut full = false;
    for _ in 0..50 {
        match wal.maintain() {
            Ok(_) => {}
            Err(error) => {
                assert!(!error.is_final(), "{error}");
                full = true;
                break;
            }
        }
        let filler = wal.statistics().appends;
        if wal.append(&[append(3, None, vec![entry(filler, 1, 600)])]).is_err() {
            full = true;
            break;
        }
    }
    assert!(full, "the disk never ran out");
    disk.set_room(None);
    while wal.maintain().unwrap() {}
    assert!(wal.statistics().segments <= 4, "{:?}", wal.statistics());
    disk.crash(1);
    let recovery = open(&disk).unwrap().1;
    assert_eq!(indices(&recovery.groups[&GroupId(1)]), [1]);
    assert_eq!(recovery.groups[&GroupId(1)].hard_state.as_deref(), Some(b"kept".as_slice()));
}
