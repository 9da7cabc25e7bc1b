//! Quorums of groups in which replicas may lie, computed from the number of replicas alone.
//!
//! Relies on nothing. Promises that any two quorums share an honest replica and that all honest replicas
//! together are one, for every n with n >= 3f + 1 (Castro and Liskov 1999 §2, for n that is not 3f + 1 too).
//! Knows no member by name.

/// The fewest replicas that tolerate one lying replica.
pub const BYZANTINE_REPLICAS_MIN: usize = 4;

/// Fewer replicas than the faults they are to tolerate need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{replicas} replicas cannot tolerate {faults} lying ones; use at least {needed}")]
pub struct TooFewReplicas {
    /// How many there are.
    pub replicas: usize,
    /// How many of them may lie.
    pub faults: usize,
    /// The number to use instead: `3 * faults + 1`.
    pub needed: usize,
}

/// How many of `replicas` make a quorum where some may lie: `floor(2n/3) + 1`.
#[must_use]
pub const fn byzantine_quorum(replicas: usize) -> usize {
    // 2n = 3(n/3)*2 + 2(n%3), so that no n overflows.
    replicas / 3 * 2 + replicas % 3 * 2 / 3 + 1
}

/// How many of `replicas` may lie: `floor((n - 1) / 3)`.
#[must_use]
pub const fn byzantine_faults(replicas: usize) -> usize {
    replicas.saturating_sub(1) / 3
}

/// Checks that `replicas` tolerate `faults` lying ones, and at least one.
///
/// # Errors
///
/// [`TooFewReplicas`] with the number to use instead.
pub fn check_byzantine(replicas: usize, faults: usize) -> Result<(), TooFewReplicas> {
    let faults = faults.max(1);
    let needed = faults.saturating_mul(3).saturating_add(1);
    if replicas < needed { Err(TooFewReplicas { replicas, faults, needed }) } else { Ok(()) }
}

const _: () = assert!(byzantine_faults(BYZANTINE_REPLICAS_MIN) == 1, "the smallest group tolerates one");
const _: () = assert!(byzantine_faults(BYZANTINE_REPLICAS_MIN - 1) == 0, "a smaller group tolerates none");

#[cfg(test)]
mod tests {
    use super::*;

    /// A quorum written as `2f + 1` fails for n that is not `3f + 1`; both promises are checked for every n.
    #[test]
    fn two_quorums_share_an_honest_replica_and_the_honest_are_a_quorum() {
        for replicas in 4..=crate::REPLICAS_MAX {
            let (quorum, faults) = (byzantine_quorum(replicas), byzantine_faults(replicas));
            assert_eq!(quorum, replicas * 2 / 3 + 1);
            assert!(2 * quorum - replicas > faults, "n = {replicas}: two quorums may share liars only");
            assert!(replicas - faults >= quorum, "n = {replicas}: the honest are no quorum");
        }
    }

    #[test]
    fn too_few_replicas_are_told_the_number_to_use() {
        assert_eq!(check_byzantine(3, 0), Err(TooFewReplicas { replicas: 3, faults: 1, needed: 4 }));
        assert_eq!(check_byzantine(6, 2), Err(TooFewReplicas { replicas: 6, faults: 2, needed: 7 }));
        assert_eq!(check_byzantine(7, 2), Ok(()));
        assert!(check_byzantine(9, usize::MAX).is_err());
    }
}
