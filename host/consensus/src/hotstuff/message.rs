//! What HotStuff replicas say to each other, and its byte form.
//!
//! Relies on the codec and on the statements of `crypto`. Promises that every message has one statement that
//! its sender signs, which covers all of it that is not certified by others, and one byte string. Does not
//! know what a receiver makes of it.
//!
//! ```text
//! 0       33    34
//! +-------+-----+--------...--+-----------+
//! | scope | tag | fields      | signature |
//! +-------+-----+--------...--+-----------+
//!
//! tag  fields                            binds   tag  fields                               binds
//!  1   block, certificate, timeout cert.  yes     6   root, entries, headers, certificate   no
//!  2   view, index, digest       vote     yes     7   content, root, headers, certificate   no
//!  3   view, high view, cert., tc timeout yes     8   boot, nonce           boot            no
//!  4   certificate, timeout cert.         no      9   boot, nonce           recorded        yes
//!  5   after, certificate        request  no     10   boot, nonce           stale           no
//! ```

use quorate_crypto::{
    Certificate, Scope, Signature, Signed, Stated, Statement, StatementKind, TimeoutCertificate,
};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{BootNumber, Digest, Entry, LogIndex, NodeId, Position, View};

use super::block::{Block, Header};
use crate::SnapshotContent;

const CONTENT_DOMAIN: &str = "quorate 2026 hotstuff message";
/// The greatest view or index that is taken from a peer; no honest history comes near it.
const COUNTER_MAX: u64 = 1 << 62;

/// Headers of one message: what proves a place in the log by a certificate further on.
pub const HEADERS_MAX: usize = 16 << 10;

/// A signed message of a HotStuff epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it holds.
    pub scope: Scope,
    /// What is said.
    pub body: Body,
    /// The sender's, over [`Stated::statement`].
    pub signature: Signature,
}

/// The highest certificate that someone knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Justify {
    /// None yet: the epoch's genesis, which each replica computes for itself. It proves nothing and bypasses
    /// nothing: its view is zero, and a block that extends it must be the genesis's child.
    #[default]
    Genesis,
    /// Of a block.
    Certified(Box<Certificate>),
}

impl Justify {
    /// The view of the certified block; zero for the genesis.
    #[must_use]
    pub fn view(&self) -> View {
        match self {
            Self::Genesis => View::ZERO,
            Self::Certified(certificate) => certificate.statement().view,
        }
    }

    /// The certificate, if there is one.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Genesis => None,
            Self::Certified(certificate) => Some(certificate),
        }
    }

    /// The digest of the certified block, given that of the genesis.
    #[must_use]
    pub fn digest(&self, genesis: Digest) -> Digest {
        match self {
            Self::Genesis => genesis,
            Self::Certified(certificate) => certificate.statement().digest,
        }
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        match self {
            Self::Genesis => out.u8(0),
            Self::Certified(certificate) => {
                out.u8(1);
                certificate.encode(out);
            }
        }
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        match from.u8("justification")? {
            0 => Ok(Self::Genesis),
            1 => Ok(Self::Certified(Box::new(certificate(from)?))),
            other => Err(DecodeError::Unknown { what: "justification", value: other.into() }),
        }
    }
}

/// A leader's block, and what entitles it to this view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The block.
    pub block: Block,
    /// Certifies its parent.
    pub justify: Justify,
    /// Of the view before, where `justify` is not.
    pub timed_out: Option<TimeoutCertificate>,
}

/// A replica gave up a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The view.
    pub view: View,
    /// What is signed beside it: the view of the highest certificate known when it was given up.
    pub high_view: View,
    /// That certificate, or a higher one.
    pub high: Justify,
    /// How the view was entered, where `high` does not say it.
    pub timed_out: Option<TimeoutCertificate>,
}

/// Blocks after a root, up to where they are certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The block before the first one; believed only as far as the certificate covers it.
    pub root: Header,
    /// The blocks after it, as log entries.
    pub entries: Vec<Entry>,
    /// The headers after them.
    pub headers: Vec<Header>,
    /// Certifies the last header, or the last entry, or the root.
    pub certificate: Certificate,
}

/// A snapshot, and the proof that its place in the log is certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What it holds; believed only of f + 1 members that say the same.
    pub content: SnapshotContent,
    /// Its last block, and the headers that certify it.
    pub proof: Blocks,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Vote for this block.
    Proposal(Box<Proposal>),
    /// My vote; the message's signature is what a certificate is made of.
    Vote {
        /// The block's view.
        view: View,
        /// Its place in the log.
        index: LogIndex,
        /// What names it.
        digest: Digest,
    },
    /// I gave up a view.
    Timeout(Box<Timeout>),
    /// You are behind: this is how far certificates reach.
    NewView {
        /// The highest certificate.
        high: Justify,
        /// The latest timeout certificate.
        timed_out: Option<TimeoutCertificate>,
    },
    /// Send me what follows this place.
    Request {
        /// The last committed index of the asker.
        after: LogIndex,
        /// The highest certificate of the asker.
        high: Justify,
    },
    /// What was asked for.
    Blocks(Box<Blocks>),
    /// What was asked for is gone: fetch this snapshot.
    Offer(Box<Offer>),
    /// I started; record it before I vote.
    Boot(Life),
    /// Recorded, durably.
    Recorded(Life),
    /// A start that is not before this one is recorded: yours speaks from an old backup.
    Stale(Life),
}

/// One start of a replica. The number is raised durably at each start; the nonce tells apart two starts that
/// took the same number from the same backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// How often the replica was started.
    pub boot: BootNumber,
    /// Drawn at each start.
    pub nonce: u64,
}

impl Body {
    /// The view of the certificate that it carries; zero if it carries none.
    #[cfg(any(test, feature = "planted"))]
    pub(super) fn certified(&self) -> View {
        match self {
            Self::Proposal(proposal) => proposal.justify.view(),
            Self::Timeout(timeout) => timeout.high.view(),
            Self::NewView { high, .. } | Self::Request { high, .. } => high.view(),
            Self::Blocks(blocks) => blocks.certificate.statement().view,
            Self::Offer(offer) => offer.proof.certificate.statement().view,
            Self::Vote { .. } | Self::Boot(_) | Self::Recorded(_) | Self::Stale(_) => View::ZERO,
        }
    }

    /// What a signature of this says in `scope`.
    #[must_use]
    pub fn statement(&self, scope: Scope) -> Statement {
        let of = |kind, view, index, digest| Statement { scope, kind, view, index, digest };
        match self {
            Self::Proposal(proposal) => {
                let header = proposal.block.header();
                let digest = proposal.block.digest();
                of(StatementKind::Proposal, header.view(), header.position.index, digest)
            }
            Self::Vote { view, index, digest } => of(StatementKind::Vote, *view, *index, *digest),
            Self::Timeout(timeout) => Statement::timeout(scope, timeout.view, timeout.high_view),
            Self::NewView { .. } => of(StatementKind::NewView, View::ZERO, LogIndex::ZERO, self.content()),
            Self::Request { .. } | Self::Blocks(_) | Self::Offer(_) => {
                of(StatementKind::Sync, View::ZERO, LogIndex::ZERO, self.content())
            }
            Self::Boot(_) | Self::Recorded(_) | Self::Stale(_) => {
                of(StatementKind::Boot, View::ZERO, LogIndex::ZERO, self.content())
            }
        }
    }

    fn content(&self) -> Digest {
        let mut out = Writer::default();
        self.encode(&mut out);
        quorate_crypto::digest(CONTENT_DOMAIN, out.as_slice())
    }

    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Proposal(proposal) => {
                out.u8(1);
                proposal.block.encode(out);
                proposal.justify.encode(out);
                encode_timed_out(proposal.timed_out.as_ref(), out);
            }
            Self::Vote { view, index, digest } => {
                out.u8(2);
                out.u64(view.0);
                out.u64(index.0);
                out.raw(&digest.0);
            }
            Self::Timeout(timeout) => {
                out.u8(3);
                out.u64(timeout.view.0);
                out.u64(timeout.high_view.0);
                timeout.high.encode(out);
                encode_timed_out(timeout.timed_out.as_ref(), out);
            }
            Self::NewView { high, timed_out } => {
                out.u8(4);
                high.encode(out);
                encode_timed_out(timed_out.as_ref(), out);
            }
            Self::Request { after, high } => {
                out.u8(5);
                out.u64(after.0);
                high.encode(out);
            }
            Self::Blocks(blocks) => {
                out.u8(6);
                blocks.encode(out);
            }
            Self::Offer(offer) => {
                out.u8(7);
                out.raw(&offer.content.digest.0);
                out.u64(offer.content.bytes);
                offer.proof.encode(out);
            }
            Self::Boot(life) => life.encode(8, out),
            Self::Recorded(life) => life.encode(9, out),
            Self::Stale(life) => life.encode(10, out),
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match from.u8("message tag")? {
            1 => Self::Proposal(Box::new(Proposal {
                block: block(from)?,
                justify: Justify::decode(from)?,
                timed_out: decode_timed_out(from)?,
            })),
            2 => Self::Vote {
                view: view(from)?,
                index: index(from)?,
                digest: Digest(from.array("vote digest")?),
            },
            3 => Self::Timeout(Box::new(Timeout {
                view: view(from)?,
                high_view: view(from)?,
                high: Justify::decode(from)?,
                timed_out: decode_timed_out(from)?,
            })),
            4 => Self::NewView { high: Justify::decode(from)?, timed_out: decode_timed_out(from)? },
            5 => Self::Request { after: index(from)?, high: Justify::decode(from)? },
            6 => Self::Blocks(Box::new(Blocks::decode(from)?)),
            7 => {
                let digest = Digest(from.array("snapshot digest")?);
                let content = SnapshotContent { digest, bytes: from.u64("snapshot bytes")? };
                Self::Offer(Box::new(Offer { content, proof: Blocks::decode(from)? }))
            }
            8 => Self::Boot(Life::decode(from)?),
            9 => Self::Recorded(Life::decode(from)?),
            10 => Self::Stale(Life::decode(from)?),
            other => return Err(DecodeError::Unknown { what: "message tag", value: other.into() }),
        })
    }
}

impl Life {
    fn encode(self, tag: u8, out: &mut Writer) {
        out.u8(tag);
        out.u64(self.boot.0);
        out.u64(self.nonce);
    }

    fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { boot: BootNumber(from.u64("boot number")?), nonce: from.u64("boot nonce")? })
    }
}

impl Blocks {
    fn encode(&self, out: &mut Writer) {
        self.root.encode(out);
        out.u32(self.entries.len() as u32);
        self.entries.iter().for_each(|entry| entry.encode(out));
        out.u32(self.headers.len() as u32);
        self.headers.iter().for_each(|header| header.encode(out));
        self.certificate.encode(out);
    }

    fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let root = header(from)?;
        // What is left bounds the counts and with them the allocations.
        let count = from.count(from.left() / Entry::HEADER_BYTES, "message entries")?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = Entry::decode(from)?;
            bounded(entry.position)?;
            entries.push(entry);
        }
        let count = from.count((from.left() / Header::BYTES).min(HEADERS_MAX), "message headers")?;
        let headers = (0..count).map(|_| header(from)).collect::<Result<_, _>>()?;
        Ok(Self { root, entries, headers, certificate: certificate(from)? })
    }
}

impl Message {
    /// About how many bytes [`Message::encode`] appends; never fewer for blocks and entries.
    #[must_use]
    pub fn encoded_len_hint(&self) -> usize {
        let blocks = |blocks: &Blocks| {
            let entries = blocks.entries.iter().map(Entry::encoded_len).sum::<usize>();
            entries + (1 + blocks.headers.len()) * Header::BYTES
        };
        let body = match &self.body {
            Body::Proposal(proposal) => proposal.block.encoded_len(),
            Body::Blocks(answer) => blocks(answer),
            Body::Offer(offer) => 40 + blocks(&offer.proof),
            _ => 64,
        };
        Scope::BYTES + Signature::BYTES + 512 + body
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Writer) {
        self.scope.encode(out);
        self.body.encode(out);
        self.signature.encode(out);
    }

    /// Reads what [`Message::encode`] wrote; bodies share the reader's buffer.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are not a message, and for views or indices beyond 2^62.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let scope = Scope::decode(from)?;
        let body = Body::decode(from)?;
        Ok(Self { scope, body, signature: Signature::decode(from)? })
    }

    /// For the verifier: the message under the signature of `signer`.
    #[must_use]
    pub fn into_signed(self, signer: NodeId) -> Signed<Self> {
        let signature = self.signature;
        Signed::from_parts(self, signer, signature)
    }
}

impl Stated for Message {
    fn statement(&self) -> Statement {
        self.body.statement(self.scope)
    }
}

pub(super) fn encode_timed_out(timed_out: Option<&TimeoutCertificate>, out: &mut Writer) {
    out.u8(u8::from(timed_out.is_some()));
    if let Some(timed_out) = timed_out {
        timed_out.encode(out);
    }
}

pub(super) fn decode_timed_out(from: &mut Reader) -> Result<Option<TimeoutCertificate>, DecodeError> {
    if !from.flag("timeout certificate")? {
        return Ok(None);
    }
    let certificate = TimeoutCertificate::decode(from)?;
    within(certificate.view().0, "timeout certificate view")?;
    within(certificate.high_view().0, "timeout certificate high view")?;
    Ok(Some(certificate))
}

fn certificate(from: &mut Reader) -> Result<Certificate, DecodeError> {
    let certificate = Certificate::decode(from)?;
    within(certificate.statement().view.0, "certificate view")?;
    within(certificate.statement().index.0, "certificate index")?;
    Ok(certificate)
}

fn block(from: &mut Reader) -> Result<Block, DecodeError> {
    let block = Block::decode(from)?;
    bounded(block.header().position)?;
    Ok(block)
}

fn header(from: &mut Reader) -> Result<Header, DecodeError> {
    let header = Header::decode(from)?;
    bounded(header.position)?;
    Ok(header)
}

fn within(value: u64, what: &'static str) -> Result<u64, DecodeError> {
    if value > COUNTER_MAX {
        return Err(DecodeError::TooLarge { what, value, bound: COUNTER_MAX });
    }
    Ok(value)
}

fn view(from: &mut Reader) -> Result<View, DecodeError> {
    within(from.u64("message view")?, "message view").map(View)
}

fn index(from: &mut Reader) -> Result<LogIndex, DecodeError> {
    within(from.u64("message index")?, "message index").map(LogIndex)
}

fn bounded(position: Position) -> Result<Position, DecodeError> {
    within(position.term.0, "position view")?;
    within(position.index.0, "position index")?;
    Ok(position)
}
