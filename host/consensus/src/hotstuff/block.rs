//! Blocks, the digests that chain them, and who leads which view.
//!
//! Relies on the digest of `crypto`. Promises that a block's digest covers everything before it, and that
//! digests and tenures of a chain are recomputed from its log entries alone, so that the log on disk is the
//! block chain. Knows no vote.
//!
//! ```text
//! digest = H(parent digest, tenure, epoch, view, index, stamp, kind, H(body))
//! ```
//!
//! The certificate that a proposal carries for its parent is no part of this: one block has one digest,
//! whichever quorum certified the block before it.

use bytes::Bytes;
use quorate_crypto::{Scope, ValidatorSet};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{
    Digest, ENTRY_BYTES_MAX, Entry, EntryKind, EpochConfig, HlcTimestamp, NodeId, Position, Term, View,
};

const HEADER_DOMAIN: &str = "quorate 2026 hotstuff block";
const BODY_DOMAIN: &str = "quorate 2026 hotstuff block body";
const GENESIS_DOMAIN: &str = "quorate 2026 hotstuff genesis";

/// All of a block but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The digest of the block before it.
    pub parent: Digest,
    /// The first view of the run of views in which its proposer leads.
    pub tenure: View,
    /// Epoch, view and index.
    pub position: Position,
    /// Greater than the stamp of the block before it.
    pub hlc: HlcTimestamp,
    /// What the body is.
    pub kind: EntryKind,
    /// The digest of the body.
    pub body: Digest,
}

impl Header {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 32 + 8 + Position::BYTES + 8 + 1 + 32;

    /// What every replica of an epoch starts from: the place where the epoch before it ended. It needs no
    /// certificate because nobody sends it: each replica computes it from scope and members.
    #[must_use]
    pub fn genesis(set: &ValidatorSet, position: Position, hlc: HlcTimestamp) -> Self {
        let mut out = Writer::with_capacity(Scope::BYTES + 32);
        set.scope().encode(&mut out);
        out.raw(&set.digest().0);
        Self {
            parent: quorate_crypto::digest(GENESIS_DOMAIN, out.as_slice()),
            tenure: View(1),
            position: Position { epoch: set.scope().epoch, term: Term::ZERO, index: position.index },
            hlc,
            kind: EntryKind::Empty,
            body: body_digest(&[]),
        }
    }

    /// The view it was proposed in; zero for the genesis.
    #[must_use]
    pub fn view(&self) -> View {
        View(self.position.term.0)
    }

    /// What names the block.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut out = Writer::with_capacity(Self::BYTES);
        self.encode(&mut out);
        quorate_crypto::digest(HEADER_DOMAIN, out.as_slice())
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Writer) {
        out.raw(&self.parent.0);
        out.u64(self.tenure.0);
        self.position.encode(out);
        out.u64(self.hlc.0);
        out.u8(self.kind as u8);
        out.raw(&self.body.0);
    }

    /// Reads what [`Header::encode`] wrote.
    ///
    /// # Errors
    ///
    /// As the codec.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            parent: Digest(from.array("block parent")?),
            tenure: View(from.u64("block tenure")?),
            position: Position::decode(from)?,
            hlc: HlcTimestamp(from.u64("block stamp")?),
            kind: EntryKind::try_from(from.u8("block kind")?)?,
            body: Digest(from.array("block body digest")?),
        })
    }
}

/// A block: header, the digest that names it, and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    header: Header,
    digest: Digest,
    body: Bytes,
}

impl Block {
    /// The block that `body` and the rest of the header make; the header's body digest is computed.
    #[must_use]
    pub fn new(header: Header, body: Bytes) -> Self {
        let header = Header { body: body_digest(&body), ..header };
        Self { digest: header.digest(), header, body }
    }

    /// The block of a log entry that follows `parent`.
    #[must_use]
    pub fn of_entry(parent: &Header, parent_digest: Digest, entry: &Entry, schedule: &Schedule) -> Self {
        let header = Header {
            parent: parent_digest,
            tenure: schedule.tenure(parent, View(entry.position.term.0)),
            position: entry.position,
            hlc: entry.hlc,
            kind: entry.kind,
            body: Digest::default(),
        };
        Self::new(header, entry.body.clone())
    }

    /// All but the body.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What names it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it carries.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The entry that the rest of the system sees once the block is committed.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let Header { position, hlc, kind, .. } = self.header;
        Entry { position, hlc, kind, body: self.body.clone() }
    }

    /// Bytes of the encoded form.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        Header::BYTES + 4 + self.body.len()
    }

    /// Appends header and body.
    pub fn encode(&self, out: &mut Writer) {
        self.header.encode(out);
        out.bytes(&self.body);
    }

    /// Reads what [`Block::encode`] wrote; the body shares the reader's buffer.
    ///
    /// # Errors
    ///
    /// As the codec, for a body above [`ENTRY_BYTES_MAX`], and for one that is not the header's.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let header = Header::decode(from)?;
        let bound = if header.kind == EntryKind::Empty { 0 } else { ENTRY_BYTES_MAX };
        let block = Self::new(header, from.bytes(bound, "block body")?);
        if block.header != header {
            return Err(DecodeError::Unknown { what: "block body digest", value: 0 });
        }
        Ok(block)
    }
}

fn body_digest(body: &[u8]) -> Digest {
    quorate_crypto::digest(BODY_DOMAIN, body)
}

/// Who leads a tenure, and how long tenures are: a function of the epoch's members alone.
///
/// ```text
///  view   1   2   3   4   5   6   7   8   9  10
///  leader a   a   a   a | b   b | c   c   c   c |   K = 4
///                       ^ K     ^ timeout certificate of view 6
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    voters: Vec<NodeId>,
    first: usize,
    views: u64,
}

impl Schedule {
    /// Tenures of at least `views` views: the least number from there on that leaves one when divided by the
    /// number of voters, so that successive tenures pass through all of them.
    #[must_use]
    pub fn new(config: &EpochConfig, views: u64) -> Self {
        let voters: Vec<NodeId> = config.voters().map(|member| member.node).collect();
        let first = voters.iter().position(|node| *node == config.first_leader).unwrap_or(0);
        let count = voters.len().max(1) as u64;
        let views = views.max(1);
        let views = views + (count + 1 - views % count) % count;
        Self { voters, first, views }
    }

    /// The tenure that a block of `view` after `parent` belongs to: the parent's, unless a timeout lies
    /// between them or the parent's has lasted long enough.
    #[must_use]
    pub fn tenure(&self, parent: &Header, view: View) -> View {
        let lasts = view.0.saturating_sub(parent.tenure.0) < self.views;
        if parent.view().next() == view && lasts { parent.tenure } else { view }
    }

    /// Who leads the tenure that begins with `view`.
    #[must_use]
    pub fn leader(&self, tenure: View) -> NodeId {
        let step = usize::try_from(tenure.0.saturating_sub(1) % self.voters.len().max(1) as u64).unwrap_or(0);
        self.voters.get((self.first + step) % self.voters.len().max(1)).copied().unwrap_or_default()
    }
}
