//! What a run exercised, and how much of it is enough.
//!
//! Relies on the fault set: a floor holds only where the faults that lead to it may happen. Promises
//! nothing else. Knows no run.

use crate::faults::{FaultKind, FaultSet};

macro_rules! statistics {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts over one run, or over several added up.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Statistics {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Statistics {
            /// Adds those of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

statistics! {
    /// Commands whose outcome reached their client.
    acknowledged,
    /// Queries answered linearizably.
    queries,
    /// Elections won.
    elections,
    /// Times a replica replaced entries of its log by others.
    conflicts,
    /// Snapshots of the state that were installed from a peer.
    snapshot_installs,
    /// Crashes while something was appended to a log and not flushed.
    unflushed_crashes,
    /// All crashes.
    crashes,
    /// Crashes in the middle of writing a checkpoint or a fetched snapshot.
    table_crashes,
    /// Checkpoints made durable.
    checkpoints,
    /// Equal digests found at equal indices.
    digests_compared,
    /// Promises to peers that were checked against the disk.
    promises_checked,
    /// Entries committed.
    committed,
    /// Messages sent.
    messages,
    /// Messages lost, cut off or doubled.
    messages_troubled,
    /// Messages that liars changed, withheld, delayed or made up.
    lies,
}

/// Below these a run exercised too little and counts as failed.
pub const ACKNOWLEDGED_FLOOR: u64 = 200;
/// See [`ACKNOWLEDGED_FLOOR`]. The first leader of a group needs no election.
pub const ELECTIONS_FLOOR: u64 = 2;
/// See [`ACKNOWLEDGED_FLOOR`].
pub const CONFLICTS_FLOOR: u64 = 1;
/// See [`ACKNOWLEDGED_FLOOR`].
pub const SNAPSHOT_INSTALLS_FLOOR: u64 = 1;
/// See [`ACKNOWLEDGED_FLOOR`].
pub const UNFLUSHED_CRASHES_FLOOR: u64 = 1;

impl Statistics {
    /// The floors that were not reached, in words; those that the faults cannot lead to do not count.
    #[must_use]
    pub fn below_floor(&self, faults: &FaultSet) -> Vec<String> {
        let crash = faults.has(FaultKind::Crash);
        let cut = faults.has(FaultKind::Partition);
        let floors = [
            ("acknowledged commands", self.acknowledged, ACKNOWLEDGED_FLOOR, true),
            ("elections", self.elections, ELECTIONS_FLOOR, crash || cut),
            ("log conflicts", self.conflicts, CONFLICTS_FLOOR, cut),
            ("snapshot installs", self.snapshot_installs, SNAPSHOT_INSTALLS_FLOOR, crash || cut),
            ("crashes between append and flush", self.unflushed_crashes, UNFLUSHED_CRASHES_FLOOR, crash),
        ];
        let missed = floors.into_iter().filter(|(_, reached, floor, counts)| *counts && reached < floor);
        missed.map(|(what, reached, floor, _)| format!("{what}: {reached} of {floor}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enough() -> Statistics {
        Statistics {
            acknowledged: ACKNOWLEDGED_FLOOR,
            elections: ELECTIONS_FLOOR,
            conflicts: CONFLICTS_FLOOR,
            snapshot_installs: SNAPSHOT_INSTALLS_FLOOR,
            unflushed_crashes: UNFLUSHED_CRASHES_FLOOR,
            ..Statistics::default()
        }
    }

    #[test]
    fn every_floor_counts_and_just_enough_is_enough() {
        assert!(enough().below_floor(&FaultSet::all()).is_empty());
        assert_eq!(Statistics::default().below_floor(&FaultSet::all()).len(), 5);
        let short = Statistics { conflicts: 0, ..enough() };
        assert_eq!(short.below_floor(&FaultSet::all()), ["log conflicts: 0 of 1"]);
    }

    #[test]
    fn without_faults_only_acknowledgements_are_asked_for() {
        assert_eq!(Statistics::default().below_floor(&FaultSet::none()).len(), 1);
    }

    #[test]
    fn counts_add_up() {
        let mut sum = enough();
        sum.add(&enough());
        assert_eq!(sum.acknowledged, 2 * ACKNOWLEDGED_FLOOR);
    }
}
