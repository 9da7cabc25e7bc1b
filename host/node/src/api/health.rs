//! How members, peers and the vote service are, in the words of the client port.
//!
//! Relies on what this node counted and on what replicas report. Promises that a member is called Byzantine only if
//! the group's log proves it, and that whatever is merely odd is called suspected. Asks nobody anything.

use quorate_proto::v1;
use quorate_votes::{Histogram, Metrics, SIZE_CLASSES, TIME_CLASSES};

use crate::remote::ReplicaReport;
use crate::signatures::PeerFaults;

/// Whether a member can be trusted, by the log's proof, by its report if it answers, and by what it delivered here.
pub(super) fn member_state(
    is_accused: bool,
    report: Option<&ReplicaReport>,
    faults: PeerFaults,
) -> v1::MemberState {
    let is_odd = faults.signatures_refused + faults.payloads_refused + faults.snapshots_refused > 0;
    match report {
        _ if is_accused => v1::MemberState::Byzantine,
        None => v1::MemberState::Offline,
        Some(report) if is_odd || report.fenced.is_some() => v1::MemberState::Suspected,
        Some(_) => v1::MemberState::Active,
    }
}

pub(super) fn peer_info(peer: quorate_transport::PeerStatus, faults: PeerFaults) -> v1::PeerInfo {
    v1::PeerInfo {
        node: peer.node.0,
        address: peer.address,
        connected: peer.connected.is_some(),
        boot: peer.connected.unwrap_or_default().0,
        fault: peer.fault.map(|fault| fault.to_string()).unwrap_or_default(),
        queued_bytes: peer.queued_bytes as u64,
        links: peer.links,
        bytes_sent: peer.bytes_sent,
        bytes_received: peer.bytes_received,
        signatures_refused: faults.signatures_refused,
        frames_refused: faults.frames_refused,
        payloads_refused: faults.payloads_refused,
        snapshots_refused: faults.snapshots_refused,
        frames_overloaded: faults.frames_overloaded,
    }
}

pub(super) fn vote_stats(metrics: &Metrics) -> v1::VoteStats {
    let histogram = |bounds: [u64; 8], found: &Histogram| v1::Histogram {
        bounds: bounds.to_vec(),
        counts: found.counts.to_vec(),
        sum: found.sum,
    };
    v1::VoteStats {
        accepted: metrics.accepted,
        rejected: metrics.rejected,
        certificates_known: metrics.certificates_known,
        certificates_verified: metrics.certificates_verified,
        answered: metrics.answered,
        refused: metrics.overloaded,
        on_card: metrics.on_device,
        fallbacks: metrics.fallbacks,
        breaker_opened: metrics.breaker_opened,
        batch_size: Some(histogram(SIZE_CLASSES, &metrics.batch_size)),
        queue_time: Some(histogram(TIME_CLASSES, &metrics.queue_time)),
        answer_time: Some(histogram(TIME_CLASSES, &metrics.answer_time)),
        verify_time: Some(histogram(TIME_CLASSES, &metrics.verify_time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What could go wrong: an honest member is called a liar for what somebody else sent, or a proven liar is shown
    /// as merely absent.
    #[test]
    fn each_state_has_its_reason_and_a_proof_outweighs_all() {
        use v1::MemberState::{Active, Byzantine, Offline, Suspected};
        let well = ReplicaReport::default();
        let fenced = ReplicaReport { fenced: Some("older boot".to_owned()), ..ReplicaReport::default() };
        let none = PeerFaults::default();
        let forged = PeerFaults { signatures_refused: 1, ..none };
        let false_snapshot = PeerFaults { snapshots_refused: 1, ..none };
        let fabricated = PeerFaults { payloads_refused: 1, ..none };
        let malformed = PeerFaults { frames_refused: 9, frames_overloaded: 9, ..none };
        for (is_accused, report, faults, state) in [
            (false, Some(&well), none, Active),
            (false, Some(&well), malformed, Active),
            (false, Some(&well), forged, Suspected),
            (false, Some(&well), false_snapshot, Suspected),
            (false, Some(&well), fabricated, Suspected),
            (false, Some(&fenced), none, Suspected),
            (false, None, none, Offline),
            (false, None, forged, Offline),
            (true, Some(&well), none, Byzantine),
            (true, None, none, Byzantine),
        ] {
            assert_eq!(member_state(is_accused, report, faults), state, "{is_accused} {report:?} {faults:?}");
        }
    }

    #[test]
    fn the_vote_services_counts_come_with_the_bounds_of_their_classes() {
        let mut metrics = Metrics { overloaded: 3, on_device: 64, ..Metrics::default() };
        metrics.batch_size.record(&SIZE_CLASSES, 64);
        metrics.queue_time.record(&TIME_CLASSES, 200_000);
        let stats = vote_stats(&metrics);
        assert_eq!((stats.refused, stats.on_card), (3, 64));
        let batches = stats.batch_size.unwrap_or_default();
        let class = batches.bounds.iter().position(|bound| *bound == 64);
        assert_eq!(class.map(|class| batches.counts[class]), Some(1));
        let waited = stats.queue_time.unwrap_or_default();
        assert_eq!((waited.counts.len(), waited.counts.last(), waited.sum), (9, Some(&1), 200_000));
    }
}
