//! Groups of several sizes: what a decision costs in messages, and a replica in memory and disk.
//!
//! Relies on the replicas alone, on disks and a network of their own. Promises counts that are the same on every
//! machine. Knows no node.

use std::time::Duration;

use quorate_consensus::hotstuff::Settings;
use quorate_consensus::hotstuff::cluster::{Cluster, Conduct, keys};
use serde::Serialize;

/// How many members, from the fewest that tolerate a liar on.
pub const SIZES: [u64; 6] = [4, 7, 10, 13, 31, 100];
/// Entries that are proposed and decided in each.
pub const DECISIONS: u64 = 1_000;
/// Bytes of the body of each.
pub const BODY_BYTES: usize = 256;
/// Entries that wait for their block at a time.
const AT_ONCE: u64 = 20;
/// A decision costs a proposal to each other member and a vote of each, and some views decide nothing new.
const MESSAGES_PER_OTHER_MAX: f64 = 3.0;
/// A replica holds no more than this beside its log.
const STATE_BYTES_MAX: u64 = 2 << 20;
/// The log of so many entries holds no more than this.
const LOG_BYTES_MAX: u64 = 50 << 20;

/// What a group of one size gave.
#[derive(Clone, Debug, Serialize)]
pub struct SizeReport {
    /// Members.
    pub members: u64,
    /// Entries committed.
    pub decisions: u64,
    /// Messages of all members for each of them.
    pub messages_per_decision: f64,
    /// The same for each member but one: equal at all sizes if messages grow linearly.
    pub messages_per_decision_and_other: f64,
    /// The most protocol state of one replica at any time, in bytes, without the log.
    pub state_bytes_max: u64,
    /// The log of one replica in memory, in bytes, if no snapshot is taken.
    pub log_bytes: u64,
    /// What one replica wrote to its disk, in bytes.
    pub disk_bytes: u64,
    /// What went wrong, if anything did.
    pub fault: Option<String>,
}

/// Runs groups of all sizes.
#[must_use]
pub fn sizes() -> Vec<SizeReport> {
    SIZES.iter().map(|members| size(*members)).collect()
}

fn size(members: u64) -> SizeReport {
    let conduct = vec![Conduct::Honest; members as usize];
    // One leader for all of it: what a change of leaders costs is no part of a decision.
    let settings = Settings { tenure_views: 10 * DECISIONS, ..Settings::default() };
    let mut cluster = Cluster::new(&keys(members), &conduct, settings, 1, members);
    cluster.run(Duration::from_millis(500));
    let before = cluster.counts.clone();
    let mut state = 0;
    for _ in 0..DECISIONS / AT_ONCE {
        for _ in 0..AT_ONCE {
            cluster.propose_bytes(0, BODY_BYTES);
        }
        cluster.run(Duration::from_millis(200));
        state = state.max(footprints(&cluster).map(|footprint| footprint.state).max().unwrap_or(0));
    }
    let decisions = cluster.counts.commits - before.commits;
    let messages = (cluster.counts.messages - before.messages) as f64 / decisions.max(1) as f64;
    let mut report = SizeReport {
        members,
        decisions,
        messages_per_decision: messages,
        messages_per_decision_and_other: messages / (members - 1) as f64,
        state_bytes_max: state as u64,
        log_bytes: footprints(&cluster).map(|footprint| footprint.log).max().unwrap_or(0) as u64,
        disk_bytes: (cluster.counts.persisted_bytes - before.persisted_bytes) / members,
        fault: cluster.violation.clone(),
    };
    report.fault = report.fault.take().or_else(|| report.too_much());
    report
}

impl SizeReport {
    /// The first bound that is not kept, in words.
    fn too_much(&self) -> Option<String> {
        let Self { decisions, messages_per_decision_and_other: messages, .. } = *self;
        if decisions != DECISIONS {
            Some(format!("{decisions} of {DECISIONS} were decided"))
        } else if messages > MESSAGES_PER_OTHER_MAX {
            Some(format!(
                "{messages} messages for each decision and other member; {MESSAGES_PER_OTHER_MAX} may be"
            ))
        } else if self.state_bytes_max > STATE_BYTES_MAX {
            Some(format!("{} bytes of state; {STATE_BYTES_MAX} may be", self.state_bytes_max))
        } else if self.log_bytes > LOG_BYTES_MAX {
            Some(format!("{} bytes of log; {LOG_BYTES_MAX} may be", self.log_bytes))
        } else {
            None
        }
    }
}

fn footprints(cluster: &Cluster) -> impl Iterator<Item = quorate_consensus::hotstuff::Footprint> + '_ {
    let running = cluster.instances.iter().filter_map(|instance| instance.replica.as_ref());
    running.map(quorate_consensus::hotstuff::HotStuff::footprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_group_keeps_every_bound() {
        let report = size(SIZES[0]);
        assert_eq!(report.fault, None, "{report:?}");
    }

    #[test]
    fn each_bound_counts() {
        let within = SizeReport {
            members: 4,
            decisions: DECISIONS,
            messages_per_decision: 9.0,
            messages_per_decision_and_other: 3.0,
            state_bytes_max: STATE_BYTES_MAX,
            log_bytes: LOG_BYTES_MAX,
            disk_bytes: 0,
            fault: None,
        };
        assert_eq!(within.too_much(), None);
        for beyond in [
            SizeReport { decisions: DECISIONS - 1, ..within.clone() },
            SizeReport { messages_per_decision_and_other: 3.1, ..within.clone() },
            SizeReport { state_bytes_max: STATE_BYTES_MAX + 1, ..within.clone() },
            SizeReport { log_bytes: LOG_BYTES_MAX + 1, ..within.clone() },
        ] {
            assert!(beyond.too_much().is_some(), "{beyond:?}");
        }
    }
}
