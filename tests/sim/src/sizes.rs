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

/// What a group of one size gave.
#[derive(Clone, Debug, Serialize)]
pub struct SizeReport {
    /// Members.
    pub members: u64,
    /// Entries committed.
    pub decisions: u64,
    /// Messages of all members for each of them.
    pub messages_per_decision: f64,
    /// The same for each member: equal at all sizes if messages grow linearly.
    pub messages_per_decision_and_member: f64,
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
    let short = (decisions != DECISIONS).then(|| format!("{decisions} of {DECISIONS} were decided"));
    SizeReport {
        members,
        decisions,
        messages_per_decision: messages,
        messages_per_decision_and_member: messages / members as f64,
        state_bytes_max: state as u64,
        log_bytes: footprints(&cluster).map(|footprint| footprint.log).max().unwrap_or(0) as u64,
        disk_bytes: (cluster.counts.persisted_bytes - before.persisted_bytes) / members,
        fault: cluster.violation.clone().or(short),
    }
}

fn footprints(cluster: &Cluster) -> impl Iterator<Item = quorate_consensus::hotstuff::Footprint> + '_ {
    let running = cluster.instances.iter().filter_map(|instance| instance.replica.as_ref());
    running.map(quorate_consensus::hotstuff::HotStuff::footprint)
}
