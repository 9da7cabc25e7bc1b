//! What a signature says: one statement, written as the bytes that are signed.
//!
//! Relies on the ids of `types`. Promises that two different statements have different bytes, whatever
//! their cluster, group, epoch, protocol or kind, and that every statement has the same length, so that
//! many of them are verified as one array. Knows no key and no protocol's messages: what a message holds
//! beyond these fields is in its digest.
//!
//! ```text
//! 0     16        32      40      48         49     50      56     64      72       104
//! +-----+---------+-------+-------+----------+------+-------+------+-------+--------+
//! | tag | cluster | group | epoch | protocol | kind | zeros | view | index | digest |
//! +-----+---------+-------+-------+----------+------+-------+------+-------+--------+
//! ```
//!
//! Integers are little-endian. DESIGN §4 names the fields and their order.

use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{ClusterId, Digest, Epoch, GroupId, LogIndex, Protocol, View};

/// Opens all that is ever signed; raised with the layout.
const TAG: &[u8; 16] = b"quorate-signed-1";
/// What a timeout adds to its view, as a digest.
const HIGH_VIEW_DOMAIN: &str = "quorate 2026 timeout high view";

/// Where a statement holds: one epoch of one group of one cluster, and the protocol that runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group in that cluster.
    pub group: GroupId,
    /// The epoch of that group.
    pub epoch: Epoch,
    /// What orders commands in that epoch.
    pub protocol: Protocol,
}

/// Something that holds in another place than here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignScope {
    /// In another cluster.
    #[error("it holds in cluster {found}, not in {expected}")]
    Cluster {
        /// This cluster.
        expected: ClusterId,
        /// What was found.
        found: ClusterId,
    },
    /// In another group.
    #[error("it holds in group {found}, not in {expected}")]
    Group {
        /// This group.
        expected: GroupId,
        /// What was found.
        found: GroupId,
    },
    /// In another epoch.
    #[error("it holds in epoch {found}, not in {expected}")]
    Epoch {
        /// This epoch.
        expected: Epoch,
        /// What was found.
        found: Epoch,
    },
    /// Under another protocol.
    #[error("it holds under {found:?}, not under {expected:?}")]
    Protocol {
        /// This epoch's protocol.
        expected: Protocol,
        /// What was found.
        found: Protocol,
    },
}

impl Scope {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 33;

    /// Checks that what holds in this scope holds in the `expected` one.
    ///
    /// # Errors
    ///
    /// [`ForeignScope`] for the widest difference.
    pub fn must_be(&self, expected: &Self) -> Result<(), ForeignScope> {
        if self.cluster != expected.cluster {
            return Err(ForeignScope::Cluster { expected: expected.cluster, found: self.cluster });
        }
        if self.group != expected.group {
            return Err(ForeignScope::Group { expected: expected.group, found: self.group });
        }
        if self.epoch != expected.epoch {
            return Err(ForeignScope::Epoch { expected: expected.epoch, found: self.epoch });
        }
        if self.protocol != expected.protocol {
            return Err(ForeignScope::Protocol { expected: expected.protocol, found: self.protocol });
        }
        Ok(())
    }

    /// Appends cluster, group, epoch and protocol.
    pub fn encode(&self, out: &mut Writer) {
        out.raw(&self.cluster.0);
        out.u64(self.group.0);
        out.u64(self.epoch.0);
        out.u8(self.protocol as u8);
    }

    /// Reads what [`Scope::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`], or [`DecodeError::Unknown`] for a protocol that is none.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster: ClusterId(from.array("scope cluster")?),
            group: GroupId(from.u64("scope group")?),
            epoch: Epoch(from.u64("scope epoch")?),
            protocol: match from.u8("scope protocol")? {
                0 => Protocol::Raft,
                1 => Protocol::Pbft,
                2 => Protocol::HotStuff,
                other => return Err(DecodeError::Unknown { what: "scope protocol", value: other.into() }),
            },
        })
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $tag:literal,)+) => {
        /// What a statement is for; a signature for one kind is none for another.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum StatementKind {
            $($(#[$doc])* $name = $tag,)+
        }

        impl StatementKind {
            /// Every kind, in the order of its tag.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }

        impl TryFrom<u8> for StatementKind {
            type Error = DecodeError;

            fn try_from(tag: u8) -> Result<Self, DecodeError> {
                match tag {
                    $($tag => Ok(Self::$name),)+
                    other => Err(DecodeError::Unknown { what: "statement kind", value: other.into() }),
                }
            }
        }
    };
}

kinds! {
    /// A leader's or primary's proposal of a block or batch.
    Proposal = 1,
    /// A HotStuff vote, or PBFT's prepare.
    Vote = 2,
    /// PBFT's commit.
    Commit = 3,
    /// A HotStuff timeout: view and the view of the highest certificate.
    Timeout = 4,
    /// A PBFT view change, or a HotStuff new-view message.
    ViewChange = 5,
    /// A PBFT new-view message.
    NewView = 6,
    /// A checkpoint: index, chain hash and state digest.
    Checkpoint = 7,
    /// A Raft leader's chained entry in a hybrid group.
    Entry = 8,
    /// A Raft follower's acknowledgement of one (term, index) in a hybrid group.
    Acknowledgement = 9,
    /// A suspicion of misbehaviour.
    Suspicion = 10,
    /// The end of an epoch in an emergency.
    Wedge = 11,
    /// A client's frame of commands.
    ClientFrame = 12,
    /// A replica's reply to a client.
    Reply = 13,
    /// An operator's command.
    Operator = 14,
    /// A replica's start under a boot number.
    Boot = 15,
    /// A request for, or an answer with, state or blocks.
    Sync = 16,
    /// A key's owner holds its secret.
    Possession = 17,
}

/// Everything a signature vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Statement {
    /// Where it holds.
    pub scope: Scope,
    /// What it is for.
    pub kind: StatementKind,
    /// The view, or the Raft term as a number; zero where a kind has none.
    pub view: View,
    /// The place in the log, or the block's height; zero where a kind has none.
    pub index: LogIndex,
    /// The content: of the block, entry, state or frame.
    pub digest: Digest,
}

impl Statement {
    /// Bytes of the encoded form: scope, kind, view, index and digest.
    pub const BYTES: usize = Scope::BYTES + 1 + 8 + 8 + 32;

    /// What a timeout of `view` says about the highest certificate its signer knows.
    #[must_use]
    pub fn timeout(scope: Scope, view: View, high_view: View) -> Self {
        let digest = crate::digest(HIGH_VIEW_DOMAIN, &high_view.0.to_le_bytes());
        Self { scope, kind: StatementKind::Timeout, view, index: LogIndex::ZERO, digest }
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn signing_bytes(&self) -> SigningBytes {
        let mut out = [0; SigningBytes::BYTES];
        out[..16].copy_from_slice(TAG);
        out[16..32].copy_from_slice(&self.scope.cluster.0);
        out[32..40].copy_from_slice(&self.scope.group.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.scope.epoch.0.to_le_bytes());
        out[48] = self.scope.protocol as u8;
        out[49] = self.kind as u8;
        out[56..64].copy_from_slice(&self.view.0.to_le_bytes());
        out[64..72].copy_from_slice(&self.index.0.to_le_bytes());
        out[72..].copy_from_slice(&self.digest.0);
        SigningBytes(out)
    }

    /// Appends the encoded form; not what is signed.
    pub fn encode(&self, out: &mut Writer) {
        self.scope.encode(out);
        out.u8(self.kind as u8);
        out.u64(self.view.0);
        out.u64(self.index.0);
        out.raw(&self.digest.0);
    }

    /// Reads what [`Statement::encode`] wrote.
    ///
    /// # Errors
    ///
    /// As the codec.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            scope: Scope::decode(from)?,
            kind: StatementKind::try_from(from.u8("statement kind")?)?,
            view: View(from.u64("statement view")?),
            index: LogIndex(from.u64("statement index")?),
            digest: Digest(from.array("statement digest")?),
        })
    }
}

/// The bytes that are signed for one [`Statement`]; nothing else can make them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SigningBytes([u8; Self::BYTES]);

impl SigningBytes {
    /// Bytes of every statement.
    pub const BYTES: usize = 104;

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as an array.
    #[must_use]
    pub fn as_array(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for SigningBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningBytes(")?;
        self.0[TAG.len()..].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn statement() -> Statement {
        Statement {
            scope: Scope {
                cluster: ClusterId([1; 16]),
                group: GroupId(2),
                epoch: Epoch(3),
                protocol: Protocol::HotStuff,
            },
            kind: StatementKind::Vote,
            view: View(4),
            index: LogIndex(5),
            digest: Digest([6; 32]),
        }
    }

    /// A field that is left out of the signed bytes lets a signature be replayed where that field differs.
    #[test]
    fn each_field_changes_the_signed_bytes() {
        let base = statement();
        let mut others = Vec::new();
        let mut other = |change: fn(&mut Statement)| {
            let mut statement = base;
            change(&mut statement);
            others.push(statement.signing_bytes());
        };
        other(|s| s.scope.cluster.0[15] = 9);
        other(|s| s.scope.group = GroupId(9));
        other(|s| s.scope.epoch = Epoch(9));
        other(|s| s.scope.protocol = Protocol::Pbft);
        other(|s| s.kind = StatementKind::Commit);
        other(|s| s.view = View(9));
        other(|s| s.index = LogIndex(9));
        other(|s| s.digest.0[31] = 9);
        others.push(base.signing_bytes());
        let count = others.len();
        others.sort();
        others.dedup();
        assert_eq!(others.len(), count);
    }

    /// Old signatures must stay valid: these bytes never change under this tag.
    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = *statement().signing_bytes().as_array();
        let mut expected = Vec::from(*b"quorate-signed-1");
        expected.extend([1; 16]);
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 2, 0, 0, 0, 0, 0, 0]);
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([6; 32]);
        assert_eq!(bytes.as_slice(), expected);
    }

    #[test]
    fn statements_round_trip_and_unknown_kinds_are_refused() {
        for kind in StatementKind::ALL {
            let statement = Statement { kind: *kind, ..statement() };
            let mut writer = Writer::default();
            statement.encode(&mut writer);
            assert_eq!(writer.len(), Statement::BYTES);
            let mut reader = Reader::new(writer.finish());
            assert_eq!(Statement::decode(&mut reader), Ok(statement));
            assert_eq!(reader.end(), Ok(()));
        }
        assert!(matches!(StatementKind::try_from(0), Err(DecodeError::Unknown { .. })));
        assert!(matches!(StatementKind::try_from(99), Err(DecodeError::Unknown { .. })));
    }

    #[test]
    fn timeouts_of_one_view_with_different_high_views_differ() {
        let scope = statement().scope;
        let of = |view, high| Statement::timeout(scope, View(view), View(high)).signing_bytes();
        assert_ne!(of(5, 4), of(5, 3));
        assert_ne!(of(5, 4), of(4, 4));
        assert_eq!(of(5, 4), of(5, 4));
    }
}
