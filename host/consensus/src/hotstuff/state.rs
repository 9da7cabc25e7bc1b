//! What a replica remembers: the part that survives a crash, and what one step gathers.
//!
//! Relies on the codec. Promises that the durable part is in one type. Takes no decisions.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_crypto::{Signature, TimeoutCertificate};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Digest, Entry, Epoch, LogIndex, NodeId, Position, REPLICAS_MAX, View};

use super::block::{Block, Header};
use super::chain::SIDE_BLOCKS_MAX;
use super::message::{Justify, Life, decode_timed_out, encode_timed_out};
use super::voter::Safety;
use crate::effects::Promise;
use crate::{Effects, Now};

/// The format of the encoded hard state.
const HARD_STATE_VERSION: u8 = 2;

/// The durable variables; the log is the other half of what survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HardState {
    /// The epoch that all of it belongs to.
    pub(super) epoch: Epoch,
    /// What limits later signatures.
    pub(super) safety: Safety,
    /// The highest certificate known at the last signature; its view only grows.
    pub(super) high: Justify,
    /// The last certificate that committed something; mostly the highest one, and then not stored twice.
    pub(super) committed_by: Justify,
    /// The latest timeout certificate.
    pub(super) timed_out: Option<TimeoutCertificate>,
    /// Everything up to here was known to be committed.
    pub(super) commit: LogIndex,
    /// The block at the last snapshot, from which the log's digests are recomputed.
    pub(super) root: Option<Header>,
    /// Blocks that stood in the log until it turned to another branch.
    pub(super) cut: Vec<Block>,
    /// The last recorded start of each member.
    pub(super) lives: BTreeMap<NodeId, Life>,
}

impl HardState {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(512);
        out.u8(HARD_STATE_VERSION);
        out.u64(self.epoch.0);
        self.safety.encode(&mut out);
        self.high.encode(&mut out);
        out.u8(u8::from(self.committed_by != self.high));
        if self.committed_by != self.high {
            self.committed_by.encode(&mut out);
        }
        encode_timed_out(self.timed_out.as_ref(), &mut out);
        out.u64(self.commit.0);
        out.u8(u8::from(self.root.is_some()));
        if let Some(root) = &self.root {
            root.encode(&mut out);
        }
        out.u32(self.cut.len() as u32);
        self.cut.iter().for_each(|block| block.encode(&mut out));
        out.u32(self.lives.len() as u32);
        for (node, life) in &self.lives {
            out.u64(node.0);
            out.u64(life.boot.0);
            out.u64(life.nonce);
        }
        out.finish()
    }

    /// Reads what [`HardState::encode`] wrote for `epoch`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else, another epoch's state included.
    pub(super) fn decode(bytes: Bytes, epoch: Epoch) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        match from.u8("hard state version")? {
            HARD_STATE_VERSION => {}
            other => return Err(DecodeError::Unknown { what: "hard state version", value: other.into() }),
        }
        match Epoch(from.u64("hard state epoch")?) {
            stored if stored == epoch => {}
            other => return Err(DecodeError::Unknown { what: "hard state epoch", value: other.0 }),
        }
        let safety = Safety::decode(&mut from)?;
        let high = Justify::decode(&mut from)?;
        let is_other = from.flag("hard state last commit")?;
        let committed_by = if is_other { Justify::decode(&mut from)? } else { high.clone() };
        let timed_out = decode_timed_out(&mut from)?;
        let commit = LogIndex(from.u64("hard state commit")?);
        let root = from.flag("hard state root")?.then(|| Header::decode(&mut from)).transpose()?;
        let count = from.count(SIDE_BLOCKS_MAX, "hard state blocks")?;
        let cut = (0..count).map(|_| Block::decode(&mut from)).collect::<Result<_, _>>()?;
        let mut lives = BTreeMap::new();
        for _ in 0..from.count(REPLICAS_MAX, "hard state lives")? {
            let node = NodeId(from.u64("life node")?);
            let boot = quorate_types::BootNumber(from.u64("life boot number")?);
            lives.insert(node, Life { boot, nonce: from.u64("life nonce")? });
        }
        from.end()?;
        Ok(Self { epoch, safety, high, committed_by, timed_out, commit, root, cut, lives })
    }
}

/// One signer's vote in one view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ballot {
    pub(super) index: LogIndex,
    pub(super) digest: Digest,
    pub(super) signature: Signature,
}

/// Votes by view and signer: one of each signer in each view.
pub(super) type Votes = BTreeMap<View, BTreeMap<NodeId, Ballot>>;

/// What one step gathers before it becomes effects.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Now,
    pub(super) effects: Effects,
    /// Leave with the token of what this step persists, or the last one before; those to this replica
    /// itself are taken once that token is durable.
    pub(super) promises: Vec<(NodeId, Promise)>,
    /// Consecutive entries to persist.
    pub(super) entries: Vec<Entry>,
    /// The durable log is void before them.
    pub(super) reset: Option<Position>,
    /// The hard state changed in a way that has to be durable.
    pub(super) must_persist: bool,
    /// Whether a block without an entry may be proposed: whoever drives had the chance to bring one.
    pub(super) may_be_empty: bool,
    /// The first broken invariant.
    pub(super) fence: Option<String>,
}

impl Turn {
    pub(super) fn new(now: Now) -> Self {
        Self {
            now,
            effects: Effects::default(),
            promises: Vec::new(),
            entries: Vec::new(),
            reset: None,
            must_persist: false,
            may_be_empty: false,
            fence: None,
        }
    }

    /// Entries that the log now holds from the first one's index on.
    pub(super) fn persist(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(Entry::index) else { return };
        self.entries.retain(|entry| entry.index() < first);
        self.entries.extend(entries);
        self.must_persist = true;
    }

    /// Notes a broken invariant; the first one counts.
    pub(super) fn fence(&mut self, reason: String) {
        self.fence.get_or_insert(reason);
    }
}
