//! Bugs on purpose: each is planted between the product's rooms, or in the one rule that it breaks, and
//! the simulator must find it.
//!
//! Relies on the seams of the simulated node; bugs inside the protocols need the `planted` feature of
//! the consensus room, which no product build enables. Promises that a run without a bug is untouched.

use bytes::Bytes;
use quorate_consensus::{hotstuff, raft};
use quorate_storage::GroupAppend;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{EpochConfig, Position, Protocol};

use crate::random::Random;

macro_rules! planted {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $protocol:ident, $finder:ident;)+) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Planted {
            $($(#[$doc])* $name,)+
        }

        impl Planted {
            /// All bugs.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name for programs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The protocol that has the bug.
            #[must_use]
            pub fn protocol(self) -> Protocol {
                match self {
                    $(Self::$name => Protocol::$protocol,)+
                }
            }

            /// What finds it.
            #[must_use]
            pub fn finder(self) -> Finder {
                match self {
                    $(Self::$name => Finder::$finder,)+
                }
            }
        }
    };
}

/// What finds a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finder {
    /// An invariant of the whole cluster that it breaks.
    Invariants,
    /// A cluster that does not recover once it is healed.
    Recovery,
    /// An invariant that it breaks among twins.
    Twins,
}

planted! {
    /// The log reports a batch as durable before it is flushed.
    AcknowledgesBeforeFlush, "acknowledges-before-flush", Raft, Invariants;
    /// Votes do not reach the disk, so that a restarted replica votes again.
    VotesTwice, "votes-twice-in-a-term", Raft, Invariants;
    /// A follower cuts its log at every append, not only at a conflict.
    TruncatesAtEveryAppend, "truncates-at-every-append", Raft, Invariants;
    /// A leader counts replicas for entries of earlier terms.
    CommitsEarlierTermByCount, "commits-earlier-term-by-count", Raft, Invariants;
    /// Snapshots leave the session table out.
    SessionsMissingFromSnapshot, "sessions-missing-from-snapshot", Raft, Invariants;
    /// Certified blocks commit whether or not their views are consecutive.
    CommitsAcrossViews, "commits-across-views", HotStuff, Twins;
    /// Votes leave before they are durable.
    SignsBeforeFlush, "signs-before-flush", HotStuff, Invariants;
    /// What was signed does not reach the disk.
    ForgetsWhatItSigned, "forgets-what-it-signed", HotStuff, Invariants;
    /// A timeout leaves the last voted view as it is.
    VotesAfterTimeout, "votes-after-timeout", HotStuff, Invariants;
    /// A replica votes for every block of a view.
    VotesTwiceInAView, "votes-twice-in-a-view", HotStuff, Invariants;
    /// The leader's word is taken for which certificate is the highest.
    TrustsTheLeadersChoice, "trusts-the-leaders-choice", HotStuff, Invariants;
    /// Empty blocks are voted for by a way of their own, without the rules.
    VotesForEmptyBlocks, "votes-for-empty-blocks", HotStuff, Invariants;
    /// A block that claims to extend the genesis needs no other certificate.
    TrustsGenesis, "trusts-genesis", HotStuff, Invariants;
    /// A quorum is 2f + 1, also where n is not 3f + 1.
    CountsTwoFPlusOne, "counts-2f-plus-1", HotStuff, Invariants;
    /// A certificate may hold one signature under several names.
    CountsASignerTwice, "counts-a-signer-twice", HotStuff, Invariants;
    /// A certificate may have too few signers.
    CountsNoSigners, "counts-no-signers", HotStuff, Invariants;
    /// A certificate of another group is taken for one of this group.
    TrustsForeignCertificates, "trusts-foreign-certificates", HotStuff, Invariants;
    /// Blocks that a peer sends are believed without the certificate.
    TrustsBlocks, "trusts-blocks", HotStuff, Invariants;
    /// A snapshot is fetched from the first member that offers one, and whatever it sends is believed.
    TrustsOneOffer, "trusts-one-offer", HotStuff, Invariants;
    /// A proposal is taken from anyone.
    TakesAnyLeader, "takes-any-leader", HotStuff, Invariants;
    /// Views are given up, and no certificate of that is made.
    MakesNoTimeoutCertificate, "makes-no-timeout-certificate", HotStuff, Recovery;
    /// A timeout is sent once and never again.
    SaysTimeoutsOnce, "says-timeouts-once", HotStuff, Recovery;
    /// Every new view begins with the shortest waiting time, not only one after a commit.
    ResetsBackOff, "resets-back-off", HotStuff, Recovery;
    /// One bad signature fails all that is verified with it, again and again.
    FailsWholeBatch, "fails-whole-batch", HotStuff, Recovery;
}

impl Planted {
    /// The bug of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// Breaks the rule in the protocol that the bug stands for, or restores it, for runs on this thread.
pub fn break_rule(bug: Option<Planted>) {
    use hotstuff::planted::RuleBroken as HotStuff;
    use raft::planted::RuleBroken as Raft;
    raft::planted::break_rule(match bug {
        Some(Planted::TruncatesAtEveryAppend) => Some(Raft::TruncateOnlyAtConflict),
        Some(Planted::CommitsEarlierTermByCount) => Some(Raft::CommitOwnTermOnly),
        _ => None,
    });
    hotstuff::planted::break_rule(match bug {
        Some(Planted::CommitsAcrossViews) => Some(HotStuff::CommitConsecutiveViews),
        Some(Planted::VotesAfterTimeout) => Some(HotStuff::TimeoutRaisesLastVoted),
        Some(Planted::VotesTwiceInAView) => Some(HotStuff::VoteOncePerView),
        Some(Planted::TrustsTheLeadersChoice) => Some(HotStuff::ExtendHighest),
        Some(Planted::VotesForEmptyBlocks) => Some(HotStuff::OneKindOfVote),
        Some(Planted::TrustsGenesis) => Some(HotStuff::GenesisIsNoCertificate),
        Some(Planted::TrustsForeignCertificates) => Some(HotStuff::CertificatesOfThisGroup),
        Some(Planted::TrustsBlocks) => Some(HotStuff::BlocksAreCertified),
        Some(Planted::TrustsOneOffer) => Some(HotStuff::OffersAreAlike),
        Some(Planted::TakesAnyLeader) => Some(HotStuff::LeaderProposes),
        Some(Planted::MakesNoTimeoutCertificate) => Some(HotStuff::TimeoutCertificates),
        Some(Planted::SaysTimeoutsOnce) => Some(HotStuff::TimeoutsAreRepeated),
        Some(Planted::ResetsBackOff) => Some(HotStuff::BackOffUntilCommit),
        _ => None,
    });
    quorate_crypto::planted::count_two_f_plus_one(bug == Some(Planted::CountsTwoFPlusOne));
}

/// A batch on its way to the log, with every second vote taken out.
#[must_use]
pub fn without_votes(mut batch: Vec<GroupAppend>, random: &mut Random) -> Vec<GroupAppend> {
    for append in &mut batch {
        if append.hard_state.is_some() && random.chance(500) {
            append.hard_state = None;
        }
    }
    batch
}

const CHUNK_DOMAIN: &str = "quorate 2026 snapshot chunk";
/// As the host's part of the state names its session records.
const SESSION_PREFIX: u8 = b's';
/// As pieces name the host's part of the state.
pub const HOST_SPACE: u8 = 1;

/// A pair of a piece: its space, key and value.
pub type Pair = (u8, Bytes, Bytes);

/// A piece of a snapshot with the session records taken out; bytes that are no piece stay as they are.
#[must_use]
pub fn without_sessions(piece: &Bytes) -> Bytes {
    let is_session = |(space, key, _): &Pair| *space == HOST_SPACE && key.first() == Some(&SESSION_PREFIX);
    with_pairs(piece, |pairs| pairs.retain(|pair| !is_session(pair)))
}

/// A piece of a snapshot with other pairs, under a checksum that fits; bytes that are no piece stay as they are.
pub fn with_pairs(piece: &Bytes, change: impl FnOnce(&mut Vec<Pair>)) -> Bytes {
    rewritten(piece.clone(), change).unwrap_or_else(|_| piece.clone())
}

fn rewritten(piece: Bytes, change: impl FnOnce(&mut Vec<Pair>)) -> Result<Bytes, DecodeError> {
    let mut from = Reader::new(piece);
    from.raw(32, "checksum")?;
    let (position, stamp) = (Position::decode(&mut from)?, from.u64("stamp")?);
    let config = EpochConfig::decode(&mut from)?;
    let last = from.u8("end")?;
    let mut kept = Vec::new();
    for _ in 0..from.count(u32::MAX as usize, "pairs")? {
        let space = from.u8("space")?;
        kept.push((space, from.bytes(usize::MAX, "key")?, from.bytes(usize::MAX, "value")?));
    }
    change(&mut kept);
    let mut out = Writer::default();
    position.encode(&mut out);
    out.u64(stamp);
    config.encode(&mut out);
    out.u8(last);
    out.u32(kept.len() as u32);
    for (space, key, value) in &kept {
        out.u8(*space);
        out.bytes(key);
        out.bytes(value);
    }
    let content = out.finish();
    let mut whole = Writer::default();
    whole.raw(&quorate_crypto::digest(CHUNK_DOMAIN, &content).0);
    whole.raw(&content);
    Ok(whole.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        for bug in Planted::ALL {
            assert_eq!(Planted::named(bug.name()), Some(*bug));
        }
        assert_eq!(Planted::named("none"), None);
    }

    #[test]
    fn bytes_that_are_no_piece_are_left_alone() {
        let garbage = Bytes::from_static(b"garbage");
        assert_eq!(without_sessions(&garbage), garbage);
    }
}
