//! Bytes that change on the medium: a torn tail is cut, anything that was durable is reported, and
//! nothing is ever silently passed over.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use quorate_storage::{DamageKind, Disk, SimDisk, Wal, WalOptions};
use quorate_types::GroupId;

use crate::common::{SEGMENT_BYTES, after, append, entries, identity, indices, open, options};

const FIRST: &str = "wal-0000000000000001";
const BATCHES: u64 = 8_192;

/// Three flushed batches of one sector each, the last of two groups.
fn three_batches() -> SimDisk {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[append(1, Some("t1"), entries(1..=2, 1))]).unwrap();
    wal.flush().unwrap();
    wal.append(&[append(1, Some("t2"), entries(3..=4, 1))]).unwrap();
    wal.flush().unwrap();
    wal.append(&[append(1, None, entries(5..=5, 1)), append(2, Some("t1"), entries(1..=1, 1))]).unwrap();
    wal.flush().unwrap();
    disk.kill();
    disk
}

#[test]
fn a_bad_batch_that_a_later_one_confirms_is_damage_for_every_group() {
    for offset in [BATCHES + 512, BATCHES + 512 + 20, BATCHES + 512 + 100] {
        let disk = three_batches();
        disk.corrupt(FIRST, offset, 0x10).unwrap();
        let (_, recovery) = open(&disk).unwrap();
        let damage = recovery.damage.unwrap();
        assert_eq!((damage.kind, damage.segment, damage.offset), (DamageKind::Corrupt, 1, BATCHES + 512));
        let one = &recovery.groups[&GroupId(1)];
        assert_eq!(one.damage, Some(damage));
        assert_eq!(indices(one), [1, 2], "the entries of the moment before the damage");
        assert_eq!(one.hard_state.as_deref(), Some(b"t1".as_slice()));
        let two = &recovery.groups[&GroupId(2)];
        assert_eq!(two.damage, Some(damage), "its earlier records may be what was lost");
        assert!(two.entries.is_empty());
    }
}

#[test]
fn entries_behind_damage_are_not_put_behind_entries_that_it_replaced() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    // The second batch replaced entries 3 to 5; the third continues it.
    for (indices, term) in [(1..=5, 1), (3..=5, 2), (6..=7, 2)] {
        wal.append(&[append(1, None, entries(indices, term))]).unwrap();
        wal.flush().unwrap();
    }
    disk.kill();
    disk.corrupt(FIRST, BATCHES + 512 + 100, 1).unwrap();
    let found = &open(&disk).unwrap().1.groups[&GroupId(1)];
    assert!(found.damage.is_some());
    assert_eq!(found.entries, entries(1..=5, 1), "a log that the replica once had");
}

#[test]
fn a_bad_last_batch_that_nothing_confirms_is_a_torn_tail() {
    let disk = three_batches();
    disk.corrupt(FIRST, BATCHES + 1_024 + 90, 1).unwrap();
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage, None);
    assert_eq!(indices(&recovery.groups[&GroupId(1)]), [1, 2, 3, 4]);
    assert!(!recovery.groups.contains_key(&GroupId(2)));
}

#[test]
fn an_unflushed_batch_that_was_lost_takes_those_behind_it_along() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    for index in 1..=4 {
        wal.append(&[append(1, None, entries(index..=index, 1))]).unwrap();
    }
    disk.kill();
    disk.corrupt(FIRST, BATCHES + 512, 0xff).unwrap();
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage, None);
    assert_eq!(indices(&recovery.groups[&GroupId(1)]), [1]);
    assert!(recovery.torn_bytes > 0);
    let again = open(&disk).unwrap().1;
    assert_eq!(indices(&again.groups[&GroupId(1)]), [1], "what was cut does not come back");
}

#[test]
fn a_segment_before_the_last_is_damaged_by_any_bad_batch() {
    let disk = three_batches();
    drop(open(&disk).unwrap());
    // Its last batch was a torn tail while nothing came after; now the next segment confirms it.
    disk.corrupt(FIRST, BATCHES + 1_024 + 90, 1).unwrap();
    let (_, recovery) = open(&disk).unwrap();
    let damage = recovery.damage.unwrap();
    assert_eq!((damage.segment, damage.offset, damage.bytes), (1, BATCHES + 1_024, 512));
    assert_eq!(indices(&recovery.groups[&GroupId(1)]), [1, 2, 3, 4]);
}

#[test]
fn damage_stays_on_record_until_repaired_and_the_segment_is_set_aside() {
    let disk = three_batches();
    disk.corrupt(FIRST, BATCHES + 600, 1).unwrap();
    let first = open(&disk).unwrap().1;
    assert!(disk.list().unwrap().contains(&"damaged-0000000000000001".to_owned()));
    let (mut wal, second) = open(&disk).unwrap();
    assert_eq!(second.damage, None, "nothing new");
    assert_eq!(second.groups, first.groups);
    assert!(second.groups.values().all(|group| group.damage.is_some()));

    // One group fetches entries from its peers, the other a snapshot.
    wal.append(&[append(1, Some("t3"), entries(3..=5, 1))]).unwrap();
    wal.mark_repaired(GroupId(1));
    wal.reset(GroupId(2), after(10));
    wal.append(&[append(2, Some("t3"), entries(11..=11, 1))]).unwrap();
    wal.flush().unwrap();
    let third = open(&disk).unwrap().1;
    assert!(third.groups.values().all(|group| group.damage.is_none()), "{:?}", third.groups);
    assert_eq!(indices(&third.groups[&GroupId(1)]), [1, 2, 3, 4, 5]);
    assert_eq!(indices(&third.groups[&GroupId(2)]), [11]);
}

#[test]
fn a_crash_while_damage_is_written_down_forgets_none_of_it() {
    for halt in 0..12 {
        for seed in 0..8 {
            let disk = three_batches();
            disk.corrupt(FIRST, BATCHES + 600, 1).unwrap();
            disk.halt_after(halt);
            let opened = open(&disk).is_ok();
            disk.crash(seed);
            let recovery = open(&disk).unwrap().1;
            let context = format!("halted after {halt}, seed {seed}, opened {opened}");
            assert_eq!(indices(&recovery.groups[&GroupId(1)]), [1, 2], "{context}");
            assert!(recovery.groups.values().all(|group| group.damage.is_some()), "{context}");
            assert_eq!(recovery.groups.len(), 2, "{context}");
        }
    }
}

#[test]
fn a_lost_header_segment_or_log_is_damage() {
    let disk = three_batches();
    for copy in [40, 4_096 + 40] {
        disk.corrupt(FIRST, copy, 1).unwrap();
    }
    let recovery = open(&disk).unwrap().1;
    assert_eq!(recovery.damage.unwrap().kind, DamageKind::Corrupt);
    assert!(recovery.groups.values().all(|group| group.damage.is_some() && group.entries.is_empty()));

    let disk = three_batches();
    drop(open(&disk).unwrap());
    drop(open(&disk).unwrap());
    disk.remove("wal-0000000000000002").unwrap();
    let recovery = open(&disk).unwrap().1;
    assert_eq!(recovery.damage.unwrap().kind, DamageKind::SegmentMissing);
    assert!(recovery.groups.values().all(|group| group.damage.is_some()));

    let disk = SimDisk::new();
    let expecting = || WalOptions { expected_groups: vec![GroupId(7)], ..options() };
    let recovery = Wal::open(disk.clone(), identity(), expecting()).unwrap().1;
    assert_eq!(recovery.groups[&GroupId(7)].damage.unwrap().kind, DamageKind::LogMissing);
    let recovery = Wal::open(disk, identity(), expecting()).unwrap().1;
    assert!(recovery.groups[&GroupId(7)].damage.is_some(), "still on record");
}

#[test]
fn an_expected_group_that_the_damaged_log_does_not_know_is_damaged_too() {
    let expecting = || WalOptions { expected_groups: vec![GroupId(1), GroupId(9)], ..options() };
    let sound = three_batches();
    let recovery = Wal::open(sound, identity(), expecting()).unwrap().1;
    assert!(!recovery.groups.contains_key(&GroupId(9)), "a sound log knows what it knows");
    let disk = three_batches();
    disk.corrupt(FIRST, BATCHES + 600, 1).unwrap();
    let recovery = Wal::open(disk, identity(), expecting()).unwrap().1;
    assert!(recovery.groups[&GroupId(9)].damage.is_some());
}

#[test]
fn a_recycled_file_cannot_speak_for_its_earlier_life() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    let mut index = 0;
    while wal.statistics().segments_freed < 3 {
        index += 1;
        wal.append(&[append(1, None, entries(index..=index, 1)), append(2, Some("old"), vec![])]).unwrap();
        wal.flush().unwrap();
        wal.compact(GroupId(1), quorate_types::LogIndex(index));
        while wal.maintain().unwrap() {}
    }
    assert!(disk.list().unwrap().iter().any(|name| name.starts_with("spare-")));
    // Reuse a file that is full of old batches, and write one batch into it.
    let before = wal.statistics().segments + wal.statistics().segments_freed;
    while wal.statistics().segments + wal.statistics().segments_freed < before + 2 {
        index += 1;
        wal.append(&[append(1, Some("new"), entries(index..=index, 1)), append(2, Some("new"), vec![])])
            .unwrap();
    }
    wal.flush().unwrap();
    disk.kill();
    let recovery = open(&disk).unwrap().1;
    assert_eq!(recovery.damage, None);
    assert_eq!(recovery.torn_bytes, 0);
    assert_eq!(indices(&recovery.groups[&GroupId(1)]).last(), Some(&index));
    assert_eq!(recovery.groups[&GroupId(2)].hard_state.as_deref(), Some(b"new".as_slice()));
}

#[test]
fn bytes_inside_an_entry_that_look_like_a_batch_are_not_taken_for_one() {
    // A whole batch of another log, whose salt is another, as the body of an entry.
    let other = three_batches();
    let mut batch = vec![0; 512];
    quorate_storage::DiskFile::read_at(&other.open(FIRST).unwrap(), BATCHES + 1_024, &mut batch).unwrap();
    let forged: Vec<u8> = batch.iter().copied().cycle().take(4_096).collect();
    for shift in 0..8 {
        let disk = SimDisk::new();
        let salted = WalOptions { salt: 5, ..options() };
        let (mut wal, _) = Wal::open(disk.clone(), identity(), salted.clone()).unwrap();
        wal.append(&[append(1, None, entries(1..=1, 1))]).unwrap();
        wal.flush().unwrap();
        let mut evil = entries(2..=2, 1);
        evil[0].body = [vec![0; shift * 64 + 1], forged.clone()].concat().into();
        wal.append(&[append(1, None, evil)]).unwrap();
        disk.kill();
        disk.corrupt(FIRST, BATCHES + 512, 1).unwrap();
        let recovery = Wal::open(disk, identity(), salted).unwrap().1;
        assert_eq!(recovery.damage, None, "shift {shift}");
        assert_eq!(indices(&recovery.groups[&GroupId(1)]), [1]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Twenty flushed batches over several segments; one bit changes somewhere.
    #[test]
    fn no_changed_bit_goes_unnoticed(segment in 1u64..4, offset in 0..SEGMENT_BYTES, bit in 0u8..8) {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk).unwrap();
        for index in 1..=20 {
            wal.append(&[append(1, Some("t"), vec![crate::common::entry(index, 1, 600)])]).unwrap();
            wal.flush().unwrap();
        }
        disk.kill();
        let name = format!("wal-{segment:016x}");
        disk.corrupt(&name, offset, 1 << bit).unwrap();
        let recovery = open(&disk).unwrap().1;
        let found = indices(&recovery.groups[&GroupId(1)]);
        prop_assert!((1..=20).collect::<Vec<_>>().starts_with(&found), "{:?}", found);
        if recovery.damage.is_none() {
            // Nothing confirms the very last batch.
            prop_assert!(found.len() >= 19, "{} entries are gone without a word", 20 - found.len());
        } else {
            prop_assert!(recovery.groups[&GroupId(1)].damage.is_some());
        }
    }
}
