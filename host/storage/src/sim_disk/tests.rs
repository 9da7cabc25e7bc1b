//! The simulated disk loses what it may lose, and nothing else.

#![allow(clippy::unwrap_used)]
use super::*;

fn contents(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut out = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut out).unwrap();
    out
}

fn flushed_then_overwritten() -> SimDisk {
    let disk = SimDisk::new();
    let file = disk.create("a", 4 * SECTOR_BYTES as u64).unwrap();
    disk.sync_directory().unwrap();
    file.write_at(0, &[1; 4 * SECTOR_BYTES]).unwrap();
    file.flush().unwrap();
    file.write_at(0, &[2; 4 * SECTOR_BYTES]).unwrap();
    file.write_at(SECTOR_BYTES as u64, &[3; SECTOR_BYTES]).unwrap();
    disk
}

#[test]
fn unflushed_sectors_are_old_or_new_and_every_kind_of_loss_happens() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let disk = flushed_then_overwritten();
        disk.crash(seed);
        let bytes = contents(&disk, "a");
        for sector in bytes.chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn inside");
        }
        outcomes.insert(bytes.iter().step_by(SECTOR_BYTES).copied().collect::<Vec<_>>());
    }
    for wanted in [[1, 1, 1, 1], [2, 3, 2, 2], [1, 2, 1, 2], [1, 3, 1, 1]] {
        assert!(outcomes.contains(wanted.as_slice()), "{wanted:?} never happened: {outcomes:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let (one, other) = (flushed_then_overwritten(), flushed_then_overwritten());
    one.crash(77);
    other.crash(77);
    assert_eq!(contents(&one, "a"), contents(&other, "a"));
}

#[test]
fn flushed_bytes_survive_and_a_killed_process_loses_nothing() {
    for seed in 0..50 {
        let disk = SimDisk::new();
        let file = disk.create("a", 10).unwrap();
        disk.sync_directory().unwrap();
        file.write_at(3, b"kept").unwrap();
        file.flush().unwrap();
        disk.crash(seed);
        assert_eq!(contents(&disk, "a"), b"\0\0\0kept\0\0\0");
        assert!(file.flush().is_err(), "a handle from before the crash is dead");
    }
    let disk = flushed_then_overwritten();
    disk.kill();
    assert_eq!(contents(&disk, "a")[0], 2);
}

#[test]
fn names_are_durable_only_after_the_directory_is() {
    let lost = (0..50).any(|seed| {
        let disk = SimDisk::new();
        disk.create("a", 10).unwrap().flush().unwrap();
        disk.crash(seed);
        disk.list().unwrap().is_empty()
    });
    assert!(lost);
    for seed in 0..50 {
        let disk = SimDisk::new();
        disk.create("a", 10).unwrap().flush().unwrap();
        disk.sync_directory().unwrap();
        disk.rename("a", "b").unwrap();
        disk.crash(seed);
        assert!(!disk.list().unwrap().is_empty(), "a rename never loses the file");
    }
}

#[test]
fn planned_faults_happen_when_planned() {
    let disk = SimDisk::new();
    let file = disk.create("a", 0).unwrap();
    disk.fail_after(SimOperation::Flush, 1);
    file.flush().unwrap();
    assert!(file.flush().is_err());
    file.flush().unwrap();
    disk.set_room(Some(SECTOR_BYTES as u64));
    file.write_at(0, &[1; 100]).unwrap();
    file.write_at(100, &[1; 100]).unwrap();
    let full = file.write_at(SECTOR_BYTES as u64, &[1]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    disk.halt_after(1);
    file.write_at(0, &[2]).unwrap();
    assert!(file.write_at(0, &[3]).is_err());
    assert!(file.flush().is_err());
}
