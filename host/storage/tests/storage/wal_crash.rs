//! Crashes at every operation of the disk, under many seeds: what was flushed is there, what is there
//! was written, and all groups are at one point of one order.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use quorate_storage::{GroupAppend, SimDisk, Wal};
use quorate_types::{BootNumber, GroupId, Incarnation, LogIndex};

use crate::common::{Model, Op, after, entry, open};

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// An owner that acts at random and remembers what it did.
struct Owner {
    chance: Chance,
    ops: Vec<Op>,
    /// So many operations are certainly durable.
    durable: usize,
    model: Model,
    term: u64,
}

/// The log said that it failed, as it must once the disk was halted.
struct Halted;

impl Owner {
    fn new(seed: u64) -> Self {
        Self { chance: Chance(seed), ops: Vec::new(), durable: 0, model: Model::default(), term: 1 }
    }

    fn record(&mut self, op: Op) {
        self.model.apply(&op);
        self.ops.push(op);
    }

    fn batch(&mut self) -> Vec<GroupAppend> {
        let mut scratch = self.model.clone();
        let mut batch = Vec::new();
        for _ in 0..=self.chance.below(3) {
            let group = GroupId(self.chance.below(5));
            let held = scratch.0.get(&group).cloned().unwrap_or_default();
            let last = scratch.last(group);
            let overwritten = if self.chance.below(4) == 0 { self.chance.below(4) } else { 0 };
            let first = last.saturating_sub(overwritten).max(held.base) + 1;
            self.term += u64::from(overwritten > 0);
            let count = self.chance.below(5);
            let term = self.term;
            let hard_state = (count == 0 || self.chance.below(3) == 0)
                .then(|| Bytes::from(format!("{group} {}", self.ops.len())));
            let entries =
                (first..first + count).map(|index| entry(index, term, self.chance.below(300) as usize + 1));
            let item = GroupAppend {
                group,
                incarnation: Incarnation(1),
                boot: BootNumber(1),
                hard_state,
                entries: entries.collect(),
            };
            scratch.apply(&Op::Append(vec![item.clone()]));
            batch.push(item);
        }
        batch
    }

    fn act(&mut self, wal: &mut Wal<SimDisk>) -> Result<(), Halted> {
        let group = GroupId(self.chance.below(5));
        match self.chance.below(16) {
            0..=7 => {
                let batch = self.batch();
                self.record(Op::Append(batch.clone()));
                wal.append(&batch).map_err(|_| Halted)
            }
            8..=10 => {
                wal.flush().map_err(|_| Halted)?;
                let appends = self.ops.iter().rposition(|op| matches!(op, Op::Append(_)));
                self.durable = self.durable.max(appends.map_or(0, |last| last + 1));
                Ok(())
            }
            11 | 12 => {
                let through = LogIndex(self.model.last(group).saturating_sub(self.chance.below(4)));
                if self.model.0.contains_key(&group) {
                    self.record(Op::Compact(group, through));
                    wal.compact(group, through);
                }
                Ok(())
            }
            13 if self.chance.below(4) == 0 => {
                let next = self.model.last(group) + self.chance.below(5);
                self.record(Op::Reset(group, LogIndex(next)));
                wal.reset(group, after(next));
                Ok(())
            }
            14 if self.chance.below(6) == 0 => {
                if self.model.0.contains_key(&group) {
                    self.record(Op::Forget(group));
                    wal.forget(group);
                }
                Ok(())
            }
            _ => wal.maintain().map(|_| ()).map_err(|_| Halted),
        }
    }

    /// Opens the log after a crash and goes on from what it holds.
    fn recover(&mut self, disk: &SimDisk, context: &str) -> Wal<SimDisk> {
        let (wal, recovery) = open(disk).unwrap();
        assert_eq!(recovery.damage, None, "{context}: a crash is not damage");
        let kept = (self.durable..=self.ops.len()).rev().find(|kept| {
            let model = Model::after(&self.ops[..*kept]);
            // Groups that only marks made known are not written yet.
            model.matches(&recovery.groups)
        });
        let Some(kept) = kept else {
            panic!(
                "{context}: no state after {} to {} operations fits\n{:#?}\n{:#?}",
                self.durable,
                self.ops.len(),
                recovery.groups,
                &self.ops[self.durable.saturating_sub(6)..],
            );
        };
        self.ops.truncate(kept);
        self.model = Model::after(&self.ops);
        self.durable = kept;
        wal
    }
}

/// Runs `actions`, halting the disk after `halt` operations, then crashes.
fn life(
    owner: &mut Owner,
    disk: &SimDisk,
    wal: &mut Wal<SimDisk>,
    actions: u64,
    halt: Option<u64>,
    seed: u64,
) {
    if let Some(halt) = halt {
        disk.halt_after(halt);
    }
    for _ in 0..actions {
        if owner.act(wal).is_err() {
            break;
        }
    }
    disk.crash(seed);
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_flushed_and_invents_nothing() {
    for seed in 0..25 {
        let disk = SimDisk::new();
        let mut wal = open(&disk).unwrap().0;
        let before = disk.operations();
        life(&mut Owner::new(seed), &disk, &mut wal, 70, None, 0);
        let operations = disk.operations() - before;
        for halt in 0..operations {
            let context = format!("seed {seed}, halted after {halt} operations");
            let disk = SimDisk::new();
            let mut owner = Owner::new(seed);
            let mut wal = open(&disk).unwrap().0;
            life(&mut owner, &disk, &mut wal, 70, Some(halt), seed * 1_000 + halt);
            drop(owner.recover(&disk, &context));
        }
    }
}

#[test]
fn many_lives_one_after_another_lose_nothing_that_was_flushed() {
    let (mut freed, mut crashes_while_opening) = (0, 0);
    for seed in 0..40 {
        let disk = SimDisk::new();
        let mut owner = Owner::new(seed + 1_000);
        let mut wal = open(&disk).unwrap().0;
        for number in 0..25 {
            let context = format!("seed {seed}, life {number}");
            let (actions, halt) = (owner.chance.below(150), owner.chance.below(400));
            life(&mut owner, &disk, &mut wal, actions, Some(halt), seed * 100 + number);
            freed += wal.statistics().segments_freed;
            // Opening can crash too, at any of its own operations, and nothing may change by it.
            disk.halt_after(owner.chance.below(6));
            if open(&disk).is_err() {
                crashes_while_opening += 1;
            }
            disk.crash(seed * 100 + number + 50);
            wal = owner.recover(&disk, &context);
        }
    }
    assert!(freed > 200, "only {freed} segments were freed: truncation was hardly tried");
    assert!(crashes_while_opening > 100, "only {crashes_while_opening} crashes while opening");
}

#[test]
fn opening_twice_gives_the_same() {
    let disk = SimDisk::new();
    let mut owner = Owner::new(7);
    let mut wal = open(&disk).unwrap().0;
    life(&mut owner, &disk, &mut wal, 200, None, 3);
    let first = open(&disk).unwrap().1;
    let second = open(&disk).unwrap().1;
    assert!(!first.groups.is_empty());
    assert_eq!(first.groups, second.groups);
}

#[test]
fn what_a_killed_process_appended_is_there_and_durable_once_it_was_reported() {
    for seed in 0..40 {
        let disk = SimDisk::new();
        let mut wal = open(&disk).unwrap().0;
        let item = crate::common::append(1, Some("vote"), crate::common::entries(1..=3, 1));
        wal.append(std::slice::from_ref(&item)).unwrap();
        disk.kill();
        let found = open(&disk).unwrap().1.groups;
        assert_eq!(found[&GroupId(1)].entries, item.entries);
        disk.crash(seed);
        assert_eq!(open(&disk).unwrap().1.groups, found, "seed {seed}");
    }
}
