//! Twins (Bano et al. 2021): two replicas with one key, over generated partitions and leader schedules.
//!
//! Relies on the simulated cluster. Promises that a scenario is a function of its number: which members are
//! twins, who leads first, how long tenures are, how the network is split in each phase, what is lost, which
//! certificates stay hidden for how long.
//! Compiled only for tests and with the feature `planted`. Knows no simulator.

use std::time::Duration;

use quorate_crypto::Validator;
use quorate_types::byzantine_faults;

use super::cluster::{Cluster, Conduct, Instance, Random, Weather};
use super::{CommitRule, Settings};

/// Within which time a healed cluster must commit something new: the longest back-off and a few views.
const HEALING: Duration = Duration::from_secs(60);

/// After how many views a run that is split by views ends.
const VIEWS_SPLIT: u64 = 24;

/// What came of one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A violation of safety, in words.
    pub violation: Option<String>,
    /// A new entry was committed by all honest replicas after healing; true if that was not tried.
    pub healed: bool,
    /// A twin signed what contradicts the other.
    pub equivocated: bool,
    /// Entries with a body that were committed.
    pub commits: u64,
    /// Tells what happened from what happened in another scenario.
    pub path: u64,
}

/// Runs one scenario among these members ([`super::cluster::keys`]); [`Healing`] says how it ends.
#[must_use]
pub fn scenario(members: &[Validator], rule: CommitRule, number: u64, healing: Healing) -> Outcome {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let count = members.len();
    let mut conduct = vec![Conduct::Honest; count];
    for _ in 0..byzantine_faults(count) {
        conduct[random.below(count as u64) as usize] = Conduct::Twin;
    }
    let tenure_views = 1 + [0, 0, 1, 5][random.below(4) as usize] * count as u64;
    let settings = Settings { commit_rule: rule, tenure_views };
    let first = members[random.below(count as u64) as usize].node.0;
    let mut cluster = Cluster::new(members, &conduct, settings, first, random.number());
    cluster.run(Duration::from_millis(20));
    match number % 4 {
        0 | 2 => split_by_phases(&mut cluster, &mut random),
        1 => split_by_views(&mut cluster, &mut random),
        _ => hide_certificates(&mut cluster, &mut random),
    }
    let equivocated = cluster.equivocations > 0;
    let healed = healing == Healing::Skipped || cluster.heals_within(HEALING);
    let (commits, path) = (cluster.counts.commits, cluster.path());
    Outcome { violation: cluster.violation.take(), healed, equivocated, commits, path }
}

/// The network is split, loses and delays for a while, and then otherwise.
fn split_by_phases(cluster: &mut Cluster, random: &mut Random) {
    for _ in 0..6 + random.below(14) {
        let parts = 1 + random.below(2);
        for instance in &mut cluster.instances {
            instance.part = random.below(parts) as usize;
        }
        let delay_us_max = [500, 5_000, 60_000][random.below(3) as usize];
        let proposals_lost_percent = [0, 40, 80][random.below(3) as usize];
        cluster.weather = Weather { loss_percent: random.below(20), proposals_lost_percent, delay_us_max };
        for _ in 0..1 + random.below(3) {
            cluster.propose_everywhere();
            cluster.run(Duration::from_millis([2, 20, 110, 220][random.below(4) as usize]));
        }
    }
}

/// Each view has a network of its own, so that a certificate made in one may stay hidden in the next. Where
/// messages take as long as a replica waits, proposals meet replicas that gave their view up.
fn split_by_views(cluster: &mut Cluster, random: &mut Random) {
    cluster.split_views = Some(random.number());
    run_views(cluster, random);
}

/// Certificates are made and known to few, who are not heard for some views: others give these up and certify
/// what contradicts them, if they may.
fn hide_certificates(cluster: &mut Cluster, random: &mut Random) {
    cluster.secrets = Some(random.number());
    run_views(cluster, random);
}

fn run_views(cluster: &mut Cluster, random: &mut Random) {
    cluster.weather.delay_us_max = [1_000, 30_000, 100_000][random.below(3) as usize];
    for _ in 0..120 {
        cluster.propose_everywhere();
        cluster.run(Duration::from_millis(100));
        let view = |instance: &Instance| instance.replica.as_ref().map_or(0, |replica| replica.view().0);
        if cluster.honest().all(|instance| view(instance) > VIEWS_SPLIT) {
            return;
        }
    }
}

/// Whether a scenario ends with a healed network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healing {
    /// All parts join and something new must be committed.
    Shown,
    /// The run ends as it is.
    Skipped,
}
